"""The forms FER2013 comes in. FER+ has labels of its own for the same images and reads the same tables of pixels."""

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from facemae.data.schema import CropRecipe
from facemae_probes.benchmarks.base import UNVERIFIED, Layout, class_codes
from facemae_probes.benchmarks.listing import Listing, table_rows

SIDE = 48
CLASSES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
FOLDERS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
CONSENT = "unknown; images were found by a search engine"
CITATION = (
    "Ian J. Goodfellow, Dumitru Erhan, Pierre-Luc Carrier, Aaron Courville, et al. Challenges in Representation "
    "Learning: A Report on Three Machine Learning Contests. Neural Networks 64, 2015."
)
ACCESS = (
    "fer2013.csv or icml_face_data.csv from the page of the ICML 2013 facial expression recognition challenge on "
    "Kaggle, with an account there"
)
CROP = CropRecipe(detector="owner's", alignment="owner's registration", size=SIDE, colour="grey")
WARNINGS = ("FER2013 holds identical and near-identical images across its splits: see the slice without them",)
COPY_COUNTS = {"train": 28558, "valid": 3579, "test": 3573}
"""Images of the copy with one `labels.csv` for FER2013 and FER+ together."""
COPY_SOURCE = "counted in the copy"
COPY_ABOUT = "lacks 177 of the original images; its labels differ from the originals in a few places"


def pixel_rows(file: Path, listing: Listing) -> Iterator[tuple[int, str, str, Callable[[], bytes] | None]]:
    """Rows of `fer2013.csv` or `icml_face_data.csv`: number from 0, emotion, usage, and a reader of the image.

    Rows whose pixels are not those of a face are problems of the listing, and have no reader.
    """
    for number, (_, (emotion, pixels, usage)) in enumerate(table_rows(file, ("emotion", "pixels", "Usage"))):
        try:
            values = bytes(map(int, pixels.split()))
        except ValueError:
            values = b""
        if len(values) != SIDE * SIDE:
            listing.problem(
                "malformed line", f"rows of {file.name} without {SIDE * SIDE} pixels in 0 … 255", f"row {number}"
            )
        yield number, emotion, usage, partial(_png, values) if len(values) == SIDE * SIDE else None


def _png(values: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.frombuffer(values, dtype=np.uint8).reshape(SIDE, SIDE)).save(buffer, "png")
    return buffer.getvalue()


def _read_table(name: str, root: Path) -> Listing:
    listing = Listing(class_codes(CLASSES))
    for number, code, usage, image in pixel_rows(root / name, listing):
        if image is not None:
            listing.add(f"row{number:07d}.png", usage, code, image=image)
    return listing


def _read_folders(root: Path) -> Listing:
    """`train/angry/….jpg`: the class is the folder. Every folder of a split is read, so that a strange one is named."""
    listing = Listing(dict(zip(FOLDERS, CLASSES, strict=True)), folders=("train", "test"))
    for file in sorted(file for split in ("train", "test") for file in (root / split).glob("*/*")):
        if file.suffix.lower() in (".jpg", ".jpeg", ".png"):
            path = file.relative_to(root)
            listing.add(path.as_posix(), path.parts[0], path.parts[1])
    return listing


def _read_copy(root: Path) -> Listing:
    listing = Listing({name: name for name in CLASSES}, folders=("train", "valid", "test"))
    for _, (path, split, code) in table_rows(root / "labels.csv", ("file", "split", "fer2013_emotion")):
        listing.add(path, split, code)
    return listing


TABLES = tuple(
    Layout(
        name=f"{name}: emotion, pixels, usage",
        needs=(name,),
        roots=(".", "fer2013"),
        read=partial(_read_table, name),
        sources=(
            "docs.pytorch.org, torchvision.datasets.FER2013",
            "github.com/abhirup-ghosh/facial-expression-classifier-app, data/README.md",
        ),
    )
    for name in ("fer2013.csv", "icml_face_data.csv")
)
COPY = Layout(
    name="labels.csv for FER2013 and FER+, folders train, valid, test",
    needs=("labels.csv", "train", "valid", "test"),
    read=_read_copy,
    sources=UNVERIFIED,
)
CLASS_FOLDERS = Layout(
    name="folders train/CLASS and test/CLASS",
    needs=("train/angry", "test/angry"),
    read=_read_folders,
    sources=UNVERIFIED,
)
