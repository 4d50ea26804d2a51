"""The two forms AffectNet was given out in; the same for seven and eight classes."""

import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from facemae_probes.benchmarks.base import UNVERIFIED, Layout, Target
from facemae_probes.benchmarks.listing import Listing, table_rows

CLASSES = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
Codes = Mapping[str, str | None]
Number = TypeVar("Number", int, float)

LICENCE = "the owner's signed agreement"
CONSENT = "unknown; images were collected from the web"
ACCESS = (
    "the owner (M. Mahoor, University of Denver) gives it to lab managers and professors who sign the licence "
    "agreement on the AffectNet page; students ask through their supervisors"
)
CITATION = (
    "Ali Mollahosseini, Behzad Hasani, Mohammad H. Mahoor. AffectNet: A Database for Facial Expression, Valence, and "
    "Arousal Computing in the Wild. IEEE Transactions on Affective Computing 10(1), 2019."
)
PROTOCOL = (
    "the owner's validation list is the test part, as in the literature; a part of train is set aside to choose on"
)
WARNINGS = ("AffectNet names no subjects: near-duplicate images are the units, and one person may be in several",)

VALENCE_AROUSAL = Target(
    name="valence-arousal",
    kind="regression",
    columns=("valence", "arousal"),
    metric="ccc",
)

_NONE = -2
"""The owner's valence or arousal of an image that has none."""
_SPLITS = {"train_set": "train", "val_set": "test"}
_LISTS = {"training.csv": "train", "validation.csv": "test"}
_FOLDER = "Manually_Annotated_file_lists"
_IMAGES = ("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images")
_COLUMNS = ("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks", "expression")


def layouts(codes: Codes) -> tuple[Layout, ...]:
    """The layouts, for the codes that a benchmark uses."""
    return (
        Layout(
            name="images with one annotation file each (train_set, val_set)",
            needs=tuple(f"{split}/{part}" for split in _SPLITS for part in ("annotations", "images")),
            read=partial(_read_arrays, codes),
            sources=("github.com/yaoing/DAN, affectnet.py", "github.com/sb-ai-lab/EmotiEffLib, issue 14"),
        ),
        Layout(
            name="lists training.csv and validation.csv, and Manually_Annotated_Images",
            needs=tuple(f"{_FOLDER}/{name}" for name in _LISTS),
            read=partial(_read_lists, codes),
            # The columns are told in EmotiEffLib's issue 14; where the lists lie, and whether the second has a header,
            # public loaders do not agree on. Both are read.
            sources=UNVERIFIED,
        ),
    )


def _read_arrays(codes: Codes, root: Path) -> Listing:
    listing = Listing(codes, folders=tuple(f"{split}/images" for split in _SPLITS))
    for folder, split in _SPLITS.items():
        for file in sorted((root / folder / "annotations").glob("*_exp.npy")):
            stem = file.name.removesuffix("_exp.npy")
            path = f"{folder}/images/{stem}.jpg"
            try:
                code = str(_load(file, int))
                # In this form the shortened names are val and aro.
                parts = {name: file.with_name(f"{stem}_{name[:3]}.npy") for name in ("valence", "arousal")}
                numbers = {name: _load(part, float) for name, part in parts.items() if part.is_file()}
            except _UnreadableError as error:
                listing.problem("unreadable annotation", "annotation files that cannot be read", str(error))
                continue
            used = codes.get(code) is not None
            for name in [name for name in parts if used and name not in numbers]:
                listing.problem("missing annotation", f"images without an annotation file of {name}", path)
            listing.add(path, split, code, labels=_coded(numbers, listing, path, used))
    return listing


class _UnreadableError(Exception):
    """An annotation file that cannot be read; says which, and why."""


def _load(file: Path, kind: Callable[[Any], Number]) -> Number:
    """The one value of an array file, which is a text or a number."""
    try:
        # What numpy raises for empty, cut and foreign files, and Python for values of other kinds.
        return kind(np.load(file))
    except (ValueError, OSError, TypeError, EOFError, OverflowError, zipfile.BadZipFile) as error:
        raise _UnreadableError(f"{'/'.join(file.parts[-3:])}: {error}") from None


def _coded(numbers: Mapping[str, float], listing: Listing, path: str, used: bool) -> dict[str, float]:
    """Numbers that were given; -2 stands for none, and others outside of -1 … 1 are named where the image is used."""
    strange = [f"{path}, {name} {value:g}" for name, value in numbers.items() if value != _NONE and not abs(value) <= 1]
    for text in strange if used else ():
        listing.problem("out of range", "valence or arousal outside of -1 … 1, where -2 alone means none", text)
    return {name: value for name, value in numbers.items() if abs(value) <= 1}


def _read_lists(codes: Codes, root: Path) -> Listing:
    images = next((name for name in _IMAGES if (root / name).is_dir()), _IMAGES[0])
    listing = Listing(codes, folders=(images,))
    if not (root / images).is_dir():
        listing.problem("missing", "missing folder", images)
    for name, split in _LISTS.items():
        columns = (*_COLUMNS, "valence", "arousal")
        for line, values in table_rows(root / _FOLDER / name, columns, headed=False):
            path, *box, _, code, valence, arousal = values
            try:
                left, top, width, height = (round(float(value)) for value in box)
                numbers = {"valence": float(valence), "arousal": float(arousal)}
            except (ValueError, OverflowError):
                listing.problem("malformed line", f"lines of {name} with a number that is none", f"line {line}")
                continue
            labels = _coded(numbers, listing, path, codes.get(code) is not None)
            listing.add(f"{images}/{path}", split, code, labels=labels, box=(left, top, width, height))
    return listing
