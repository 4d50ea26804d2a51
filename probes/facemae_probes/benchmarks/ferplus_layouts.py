"""The forms FER+ comes in: votes beside the table of pixels, images with votes, and the copy with one table."""

from collections.abc import Sequence
from pathlib import Path

from facemae_probes.benchmarks.base import UNVERIFIED, Layout
from facemae_probes.benchmarks.fer_layouts import pixel_rows
from facemae_probes.benchmarks.listing import Listing, csv_rows, table_rows
from facemae_probes.benchmarks.votes import CLASSES, COLUMNS, distribution, majority

VOTES, PIXELS = "fer2013new.csv", "fer2013.csv"
SHARES = tuple(f"share_{name}" for name in CLASSES)
SETS = {"FER2013Train": "train", "FER2013Valid": "valid", "FER2013Test": "test"}
_CODES = {name: name for name in CLASSES}
_LOADER = "Efficient-Facial-Feature-Learning-with-Wide-Ensemble-based-Convolutional-Neural-Networks"


def _add(listing: Listing, path: str, split: str, texts: Sequence[str], **more: object) -> None:
    """Add an image by its ten votes; one with neither a majority nor a distribution is left out."""
    try:
        votes = [int(float(text)) for text in texts]
    except ValueError:
        listing.problem("malformed line", "votes that are no numbers", f"{path}: {', '.join(texts)}")
        return
    name, shares = majority(votes), distribution(votes)
    if name is None and shares is None:
        listing.leave_out("neither a majority nor a distribution of votes", path)
        return
    labels: dict[str, float] = {f"votes_{column}": count for column, count in zip(COLUMNS, votes, strict=True)}
    if shares is not None:
        labels.update(zip(SHARES, shares, strict=True))
    listing.add(path, split, name, labels=labels, **more)  # type: ignore[arg-type]


def _read_tables(root: Path) -> Listing:
    """Votes and pixels, joined by row: the numbers in the images' names are not the rows'."""
    listing = Listing(_CODES)
    votes = list(table_rows(root / VOTES, ("Usage", "Image name", *COLUMNS)))
    pixels = list(pixel_rows(root / PIXELS, listing))
    if len(votes) != len(pixels):
        text = f"{VOTES} has {len(votes)} rows and {PIXELS} has {len(pixels)}: they are joined by row"
        listing.problem("rows differ", text)
        return listing
    for (_, (usage, name, *texts)), (number, _, other, image) in zip(votes, pixels, strict=True):
        if usage != other:
            text = f"rows whose usage differs between {VOTES} and {PIXELS}: they are joined by row"
            listing.problem("rows differ", text, f"row {number}: {usage}, {other}")
        elif not name:
            listing.leave_out("no image name: not a face", f"row {number}")
        elif image is not None:
            _add(listing, name, usage, texts, image=image)
    return listing


def _read_images(root: Path) -> Listing:
    """`FER2013Train/label.csv` and so on, without headers: name, perhaps a box of the whole image, ten votes."""
    listing = Listing(_CODES, folders=tuple(SETS))
    for folder, split in SETS.items():
        for line, values in csv_rows(root / folder / "label.csv"):
            if len(values) <= len(COLUMNS):
                listing.problem(
                    "malformed line", f"lines of label.csv without {len(COLUMNS)} votes", f"{folder}: {line}"
                )
                continue
            _add(listing, f"{folder}/{values[0]}", split, values[-len(COLUMNS) :])
    return listing


def _read_copy(root: Path) -> Listing:
    listing = Listing(_CODES, folders=("train", "valid", "test"))
    columns = ("file", "split", *(f"votes_{name}" for name in COLUMNS))
    for _, (path, split, *texts) in table_rows(root / "labels.csv", columns):
        _add(listing, path, split, texts)
    return listing


LAYOUTS = (
    Layout(
        name="fer2013new.csv beside fer2013.csv",
        needs=(VOTES, PIXELS),
        read=_read_tables,
        sources=("github.com/microsoft/FERPlus, README.md", "github.com/StevenHSKim/FERPlus-Vote-To-Label, README.md"),
    ),
    Layout(
        name="images and label.csv in FER2013Train, FER2013Valid, FER2013Test, as the authors' script makes them",
        needs=tuple(f"{folder}/label.csv" for folder in SETS),
        roots=(".", "data"),
        read=_read_images,
        sources=(
            "github.com/microsoft/FERPlus, src/generate_training_data.py",
            f"github.com/siqueira-hc/{_LOADER}, model/utils/udata.py",
        ),
    ),
    Layout(
        name="labels.csv for FER2013 and FER+, folders train, valid, test",
        needs=("labels.csv", "train", "valid", "test"),
        read=_read_copy,
        sources=UNVERIFIED,
    ),
)
