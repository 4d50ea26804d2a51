"""Noticing a step whose gradient stands out, on the device and before its update is made.

What is watched is the gradient norm before clipping, not the loss. It is the size of what is about to be done to the
weights, while the loss of a step tells what the updates before it have done. It has a scale of its own: a loss may lie
on a large constant, as cross-entropies over many prototypes do, or be negative, and no factor fits it. And every
process knows the same norm, that of the first process, so all decide alike; see `facemae.train.strategy.replicated`.
"""

import math
from collections.abc import Sequence

import torch

from facemae.config import SpikeConfig
from facemae.errors import ConfigError
from facemae.train.optim.schedule import Lengths
from facemae.train.strategy import Update

FEWEST = 4
"""Steps a window must hold."""


def _window_steps(config: SpikeConfig, lengths: Lengths) -> int:
    return config.window.samples(epoch=lengths.epoch) // lengths.batch


def remark_window(config: SpikeConfig | None, lengths: Lengths) -> str | None:
    """What to say of a window of which a run does not fill half, so that no step can stand out; else None."""
    if config is None:
        return None
    steps = _window_steps(config, lengths)
    if -(-steps // 2) < lengths.steps:
        return None
    return (
        f"optim.spike.window of {steps} steps is not half known in a run of {lengths.steps}, so no gradient will stand "
        "out; make it smaller, such as optim.spike.window='2 epochs'"
    )


class SpikeWatch:
    """The running median of the gradient norm over the last steps whose updates were made and had something to learn.

    Nothing is read back from the device: the ceiling of a step comes from the norms before it, which are there already.

    Args:
        factor: How many times its median a norm may be.
        steps: Steps in the window. Where half of them are not known yet, nothing stands out.
        device: Where the norms are.
    """

    def __init__(self, factor: float, steps: int, device: torch.device) -> None:
        self._factor, self._steps = factor, steps
        self._norms = torch.full((steps,), torch.nan, device=device)

    @classmethod
    def open(
        cls, config: SpikeConfig, lengths: Lengths, device: torch.device, saved: Sequence[float | None]
    ) -> "SpikeWatch":
        """The watch of a run.

        Args:
            config: The recipe's block.
            lengths: The run's lengths.
            device: Where the model is.
            saved: What `state` gave at the checkpoint; empty for a fresh run.

        Raises:
            ConfigError: The window holds too few steps for a median.
        """
        steps = _window_steps(config, lengths)
        if steps < FEWEST:
            raise ConfigError(
                f"optim.spike.window holds {steps} steps of {lengths.batch} samples",
                expected=f"at least {FEWEST} steps, {FEWEST * lengths.batch} samples",
            )
        watch = cls(config.factor, steps, device)
        if saved:
            known = [torch.nan if norm is None else norm for norm in saved]
            watch._norms = torch.tensor(known, dtype=torch.float32, device=device)
        return watch

    def ceiling(self) -> torch.Tensor:
        """The largest norm that does not stand out; a scalar on the device, infinite while too little is known."""
        ordered, _ = self._norms.sort()  # what is not known yet comes last
        known = self._norms.isfinite().sum()
        median = ordered.gather(0, ((known - 1).clamp(min=0) // 2).view(1)).squeeze(0)
        return torch.where(2 * known >= self._steps, self._factor * median, torch.inf)

    def push(self, update: Update) -> None:
        """Take the norm of a step into the window, unless its update was left out or nothing counted.

        Where most steps have no label, the median of their zeros would make every other step stand out.
        """
        newer = torch.cat([self._norms[1:], update.norm.view(1)])
        self._norms = torch.where((update.bad > 0) | (update.norm == 0), self._norms, newer)

    def state(self) -> list[float | None]:
        """What a checkpoint keeps: norms, oldest first; None where fewer are known."""
        return [None if math.isnan(norm) else norm for norm in self._norms.tolist()]
