"""Learning rate and averaging as pure functions of the samples seen.

Nothing here has state, so nothing has to be saved: a continued run computes the same values again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from facemae.config import OptimConfig, Recipe, ViewConfig
from facemae.errors import ConfigError

REFERENCE_BATCH = 256
"""The batch size that `optim.base_lr` is given for."""

EMA_RAMP = 0.05
"""The half-life of the average is at most this share of the samples seen so far, so that the random start is forgotten
(as in EDM2, Karras et al. 2024, and its predecessors)."""


@dataclass(frozen=True)
class Lengths:
    """Every length of a run, in samples.

    Attributes:
        epoch: Samples in one epoch of the streams.
        batch: Samples in one optimiser step.
        total: The whole run, a multiple of the batch.
        warmup: Warm-up of the learning rate.
        ema: Half-life of the averaged weights; None keeps none.
        save: Distance between checkpoints.
        pictures: Distance between pictures.
        stages: For each view with stages, the samples after which each begins.
    """

    epoch: int
    batch: int
    total: int
    warmup: int
    ema: int | None
    save: int
    pictures: int
    stages: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def resolve(cls, recipe: Recipe, epoch: int, stages: Mapping[str, tuple[int, ...]] | None = None) -> "Lengths":
        """Compute the lengths of a recipe.

        Args:
            recipe: The recipe.
            epoch: Samples in one epoch of its streams.
            stages: Where the stages of views begin, if that was decided before.

        Raises:
            ConfigError: Stages of a view are not in order, or begin when the run is over.
        """
        optim = recipe.optim
        steps = max(1, math.ceil(optim.total.samples(epoch=epoch) / optim.batch_size))
        total = steps * optim.batch_size
        if stages is None:
            stages = {
                name: _stage_begins(name, view, epoch=epoch, total=total, batch=optim.batch_size)
                for name, view in recipe.views.items()
                if view.stages
            }
        return cls(
            epoch=epoch,
            batch=optim.batch_size,
            total=total,
            warmup=optim.warmup.samples(epoch=epoch, total=total),
            ema=None if optim.ema is None else optim.ema.samples(epoch=epoch, total=total),
            save=recipe.checkpoint.every.samples(epoch=epoch, total=total),
            pictures=recipe.log.pictures.samples(epoch=epoch, total=total),
            stages=stages,
        )

    @property
    def steps(self) -> int:
        """Optimiser steps in the whole run."""
        return self.total // self.batch


def _stage_begins(name: str, view: ViewConfig, *, epoch: int, total: int, batch: int) -> tuple[int, ...]:
    """The samples after which a view's stages begin, each with another step."""
    begins = tuple(stage.begins.samples(epoch=epoch, total=total) for stage in view.stages)
    steps, end = [-(-samples // batch) for samples in begins], total // batch
    if any(later <= earlier for earlier, later in pairwise([0, *steps])) or steps[-1] >= end:
        raise ConfigError(
            f"the stages of views.{name} begin with steps {', '.join(map(str, steps))}",
            expected=f"each with a later step than the one before it, the first after step 0 and the last before step "
            f"{end}, where the run ends",
            fix=f"change `from` in views.{name}.stages, or lengthen optim.total, which is {end} x {batch} samples",
        )
    return begins


def learning_rate(optim: OptimConfig, lengths: Lengths, samples: int) -> float:
    """Learning rate of the update after `samples` samples: linear warm-up, then half a cosine, as in MAE.

    Args:
        optim: Base and final rate; the base is scaled linearly with the batch size.
        lengths: The run's lengths.
        samples: Samples consumed before the update.
    """
    peak = optim.base_lr * optim.batch_size / REFERENCE_BATCH
    if samples < lengths.warmup:
        return peak * samples / lengths.warmup
    progress = min(1.0, (samples - lengths.warmup) / max(1, lengths.total - lengths.warmup))
    return optim.min_lr + (peak - optim.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def averaging_rate(half_life: int, samples: int, batch: int) -> float:
    """Share of the new weights that enters the average with one update.

    Args:
        half_life: Samples after which a weight's contribution has halved.
        samples: Samples consumed after the update.
        batch: Samples in the update.
    """
    effective = min(half_life, samples * EMA_RAMP)
    return 1 - math.exp2(-batch / max(effective, 1e-8))


def due(every: int, samples: int, batch: int) -> bool:
    """Whether a multiple of `every` samples was passed in the update that ended at `samples`."""
    return samples // max(every, batch) > (samples - batch) // max(every, batch)
