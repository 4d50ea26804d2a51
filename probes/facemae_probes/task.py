"""What is asked of the features: labels, parts, and the units that are independent of each other."""

import difflib
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae.rng import generator
from facemae_probes.metrics import MISSING, TaskKind

PARTS = ("train", "valid", "test")
VALID_SHARE = 0.15
"""Share of the training units set aside for choosing, where a set has no validation split."""
RESERVED = ("key", "split", "subject", "source", "dropped")
"""Columns that are no labels."""


@dataclass(frozen=True)
class Task:
    """Labelled samples of a shard set.

    Attributes:
        label: Column or pattern.
        kind: `classes`, or `multilabel` for several binary columns.
        names: Names of the classes or columns.
        samples: [N] indices into the shard set.
        keys: Their keys.
        labels: [N] class numbers, or [N, C] of 0, 1 and `MISSING`.
        parts: Rows of `train`, `valid` and `test`.
        units: [N] unit numbers.
        unit: What a unit is: `subject`, `source`, a column's name, or `sample`.
        valid_from: Where the validation part comes from.
        slices: Extra parts of the test rows, by name.
        warnings: What a reader of the numbers has to know.
    """

    label: str
    kind: TaskKind
    names: tuple[str, ...]
    samples: NDArray[np.int64]
    keys: tuple[str, ...]
    labels: NDArray[np.int64]
    parts: dict[str, NDArray[np.int64]]
    units: NDArray[np.int64]
    unit: str
    valid_from: str
    slices: dict[str, NDArray[np.int64]]
    warnings: tuple[str, ...]

    def counts(self) -> dict[str, dict[str, int]]:
        """Samples by part and class; for columns, positives."""
        out = {}
        for part, rows in self.parts.items():
            chosen = self.labels[rows]
            per = (
                [int((chosen == c).sum()) for c in range(len(self.names))]
                if self.kind == "classes"
                else [int((chosen[:, c] == 1).sum()) for c in range(len(self.names))]
            )
            out[part] = {"samples": len(rows), **dict(zip(self.names, per, strict=True))}
        return out


@dataclass(frozen=True)
class Columns:
    """Metadata of chosen samples.

    Attributes:
        samples: [N] indices into the shard set.
        values: Column name to N values.
    """

    samples: NDArray[np.int64]
    values: dict[str, list[Any]]

    def text(self, name: str) -> list[str | None]:
        """A column as text; missing and empty values are None."""
        return [None if value is None or str(value) == "" else _text(value) for value in self.values[name]]

    @property
    def labels(self) -> list[str]:
        """Columns that may be labels."""
        return [name for name in self.values if name not in RESERVED]


def read_columns(shards: Path, where: dict[str, str] | None = None) -> Columns:
    """Metadata of the samples of a shard set that pass a filter; erased samples are left out."""
    from facemae.data.index import ShardIndex
    from facemae.data.select import metadata, select

    index = ShardIndex.open(shards)
    samples = select(index, dict(where or {}), dropped=False)
    table = metadata(index).take(samples)
    return Columns(samples, {name: table.column(name).to_pylist() for name in table.column_names})


def make_task(
    columns: Columns,
    label: str,
    *,
    kind: Literal["auto", "classes", "multilabel"] = "auto",
    unit: str | None = None,
    slices: Sequence[str] = (),
    seed: int = 0,
    split: str = "split",
    classes: Sequence[str] = (),
) -> Task:
    """Build a task from columns.

    Args:
        columns: Metadata of the samples.
        label: A column name; a pattern such as `AU*` or a comma-separated list means several binary columns.
        kind: What the labels are; `auto` takes classes for one column and multilabel for several.
        unit: Column whose values are independent of each other, or `sample`; None takes subject, else source, else
            sample. Samples without a value are units of their own.
        slices: Extra test parts, each `column=value`.
        seed: Seed of the draw of a validation part, where there is none.
        split: Column that says which part a sample belongs to; samples without a value are left out.
        classes: Names of the classes in their order, those without samples too; empty takes them from the labels.

    Raises:
        ProbeError: Columns, labels or splits are missing, or a label is none of the classes.
    """
    found = label_columns(columns, label)
    resolved: TaskKind = ("classes" if len(found) == 1 else "multilabel") if kind == "auto" else kind
    if resolved == "classes" and len(found) > 1:
        raise ProbeError(f"{label!r} names {len(found)} columns: {', '.join(found)}", fix="--task multilabel")
    labelled = np.array([any(row) for row in zip(*(_present(columns.text(name)) for name in found), strict=True)])
    if not labelled.any():
        raise ProbeError(f"column {label!r} has no value in the chosen samples", fix="look at --where and --label")
    if split not in columns.values:
        raise ProbeError(f"no column {split!r} to take the parts from", expected=f"one of {', '.join(columns.values)}")
    if split != "split":
        labelled &= np.array(_present(columns.text(split)))
    columns = _subset(columns, np.flatnonzero(labelled))
    units, unit_name, warnings = _units(columns, unit)
    parts, valid_from = _parts(columns, units, unit_name, seed, split)
    warnings += _crossing(units, unit_name, parts)
    if resolved == "classes":
        names, labels, more = _classes(columns.text(found[0]), parts, classes)
        warnings += more
    else:
        names, labels = tuple(found), np.stack([_binary(columns.text(name), name) for name in found], axis=1)
    return Task(
        label=label,
        kind=resolved,
        names=names,
        samples=columns.samples,
        keys=tuple(str(key) for key in columns.values["key"]),
        labels=labels,
        parts=parts,
        units=units,
        unit=unit_name,
        valid_from=valid_from,
        slices={text: _slice(columns, text, parts["test"]) for text in slices},
        warnings=tuple(warnings),
    )


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


def _present(values: list[str | None]) -> list[bool]:
    return [value is not None for value in values]


def _subset(columns: Columns, rows: NDArray[np.int64]) -> Columns:
    return Columns(columns.samples[rows], {name: [values[i] for i in rows] for name, values in columns.values.items()})


def _units(columns: Columns, unit: str | None) -> tuple[NDArray[np.int64], str, list[str]]:
    """Unit numbers, what a unit is, and warnings."""
    if unit is not None and unit not in ("sample", *columns.values):
        raise ProbeError(f"no column {unit!r} for --unit", expected=f"sample, or one of {', '.join(columns.values)}")
    for name in [unit] if unit else ["subject", "source"]:
        values = columns.text(name) if name in columns.values else []
        known = [value for value in values if value is not None]
        # A column that names every sample differently says no more than the sample itself.
        if known and (unit or 1 < len(set(known)) < len(known)):
            return _number(name, values, known)
        if unit and unit != "sample":
            raise ProbeError(f"column {unit!r} has no value", expected="a unit for most samples")
    return np.arange(len(columns.samples), dtype=np.int64), "sample", []


def _number(name: str, values: list[str | None], known: list[str]) -> tuple[NDArray[np.int64], str, list[str]]:
    """Numbers of a column's values; a sample without one is a unit of its own."""
    missing = len(values) - len(known)
    if missing > len(known):
        raise ProbeError(
            f"column {name!r} has no value in {missing} of {len(values)} labelled samples",
            expected="a unit for most samples, since samples of one unit are not independent",
            fix="fill the column, name another with --unit, or --unit sample to take every sample as independent",
        )
    numbers = {value: number for number, value in enumerate(sorted(set(known)))}
    codes = [numbers[value] if value is not None else len(numbers) + place for place, value in enumerate(values)]
    text = f"{missing} of {len(values)} labelled samples have no {name}; each counts as a unit of its own"
    return np.array(codes, dtype=np.int64), name, [text] if missing else []


def _parts(
    columns: Columns, units: NDArray[np.int64], unit: str, seed: int, column: str
) -> tuple[dict[str, NDArray[np.int64]], str]:
    split = np.array([value or "" for value in columns.text(column)], dtype=str)
    parts = {part: np.flatnonzero(split == part) for part in PARTS}
    for part in ("train", "test"):
        if not len(parts[part]):
            raise ProbeError(
                f"no labelled sample has split {part!r}; splits here: {', '.join(sorted(set(split) - {''})) or 'none'}",
                expected="train and test splits, and preferably valid",
                fix="give the splits in the label file when packing",
            )
    if len(parts["valid"]):
        return parts, "official valid split"
    known = np.unique(units[parts["train"]])
    if len(known) < 2:
        raise ProbeError(f"the training split has one {unit}, none can be set aside for choosing settings")
    drawn = generator(seed, "probe", "valid").permutation(known)[: max(1, round(VALID_SHARE * len(known)))]
    aside = np.isin(units[parts["train"]], drawn)
    parts["valid"], parts["train"] = parts["train"][aside], parts["train"][~aside]
    return parts, f"{VALID_SHARE:.0%} of the train split, whole units ({unit}), seed {seed}"


def _crossing(units: NDArray[np.int64], unit: str, parts: dict[str, NDArray[np.int64]]) -> list[str]:
    seen = np.union1d(units[parts["train"]], units[parts["valid"]])
    shared = np.intersect1d(seen, units[parts["test"]])
    return [f"{len(shared)} values of {unit} are in test and in train or valid"] if len(shared) else []


def _classes(
    values: list[str | None], parts: dict[str, NDArray[np.int64]], given: Sequence[str]
) -> tuple[tuple[str, ...], NDArray[np.int64], list[str]]:
    text = np.array([value or "" for value in values], dtype=str)
    trained = _in_order(set(text[parts["train"]].tolist()))
    # A class that training lacks can only be missed; it keeps its place in the metrics.
    extra = _in_order(set(text.tolist()) - set(trained))
    names = (*trained, *extra)
    if given:
        if foreign := [name for name in names if name not in given]:
            raise ProbeError(f"labels {', '.join(foreign[:5])}", expected=f"one of {', '.join(given)}")
        names, extra = tuple(given), [name for name in given if name not in trained]
    if len(trained) < 2:
        raise ProbeError(f"the training split has one class, {trained[0]!r}", expected="two or more")
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[value] for value in text.tolist()], dtype=np.int64)
    return names, labels, [f"class {name!r} is not in the training split" for name in extra]


def _in_order(names: set[str]) -> list[str]:
    return sorted(names, key=lambda name: (0, int(name), "") if name.lstrip("-").isdigit() else (1, 0, name))


def _binary(values: list[str | None], name: str) -> NDArray[np.int64]:
    meaning = {None: MISSING, "0": 0, "1": 1, "False": 0, "True": 1, "false": 0, "true": 1}
    unknown = sorted({str(value) for value in values if value not in meaning})
    if unknown:
        raise ProbeError(
            f"column {name!r} holds {', '.join(unknown[:5])}",
            expected="0, 1, or empty where not coded, for a multi-label task",
            fix="--task classes for one column of classes",
        )
    return np.array([meaning[value] for value in values], dtype=np.int64)


def _slice(columns: Columns, text: str, test: NDArray[np.int64]) -> NDArray[np.int64]:
    name, equals, wanted = text.partition("=")
    if not equals or name not in columns.values:
        raise ProbeError(f"slice {text!r}", expected=f"COLUMN=VALUE with one of {', '.join(columns.values)}")
    values = columns.text(name)
    rows = np.array([row for row in test if values[row] == wanted], dtype=np.int64)
    if not len(rows):
        raise ProbeError(f"no test sample has {text}", expected=f"values {sorted({str(values[r]) for r in test})[:10]}")
    return rows
