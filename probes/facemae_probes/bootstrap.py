"""Percentile bootstrap over the units of independence.

Several samples of one subject or one source video are not independent, so whole units are drawn with replacement.
Every metric used here is a function of sums over samples, hence one pass over the samples gives sums per unit, and a
replicate is a product of draw counts with those sums. (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
ch. 13.)
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae.rng import generator
from facemae_probes.metrics import MISSING, TaskKind

Array = NDArray[np.float64]
METRICS = ("accuracy", "macro_f1")


@dataclass(frozen=True)
class Interval:
    """A value with its interval.

    Attributes:
        value: The point estimate.
        low: Lower end.
        high: Upper end.
        level: Coverage aimed at.
        unit: What was drawn: `subject`, `source` or `sample`.
        units: How many of them.
        replicates: Bootstrap replicates.
    """

    value: float
    low: float
    high: float
    level: float
    unit: str
    units: int
    replicates: int

    def to_json(self) -> dict[str, Any]:
        """A plain mapping."""
        return asdict(self)


def interval(
    truth: NDArray[np.int64],
    predicted: NDArray[np.int64],
    units: NDArray[np.int64],
    *,
    classes: int,
    kind: TaskKind,
    unit: str,
    metric: str = "accuracy",
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of one metric.

    Args:
        truth: [N] or [N, C] true labels.
        predicted: Same shape.
        units: [N] unit numbers.
        classes: Number of classes or columns.
        kind: What the labels are.
        unit: Name of the unit, carried in the result.
        metric: One of `METRICS`.
        replicates: Bootstrap replicates.
        level: Coverage aimed at.
        seed: Seed of the draws.
    """
    sums = _unit_sums(truth, predicted, units, classes, kind)
    values = np.concatenate(
        [_metric(draws @ sums, classes, kind, metric) for draws in _draws(len(sums), replicates, seed)]
    )
    value = float(_metric(sums.sum(axis=0, keepdims=True), classes, kind, metric)[0])
    return _from_replicates(value, values, level, unit, len(sums))


def paired_difference(
    truth: NDArray[np.int64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    units: NDArray[np.int64],
    *,
    classes: int,
    kind: TaskKind,
    unit: str,
    metric: str = "accuracy",
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of metric(first) - metric(second) on the same samples, with the same draws for both.

    Args:
        truth: [N] or [N, C] true labels.
        first: Predictions of the one.
        second: Predictions of the other.
        units: [N] unit numbers.
        classes: Number of classes or columns.
        kind: What the labels are.
        unit: Name of the unit.
        metric: One of `METRICS`.
        replicates: Bootstrap replicates.
        level: Coverage aimed at.
        seed: Seed of the draws.

    Raises:
        ProbeError: If the predictions are not for the same samples.
    """
    if len(first) != len(second) or len(first) != len(truth):
        raise ProbeError(
            f"paired predictions have {len(first)} and {len(second)} rows for {len(truth)} labels",
            expected="predictions of both models for the same test samples",
        )
    one = _unit_sums(truth, first, units, classes, kind)
    other = _unit_sums(truth, second, units, classes, kind)
    values = np.concatenate(
        [
            _metric(draws @ one, classes, kind, metric) - _metric(draws @ other, classes, kind, metric)
            for draws in _draws(len(one), replicates, seed)
        ]
    )
    totals = [_metric(sums.sum(axis=0, keepdims=True), classes, kind, metric)[0] for sums in (one, other)]
    return _from_replicates(float(totals[0] - totals[1]), values, level, unit, len(one))


def _from_replicates(value: float, values: Array, level: float, unit: str, units: int) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level, unit, units, len(values))


def _draws(units: int, replicates: int, seed: int) -> Iterator[Array]:
    # Blocks bound the memory: a block of draw counts holds about 2 million numbers.
    block = max(1, 2_000_000 // max(units, 1))
    even = np.full(units, 1 / units)
    for start in range(0, replicates, block):
        rng = generator(seed, "bootstrap", start)
        yield rng.multinomial(units, even, size=min(block, replicates - start)).astype(np.float64)


def _unit_sums(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], units: NDArray[np.int64], classes: int, kind: TaskKind
) -> Array:
    """Sums per unit [U, 5, C] flattened: true positives, predicted, true, correct, counted."""
    if not len(truth):
        raise ProbeError("there is no test sample to draw from", expected="a test split or slice with samples")
    if kind == "classes":
        eye = np.eye(classes)
        is_true, is_predicted = eye[truth], eye[predicted]
        correct = is_true * (truth == predicted)[:, None]
        counted = is_true
    else:
        known = truth != MISSING
        is_true, is_predicted = (truth == 1).astype(float), ((predicted == 1) & known).astype(float)
        correct = ((truth == predicted) & known).astype(float)
        counted = known.astype(float)
    per_sample = np.stack([is_true * is_predicted, is_predicted, is_true, correct, counted], axis=1)
    _, codes = np.unique(units, return_inverse=True)
    sums = np.zeros((codes.max() + 1, 5 * classes))
    np.add.at(sums, codes, per_sample.reshape(len(truth), -1))
    return sums


def _metric(sums: Array, classes: int, kind: TaskKind, metric: str) -> Array:
    positives, predicted, true, correct, counted = np.moveaxis(sums.reshape(len(sums), 5, classes), 1, 0)
    if metric == "macro_f1":
        denominator = predicted + true
        f1 = np.divide(2 * positives, denominator, out=np.zeros_like(positives), where=denominator > 0)
        return np.asarray(f1.mean(axis=1))
    if metric != "accuracy":
        raise ProbeError(f"no bootstrap for metric {metric!r}", expected=f"one of {', '.join(METRICS)}")
    if kind == "classes":
        return np.asarray(correct.sum(axis=1) / counted.sum(axis=1))
    ratio = np.divide(correct, counted, out=np.zeros_like(correct), where=counted > 0)
    return np.asarray(ratio.mean(axis=1))
