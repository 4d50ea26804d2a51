"""What a metric is, and what it is computed from.

Every metric here can be computed for samples that count several times or not at all. That is what the bootstrap and the
paired test need: a draw is a number of times for each unit of independence, and thousands of draws are one matrix.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from facemae.errors import ProbeError
from facemae_probes.tasks.targets import Kind, Targets

Array: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Statistic: TypeAlias = Callable[[Array], Array]
"""From [U, B], how often each of U units counts in each of B draws, to values [C, B], or [1, B] of a metric that has
one value for all classes. NaN where the draw leaves the value undefined."""


@dataclass(frozen=True)
class Predicted:
    """Labels of N samples with what a model says of them.

    Attributes:
        targets: The true labels.
        scores: float64 [N, C].
        thresholds: float64 [N, C], thresholds fitted on training units, of each sample since folds have their own; None
            where there are none.
    """

    targets: Targets
    scores: Array
    thresholds: Array | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: NDArray[Any]) -> "Predicted":
        """Those of some samples, by numbers or by a mask."""
        thresholds = None if self.thresholds is None else self.thresholds[rows]
        return Predicted(self.targets.take(rows), self.scores[rows], thresholds)


@dataclass(frozen=True)
class Units:
    """Which unit of independence each sample belongs to.

    Attributes:
        codes: [N] of 0 to U - 1.
        count: U.
    """

    codes: Integers
    count: int

    @classmethod
    def of(cls, numbers: NDArray[Any]) -> "Units":
        """From any unit numbers [N]."""
        known, codes = np.unique(numbers, return_inverse=True)
        return cls(codes.astype(np.int64), len(known))

    def take(self, rows: NDArray[Any]) -> "Units":
        """Those of some samples; the units that no sample is left of stay counted, so that draws fit."""
        return Units(self.codes[rows], self.count)

    def table(self, rows: NDArray[Any], samples: NDArray[Any], height: int, weights: Array | None = None) -> csr_array:
        """Sums per unit [height, U]: sample `samples[i]` adds `weights[i]`, or one, to row `rows[i]`."""
        values = np.ones(len(rows)) if weights is None else weights
        # Sums of the entries of one unit are made once, here, and not again for every draw.
        return coo_array((values, (rows, self.codes[samples])), shape=(height, self.count)).tocsr()


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: Its name.
        title: What reports call it.
        kinds: The kinds of labels that it is for.
        statistic: Makes its `Statistic` for predictions and units.
        point: From predictions to values [C] or [1], where a library has the metric; None takes the statistic of all
            samples counted once. NaN where undefined.
        higher: Whether larger is better.
        column: What its value for one class or column is called, as in `recall:happy`.
        columns: The kinds for which it has such values; the metric is their mean over those that are defined.
        alias: Another name that the field uses for it where samples have classes.
        fitted: Whether it needs thresholds fitted on training units.
        ranked: Whether only the order of scores within a column matters.
    """

    name: str
    title: str
    kinds: tuple[Kind, ...]
    statistic: Callable[[Predicted, Units], Statistic]
    point: Callable[[Predicted], Array] | None = None
    higher: bool = True
    column: str = ""
    columns: tuple[Kind, ...] = ()
    alias: str | None = None
    fitted: bool = False
    ranked: bool = False

    def values(self, predicted: Predicted) -> Array:
        """[C], or [1] of a metric without columns: the values of these predictions; NaN where undefined."""
        if not len(predicted):
            return np.full(predicted.targets.width if predicted.targets.kind in self.columns else 1, np.nan)
        if self.point is not None:
            return self.point(predicted)
        everything = Units(np.zeros(len(predicted), dtype=np.int64), 1)
        return np.asarray(self.statistic(predicted, everything)(np.ones((1, 1)))[:, 0])


def mean_of_defined(values: Array) -> Array:
    """[C, ...] to [...]: the mean over the classes or columns that have a value; NaN where none has."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    total = np.where(defined, values, 0.0).sum(axis=0)
    return ratio(total, count, np.nan)


def ratio(above: Array, below: NDArray[Any], otherwise: float) -> Array:
    """Above / below, and `otherwise` where below is zero."""
    shape = np.broadcast_shapes(above.shape, below.shape)
    return np.asarray(np.divide(above, below, out=np.full(shape, otherwise), where=below > 0), dtype=np.float64)


def as_predicted(targets: Targets, scores: NDArray[Any], thresholds: NDArray[Any] | None = None) -> list[Predicted]:
    """Check scores against labels.

    Args:
        targets: Labels of N samples.
        scores: [N, C], or [R, N, C] of R repeats on the same samples, such as few-shot draws.
        thresholds: Numbers that broadcast to the scores: [C], [N, C], [R, 1, C] or [R, N, C].

    Returns:
        One for each repeat.

    Raises:
        ProbeError: Shapes do not fit, or scores are not finite or no probabilities.
    """
    wanted = (len(targets), targets.width)
    stacked = scores[None] if scores.ndim == 2 else scores
    if stacked.ndim != 3 or stacked.shape[1:] != wanted or not len(stacked):
        raise ProbeError(
            f"scores of shape {scores.shape} for {wanted[0]} samples with {wanted[1]} classes or columns",
            expected=f"[{wanted[0]}, {wanted[1]}], or [repeats, {wanted[0]}, {wanted[1]}]",
        )
    if not np.isfinite(scores).all():
        raise ProbeError("scores that are not finite", expected="numbers from a head that was fitted")
    if targets.kind != "regression" and scores.size and (scores.min() < -1e-4 or scores.max() > 1 + 1e-4):
        raise ProbeError(
            f"scores from {scores.min():.4g} to {scores.max():.4g} for labels of kind {targets.kind}",
            expected="probabilities from 0 to 1",
            fix="give softmax or sigmoid of logits",
        )
    stacked = stacked.astype(np.float64)
    limits: list[Array | None] = [None] * len(stacked)
    if thresholds is not None:
        try:
            limits = list(np.broadcast_to(np.asarray(thresholds, dtype=np.float64), stacked.shape))
        except ValueError:
            raise ProbeError(
                f"thresholds of shape {np.shape(thresholds)} for scores of shape {scores.shape}",
                expected="one a column, or one a sample and column",
            ) from None
    return [Predicted(targets, each, limit) for each, limit in zip(stacked, limits, strict=True)]
