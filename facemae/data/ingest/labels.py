"""Reading a table of labels: one row an image."""

import collections
import csv
import difflib
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facemae.data.splits import canonical_split, known_split_names
from facemae.errors import DataError
from facemae.files import storage_errors

PATH_COLUMNS = ("path", "file", "filename", "image")
SPLIT_COLUMNS = ("split", "usage", "Usage")
SUBJECT_COLUMNS = ("subject", "subject_id", "identity")
SOURCE_COLUMNS = ("source",)

_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d*)?([eE][-+]?\d+)?")


@dataclass(frozen=True)
class LabelRow:
    """One listed image: its path as written; split, subject and source where known; labels that are not empty."""

    path: str
    split: str | None
    subject: str | None
    labels: dict[str, Any]
    source: str | None = None


@dataclass(frozen=True)
class LabelTable:
    """The listed images, and what was decided while reading."""

    rows: list[LabelRow]
    notes: list[str] = field(default_factory=list)


def read_labels(
    path: Path,
    *,
    path_column: str | None = None,
    split_column: str | None = None,
    subject_column: str | None = None,
    label_columns: Sequence[str] | None = None,
) -> LabelTable:
    """Read a CSV (or, by its ending, TSV) file with a header.

    A label column in which every value is a number holds numbers; codes with leading zeros stay text. Empty cells are
    unknown. A column `source` says what an image was taken from, such as the video of a frame.

    Args:
        path: The file.
        path_column: Column with the images' paths; None takes the first of `PATH_COLUMNS`.
        split_column: Column with the split; None takes the first of `SPLIT_COLUMNS`, if there is one.
        subject_column: Column with the subject; None takes the first of `SUBJECT_COLUMNS`, if there is one.
        label_columns: Columns kept as labels; None keeps all others.

    Raises:
        DataError: A column is missing, a row is broken, a path is listed twice, or a split has an unknown name.
    """
    header, records = _read(path)
    image = _column(path, header, path_column, PATH_COLUMNS, "path", required=True)
    split = _column(path, header, split_column, SPLIT_COLUMNS, "split")
    subject = _column(path, header, subject_column, SUBJECT_COLUMNS, "subject")
    source = _column(path, header, None, SOURCE_COLUMNS, "source")
    if label_columns is None:
        labels = [name for name in header if name not in (image, split, subject, source)]
    else:
        labels = [_column(path, header, name, (), "label", required=True) or name for name in label_columns]
    _check_paths(path, image or "", [record[image or ""] for record in records])
    mapping, notes = _split_names(path, [record[split] for record in records] if split else [])
    values = {name: _typed([record[name] for record in records]) for name in labels}
    rows = [
        LabelRow(
            path=record[image or ""].strip(),
            split=mapping.get(record[split].strip()) if split else None,
            subject=(record[subject].strip() or None) if subject else None,
            labels={name: values[name][i] for name in labels if values[name][i] is not None},
            source=(record[source].strip() or None) if source else None,
        )
        for i, record in enumerate(records)
    ]
    return LabelTable(rows, notes)


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    if not path.is_file():
        raise DataError(f"there is no table of labels {path}", expected="a CSV file with a header")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with storage_errors(path, "reading"), path.open(newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle, delimiter=delimiter, restkey="", restval=None)
        try:
            header = [name.strip() for name in reader.fieldnames or ()]
            _check_header(path, header)
            reader.fieldnames = header
            records = []
            for record in reader:
                if "" in record or None in record.values():
                    raise DataError(
                        f"line {reader.line_num} of {path} does not have {len(header)} fields",
                        expected=f"the columns {', '.join(header)}",
                        fix="quote values that contain the delimiter",
                    )
                records.append(record)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"{path} is not a readable CSV file: {error}", expected="UTF-8 text, comma-separated"
            ) from error
    if not records:
        raise DataError(f"{path} lists no images", expected="a header and one row an image")
    return header, records


def _check_header(path: Path, header: list[str]) -> None:
    twice = [name for name, count in collections.Counter(header).items() if count > 1]
    if twice:
        raise DataError(
            f"{path} has more than one column {', '.join(map(repr, twice))}",
            expected="a different name for every column: only the last of them would be read",
            fix="rename or remove the others",
        )


def _column(
    path: Path, header: list[str], asked: str | None, usual: Sequence[str], role: str, *, required: bool = False
) -> str | None:
    if asked is None:
        found = next((name for name in usual if name in header), None)
        if found is None and required:
            raise DataError(
                f"{path} has no column with the images' paths; its columns are {', '.join(header)}",
                expected=f"one of {', '.join(usual)}",
                fix=f"name it: --{role}-column NAME",
            )
        return found
    if asked in header:
        return asked
    near = difflib.get_close_matches(asked, header, 1, cutoff=0.4)
    raise DataError(
        f"{path} has no {role} column {asked!r}",
        expected=f"one of its columns: {', '.join(header)}",
        fix=f"did you mean {near[0]!r}?" if near else "name a column that exists",
    )


def _check_paths(path: Path, column: str, listed: list[str]) -> None:
    times = collections.Counter(normal_path(name.strip()) for name in listed if name.strip())
    twice = [name for name, count in times.items() if count > 1]
    if times.total() < len(listed):
        raise DataError(f"{path} has a row without a path in column {column!r}", expected="a path in every row")
    if twice:
        raise DataError(
            f"{path} lists {len(twice)} paths more than once, the first is {twice[0]!r}",
            expected="one row an image",
            fix="join the rows, for example into vote columns",
        )


def normal_path(name: str) -> str:
    """A listed path in the one form in which paths are compared: forward slashes, no `.` and no needless `..`."""
    return posixpath.normpath(name.replace("\\", "/"))


def _split_names(path: Path, names: list[str]) -> tuple[dict[str, str], list[str]]:
    counts = collections.Counter(name.strip() for name in names)
    counts.pop("", None)
    mapping = {name: canonical_split(name) for name in counts}
    unknown = sorted(name for name, canonical in mapping.items() if canonical is None)
    if unknown:
        raise DataError(
            f"{path} has unknown split names: {', '.join(f'{name!r} ({counts[name]} rows)' for name in unknown[:10])}; "
            f"found in all: {', '.join(sorted(counts))}",
            expected=known_split_names(),
            fix="rename the splits in the table, or choose another column: --split-column NAME",
        )
    known = {name: canonical for name, canonical in mapping.items() if canonical is not None}
    return known, split_notes(known)


def split_notes(mapping: dict[str, str]) -> list[str]:
    """A line saying which names were read as which split, if any differ."""
    changed = [f"{name} -> {canonical}" for name, canonical in sorted(mapping.items()) if name != canonical]
    return [f"split names read as: {', '.join(changed)}"] if changed else []


def _typed(values: list[str]) -> list[Any]:
    stripped = [value.strip() for value in values]
    filled = [value for value in stripped if value]
    if filled and all(_INTEGER.fullmatch(value) for value in filled):
        return [int(value) if value else None for value in stripped]
    if filled and all(_NUMBER.fullmatch(value) for value in filled):
        return [float(value) if value else None for value in stripped]
    return [value or None for value in stripped]
