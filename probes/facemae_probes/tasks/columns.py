"""Metadata of samples as columns, and which of them a label names."""

import difflib
import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError

RESERVED = ("key", "split", "subject", "source", "path", "dropped")
"""Columns that are no labels."""


@dataclass(frozen=True)
class Columns:
    """Metadata of chosen samples.

    Attributes:
        samples: [N] indices into the shard set.
        values: Column name to N values.
    """

    samples: NDArray[np.int64]
    values: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.samples)

    def text(self, name: str) -> list[str | None]:
        """A column as text; missing and empty values are None."""
        return [None if value is None or str(value) == "" else _text(value) for value in self.values[name]]

    @property
    def labels(self) -> list[str]:
        """Columns that may be labels."""
        return [name for name in self.values if name not in RESERVED]

    def take(self, rows: NDArray[np.int64]) -> "Columns":
        """Those of some rows."""
        return Columns(self.samples[rows], {name: [values[i] for i in rows] for name, values in self.values.items()})

    def require(self, name: str, use: str) -> list[str | None]:
        """A column as text.

        Args:
            name: The column.
            use: What it is for, for the message.

        Raises:
            ProbeError: There is no such column.
        """
        if name not in self.values:
            near = difflib.get_close_matches(name, list(self.values), 1)
            raise ProbeError(
                f"no column {name!r} {use}",
                expected=f"one of {', '.join(self.values)}",
                fix=f"did you mean {near[0]!r}?" if near else None,
            )
        return self.text(name)


def read_columns(shards: Path, where: dict[str, str] | None = None) -> Columns:
    """Metadata of the samples of a shard set that pass a filter; erased samples are left out."""
    from facemae.data.index import ShardIndex
    from facemae.data.select import metadata, select

    index = ShardIndex.open(shards)
    samples = select(index, dict(where or {}), dropped=False)
    table = metadata(index).take(samples)
    return Columns(samples, {name: table.column(name).to_pylist() for name in table.column_names})


def label_columns(columns: Columns, label: str) -> list[str]:
    """The columns that a label names: itself, a comma-separated list, or the matches of a pattern.

    Raises:
        ProbeError: A name or pattern matches nothing; the message lists the columns.
    """
    found: list[str] = []
    for part in (text.strip() for text in label.split(",")):
        matches = [name for name in columns.labels if fnmatch.fnmatchcase(name, part)]
        if not matches:
            near = difflib.get_close_matches(part, columns.labels, 1)
            raise ProbeError(
                f"no label column {part!r}",
                expected=f"one of {', '.join(columns.labels)}" if columns.labels else "a shard set with labels",
                fix=f"did you mean {near[0]!r}?" if near else "facemae data pack --labels FILE adds labels",
            )
        found += [name for name in matches if name not in found]
    return found


def _text(value: Any) -> str:
    # A column of whole numbers that had a gap comes back as floats; "3.0" and "3" are one class.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
