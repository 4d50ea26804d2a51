"""What a probe run gives back."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae_probes.bootstrap import Interval, paired_difference


@dataclass(frozen=True)
class ProbeResult:
    """What a probe run found.

    Attributes:
        data: The JSON result.
        predictions: Predictions on the test rows, by probe kind.
        truth: True labels of those rows.
        keys: Their keys.
        units: Their unit numbers.
        slices: For each reported part of the test rows, which rows it has: bool [N].
    """

    data: dict[str, Any]
    predictions: dict[str, NDArray[np.int64]]
    truth: NDArray[np.int64]
    keys: tuple[str, ...]
    units: NDArray[np.int64]
    slices: dict[str, NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def chosen(self) -> str:
        """The probe kind that did best on the validation part."""
        return str(self.data["chosen"]["probe"])


def compare_results(
    first: ProbeResult,
    second: ProbeResult,
    *,
    probes: tuple[str, str] | None = None,
    metric: str = "accuracy",
    part: str | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> Interval:
    """Paired bootstrap interval of first - second on the same test samples.

    Args:
        first: One result.
        second: Another result on the same test samples.
        probes: Probe kind of each; None takes each one's chosen.
        metric: `accuracy` or `macro_f1`.
        part: Only this slice of the test part; taken from the first result.
        replicates: Bootstrap replicates.
        seed: Seed of the draws.

    Raises:
        ProbeError: The results are not about the same samples, labels and classes.
    """
    one, other = probes or (first.chosen, second.chosen)
    for result, probe in ((first, one), (second, other)):
        if probe not in result.predictions:
            raise ProbeError(f"the result has no probe {probe!r}", expected=f"one of {', '.join(result.predictions)}")
    task = first.data["task"]
    if first.keys != second.keys or task["classes"] != second.data["task"]["classes"]:
        raise ProbeError(
            f"the results are about different test samples or classes ({len(first.keys)} and {len(second.keys)})",
            expected="two results of the same label, filter and shard set",
        )
    if not np.array_equal(first.truth, second.truth):
        raise ProbeError("the results have different true labels for the same keys")
    if part is not None and part not in first.slices:
        raise ProbeError(f"the result has no slice {part!r}", expected=f"one of {', '.join(first.slices) or 'none'}")
    rows = np.ones(len(first.keys), dtype=bool) if part is None else first.slices[part]
    return paired_difference(
        first.truth[rows],
        first.predictions[one][rows],
        second.predictions[other][rows],
        first.units[rows],
        classes=len(task["classes"]),
        kind=task["kind"],
        unit=task["unit"],
        metric=metric,
        replicates=replicates,
        seed=seed,
    )
