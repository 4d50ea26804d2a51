"""What a measurement reports, and how it is printed."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from facemae.rng import generator


@dataclass(frozen=True)
class BenchResult:
    """One comparison. A ratio above 1 means that ours is better, whether the unit is a rate or a cost.

    Attributes:
        bench: What was measured.
        ours: Our number.
        baseline: The baseline's number in the same run.
        unit: Unit of both.
        ratio: How many times better ours is.
        settings: What the numbers depend on, the baseline's name among it.
        machine: Hardware and versions.
    """

    bench: str
    ours: float
    baseline: float
    unit: str
    ratio: float
    settings: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps({key: _rounded(value) for key, value in asdict(self).items()})

    def to_text(self) -> str:
        """One line to read."""
        return (
            f"{self.bench}: {self.ours:.4g} against {self.baseline:.4g} {self.unit} "
            f"({self.settings.get('baseline', 'baseline')}), ratio {self.ratio:.2f}{self._uncertainty()}"
        )

    def _uncertainty(self) -> str:
        for name, what in (("ratio_interval", "95 % interval"), ("ratio_range", "range")):
            if name in self.settings:
                low, high = self.settings[name]
                return f" ({what} {low:.2f} to {high:.2f})"
        return ""


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def machine() -> dict[str, Any]:
    """Hardware and versions that the numbers depend on; no name of a machine or person."""
    from facemae.environment import environment

    facts = environment()
    return {
        **{name: facts["system"][name] for name in ("python", "processor", "cores usable")},
        **{name: facts["packages"].get(name) for name in ("facemae", "torch", "torchvision", "pillow")},
    }


def compare_rates(ours: Sequence[float], baseline: Sequence[float]) -> tuple[float, float, float]:
    """Medians of two interleaved series of rates, and the median of their ratios round by round.

    Rounds lie close in time, so a ratio within one suffers less from other load on the machine than a ratio of medians.
    """
    ratios = _ratios(ours, baseline)
    return statistics.median(ours), statistics.median(baseline), statistics.median(ratios)


def spread(ours: Sequence[float], baseline: Sequence[float]) -> dict[str, list[float]]:
    """How far the ratios of `compare_rates` lie apart.

    Returns:
        `ratio_range`, the smallest and the largest; `ratio_interval` where there are several rounds: of their median,
        95 % by the percentile bootstrap.
    """
    ratios = _ratios(ours, baseline)
    found = {"ratio_range": [round(min(ratios), 3), round(max(ratios), 3)]}
    if len(ratios) > 1:
        drawn = bootstrap((ratios,), np.median, method="percentile", rng=generator(0, "bench", "interval"))
        found["ratio_interval"] = [round(float(end), 3) for end in drawn.confidence_interval]
    return found


def _ratios(ours: Sequence[float], baseline: Sequence[float]) -> list[float]:
    return [mine / theirs for mine, theirs in zip(ours, baseline, strict=True)]
