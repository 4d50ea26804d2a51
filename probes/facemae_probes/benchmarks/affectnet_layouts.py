"""The two forms AffectNet was given out in; the same for seven and eight classes."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from facemae_probes.benchmarks.base import UNVERIFIED, Layout, Target
from facemae_probes.benchmarks.listing import Listing, table_rows

CLASSES = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
Codes = Mapping[str, str | None]

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
                code = str(int(np.load(file)))
                numbers = {name: _number(file.with_name(f"{stem}_{name[:3]}.npy")) for name in ("valence", "arousal")}
            except (ValueError, OSError, TypeError) as error:
                listing.problem(
                    "unreadable annotation", "annotation files that cannot be read", f"{file.name}: {error}"
                )
                continue
            listing.add(path, split, code, labels=_coded(numbers))
    return listing


def _number(file: Path) -> float | None:
    # In this form the shortened names are val and aro.
    return float(np.load(file)) if file.is_file() else None


def _coded(numbers: Mapping[str, float | None]) -> dict[str, float]:
    """Numbers that were given; -2 stands for none."""
    return {name: value for name, value in numbers.items() if value is not None and -1.0 <= value <= 1.0}


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
            except ValueError:
                listing.problem("malformed line", f"lines of {name} with a number that is none", f"line {line}")
                continue
            listing.add(f"{images}/{path}", split, code, labels=_coded(numbers), box=(left, top, width, height))
    return listing
