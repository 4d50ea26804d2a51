"""What samples say about themselves, one row a sample and one column a field.

The `json` member of a packed sample is ``{"path": …, "source": …, "split": …, "subject": …, "labels": {column: value},
"width": …, "height": …}`` with the known fields only. `source` is what the owner says that a sample was taken from,
such as the video of a frame; without it the column `source` has the path, which pieces of one video share. Shards
that others wrote are read too: where there is no `labels` mapping, the plain values of the `json` object count as
labels, and a `cls` member is the label `cls`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facemae.data.splits import canonical_split
from facemae.errors import ShardError

Row = dict[str, Any]

RESERVED = ("key", "split", "subject", "source", "width", "height", "dropped")
"""Columns every metadata table has, null where unknown: four strings, pixels as stored, and whether it was erased."""

PATH = "path"
"""A further column of sets whose samples name a source: the file, which otherwise is the source."""

_OWN_FIELDS = {PATH, "source", "split", "subject", "labels", "width", "height", "dropped"}


def parse_json(data: bytes, key: str, shard: Path) -> dict[str, Any]:
    """The content of a `json` member.

    Raises:
        ShardError: Not a JSON object.
    """
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ShardError(f"{key}.json in shard {shard} does not parse: {error}", fix="repack the shard") from error
    if not isinstance(value, dict):
        raise ShardError(
            f"{key}.json in shard {shard} holds a {type(value).__name__}", expected="a JSON object", fix="repack it"
        )
    return value


def _text(value: object) -> str | None:
    return None if value is None or value == "" else str(value)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def label_name(name: str) -> str:
    """Column of a label; a label called like a column every table has gets the prefix `label_`."""
    return f"label_{name}" if name in (*RESERVED, PATH) else name


def sample_labels(meta: Mapping[str, Any], cls: bytes | None = None) -> dict[str, Any]:
    """A sample's labels by the names of their metadata columns.

    Args:
        meta: Its `json` member.
        cls: Its `cls` member, where it has one.
    """
    labels = meta.get("labels")
    if not isinstance(labels, dict):
        labels = {k: v for k, v in meta.items() if k not in _OWN_FIELDS and isinstance(v, str | int | float)}
    if cls is not None:
        text = cls.decode(errors="replace").strip()
        labels = {**labels, "cls": int(text) if text.isdecimal() else text}
    return {label_name(name): value for name, value in labels.items()}


def metadata_row(key: str, members: dict[str, bytes], shard: Path) -> Row:
    """The row of one sample.

    Args:
        key: Its key.
        members: Its `json` and `cls` members, where it has them.
        shard: For messages.
    """
    meta = parse_json(members["json"], key, shard) if "json" in members else {}
    split = _text(meta.get("split"))
    row: Row = {
        "key": key,
        # Names this library does not know stay as they are: the shards are somebody else's.
        "split": None if split is None else canonical_split(split) or split,
        "subject": _text(meta.get("subject")),
        "source": _text(meta.get("source")) or _text(meta.get("path")),
        "width": _count(meta.get("width")),
        "height": _count(meta.get("height")),
        "dropped": bool(meta.get("dropped", False)),
    }
    if _text(meta.get("source")) is not None:
        row[PATH] = _text(meta.get("path"))
    row.update(sample_labels(meta, members.get("cls")))
    return row


def _values(values: list[Any]) -> Any:
    """One column as an Arrow array: numbers where all are numbers, else text."""
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pa.nulls(len(values))
    if kinds in ({bool}, {int}, {str}):
        try:
            return pa.array(values)
        except (OverflowError, pa.ArrowInvalid):
            return pa.array([None if value is None else str(value) for value in values])
    if kinds <= {int, float}:
        return pa.array([None if value is None else float(value) for value in values])
    return pa.array([v if v is None or isinstance(v, str) else json.dumps(v, sort_keys=True) for v in values])


def metadata_table(rows: list[Row]) -> Any:
    """Rows as a pyarrow.Table, columns in the order in which they appear first."""
    import pyarrow as pa

    names = dict.fromkeys((*RESERVED, *(name for row in rows for name in row)))
    return pa.table({name: _values([row.get(name) for row in rows]) for name in names})


def join_tables(tables: list[Any]) -> Any:
    """The shards' tables one below the other.

    A column that holds numbers in one shard and text in another becomes text.
    """
    import pyarrow as pa

    kinds: dict[str, set[Any]] = {}
    for table in tables:
        for field in table.schema:
            if not pa.types.is_null(field.type):
                kinds.setdefault(field.name, set()).add(field.type)
    # Integers and floats join as floats; anything else that differs joins as text.
    mixed = {name for name, types in kinds.items() if len(types) > 1 and not types <= {pa.int64(), pa.float64()}}
    fixed = {"key": pa.string(), "split": pa.string(), "subject": pa.string(), "source": pa.string(), PATH: pa.string()}
    fixed.update(width=pa.int64(), height=pa.int64(), dropped=pa.bool_())

    def adapt(table: Any) -> Any:
        for position, field in enumerate(table.schema):
            kind = fixed.get(field.name, pa.string() if field.name in mixed else field.type)
            if kind != field.type:
                table = table.set_column(position, field.name, table.column(position).cast(kind))
        return table

    return pa.concat_tables([adapt(table) for table in tables], promote_options="permissive")
