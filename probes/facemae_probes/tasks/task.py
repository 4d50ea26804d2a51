"""What is asked of the features: labels, folds, and the units that are independent of each other."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae.files import storage_errors
from facemae_probes.protocols.base import Protocol, Samples, Splits
from facemae_probes.protocols.official import Official
from facemae_probes.tasks.columns import Columns, label_columns
from facemae_probes.tasks.labels import in_order, read_targets, unlabelled
from facemae_probes.tasks.targets import Kind, Targets
from facemae_probes.tasks.units import independent_units


@dataclass(frozen=True)
class Task:
    """Labelled samples of a shard set, and how they are told apart.

    Attributes:
        label: Column or pattern.
        columns: The label columns.
        targets: [N] their labels.
        samples: [N] indices into the shard set.
        keys: Their keys.
        units: [N] unit numbers.
        unit: What a unit is: `subject`, `source`, another column's name, or `sample`.
        splits: Training and test rows.
        slices: Extra parts of the test rows, by name.
        groups: For each column by which the test rows are cut: their values, in the order of `splits.tested`.
        warnings: What a reader of the numbers has to know.
    """

    label: str
    columns: tuple[str, ...]
    targets: Targets
    samples: NDArray[np.int64]
    keys: tuple[str, ...]
    units: NDArray[np.int64]
    unit: str
    splits: Splits
    slices: dict[str, NDArray[np.int64]]
    groups: dict[str, tuple[str | None, ...]]
    warnings: tuple[str, ...]

    @property
    def tested(self) -> Targets:
        """Labels of the test rows, in the order of `splits.tested`, with the classes that means over classes are over.

        In a data set of its own a class that no test sample has stays in means with zero. Across data sets the tested
        one may have fewer classes by its nature.
        """
        targets = self.targets.take(self.splits.tested)
        if not self.splits.across or targets.kind != "classes":
            return targets
        return replace(targets, meant=tuple(int(number) for number in np.unique(targets.values)))

    def parts(self) -> dict[str, NDArray[np.int64]]:
        """Rows that are learnt from, that are only chosen on, and that are predicted."""
        found = {"train": self.splits.learnt, "test": self.splits.tested}
        judged = [inner.judge for folds in self.splits.repeats for fold in folds for inner in fold.inner]
        valid = np.setdiff1d(np.concatenate([np.empty(0, np.int64), *judged]), np.concatenate([*found.values()]))
        return {"train": found["train"], "valid": valid, "test": found["test"]} if len(valid) else found

    def counts(self) -> dict[str, dict[str, int | float]]:
        """Samples by part and class; for columns, positives; for shares, their sum; for numbers, those there are."""
        return {
            part: {"samples": len(rows), **dict(zip(self.targets.names, self._per_name(rows), strict=True))}
            for part, rows in self.parts().items()
        }

    def _per_name(self, rows: NDArray[np.int64]) -> list[int] | list[float]:
        values = self.targets.take(rows).values
        if self.targets.kind == "classes":
            return [int(count) for count in np.bincount(values, minlength=self.targets.width)]
        if self.targets.kind == "multilabel":
            return [int(count) for count in (values == 1).sum(axis=0)]
        if self.targets.kind == "distribution":
            return [round(float(total), 2) for total in values.sum(axis=0)]
        return [int(count) for count in (~np.isnan(values)).sum(axis=0)]


def make_task(
    columns: Columns,
    label: str,
    *,
    kind: Literal["auto"] | Kind = "auto",
    protocol: Protocol | None = None,
    unit: str | None = None,
    slices: Sequence[str] = (),
    groups: Sequence[str] = (),
    seed: int = 0,
    split: str = "split",
    classes: Sequence[str] = (),
    begins: Sequence[int] = (0,),
) -> Task:
    """Build a task from columns.

    Args:
        columns: Metadata of the samples.
        label: A column name; a pattern such as `AU*` or a comma-separated list means several columns.
        kind: What the labels are; `auto` takes classes for one column and multilabel for several.
        protocol: How training and test are told apart; None takes the official split.
        unit: Column whose values are independent of each other, or `sample`; None takes subject, else source, else
            near-duplicate cluster, else sample. Samples without a value are units of their own.
        slices: Extra test parts, each `column=value`, or `@FILE` with a key a line.
        groups: Columns by whose values the test rows are cut.
        seed: Seed of everything drawn.
        split: Column of the official parts; where it is another than `split`, samples without a value are left out.
        classes: Names of the classes in their order, those without samples too; empty takes them from the labels.
        begins: Number of the first sample of each shard set, where several are numbered through.

    Raises:
        ProbeError: Columns, labels or splits are missing, or a label is none of the classes.
    """
    protocol = protocol or Official()
    found = label_columns(columns, label)
    resolved: Kind = ("classes" if len(found) == 1 else "multilabel") if kind == "auto" else kind
    kept = ~unlabelled(columns, found, resolved)
    if not kept.any():
        raise ProbeError(f"column {label!r} has no value in the chosen samples", fix="look at --where and --label")
    left = _left_out(columns, label, split, ~kept)
    if split != "split":
        kept &= np.array([value is not None for value in columns.require(split, "to take the parts from")])
    columns = columns.take(np.flatnonzero(kept))
    units, unit_name, warnings = independent_units(columns, unit, begins)
    targets = read_targets(columns, found, resolved, classes)
    splits = protocol.split(Samples(columns, split, targets, units, unit_name, seed)).check()
    # Rows that play no part, such as those of no split, must not lend their classes to the metrics.
    used = splits.used
    columns, units, splits = columns.take(used), units[used], splits.renumbered(used)
    targets, more = _trained_classes(read_targets(columns, found, resolved, classes), splits, bool(classes))
    return Task(
        label=label,
        columns=tuple(found),
        targets=targets,
        samples=columns.samples,
        keys=tuple(str(key) for key in columns.values["key"]),
        units=units,
        unit=unit_name,
        splits=splits,
        slices=_slices(columns, slices, splits.tested),
        groups={name: _values(columns, name, splits.tested) for name in groups},
        warnings=(*left, *warnings, *splits.warnings, *more),
    )


def _left_out(columns: Columns, label: str, split: str, without: NDArray[np.bool_]) -> list[str]:
    """How many samples have no label, in all and by part: what is measured does not speak of them."""
    if not without.any():
        return []
    parts = columns.text(split) if split in columns.values else [None] * len(columns)
    counts = Counter(part or "no part" for part, none in zip(parts, without.tolist(), strict=True) if none)
    shown = ", ".join(f"{part} {count:,}" for part, count in sorted(counts.items()))
    return [f"{without.sum():,} of {len(columns):,} samples have no label {label!r} and are left out ({shown})"]


def _trained_classes(targets: Targets, splits: Splits, given: bool) -> tuple[Targets, list[str]]:
    """Classes that training lacks go last, unless an order is given: they can only be missed, and stay in metrics."""
    if targets.kind != "classes":
        return targets, []
    seen = set(targets.values[splits.learnt].tolist())
    if len(seen) < 2:
        raise ProbeError(
            f"the training split has one class, {targets.names[min(seen)]!r}", expected="two classes or more"
        )
    lacking = [number for number in range(targets.width) if number not in seen]
    warnings = [f"class {targets.names[number]!r} is not in the training split" for number in lacking]
    warnings += _missed_in_folds(targets, splits, set(lacking))
    warnings += _untested(targets, splits)
    if given or not lacking:
        return targets, warnings
    names = in_order({targets.names[number] for number in seen}) + in_order({targets.names[n] for n in lacking})
    place = np.array([names.index(name) for name in targets.names], dtype=np.int64)
    return Targets("classes", tuple(names), place[targets.values]), warnings


def _untested(targets: Targets, splits: Splits) -> list[str]:
    """Classes that no test sample has, and what means over classes make of them."""
    tested = set(targets.values[splits.tested].tolist())
    names = [repr(name) for number, name in enumerate(targets.names) if number not in tested]
    if not names:
        return []
    means = (
        f"macro means (UAR, macro F1, macro precision) are over the {len(tested)} others"
        if splits.across
        else "macro means (UAR, macro F1, macro precision) count zero for it"
    )
    return [f"no test sample is of class {', '.join(names)}: {means}"]


def _missed_in_folds(targets: Targets, splits: Splits, known: set[int]) -> list[str]:
    """Classes that some folds cannot learn, beside those that none can."""
    folds = [fold for each in splits.repeats for fold in each]
    found = []
    for number in sorted(set(range(targets.width)) - known):
        without = sum(not (targets.values[fold.train] == number).any() for fold in folds)
        if without:
            found.append(f"class {targets.names[number]!r} is not learnt in {without} of {len(folds)} folds")
    return found


def _slices(columns: Columns, texts: Sequence[str], test: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    names = [_slice_name(text) for text in texts]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ProbeError(f"two slices are called {twice[0]}", expected="different values, or files of different names")
    return {name: _slice(columns, text, test) for name, text in zip(names, texts, strict=True)}


def _slice_name(text: str) -> str:
    """Results are published: of a file its name is enough, its content decides."""
    return f"@{Path(text[1:]).name}" if text.startswith("@") else text


def _slice(columns: Columns, text: str, test: NDArray[np.int64]) -> NDArray[np.int64]:
    if text.startswith("@"):
        return _listed(columns, Path(text[1:]), test)
    name, equals, wanted = text.partition("=")
    if not equals or name not in columns.values:
        raise ProbeError(f"slice {text!r}", expected=f"@FILE, or COLUMN=VALUE with one of {', '.join(columns.values)}")
    values = columns.text(name)
    rows = np.array([row for row in test if values[row] == wanted], dtype=np.int64)
    if not len(rows):
        raise ProbeError(f"no test sample has {text}", expected=f"values {sorted({str(values[r]) for r in test})[:10]}")
    return rows


def _listed(columns: Columns, path: Path, test: NDArray[np.int64]) -> NDArray[np.int64]:
    with storage_errors(path, "reading"):
        keys = set(path.read_text(encoding="utf-8").split("\n")) - {""}
    own = columns.values["key"]
    rows = np.array([row for row in test if str(own[row]) in keys], dtype=np.int64)
    if not len(rows):
        raise ProbeError(f"none of the {len(keys)} keys in {path} is a test sample", expected="one key a line")
    return rows


def _values(columns: Columns, name: str, test: NDArray[np.int64]) -> tuple[str | None, ...]:
    values = columns.require(name, "to cut the test part by")
    return tuple(values[row] for row in test)
