"""Made data in the form of every owner: random blobs whose bright patch tells the class, none of them a face."""

import csv
import importlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facemae.rng import generator
from facemae_probes.benchmarks.affectnet_layouts import CLASSES as AFFECTNET
from facemae_probes.benchmarks.base import Benchmark, Version
from facemae_probes.benchmarks.fer_layouts import CLASSES as FER
from facemae_probes.benchmarks.fer_layouts import FOLDERS
from facemae_probes.benchmarks.raf_db import CLASSES as RAF
from facemae_probes.benchmarks.registry import BENCHMARKS, benchmark
from facemae_probes.benchmarks.votes import CLASSES as PLUS
from facemae_probes.benchmarks.votes import COLUMNS

TRAIN, OTHER = 4, 2
"""Made samples a class in train, and in each other split."""


def blob(number: int, code: int, *, side: int = 48, channels: int = 3) -> np.ndarray:
    """A made image, uint8 [side, side] or [side, side, 3]."""
    rng = generator(11, "made", number)
    coarse = rng.integers(0, 160, size=(8, 8), dtype=np.uint8)
    pixels = np.array(Image.fromarray(coarse).resize((side, side), Image.Resampling.NEAREST))
    step = side // 4
    row, column = divmod(code, 4)
    pixels[row * step : (row + 1) * step, column * step : (column + 1) * step] = 255
    return pixels if channels == 1 else np.stack([pixels] * 3, axis=2)


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def plan(splits: tuple[str, ...], classes: int) -> Iterator[tuple[int, str, int]]:
    """Number, split and class of every made sample."""
    number = 0
    for place, split in enumerate(splits):
        for _ in range(OTHER if place else TRAIN):
            for code in range(classes):
                yield number, split, code
                number += 1


def write_table(path: Path, header: list[str] | None, rows: list[list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerows([*([header] if header else []), *rows])
    path.write_text(buffer.getvalue())


def make_raf(root: Path) -> None:
    lines = []
    for number, split, code in plan(("train", "test"), len(RAF)):
        write_image(root / f"basic/Image/aligned/{split}_{number:05d}_aligned.jpg", blob(number, code))
        lines.append(f"{split}_{number:05d}.jpg {code + 1}\n")
    (root / "basic/EmoLabel").mkdir(parents=True)
    (root / "basic/EmoLabel/list_patition_label.txt").write_text("".join(lines))


def make_affectnet_arrays(root: Path) -> None:
    for number, split, code in plan(("train_set", "val_set"), len(AFFECTNET)):
        write_image(root / split / f"images/{number}.jpg", blob(number, code))
        notes = root / split / "annotations"
        notes.mkdir(parents=True, exist_ok=True)
        aro = "0.5" if number % 2 else "-2"
        # The owner stores text in arrays of no dimension.
        for name, value in (("exp", str(code)), ("val", f"{code / 10 - 0.3}"), ("aro", aro), ("lnd", np.zeros(136))):
            np.save(notes / f"{number}_{name}.npy", np.array(value))


def make_affectnet_lists(root: Path) -> None:
    names = ["subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks"]
    rows: dict[str, list[list[Any]]] = {"training": [], "validation": []}
    for number, split, code in plan(("training", "validation"), len(AFFECTNET)):
        whole = np.zeros((60, 70, 3), dtype=np.uint8)
        whole[6:54, 10:58] = blob(number, code)
        path = f"{number % 3}/{number:04x}.png"
        write_image(root / "Manually_Annotated_Images" / path, whole)
        rows[split].append([path, 10, 6, 48, 48, "1.0;2.0", code, 0.25, -0.5])
    rows["training"].append(["0/noface.jpg", 0, 0, 1, 1, "", 10, -2, -2])
    header = [*names, "expression", "valence", "arousal"]
    # One list with a header and one without: both are met.
    write_table(root / "Manually_Annotated_file_lists/training.csv", header, rows["training"])
    write_table(root / "Manually_Annotated_file_lists/validation.csv", None, rows["validation"])


USAGES = ("Training", "PublicTest", "PrivateTest")


def _pixels(number: int, code: int) -> str:
    return " ".join(map(str, blob(number, code, channels=1).ravel().tolist()))


def make_fer_table(root: Path) -> None:
    rows = [[code, _pixels(number, code), usage] for number, usage, code in plan(USAGES, len(FER))]
    write_table(root / "fer2013.csv", ["emotion", "pixels", "Usage"], rows)


def make_icml_table(root: Path) -> None:
    rows = [[code, usage, _pixels(number, code)] for number, usage, code in plan(USAGES, len(FER))]
    write_table(root / "fer2013/icml_face_data.csv", ["emotion", " Usage", " pixels"], rows)


def make_fer_folders(root: Path) -> None:
    for number, split, code in plan(("train", "test"), len(FER)):
        write_image(root / split / FOLDERS[code] / f"{number}.jpg", blob(number, code, channels=1))


def votes_of(code: int) -> list[int]:
    """Ten votes with a majority for a class of FER+."""
    return [8 if place == code else 2 if place == (code + 1) % 8 else 0 for place in range(10)]


def make_copy(root: Path) -> None:
    header = ["file", "split", "fer2013_emotion", *(f"votes_{name}" for name in COLUMNS)]
    rows = []
    for number, split, code in plan(("train", "valid", "test"), len(PLUS)):
        path = f"{split}/fer{number:07d}.png"
        write_image(root / path, blob(number, code, channels=1))
        rows.append([path, split, FER[code % 7], *votes_of(code)])
    write_table(root / "labels.csv", header, rows)


def make_plus_tables(root: Path) -> None:
    pixels, votes = [], []
    for number, usage, code in plan(USAGES, len(PLUS)):
        pixels.append([0, _pixels(number, code), usage])
        votes.append([usage, f"fer{number:07d}.png", *votes_of(code)])
        if number == 3:
            # No face: the row is there, the name is not, and the next number goes on.
            pixels.append([0, _pixels(999, 0), usage])
            votes.append([usage, "", *[0] * 9, 10])
    write_table(root / "fer2013.csv", ["emotion", "pixels", "Usage"], pixels)
    write_table(root / "fer2013new.csv", ["Usage", "Image name", *COLUMNS], votes)


def make_plus_images(root: Path) -> None:
    folders = ("FER2013Train", "FER2013Valid", "FER2013Test")
    rows: dict[str, list[list[Any]]] = {folder: [] for folder in folders}
    for number, folder, code in plan(folders, len(PLUS)):
        write_image(root / "data" / folder / f"fer{number:07d}.png", blob(number, code, channels=1))
        box = ["(0, 0, 48, 48)"] if folder == folders[0] else []
        rows[folder].append([f"fer{number:07d}.png", *box, *votes_of(code)])
    for folder, lines in rows.items():
        write_table(root / "data" / folder / "label.csv", None, lines)


def make_manifest(root: Path) -> None:
    rows = []
    for number, split, code in plan(("train", "test"), 3):
        write_image(root / f"faces/{number}.png", blob(number, code))
        rows.append([f"faces/{number}.png", split, f"p{split}{number // 2}", ("b", "a", "c")[code], number % 2])
    write_table(root / "manifest.csv", ["path", "split", "subject", "label", "glasses"], rows)


@dataclass(frozen=True)
class Made:
    """A benchmark, one of its layouts, and how to make it.

    Attributes:
        name: Benchmark.
        make: Writes the data.
        splits: Splits of the packed set.
        layout: Number of the layout among the benchmark's.
        twice: A class that has twice as many samples as the others.
    """

    name: str
    make: Callable[[Path], None]
    splits: tuple[str, ...]
    layout: int = 0
    twice: str | None = None


TWO, THREE = ("train", "test"), ("train", "valid", "test")
MADE = {
    "raf-db": Made("raf-db", make_raf, TWO),
    "affectnet8 arrays": Made("affectnet8", make_affectnet_arrays, TWO),
    "affectnet8 lists": Made("affectnet8", make_affectnet_lists, TWO, 1),
    "affectnet7 arrays": Made("affectnet7", make_affectnet_arrays, TWO),
    "affectnet7 lists": Made("affectnet7", make_affectnet_lists, TWO, 1),
    "fer2013 table": Made("fer2013", make_fer_table, THREE),
    "fer2013 icml": Made("fer2013", make_icml_table, THREE, 1),
    "fer2013 copy": Made("fer2013", make_copy, THREE, 2, twice="anger"),
    "fer2013 folders": Made("fer2013", make_fer_folders, TWO, 3),
    "ferplus tables": Made("ferplus", make_plus_tables, THREE),
    "ferplus images": Made("ferplus", make_plus_images, THREE, 1),
    "ferplus copy": Made("ferplus", make_copy, THREE, 2),
    "custom": Made("custom", make_manifest, TWO),
}


@pytest.fixture
def know(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Benchmark]:
    """Makes a benchmark know the counts of made data as its only version."""

    def change(name: str, splits: tuple[str, ...], twice: str | None = None) -> Benchmark:
        own = benchmark(name)
        classes = own.headline.classes
        if not classes:
            return own
        counts = {
            split: {label: (OTHER if place else TRAIN) * (1 + (label == twice)) for label in classes}
            for place, split in enumerate(splits)
        }
        totals = {split: sum(found.values()) for split, found in counts.items()}
        version = Version(name="made", counts=totals, classes=counts, source="made")
        changed = own.model_copy(update={"versions": (version,)})
        monkeypatch.setattr(importlib.import_module(BENCHMARKS[name].partition(":")[0]), "BENCHMARK", changed)
        return changed

    return change
