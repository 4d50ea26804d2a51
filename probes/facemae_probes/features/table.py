"""Frozen features of a task, by setting: what probes are chosen from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from facemae_probes.choosing.plan import FROZEN, Features, ProbeKind, ProbePlan, Say
from facemae_probes.features.pool import Pool
from facemae_probes.features.rows import rows_of
from facemae_probes.features.sources import EncoderSource, FeatureSource, Setting
from facemae_probes.heads.temporal import Clips, mean_over_time
from facemae_probes.tasks.task import Task

Read: TypeAlias = Callable[[Sequence[Setting]], dict[Setting, Features]]


class FeatureTable(Protocol):
    """Features of the rows of a task."""

    @property
    def settings(self) -> Sequence[Setting]:
        """Layers and poolings for the linear and kNN probes."""
        ...

    @property
    def sequences(self) -> Mapping[ProbeKind, Sequence[Setting]]:
        """Settings by probe kind, of those probes that read more than one vector a sample."""
        ...

    def load(self, kind: ProbeKind, settings: Sequence[Setting]) -> dict[Setting, Any]:
        """What a probe kind reads: [N, D]; token maps [N, T, D] for `attentive`; `Clips` for `temporal`."""
        ...


@dataclass(frozen=True)
class HeldFeatures:
    """Features that are in memory: [N, D] by setting."""

    matrices: Mapping[Setting, Features]
    sequences: Mapping[ProbeKind, Sequence[Setting]] = field(default_factory=dict)

    @property
    def settings(self) -> Sequence[Setting]:
        """All of them."""
        return list(self.matrices)

    def load(self, kind: ProbeKind, settings: Sequence[Setting]) -> dict[Setting, Any]:
        """Those of some settings."""
        return {setting: self.matrices[setting] for setting in settings}


class _Kept:
    """Features that have been asked for, open: folds ask for the same settings again and again."""

    def __init__(self, read: Read) -> None:
        self._read, self._kept = read, dict[Setting, Features]()

    def __call__(self, settings: Sequence[Setting]) -> dict[Setting, Features]:
        if missing := self.missing(settings):
            self._kept.update(self._read(missing))
        return {setting: self._kept[setting] for setting in settings}

    def missing(self, settings: Sequence[Setting]) -> list[Setting]:
        """Those that have not been asked for before."""
        return [setting for setting in dict.fromkeys(settings) if setting not in self._kept]


class StillFeatures:
    """Features of still images, from the cache.

    Args:
        pool: The shard sets.
        source: Where features come from.
        task: Its samples.
        plan: Layers and poolings.
        folder: Of the cache.
        say: Told how it goes.
    """

    def __init__(self, pool: Pool, source: FeatureSource, task: Task, plan: ProbePlan, folder: Path, say: Say) -> None:
        self._say = say
        self._read = _Kept(lambda settings: pool.features(source, settings, task.samples, folder, say))
        self.settings = source.settings(plan.layers, plan.poolings)
        tokens = source.settings(plan.layers, ("tokens",)) if isinstance(source, EncoderSource) else []
        self.sequences: dict[ProbeKind, Sequence[Setting]] = {"attentive": tokens} if tokens else {}

    def compute(self, plan: ProbePlan, also: Sequence[Setting]) -> None:
        """Bring what will be needed into the cache, in one pass over the images.

        Tokens of layers that turn out not to be promising waste disk, but a second pass of the encoder costs more than
        one layer's tokens do.
        """
        tokens = self.sequences.get("attentive", ())
        pooled = self.settings if {"linear", "knn"} & set(plan.probes) else ()
        eager = tokens if "attentive" in plan.probes and len(tokens) <= plan.attentive_layers + 1 else ()
        self._read(list(dict.fromkeys([*pooled, *eager, *also])))

    def load(self, kind: ProbeKind, settings: Sequence[Setting]) -> dict[Setting, Any]:
        """Memory maps of some settings, or what reads rows of several."""
        if kind == "attentive" and (missing := self._read.missing(settings)):
            layers = ", ".join(str(setting.layer) for setting in missing)
            self._say(f"tokens of layer {layers}: a further pass over the images where the cache lacks them")
        return dict(self._read(settings))


class ClipFeatures:
    """Features of clips: those of their frames, from the cache; their mean over time for probes that know no time.

    Args:
        pool: The shard sets.
        source: Where features of frames come from.
        task: Its samples, each of which stands for a clip.
        frames: Frames of each such sample, in order.
        plan: Layers and poolings.
        folder: Of the cache.
        say: Told how it goes.
    """

    def __init__(
        self,
        pool: Pool,
        source: FeatureSource,
        task: Task,
        frames: Mapping[int, NDArray[np.int64]],
        plan: ProbePlan,
        folder: Path,
        say: Say,
    ) -> None:
        runs = [frames[int(sample)] for sample in task.samples]
        in_time = np.concatenate(runs)
        known, place = np.unique(in_time, return_inverse=True)
        in_order = None if np.array_equal(known, in_time) else place.astype(np.int64)

        def read(settings: Sequence[Setting]) -> dict[Setting, Features]:
            found = pool.features(source, settings, known, folder, say)
            # Frames that do not lie in the order of time are brought into it when they are read.
            return found if in_order is None else {each: rows_of([found[each]], in_order) for each in settings}

        self._read = _Kept(read)
        self._means = _Kept(self._over_time)
        self.lengths = np.array([len(run) for run in runs], dtype=np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.settings = source.settings(plan.layers, plan.poolings)
        self.sequences: dict[ProbeKind, Sequence[Setting]] = {"temporal": self.settings}

    def compute(self, plan: ProbePlan, also: Sequence[Setting]) -> None:
        """Bring what will be needed into the cache, in one pass over the frames."""
        frozen = self.settings if set(FROZEN) & set(plan.probes) else ()
        self._read(list(dict.fromkeys([*frozen, *also])))

    def load(self, kind: ProbeKind, settings: Sequence[Setting]) -> dict[Setting, Any]:
        """`Clips` of some settings; means over time, which are kept in memory, for other probes than `temporal`."""
        if kind != "temporal":
            return dict(self._means(settings))
        return {setting: Clips(frames, self.starts, self.lengths) for setting, frames in self._read(settings).items()}

    def _over_time(self, settings: Sequence[Setting]) -> dict[Setting, Features]:
        read = self._read(settings)
        return {setting: mean_over_time(frames, self.starts, self.lengths) for setting, frames in read.items()}
