"""From similarities to numbers: thresholds, accuracy, ROC, and intervals that know what pairs share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae_probes.metrics.draws import bootstrap

Array = NDArray[np.float64]
RATES = (1e-2, 1e-3)
"""False accept rates at which the true accept rate is told."""
ENOUGH = 3
"""False accepts that must be possible at such a rate. Where none is seen among n pairs the rate is below 3/n with 95 %
confidence, so that with fewer pairs it could not be told from zero (Hanley and Lippman-Hand 1983)."""
LEVEL = 0.95


def best_threshold(similarities: Array, same: NDArray[np.bool_]) -> tuple[float, float]:
    """The threshold with the most right answers, and their share; `same` is answered from the threshold upwards.

    Of several the middle one, half-way between two similarities; so it depends on no order of the pairs.

    Args:
        similarities: [P].
        same: Truth, bool [P].
    """
    values, inverse = np.unique(similarities, return_inverse=True)
    yes = np.bincount(inverse, weights=same, minlength=len(values))
    no = np.bincount(inverse, weights=~same, minlength=len(values))
    # Right where the threshold lies below value i: everybody from i upwards is accepted.
    right = np.append(yes[::-1].cumsum()[::-1], 0) + np.append(0, no.cumsum())
    best = np.flatnonzero(right == right.max())
    place = int(best[(len(best) - 1) // 2])
    edges = np.concatenate([[values[0] - 1], (values[1:] + values[:-1]) / 2, [values[-1] + 1]])
    return float(edges[place]), float(right[place]) / len(same)


@dataclass(frozen=True)
class Answers:
    """What was answered on every pair, each by what was chosen without its fold.

    Attributes:
        margins: Similarity less threshold, over the standard deviation of the similarities it was chosen on, [P]: folds
            with other layers have other scales.
        same: Truth, bool [P].
        folds: int64 [P].
    """

    margins: Array
    same: NDArray[np.bool_]
    folds: NDArray[np.int64]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the answer is right, bool [P]."""
        found: NDArray[np.bool_] = (self.margins >= 0) == self.same
        return found

    def by_fold(self) -> Array:
        """Accuracy of each fold."""
        return np.bincount(self.folds, weights=self.right) / np.bincount(self.folds)


def accuracy(answers: Answers, weights: Array) -> Array:
    """Mean over folds of the accuracy, for weights of pairs [P, B]; every fold counts as much."""
    share = weights / np.bincount(answers.folds)[answers.folds][:, None]
    with np.errstate(invalid="ignore"):
        found: Array = share[answers.right].sum(axis=0) / share.sum(axis=0)
    return found


def _cumulated(answers: Answers, weights: Array) -> tuple[Array, Array]:
    """Weights of pairs of the same and of others at every margin, from the highest down: [V, B] each."""
    order = np.argsort(-answers.margins, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(answers.margins[order]) != 0))
    ordered, same = weights[order], answers.same[order][:, None]
    return np.add.reduceat(ordered * same, starts), np.add.reduceat(ordered * ~same, starts)


def area(answers: Answers, weights: Array) -> Array:
    """Area under the ROC curve over all pairs, for weights [P, B]; ties count half."""
    yes, no = _cumulated(answers, weights)
    below = no.sum(axis=0) - no.cumsum(axis=0) + no / 2
    with np.errstate(invalid="ignore"):
        found: Array = (yes * below).sum(axis=0) / (yes.sum(axis=0) * no.sum(axis=0))
    return found


def true_accepts(rate: float) -> Callable[[Answers, Array], Array]:
    """The share of pairs of the same person that are accepted where at most `rate` of the others are."""

    def measure(answers: Answers, weights: Array) -> Array:
        yes, no = _cumulated(answers, weights)
        # Less than one pair of rounding.
        accepted = no.cumsum(axis=0) <= rate * no.sum(axis=0) + 1e-9
        with np.errstate(invalid="ignore"):
            found: Array = (yes * accepted).sum(axis=0) / yes.sum(axis=0)
        return found

    return measure


@dataclass(frozen=True)
class Units:
    """What is drawn for intervals.

    Attributes:
        name: `person` or `fold`.
        first: Unit of each pair's first image, int64 [P].
        second: Of its second.
        count: Units in all.
    """

    name: str
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    count: int

    def weights(self, draws: Array) -> Array:
        """How often each pair is drawn, [P, B], for draws of units [U, B]."""
        once = draws[self.first]
        found: Array = np.where((self.first == self.second)[:, None], once, once * draws[self.second])
        return found


NOTES = {
    "person": "persons are drawn with replacement; a pair of two persons counts as often as the product of their draws "
    "(Owen 2007, the pigeonhole bootstrap), since pairs that share a person are not independent; thresholds and "
    "settings are kept",
    "fold": "whole folds are drawn with replacement, since who is on the images is not known; thresholds and settings "
    "are kept, and so few units make a rough interval",
}
"""What has to be said of an interval, by unit."""


def measures(answers: Answers, units: Units, *, replicates: int, seed: int) -> dict[str, Any]:
    """Accuracy, area under the ROC curve, and true accept rates, with percentile intervals.

    Args:
        answers: The answers.
        units: What is drawn.
        replicates: Draws.
        seed: Of the draws.

    Returns:
        By name `value`, `low`, `high`; a rate for which there are too few pairs has `reason` instead.
    """
    others = int((~answers.same).sum())
    found: dict[str, Any] = {}
    wanted: dict[str, Callable[[Answers, Array], Array]] = {"accuracy": accuracy, "auc": area}
    for rate in RATES:
        name = f"tar@far={rate:g}"
        if rate * others >= ENOUGH:
            wanted[name] = true_accepts(rate)
        else:
            needed = f"{round(ENOUGH / rate)} pairs of different persons are needed, there are {others}"
            found[name] = {"value": None, "low": None, "high": None, "reason": needed}
    ones = np.ones((len(answers.same), 1))
    blocks: dict[str, list[Array]] = {name: [] for name in wanted}
    for draws in bootstrap(units.count, replicates, seed, samples=8 * len(answers.same)):
        weights = units.weights(draws)
        for name, measure in wanted.items():
            blocks[name].append(measure(answers, weights))
    tails = (100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2)
    for name, measure in wanted.items():
        drawn = np.concatenate(blocks[name]) if blocks[name] else np.zeros(0)
        drawn = drawn[np.isfinite(drawn)]
        low, high = np.percentile(drawn, tails).tolist() if len(drawn) and units.count > 1 else (None, None)
        found[name] = {"value": float(measure(answers, ones)[0]), "low": low, "high": high}
    return found
