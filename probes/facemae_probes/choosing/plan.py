"""What probes try: layers, poolings and hyper-parameters, and what a candidate is."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from facemae.errors import UsageError
from facemae_probes.features.sources import Setting
from facemae_probes.finetune.plan import FinetunePlan
from facemae_probes.heads.attentive import SETTINGS, AttentiveSetting
from facemae_probes.heads.knn import NEIGHBOURS
from facemae_probes.heads.linear import STRENGTHS
from facemae_probes.heads.temporal import SETTINGS as TEMPORAL
from facemae_probes.heads.temporal import TemporalSetting
from facemae_probes.tasks.targets import Scores

Features: TypeAlias = NDArray[np.floating[Any]]
Say: TypeAlias = Callable[[str], None]
Predict: TypeAlias = Callable[[Any, NDArray[np.int64]], Scores]
"""From all that a probe reads and row numbers to the scores of those rows."""
ProbeKind: TypeAlias = Literal["linear", "knn", "attentive", "temporal", "finetune", "scratch"]
FROZEN: tuple[ProbeKind, ...] = ("linear", "knn", "attentive", "temporal")
"""Probes of frozen features."""
TUNED: tuple[ProbeKind, ...] = ("finetune", "scratch")
"""Training of the whole net, from the given weights or from random ones."""
PROBES: tuple[ProbeKind, ...] = (*FROZEN, *TUNED)
SEQUENCES: tuple[ProbeKind, ...] = ("attentive", "temporal")
"""Probes that are trained on more than one vector a sample: token maps of stills, frames of clips."""


@dataclass(frozen=True)
class ProbePlan:
    """Which probes, over which settings.

    Attributes:
        probes: Probe kinds. `attentive` reads tokens, which encoders of stills have, and `temporal` reads clips; they
            are left out where there are none, unless nothing else was asked for. `finetune` and `scratch` train the
            whole net, from the given weights and from random ones.
        layers: Encoder blocks; None for all. Negative numbers count from the end.
        poolings: Poolings of the linear and kNN probes; the attentive probe reads all tokens. None takes the usual ones
            that the encoder can give.
        strengths: L2 path of the linear probe.
        neighbours: Values of k of the kNN probe.
        attentive: Hyper-parameters of the attentive probe.
        temporal: Hyper-parameters of the temporal probe.
        attentive_layers: The attentive and temporal probes are tried on this many layers or settings, those whose other
            probes did best in choosing; on all where no other probe runs.
        finetune: How nets are trained.
        metric: What is chosen by; None takes the primary metric of the labels.
        seed: Seed of everything drawn.
        replicates: Bootstrap replicates.
    """

    probes: tuple[ProbeKind, ...] = FROZEN
    layers: tuple[int, ...] | None = None
    poolings: tuple[str, ...] | None = None
    strengths: tuple[float, ...] = STRENGTHS
    neighbours: tuple[int, ...] = NEIGHBOURS
    attentive: tuple[AttentiveSetting, ...] = SETTINGS
    temporal: tuple[TemporalSetting, ...] = TEMPORAL
    attentive_layers: int = 2
    finetune: FinetunePlan = field(default_factory=FinetunePlan)
    metric: str | None = None
    seed: int = 0
    replicates: int = 2000

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.probes if kind not in PROBES]
        if unknown or not self.probes:
            raise UsageError(f"unknown probe {', '.join(unknown) or '(none)'}", expected=f"some of {', '.join(PROBES)}")


@dataclass(frozen=True)
class Candidate:
    """One probe with its settings, and how it was judged in one fold.

    Attributes:
        probe: Its kind.
        setting: Layer and pooling.
        options: Hyper-parameters, as written in the result.
        facts: What the fits say of themselves.
        valid: What it was judged at, pooled over the inner ways; None where there was nothing to judge on.
        judged: Rows it was judged on, and its scores for them.
        predict: The fit that stays; None where the candidate is fitted again on all training rows.
    """

    probe: ProbeKind
    setting: Setting
    options: dict[str, Any]
    facts: dict[str, Any]
    valid: float | None
    judged: tuple[NDArray[np.int64], Scores] | None = field(repr=False)
    predict: Predict | None = field(repr=False)

    @property
    def rank(self) -> float:
        """What candidates are compared by; where nothing was judged they are all alike."""
        return 0.0 if self.valid is None else self.valid

    def row(self) -> dict[str, Any]:
        """The line of the selection table."""
        about = {"probe": self.probe, "layer": self.setting.layer, "pooling": self.setting.pooling}
        # JSON has no infinity: a metric that is undefined on what was judged gives a candidate the last place.
        valid = self.valid if self.valid is None or math.isfinite(self.valid) else None
        return {**about, **self.options, **self.facts, "valid": valid}
