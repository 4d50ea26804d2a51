"""Metrics of the order of scores: area under the ROC curve, and average precision.

One class against the rest, or each binary column. A class with no positive or no negative sample has no such value and
takes no part in the mean; in a draw likewise.

Scores of different models are not on one scale. Where predictions are pooled over folds these metrics compare across
folds too, which F1 and accuracy do not (Forman and Scholz, Apples-to-apples in cross-validation studies, SIGKDD
Explorations 2010).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn import metrics as sk

from facemae_probes.metrics.base import Array, Metric, Predicted, Statistic, Units, ratio
from facemae_probes.tasks.targets import MISSING, Kind

RANKED: tuple[Kind, ...] = ("classes", "multilabel", "distribution")


@dataclass(frozen=True)
class _Levels:
    """Samples per unit at and between the D different scores of positives, from low to high.

    Attributes:
        positives: [D, U] positives with each score.
        negatives: [2D + 1, U] negatives: row 2d are those between score d - 1 and d, row 2d + 1 those tied with d.
    """

    positives: csr_array
    negatives: csr_array


def _levels(positive: NDArray[np.bool_], scores: Array, samples: NDArray[np.int64], units: Units) -> _Levels:
    levels, places = np.unique(scores[positive], return_inverse=True)
    below = scores[~positive]
    rows = np.searchsorted(levels, below, "left") + np.searchsorted(levels, below, "right")
    return _Levels(
        units.table(places, samples[positive], len(levels)),
        units.table(rows, samples[~positive], 2 * len(levels) + 1),
    )


def _area(sums: _Levels, counts: Array) -> Array:
    """The Mann-Whitney statistic: pairs in which the positive has the larger score, ties as half pairs."""
    positives, negatives = sums.positives @ counts, sums.negatives @ counts
    below = np.cumsum(negatives, axis=0)[:-1:2]
    pairs = (positives * (below + negatives[1::2] / 2)).sum(axis=0)
    return ratio(pairs, positives.sum(axis=0) * negatives.sum(axis=0), np.nan)


def _precision(sums: _Levels, counts: Array) -> Array:
    """Precision at the score of each positive, averaged over positives."""
    positives, negatives = sums.positives @ counts, sums.negatives @ counts
    total = negatives.sum(axis=0)
    above = total - np.cumsum(negatives, axis=0)[:-1:2]
    found = np.cumsum(positives[::-1], axis=0)[::-1]
    return ratio((positives * ratio(found, found + above, 0.0)).sum(axis=0), positives.sum(axis=0), np.nan)


def _columns(predicted: Predicted) -> list[tuple[NDArray[np.bool_], Array, NDArray[np.int64]]]:
    """For each class or column: which samples are positive, their scores, and their numbers."""
    targets, everything = predicted.targets, np.arange(len(predicted))
    if targets.kind != "multilabel":
        truth = targets.majority()
        return [(truth == c, predicted.scores[:, c], everything) for c in range(targets.width)]
    known = [np.flatnonzero(targets.values[:, c] != MISSING) for c in range(targets.width)]
    return [(targets.values[rows, c] == 1, predicted.scores[rows, c], rows) for c, rows in enumerate(known)]


def _ranking(
    compute: Callable[[_Levels, Array], Array], score: Callable[..., Any], *, needs_negatives: bool
) -> dict[str, Any]:
    def point(predicted: Predicted) -> Array:
        return np.array(
            [
                score(positive, scores) if positive.any() and not (needs_negatives and positive.all()) else np.nan
                for positive, scores, _ in _columns(predicted)
            ],
            dtype=np.float64,
        )

    def statistic(predicted: Predicted, units: Units) -> Statistic:
        columns = [_levels(positive, scores, rows, units) for positive, scores, rows in _columns(predicted)]
        return lambda counts: np.stack([compute(levels, counts) for levels in columns])

    return {"point": point, "statistic": statistic, "kinds": RANKED, "columns": RANKED, "ranked": True}


METRICS = (
    Metric("auc", "AUC", column="auc", **_ranking(_area, sk.roc_auc_score, needs_negatives=True)),
    Metric(
        "mean_average_precision",
        "mean average precision",
        column="average_precision",
        **_ranking(_precision, sk.average_precision_score, needs_negatives=False),
    ),
)
