"""Percentile bootstrap over the units of independence.

Several samples of one subject or one source video are not independent, so whole units are drawn with replacement (Efron
and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13; Davison and Hinkley, Bootstrap Methods and their
Application, 1997, section 3.8). Most metrics are functions of sums over samples: one pass gives the sums of each unit,
and all replicates are a product with the draw counts. Areas under curves are the same with sums at every score.

A replicate is the metric of the drawn samples with the metric's own rules, but for a class that the test part has and a
draw lacks: it has no value there, and mean recall and macro-F1 of that draw are over the others. Replicates in which a
metric has no value are left out of the interval and counted. One unit tells nothing of the spread between units: such
an interval has no ends.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae_probes.metrics.base import Array, Units, as_predicted
from facemae_probes.metrics.draws import bootstrap, replicate_values
from facemae_probes.metrics.registry import measure_of
from facemae_probes.tasks.targets import Targets


@dataclass(frozen=True)
class Interval:
    """A value with its interval.

    Attributes:
        metric: Name of what was measured.
        value: The point estimate; None where the metric is undefined on these samples.
        low: Lower end; None where there are fewer than two units, or no replicate has a value.
        high: Upper end.
        level: Coverage aimed at.
        unit: What was drawn: `subject`, `source` or `sample`.
        units: How many of them.
        replicates: Bootstrap replicates.
        undefined: How many of them have no value.
        repeats: Repeats on the same samples whose mean the value is.
        deviation: Standard deviation over repeats, with divisor R - 1; None with one repeat.
    """

    metric: str
    value: float | None
    low: float | None
    high: float | None
    level: float
    unit: str
    units: int
    replicates: int
    undefined: int = 0
    repeats: int = 1
    deviation: float | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain mapping."""
        return asdict(self)


def intervals(
    targets: Targets,
    scores: NDArray[Any],
    units: NDArray[Any],
    metrics: Sequence[str],
    *,
    unit: str,
    thresholds: NDArray[Any] | None = None,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of several metrics, on the same draws.

    Args:
        targets: Labels of N samples.
        scores: [N, C], or [R, N, C] of R repeats: the value is the mean over repeats, and a draw takes the same units
            in all of them.
        units: [N] unit numbers.
        metrics: Names; see `find_metric`.
        unit: Name of the unit, carried in the result.
        thresholds: Fitted thresholds that broadcast to the scores, for metrics that need them.
        replicates: Bootstrap replicates.
        level: Coverage aimed at.
        seed: Seed of the draws.

    Returns:
        Interval by name.

    Raises:
        ProbeError: There is no sample, or scores, units or thresholds do not fit.
        UsageError: A metric does not exist for these labels.
    """
    drawn = checked_units(targets, units)
    repeats = as_predicted(targets, scores, thresholds)
    measures = [measure_of(name, targets) for name in metrics]
    if not measures:
        return {}
    points = [measure.values(repeats) for measure in measures]
    replicated = replicate_values(
        [measure.statistic(repeats, drawn) for measure in measures],
        bootstrap(drawn.count, replicates, seed, samples=len(targets)),
    )
    return {
        measure.name: summarise(measure.name, each, values, level=level, unit=unit, units=drawn.count)
        for measure, each, values in zip(measures, points, replicated, strict=True)
    }


def interval(
    targets: Targets,
    scores: NDArray[Any],
    units: NDArray[Any],
    metric: str,
    *,
    unit: str,
    thresholds: NDArray[Any] | None = None,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of one metric; see `intervals`."""
    return intervals(
        targets,
        scores,
        units,
        [metric],
        unit=unit,
        thresholds=thresholds,
        replicates=replicates,
        level=level,
        seed=seed,
    )[metric]


def checked_units(targets: Targets, units: NDArray[Any]) -> Units:
    """Units of the samples.

    Raises:
        ProbeError: There is no sample, or not one unit number for each.
    """
    if not len(targets):
        raise ProbeError("there is no test sample to draw from", expected="a test split or slice with samples")
    if units.shape != (len(targets),):
        raise ProbeError(f"unit numbers of shape {units.shape} for {len(targets)} samples", expected="one for each")
    return Units.of(units)


def summarise(
    name: str, points: Sequence[float], replicated: Array, *, level: float, unit: str, units: int
) -> Interval:
    """The interval of replicated values around the mean of the repeats' values."""
    if not 0 < level < 1 or not len(replicated):
        raise ProbeError(
            f"level {level} with {len(replicated)} replicates", expected="0 < level < 1 and some replicates"
        )
    defined = replicated[~np.isnan(replicated)]
    low, high = None, None
    if units > 1 and len(defined):
        low, high = (float(end) for end in np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]))
    deviation = float(np.std(points, ddof=1)) if len(points) > 1 else None
    return Interval(
        metric=name,
        value=number(float(np.mean(points))),
        low=low,
        high=high,
        level=level,
        unit=unit,
        units=units,
        replicates=len(replicated),
        undefined=len(replicated) - len(defined),
        repeats=len(points),
        deviation=None if deviation is None else number(deviation),
    )


def number(value: float) -> float | None:
    """The value, or None where it is NaN, which JSON does not have."""
    return None if np.isnan(value) else value
