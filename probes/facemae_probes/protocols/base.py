"""What a protocol is: folds, and in each of them what choices are made on.

Choices (layer, pooling, strength, epochs, thresholds) are made on training samples only, anew in every fold. A protocol
that does otherwise says so in `Splits.on_test`, and every print of its numbers carries that.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae_probes.tasks.columns import Columns
from facemae_probes.tasks.targets import Targets
from facemae_probes.tasks.units import SAMPLE

Rows = NDArray[np.int64]
"""Numbers of samples of a task."""


@dataclass(frozen=True)
class Inner:
    """One way to choose: candidates are fitted on some rows and judged on others."""

    fit: Rows
    judge: Rows


@dataclass(frozen=True)
class Fold:
    """Training and test rows, and how settings are chosen in between.

    Attributes:
        name: Which fold it is.
        train: Rows for learning.
        test: Rows to be predicted.
        inner: Ways to choose, whose judgements are pooled; with none, nothing is chosen and defaults are taken.
        refit: Whether the chosen candidate is fitted again on all of `train`; otherwise the fit of the only inner way
            stays.
    """

    name: str
    train: Rows
    test: Rows
    inner: tuple[Inner, ...]
    refit: bool

    def __post_init__(self) -> None:
        if not self.refit and len(self.inner) != 1:
            raise ValueError("a fit can only stay where there is one inner way")

    def rows(self) -> tuple[Rows, ...]:
        """All rows of it, several times each."""
        return (self.train, self.test, *(rows for way in self.inner for rows in (way.fit, way.judge)))


@dataclass(frozen=True)
class Splits:
    """All folds of a protocol.

    Attributes:
        protocol: Its name with its numbers, such as `kfold:5`.
        about: What it does, in a sentence for the report.
        chosen_on: What settings are chosen on.
        repeats: Each predicts every one of its test rows once, by its folds; all repeats have the same test rows.
        on_test: Whether choices saw test labels: never a headline.
        one_threshold: Whether all binary columns share one threshold of 0.01 to 0.99, as one system has it.
        drawn_from: Further rows that training rows are drawn from; their features are computed with the others, so that
            protocols share them.
        across: Whether another data set is tested than is learnt from; classes that it never has are in no mean then.
        warnings: What a reader has to know.
    """

    protocol: str
    about: str
    chosen_on: str
    repeats: tuple[tuple[Fold, ...], ...]
    on_test: bool = False
    one_threshold: bool = False
    drawn_from: Rows | None = field(default=None, repr=False)
    across: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def used(self) -> Rows:
        """The rows that play any part, ascending."""
        rows = [rows for folds in self.repeats for fold in folds for rows in fold.rows()]
        return np.unique(np.concatenate([*rows, *([] if self.drawn_from is None else [self.drawn_from])]))

    def renumbered(self, used: Rows) -> "Splits":
        """The same with rows numbered as they lie in `used`."""

        def place(rows: Rows) -> Rows:
            return np.asarray(np.searchsorted(used, rows), dtype=np.int64)

        def fold_of(fold: Fold) -> Fold:
            inner = tuple(Inner(place(way.fit), place(way.judge)) for way in fold.inner)
            return replace(fold, train=place(fold.train), test=place(fold.test), inner=inner)

        repeats = tuple(tuple(fold_of(fold) for fold in folds) for folds in self.repeats)
        return replace(self, repeats=repeats, drawn_from=None)

    @property
    def tested(self) -> Rows:
        """The rows that are predicted, ascending."""
        return np.sort(np.concatenate([fold.test for fold in self.repeats[0]]))

    @property
    def learnt(self) -> Rows:
        """The rows that are learnt from in any fold, ascending."""
        return np.unique(np.concatenate([fold.train for folds in self.repeats for fold in folds]))

    def check(self) -> "Splits":
        """The same splits.

        Raises:
            ProbeError: A fold has no training or test rows, a row is predicted twice, or test rows were learnt from.
        """
        for folds in self.repeats:
            for fold in folds:
                if not len(fold.train) or not len(fold.test):
                    raise ProbeError(
                        f"fold {fold.name} of {self.protocol} has {len(fold.train)} training and {len(fold.test)} "
                        "test samples",
                        expected="both",
                    )
                seen = [fold.train, *(inner.fit for inner in fold.inner)]
                seen += [] if self.on_test else [inner.judge for inner in fold.inner]
                if any(len(np.intersect1d(rows, fold.test)) for rows in seen):
                    raise ProbeError(f"fold {fold.name} of {self.protocol} learns from samples that it predicts")
            tested = np.concatenate([fold.test for fold in folds])
            if len(np.unique(tested)) != len(tested) or not np.array_equal(np.sort(tested), self.tested):
                raise ProbeError(f"{self.protocol} does not predict each test sample once in each repeat")
        return self


@dataclass(frozen=True)
class Samples:
    """What a protocol may look at.

    Attributes:
        columns: Metadata of N samples.
        split: Column of the official parts.
        targets: Their labels.
        units: [N] unit numbers.
        unit: What a unit is.
        seed: Seed of everything drawn.
    """

    columns: Columns
    split: str
    targets: Targets
    units: NDArray[np.int64] = field(repr=False)
    unit: str = SAMPLE
    seed: int = 0

    def __len__(self) -> int:
        return len(self.units)


class Protocol(ABC):
    """A way of making folds."""

    form: ClassVar[str]
    """How it is written on the command line."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name with its numbers; reads back as the same protocol."""

    @abstractmethod
    def split(self, samples: Samples) -> Splits:
        """Make the folds.

        Raises:
            ProbeError: The samples do not allow it.
        """
