"""Two models on the same samples: interval of the difference, and a randomisation test."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from facemae.errors import ProbeError
from facemae_probes.metrics.base import Array, Predicted, Units, as_predicted
from facemae_probes.metrics.draws import bootstrap, replicate_values, swaps
from facemae_probes.metrics.intervals import Interval, checked_units, summarise
from facemae_probes.metrics.registry import measure_of
from facemae_probes.tasks.targets import Targets


@dataclass(frozen=True)
class PairedTest:
    """What a paired randomisation test found.

    Attributes:
        metric: Name of what was compared.
        difference: metric(first) - metric(second).
        p: Two-sided p-value.
        unit: What changed places: `subject`, `source` or `sample`.
        units: How many of them.
        replicates: Random swaps.
    """

    metric: str
    difference: float
    p: float
    unit: str
    units: int
    replicates: int

    def to_json(self) -> dict[str, Any]:
        """A plain mapping."""
        return asdict(self)


def paired_difference(
    targets: Targets,
    first: NDArray[Any],
    second: NDArray[Any],
    units: NDArray[Any],
    metric: str,
    *,
    unit: str,
    thresholds: tuple[NDArray[Any], NDArray[Any]] | None = None,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of metric(first) - metric(second), with the same draws for both.

    Args:
        targets: Labels of N samples.
        first: Scores of the one, [N, C] or [R, N, C].
        second: Scores of the other, of the same shape.
        units: [N] unit numbers.
        metric: Name; see `find_metric`. The difference is not turned around where lower is better.
        unit: Name of the unit.
        thresholds: Fitted thresholds of each.
        replicates: Bootstrap replicates.
        level: Coverage aimed at.
        seed: Seed of the draws.

    Raises:
        ProbeError: The scores are not for the same samples, or there is none.
        UsageError: The metric does not exist for these labels.
    """
    drawn = checked_units(targets, units)
    measure = measure_of(metric, targets)
    one, other = _both(targets, first, second, thresholds)
    values = replicate_values(
        [measure.statistic(one, drawn), measure.statistic(other, drawn)],
        bootstrap(drawn.count, replicates, seed, samples=len(targets)),
    )
    points = [a - b for a, b in zip(measure.values(one), measure.values(other), strict=True)]
    return summarise(metric, points, values[0] - values[1], level=level, unit=unit, units=drawn.count)


def paired_test(
    targets: Targets,
    first: NDArray[Any],
    second: NDArray[Any],
    units: NDArray[Any],
    metric: str,
    *,
    unit: str,
    thresholds: tuple[NDArray[Any], NDArray[Any]] | None = None,
    replicates: int = 10_000,
    seed: int = 0,
) -> PairedTest:
    """Randomisation test of whether two models differ on the same samples.

    Under the null hypothesis it does not matter which model made which of the two predictions for a unit. So the models
    change places on each unit with probability 1/2, on all its samples and repeats together, and p is the share of such
    draws with a difference at least as large as the real one, the real one counted among them (Noreen,
    Computer-Intensive Methods for Testing Hypotheses, 1989; Phipson and Smyth, Permutation p-values should never be
    zero, 2010). A draw in which the metric is undefined counts against a difference. Where only the order of scores
    matters, scores are replaced by their ranks before, since two models need not share a scale.

    Args:
        targets: Labels of N samples.
        first: Scores of the one, [N, C] or [R, N, C].
        second: Scores of the other, of the same shape.
        units: [N] unit numbers.
        metric: Name; see `find_metric`.
        unit: Name of the unit.
        thresholds: Fitted thresholds of each.
        replicates: Random swaps; p is at least 1 / (replicates + 1).
        seed: Seed of the swaps.

    Raises:
        ProbeError: The scores are not for the same samples, there is none, or the metric is undefined on them.
        UsageError: The metric does not exist for these labels.
    """
    drawn = checked_units(targets, units)
    measure = measure_of(metric, targets)
    one, other = _both(targets, first, second, thresholds)
    difference = measure.value(one) - measure.value(other)
    if np.isnan(difference):
        raise ProbeError(f"{metric} is undefined on these samples", expected="labels for which it has a value")
    if measure.metric.ranked:
        one, other = [_ranks(each) for each in one], [_ranks(each) for each in other]
    # Both models' predictions are one set of 2U units, of which a swap chooses which U are the first model's.
    both = Units(np.concatenate([drawn.codes, drawn.codes + drawn.count]), 2 * drawn.count)
    statistic = measure.statistic([_joined(a, b) for a, b in zip(one, other, strict=True)], both)
    reached = 0
    for swapped in swaps(drawn.count, replicates, seed, samples=len(targets)):
        kept = 1 - swapped
        drawn_difference = statistic(np.concatenate([kept, swapped])) - statistic(np.concatenate([swapped, kept]))
        # Rounding must not decide whether a draw that equals the real difference has reached it.
        reached += int((~(np.abs(drawn_difference) < abs(difference) - 1e-12)).sum())
    return PairedTest(metric, difference, (1 + reached) / (1 + replicates), unit, drawn.count, replicates)


def _both(
    targets: Targets,
    first: NDArray[Any],
    second: NDArray[Any],
    thresholds: tuple[NDArray[Any], NDArray[Any]] | None,
) -> tuple[list[Predicted], list[Predicted]]:
    if first.shape != second.shape or first.shape[-2:-1] != (len(targets),):
        raise ProbeError(
            f"paired scores of shapes {first.shape} and {second.shape} for {len(targets)} labels",
            expected="predictions of both models for the same test samples, with as many repeats",
        )
    limits = thresholds or (None, None)
    return as_predicted(targets, first, limits[0]), as_predicted(targets, second, limits[1])


def _joined(one: Predicted, other: Predicted) -> Predicted:
    def stack(a: Array, b: Array) -> Array:
        return np.concatenate([a, b])

    targets = replace(one.targets, values=stack(one.targets.values, other.targets.values))
    thresholds = None
    if one.thresholds is not None and other.thresholds is not None:
        thresholds = stack(one.thresholds, other.thresholds)
    return Predicted(targets, stack(one.scores, other.scores), thresholds)


def _ranks(predicted: Predicted) -> Predicted:
    scores = rankdata(predicted.scores, axis=0) / (len(predicted) + 1)
    return Predicted(predicted.targets, scores, predicted.thresholds)
