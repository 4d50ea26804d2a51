"""What a probe run gives back."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae_probes.metrics import Interval, PairedTest, decide, paired_difference, paired_test, primary
from facemae_probes.tasks.targets import Scores, Targets


@dataclass(frozen=True)
class ProbeResult:
    """What a probe run found.

    Attributes:
        data: The JSON result.
        scores: [R, N, C] by probe kind: of R repeats and the N test rows.
        targets: True labels of those rows.
        keys: Their keys.
        units: Their unit numbers.
        slices: For each reported part of the test rows, which rows it has: bool [N].
        thresholds: [R, N, C] by probe kind, for binary columns.
    """

    data: dict[str, Any]
    scores: dict[str, Scores]
    targets: Targets
    keys: tuple[str, ...]
    units: NDArray[np.int64]
    slices: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    thresholds: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def chosen(self) -> str:
        """The probe kind that did best in choosing."""
        return str(self.data["chosen"]["probe"])

    def predicted(self, probe: str, repeat: int = 0) -> NDArray[np.int64]:
        """Decisions of a probe in one repeat: [N] class numbers, or [N, C] zeros and ones at threshold 0.5."""
        return decide(self.scores[probe][repeat], self.targets.kind)


def compare_results(
    first: ProbeResult,
    second: ProbeResult,
    *,
    probes: tuple[str, str] | None = None,
    metric: str | None = None,
    part: str | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> Interval:
    """Paired bootstrap interval of first - second on the same test samples.

    Args:
        first: One result.
        second: Another result on the same test samples.
        probes: Probe kind of each; None takes each one's chosen.
        metric: Name of a metric; None takes the one that both were chosen by, else the primary one of the labels.
        part: Only this slice of the test part; taken from the first result.
        replicates: Bootstrap replicates.
        seed: Seed of the draws.

    Raises:
        ProbeError: The results are not about the same samples, labels and classes.
    """
    return paired_difference(
        **_paired(first, second, probes, metric, part),
        replicates=replicates,
        seed=seed,
    )


def significance(
    first: ProbeResult,
    second: ProbeResult,
    *,
    probes: tuple[str, str] | None = None,
    metric: str | None = None,
    part: str | None = None,
    replicates: int = 9999,
    seed: int = 0,
) -> PairedTest:
    """Randomisation test of first against second on the same test samples; see `compare_results`."""
    return paired_test(
        **_paired(first, second, probes, metric, part),
        replicates=replicates,
        seed=seed,
    )


def _paired(
    first: ProbeResult, second: ProbeResult, probes: tuple[str, str] | None, metric: str | None, part: str | None
) -> dict[str, Any]:
    """What both ways to compare are given: labels, scores and units of the same rows."""
    one, other = probes or (first.chosen, second.chosen)
    rows = paired_rows(first, second, (one, other), part)
    limits = first.thresholds.get(one), second.thresholds.get(other)
    # Of a result across data sets and one within the tested set, both are measured on the classes that are tested.
    meant = second.targets.meant if first.targets.meant is None else first.targets.meant
    return {
        "targets": replace(first.targets.take(rows), meant=meant),
        "first": first.scores[one][:, rows],
        "second": second.scores[other][:, rows],
        "units": first.units[rows],
        "metric": metric or _metric(first, second),
        "unit": first.data["task"]["unit"],
        "thresholds": None if limits[0] is None or limits[1] is None else (limits[0][:, rows], limits[1][:, rows]),
    }


def _metric(first: ProbeResult, second: ProbeResult) -> str:
    """The metric that both were chosen by; the primary one of the labels where they differ."""
    one, other = (result.data["selection"]["metric"] for result in (first, second))
    return str(one) if one == other else primary(first.targets.kind)


def paired_rows(
    first: ProbeResult, second: ProbeResult, probes: tuple[str, str], part: str | None
) -> NDArray[np.bool_]:
    """Which test rows two results are compared on.

    Raises:
        ProbeError: They are not about the same samples, labels and classes, or lack a probe or the part.
    """
    for result, probe in zip((first, second), probes, strict=True):
        if probe not in result.scores:
            raise ProbeError(f"the result has no probe {probe!r}", expected=f"one of {', '.join(result.scores)}")
    if first.keys != second.keys or first.targets.names != second.targets.names:
        raise ProbeError(
            f"the results are about different test samples or classes ({len(first.keys)} and {len(second.keys)})",
            expected="two results of the same label, filter, protocol and shard set",
        )
    same = np.array_equal(first.targets.values, second.targets.values, equal_nan=first.targets.kind == "regression")
    if first.targets.kind != second.targets.kind or not same:
        raise ProbeError(
            "the results have different true labels for the same keys",
            expected="two results on the same labels",
            fix="run the older one again",
        )
    units = [result.data["task"]["unit"] for result in (first, second)]
    if units[0] != units[1]:
        raise ProbeError(
            f"the results have different units of independence, {units[0]} and {units[1]}",
            expected="one unit, over which the difference's interval is drawn",
            fix="run one of them again with --unit of the other",
        )
    if part is not None and part not in first.slices:
        raise ProbeError(f"the result has no slice {part!r}", expected=f"one of {', '.join(first.slices) or 'none'}")
    return np.ones(len(first.keys), dtype=bool) if part is None else first.slices[part]
