"""Terms a run was granted on its way: a length by `--extend`, shards by `--adopt-data`.

The checkpoints made before do not know of them, and a run may go on from one of these: where it goes back from a spike,
or where newer ones are damaged. What was granted holds there too, or samples would leave the run without a word.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from facemae.checkpoint import Checkpoint
from facemae.errors import ResumeError
from facemae.files import storage_errors, write_text


@dataclass(frozen=True)
class Terms:
    """What holds since a start.

    Attributes:
        step: The steps that were done; a checkpoint of more knows of the terms itself.
        total: `optim.total` of the recipe, as in its tree.
        streams: The data the run is pinned to, by stream, as in a checkpoint's `data.json`.
    """

    step: int
    total: Mapping[str, Any]
    streams: Mapping[str, Any]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Terms":
        """Those a checkpoint was made under."""
        manifest = checkpoint.manifest
        return cls(manifest.step, manifest.recipe["optim"]["total"], checkpoint.document("data")["streams"])


def read_terms(path: Path, step: int) -> Terms | None:
    """What was granted that a checkpoint does not know of; None where nothing was.

    Args:
        path: The record.
        step: Steps of the checkpoint.

    Raises:
        ResumeError: The file is not what was written.
        StorageError: It cannot be read.
    """
    if not path.is_file():
        return None
    with storage_errors(path, "reading"):
        text = path.read_text(encoding="utf-8")
    try:
        terms = Terms(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise ResumeError(
            f"{path} does not say how long the run is and what it reads: {error}",
            expected="terms.json as the run left it",
            fix="put the file back, or start a new run",
        ) from None
    return terms if terms.step >= step else None


def write_terms(path: Path, terms: Terms) -> None:
    """Write down what is granted from now on.

    Raises:
        StorageError: It cannot be written.
    """
    write_text(path, json.dumps(asdict(terms), indent=2) + "\n")
