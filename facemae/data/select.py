"""Choosing samples by what they say about themselves, without reading the shards."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
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
            others = [f"{other}={text}" for other, text in where.items() if other != name]
            said = pc.count(table[name]).as_py() > 0
            raise UsageError(
                f"no sample of {index.folder} has {name}={value}" + (f" beside {', '.join(others)}" if others else ""),
                expected=f"values of {name}: {_values(table[name])}" if said else f"a set whose samples have a {name}",
                fix=None
                if said
                else f"leave `where` out; or pack again with {name} in labels.csv"
                + (", or in folders called train, valid and test" if name == "split" else ""),
            )
    if not dropped:
        keep &= ~table["dropped"].to_numpy()
    return np.flatnonzero(keep).astype(np.int64)


def select_keys(index: ShardIndex, path: Path) -> "np.ndarray[Any, Any]":
    """Positions of the samples whose keys a text file lists, one a line; empty lines are passed over.

    Returns:
        int64 [n], ascending.

    Raises:
        UsageError: The file lists nothing, a key twice, or one that the shard set does not have.
        StorageError: It cannot be read.
    """
    with storage_errors(path, "reading"):
        lines = path.read_text(encoding="utf-8").splitlines()
    keys = [line.strip() for line in lines if line.strip()]
    wanted = set(keys)
    if not keys or len(wanted) < len(keys):
        twice = [key for key, count in Counter(keys).items() if count > 1]
        raise UsageError(
            f"{path} lists {'no key' if not keys else f'{len(twice)} keys twice or more, such as {twice[0]}'}",
            expected="keys of samples, one a line and each once",
        )
    known = metadata(index, ["key"])["key"].to_pylist()
    found = np.flatnonzero([key in wanted for key in known]).astype(np.int64)
    if len(found) < len(wanted):
        missing = sorted(wanted - {known[place] for place in found.tolist()})
        raise UsageError(
            f"{len(missing)} of {len(wanted)} keys in {path} are not in {index.folder}, such as {missing[0]}",
            expected="keys of its samples; an erased sample has lost its key",
            fix="take them out of the file, for a new run",
        )
    return found


def choose(index: ShardIndex, where: Mapping[str, str], keys: Path | None) -> "np.ndarray[Any, Any] | None":
    """Positions of the samples that pass `where` and are listed in a file of keys; None where neither is given.

    Raises:
        UsageError: As `select` and `select_keys`, or no sample passes both.
    """
    chosen = select(index, where) if where else None
    if keys is None:
        return chosen
    listed = select_keys(index, keys)
    both = listed if chosen is None else np.intersect1d(chosen, listed)
    if not len(both):
        raise UsageError(
            f"none of the {len(listed)} samples listed in {keys} has {', '.join(f'{k}={v}' for k, v in where.items())}",
            fix="leave `where` out: the file says which samples are read",
        )
    return both


def value_counts(
    index: ShardIndex, columns: Sequence[str], samples: "np.ndarray[Any, Any] | None" = None
) -> dict[str, dict[Any, int]]:
    """How many samples have each value of some columns, None among the values; erased samples are left out.

    Args:
        index: The index.
        columns: The columns, all of which it has.
        samples: Positions of the samples that are looked at; None takes all.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = metadata(index, [*columns, "dropped"])
    if samples is not None:
        table = table.take(pa.array(samples))
    table = table.filter(pc.invert(table["dropped"]))
    found = {name: pc.value_counts(table[name]).to_pylist() for name in columns}
    return {name: {entry["values"]: entry["counts"] for entry in counts} for name, counts in found.items()}


def _values(column: Any, limit: int = 12) -> str:
    import pyarrow.compute as pc

    counts = sorted(pc.value_counts(column).to_pylist(), key=lambda entry: -entry["counts"])
    shown = ", ".join(f"{entry['values']} ({entry['counts']})" for entry in counts[:limit])
    return shown + (", …" if len(counts) > limit else "")
