"""A metric by the values of a metadata column, and the largest gap between two of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae_probes.metrics.base import Array, Predicted, Units, as_predicted
from facemae_probes.metrics.draws import bootstrap, replicate_values
from facemae_probes.metrics.grouping import group_samples
from facemae_probes.metrics.intervals import Interval, checked_units, summarise
from facemae_probes.metrics.registry import Measure, measure_of
from facemae_probes.tasks.targets import Targets

LARGEST = (
    "the largest of several gaps is on average larger than the true one, the more so the more and the smaller the "
    "groups; its interval is of these two groups as if they had been named beforehand"
)


@dataclass(frozen=True)
class Slice:
    """One group of test samples.

    Attributes:
        value: Value of the column, or the bounds of a quartile; None for samples without a value.
        count: Samples.
        units: Units of independence among them.
        interval: The metric.
    """

    value: str | None
    count: int
    units: int
    interval: Interval

    def to_json(self) -> dict[str, Any]:
        """A plain mapping."""
        return {"value": self.value, "count": self.count, "units": self.units, "interval": self.interval.to_json()}


@dataclass(frozen=True)
class Gap:
    """The largest difference between two groups.

    Attributes:
        first: The group with the larger number.
        second: The group with the smaller number.
        interval: Of metric(first) - metric(second), whose `units` are those of both groups.
        pairs: How many pairs it is the largest of.
        note: What a reader has to know.
    """

    first: str
    second: str
    interval: Interval
    pairs: int
    note: str = LARGEST

    def to_json(self) -> dict[str, Any]:
        """A plain mapping."""
        between = {"first": self.first, "second": self.second, "pairs": self.pairs, "note": self.note}
        return {**between, "interval": self.interval.to_json()}


@dataclass(frozen=True)
class Slices:
    """A metric by the values of a column.

    Attributes:
        column: The column.
        metric: Name of the metric.
        groups: One a value, in their order.
        unknown: Samples without a value, which take no part in the gap; None where there are none.
        gap: The largest between two groups that have enough units; None where there are no two.
        least: How many units are enough.
    """

    column: str
    metric: str
    groups: tuple[Slice, ...]
    unknown: Slice | None
    gap: Gap | None
    least: int

    def to_json(self) -> dict[str, Any]:
        """A plain mapping."""
        return {
            "column": self.column,
            "metric": self.metric,
            "groups": [group.to_json() for group in self.groups],
            "unknown": None if self.unknown is None else self.unknown.to_json(),
            "gap": None if self.gap is None else self.gap.to_json(),
            "least": self.least,
        }


def slices(
    targets: Targets,
    scores: NDArray[Any],
    units: NDArray[Any],
    metric: str,
    *,
    column: str,
    values: Sequence[Any],
    unit: str,
    least: int = 10,
    thresholds: NDArray[Any] | None = None,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Slices:
    """A metric by the values of a metadata column.

    Units are drawn from all samples and every group is measured on the same draws, so that a unit with samples in two
    groups counts as often in both.

    Args:
        targets: Labels of N samples.
        scores: [N, C], or [R, N, C] of R repeats.
        units: [N] unit numbers.
        metric: Name; see `find_metric`.
        column: Name of the metadata column.
        values: Its values, one a sample; see `group_samples`.
        unit: Name of the unit.
        least: Units that a group needs to take part in the gap.
        thresholds: Fitted thresholds that broadcast to the scores.
        replicates: Bootstrap replicates.
        level: Coverage aimed at.
        seed: Seed of the draws.

    Raises:
        ProbeError: There is no sample, or values, units or scores do not fit.
        UsageError: The column has too many values, or the metric does not exist for these labels.
    """
    drawn = checked_units(targets, units)
    if len(values) != len(targets):
        raise ProbeError(
            f"{len(values)} values of column {column!r} for {len(targets)} samples", expected="one for each"
        )
    measure = measure_of(metric, targets)
    repeats = as_predicted(targets, scores, thresholds)
    names, rows = zip(*group_samples(column, values).items(), strict=True)
    parts = [_Part.of(measure, repeats, drawn, each) for each in rows]
    statistics = [measure.statistic(part.repeats, part.units) for part in parts]
    replicated = replicate_values(statistics, bootstrap(drawn.count, replicates, seed, samples=len(targets)))
    found = [
        Slice(
            name,
            len(each),
            part.present,
            summarise(metric, part.points, line, level=level, unit=unit, units=part.present),
        )
        for name, each, part, line in zip(names, rows, parts, replicated, strict=True)
    ]
    return Slices(
        column,
        metric,
        tuple(group for group in found if group.value is not None),
        next((group for group in found if group.value is None), None),
        _gap(found, parts, replicated, least),
        least,
    )


@dataclass(frozen=True)
class _Part:
    repeats: list[Predicted]
    units: Units
    points: list[float]

    @classmethod
    def of(cls, measure: Measure, repeats: list[Predicted], units: Units, rows: NDArray[np.int64]) -> "_Part":
        taken = [each.take(rows) for each in repeats]
        return cls(taken, units.take(rows), measure.values(taken))

    @property
    def present(self) -> int:
        """Units that have a sample here."""
        return len(np.unique(self.units.codes))


def _gap(found: list[Slice], parts: list[_Part], replicated: Array, least: int) -> Gap | None:
    able = [
        place
        for place, group in enumerate(found)
        if group.value is not None and group.units >= least and group.interval.value is not None
    ]
    if len(able) < 2:
        return None
    means = {place: float(np.mean(parts[place].points)) for place in able}
    high, low = max(able, key=means.__getitem__), min(able, key=means.__getitem__)
    if high == low:  # All are equal.
        high, low = able[0], able[1]
    points = [a - b for a, b in zip(parts[high].points, parts[low].points, strict=True)]
    together = len(np.union1d(parts[high].units.codes, parts[low].units.codes))
    one = found[high].interval
    return Gap(
        str(found[high].value),
        str(found[low].value),
        summarise(
            one.metric, points, replicated[high] - replicated[low], level=one.level, unit=one.unit, units=together
        ),
        len(able) * (len(able) - 1) // 2,
    )
