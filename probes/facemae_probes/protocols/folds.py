"""Cross-validation over units: k parts drawn, the owner's parts, or one part a unit (leave one subject out)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from facemae.errors import ProbeError
from facemae_probes.protocols.base import Fold, Protocol, Rows, Samples, Splits
from facemae_probes.protocols.draw import group_folds, inner_folds
from facemae_probes.tasks.units import SAMPLE

INNER = 3
"""Parts of the inner cross-validation."""
PREDICTED = "every sample is predicted once by a model that saw none of its unit; metrics are of the pooled predictions"


@dataclass(frozen=True)
class KFold(Protocol):
    """Units are drawn into k parts with like shares of the classes; official splits play no role.

    Attributes:
        count: k.
    """

    form: ClassVar[str] = "kfold:K"
    count: int = 5

    @property
    def name(self) -> str:
        """`kfold:K`."""
        return f"kfold:{self.count}"

    def split(self, samples: Samples) -> Splits:
        """K folds.

        Raises:
            ProbeError: There are fewer units than folds.
        """
        have = len(np.unique(samples.units))
        if have < self.count:
            raise ProbeError(f"{have} units ({samples.unit}) for {self.count} folds", expected="at least as many units")
        rows = np.arange(len(samples))
        parts = group_folds(rows, samples.units, samples.targets, self.count, samples.seed, "folds")
        about = f"{self.count} parts of whole units ({samples.unit}), seed {samples.seed}; {PREDICTED}"
        return crossed(self.name, about, [(str(number), part) for number, part in enumerate(parts, 1)], samples)


@dataclass(frozen=True)
class GivenFolds(Protocol):
    """The owner's folds: each value of a column is tested once.

    Attributes:
        column: The column.
    """

    form: ClassVar[str] = "folds:COLUMN"
    column: str = "fold"

    @property
    def name(self) -> str:
        """`folds:COLUMN`."""
        return f"folds:{self.column}"

    def split(self, samples: Samples) -> Splits:
        """A fold for each value; samples without one are learnt from in no fold.

        Raises:
            ProbeError: There is no such column, it has one value, or a unit is in several folds.
        """
        values = samples.columns.require(self.column, "of folds")
        names = sorted({value for value in values if value is not None}, key=lambda name: (len(name), name))
        if len(names) < 2:
            raise ProbeError(f"column {self.column!r} has {len(names)} values", expected="two folds or more")
        parts = [(name, np.array([row for row, value in enumerate(values) if value == name])) for name in names]
        _refuse_shared(parts, samples)
        about = f"the folds of column {self.column!r}; {PREDICTED}"
        return crossed(self.name, about, parts, samples)


@dataclass(frozen=True)
class LeaveOneOut(Protocol):
    """Leave one subject out (LOSO): each unit is predicted by a model of all others."""

    form: ClassVar[str] = "loso"

    @property
    def name(self) -> str:
        """`loso`."""
        return self.form

    def split(self, samples: Samples) -> Splits:
        """A fold for each unit.

        Raises:
            ProbeError: There are fewer than three units, or the unit is the single sample.
        """
        if samples.unit in (SAMPLE, "cluster"):
            raise ProbeError(
                f"loso without subjects: the unit is the {samples.unit}",
                expected="a column subject, or another unit",
                fix="--unit COLUMN names it; --protocol kfold:K goes without",
            )
        known = np.unique(samples.units)
        if len(known) < 3:
            raise ProbeError(f"loso with {len(known)} units ({samples.unit})", expected="three or more")
        parts = [(_unit_name(samples, number), np.flatnonzero(samples.units == number)) for number in known]
        about = f"one {samples.unit} left out at a time; {PREDICTED}"
        return crossed(self.name, about, parts, samples)


def crossed(name: str, about: str, parts: list[tuple[str, Rows]], samples: Samples) -> Splits:
    """Folds that each test one part and learn from the others, with cross-validation over units inside.

    Args:
        name: The protocol's name.
        about: What it does.
        parts: Name and rows of each part.
        samples: The samples.
    """
    every = np.sort(np.concatenate([rows for _, rows in parts]))
    folds = []
    for label, test in parts:
        train = np.setdiff1d(every, test)
        inner = inner_folds(train, samples.units, samples.targets, INNER, samples.seed, "inner", label)
        folds.append(Fold(label, train, test, inner, refit=True))
    chosen_on = f"training units of each fold ({samples.unit}), cross-validated in {INNER} parts"
    return Splits(name, about, chosen_on, (tuple(folds),))


def _unit_name(samples: Samples, number: int) -> str:
    row = int(np.flatnonzero(samples.units == number)[0])
    values = samples.columns.text(samples.unit)
    return values[row] or str(samples.columns.values["key"][row])


def _refuse_shared(parts: list[tuple[str, Rows]], samples: Samples) -> None:
    seen: dict[int, str] = {}
    for name, rows in parts:
        for unit in np.unique(samples.units[rows]).tolist():
            if unit in seen:
                raise ProbeError(
                    f"{samples.unit} {_unit_name(samples, unit)!r} is in the folds {seen[unit]} and {name}",
                    expected="folds that share no unit",
                    fix="--unit names another column; --unit sample takes every sample as independent",
                )
            seen[unit] = name
