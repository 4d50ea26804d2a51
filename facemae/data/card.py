"""The dataset card of a shard set: `SHARDS/card.json`."""

from pathlib import Path

import pydantic

from facemae.data.schema import DatasetCard
from facemae.errors import DataError
from facemae.files import storage_errors, write_text

CARD = "card.json"


def read_card(folder: Path) -> DatasetCard:
    """The card of a shard set; one that says `unknown` throughout where the set has none.

    Raises:
        DataError: The file is there but is not a card.
    """
    path = folder / CARD
    return load_card(path) if path.exists() else DatasetCard(name=folder.name)


def load_card(path: Path) -> DatasetCard:
    """Read a card from a JSON file.

    Raises:
        DataError: The file is not there, or is not a card.
    """
    if not path.is_file():
        raise DataError(f"there is no dataset card {path}", expected="a JSON file")
    with storage_errors(path, "reading"):
        text = path.read_text(encoding="utf-8")
    try:
        return DatasetCard.model_validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the top"
        raise DataError(
            f"{path} is not a dataset card: {first['msg']} at {where}",
            expected=f"a JSON object with the fields {', '.join(DatasetCard.model_fields)}; only name is required",
            fix="correct the file",
        ) from error


def write_card(folder: Path, card: DatasetCard) -> None:
    """Write the card beside the shards."""
    write_text(folder / CARD, card.model_dump_json(indent=2) + "\n")
