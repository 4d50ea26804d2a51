"""Choosing samples by what they say about themselves, without reading the shards."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from facemae.data.index import ShardIndex
from facemae.data.index_build import METADATA
from facemae.errors import UsageError
from facemae.files import storage_errors


def metadata(index: ShardIndex, columns: list[str] | None = None) -> Any:
    """Metadata of all samples as a pyarrow.Table with N rows in the order of the index.

    Columns: those of `facemae.data.metadata.RESERVED` and one a label. Rows of erased samples hold only a
    stand-in key, the split and `dropped = true`.

    Args:
        index: The index.
        columns: Read only these; None reads all.
    """
    import pyarrow.parquet as pq

    path = index.columns_folder / METADATA
    with storage_errors(path, "reading"):
        table = pq.read_table(path, columns=columns)
    return table.slice(0, len(index))


def column_names(index: ShardIndex) -> list[str]:
    """Names of the metadata columns."""
    import pyarrow.parquet as pq

    path = index.columns_folder / METADATA
    with storage_errors(path, "reading"):
        return list(pq.read_schema(path).names)


def check_columns(index: ShardIndex, wanted: Iterable[str]) -> None:
    """Raise UsageError, naming those there are, where a shard set lacks a metadata column."""
    names = column_names(index)
    for name in wanted:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            raise UsageError(
                f"{index.folder} has no metadata column {name!r}",
                expected=f"one of {', '.join(names)}",
                fix=f"did you mean {near[0]!r}?" if near else None,
            )


def select(index: ShardIndex, where: Mapping[str, str], *, dropped: bool = True) -> "np.ndarray[Any, Any]":
    """Positions of the samples whose metadata equals all the given values.

    Args:
        index: The index.
        where: Column to value. Values are compared as text, so `1` finds the number 1.
        dropped: Keep erased samples of a matching split, which are read as their substitutes: a run's order depends on
            it. Pass False to count or evaluate.

    Returns:
        int64 [n], ascending.

    Raises:
        UsageError: No such column, or no sample matches; says which values there are.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    check_columns(index, where)
    table = metadata(index, list(dict.fromkeys([*where, "dropped"])))
    keep = np.ones(len(index), dtype=bool)
    for name, value in where.items():
        equal = pc.equal(table[name].cast(pa.string()), pa.scalar(str(value)))
        keep &= pc.fill_null(equal, fill_value=False).to_numpy()
        if not keep.any():
            raise UsageError(
                f"no sample of {index.folder} has {name}={value} ({', '.join(f'{k}={v}' for k, v in where.items())})",
                expected=f"values of {name}: {_values(table[name])}",
            )
    if not dropped:
        keep &= ~table["dropped"].to_numpy()
    return np.flatnonzero(keep).astype(np.int64)


def _values(column: Any, limit: int = 12) -> str:
    import pyarrow.compute as pc

    counts = sorted(pc.value_counts(column).to_pylist(), key=lambda entry: -entry["counts"])
    shown = ", ".join(f"{entry['values']} ({entry['counts']})" for entry in counts[:limit])
    return shown + (", …" if len(counts) > limit else "")
