"""Metrics of predicted numbers, by column; samples whose number is missing are left out of that column.

A correlation of numbers that do not vary is undefined: such a column, or draw, has no value.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import metrics as sk

from facemae_probes.metrics.base import Array, Metric, Predicted, Statistic, Units, ratio
from facemae_probes.tasks.targets import Kind

NUMBERS: tuple[Kind, ...] = ("regression",)


def _errors(
    score: Callable[..., float], error: Callable[[Array], Array], last: Callable[[Array], Array]
) -> dict[str, Any]:
    """Point and statistic of a metric that is a function `last` of a mean of errors."""

    def point(predicted: Predicted) -> Array:
        known, truth = predicted.targets.known, predicted.targets.values
        columns = [(truth[rows, c], predicted.scores[rows, c]) for c, rows in enumerate(known.T)]
        return np.array([score(t, p) if len(t) else np.nan for t, p in columns], dtype=np.float64)

    def statistic(predicted: Predicted, units: Units) -> Statistic:
        samples, columns = np.nonzero(predicted.targets.known)
        errors = error(predicted.scores[samples, columns] - predicted.targets.values[samples, columns])
        total = units.table(columns, samples, predicted.targets.width, errors)
        count = units.table(columns, samples, predicted.targets.width)
        return lambda counts: last(ratio(total @ counts, count @ counts, np.nan))

    return {"point": point, "statistic": statistic, "higher": False}


def _moments(predicted: Predicted, units: Units) -> Callable[[Array], tuple[Array, Array, Array, Array]]:
    """Makes [C, B] variances of truth and prediction, covariance, and difference of the means, with divisor N.

    Sums of squares lose digits where numbers are far from zero; so each column is moved by its median before. Of equal
    numbers the median is exact, which keeps their variance at zero.
    """
    known = predicted.targets.known
    samples, columns = np.nonzero(known)
    truth, guess = predicted.targets.values[samples, columns], predicted.scores[samples, columns]
    middles = np.zeros((2, predicted.targets.width))
    for c in range(predicted.targets.width):
        if known[:, c].any():
            middles[:, c] = np.median(truth[columns == c]), np.median(guess[columns == c])
    truth, guess = truth - middles[0, columns], guess - middles[1, columns]
    weights = (np.ones(len(truth)), truth, guess, truth**2, guess**2, truth * guess)
    tables = [units.table(columns, samples, predicted.targets.width, weight) for weight in weights]

    def moments(counts: Array) -> tuple[Array, Array, Array, Array]:
        count, *sums = (table @ counts for table in tables)
        t, p, tt, pp, tp = (ratio(each, count, np.nan) for each in sums)
        return _variance(tt, t), _variance(pp, p), tp - t * p, t - p + (middles[0] - middles[1])[:, None]

    return moments


def _variance(square: Array, mean: Array) -> Array:
    found = square - mean**2
    return np.where(found <= 1e-12 * square, 0.0, found)


def _ccc(predicted: Predicted, units: Units) -> Statistic:
    """Concordance correlation.

    Lin, A concordance correlation coefficient to evaluate reproducibility, Biometrics 1989, with divisor N as there.
    """
    moments = _moments(predicted, units)

    def statistic(counts: Array) -> Array:
        truth, guess, both, shift = moments(counts)
        # Nothing varies and the means agree: 0 / 0.
        return ratio(2 * both, truth + guess + shift**2, np.nan)

    return statistic


def _pearson(predicted: Predicted, units: Units) -> Statistic:
    moments = _moments(predicted, units)

    def statistic(counts: Array) -> Array:
        truth, guess, both, _ = moments(counts)
        return ratio(both, np.sqrt(truth * guess), np.nan)

    return statistic


METRICS = (
    Metric("ccc", "CCC", NUMBERS, _ccc, column="ccc", columns=NUMBERS),
    Metric("pearson", "Pearson correlation", NUMBERS, _pearson, column="pearson", columns=NUMBERS),
    Metric(
        "rmse",
        "RMSE",
        NUMBERS,
        column="rmse",
        columns=NUMBERS,
        **_errors(sk.root_mean_squared_error, np.square, np.sqrt),
    ),
    Metric(
        "mae",
        "MAE",
        NUMBERS,
        column="mae",
        columns=NUMBERS,
        **_errors(sk.mean_absolute_error, np.abs, lambda mean: mean),
    ),
)
