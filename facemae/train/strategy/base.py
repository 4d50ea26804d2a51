"""What the trainer knows of a strategy."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from facemae.config import OptimConfig
from facemae.train.processes.process_group import Processes


@dataclass(frozen=True)
class Update:
    """What an update was, still on the device; the same on every process.

    Attributes:
        norm: Gradient norm over all processes, before clipping; scalar. Adversaries are not in it.
        bad: 1.0 where the update was skipped: loss or gradients were not finite, or the norm stood out; scalar.
        spike: 1.0 where it was skipped for the norm alone; scalar.
        ceiling: The norm above which it stands out; scalar.
        broken: 1.0 for each parameter whose gradient, before clipping, has a norm that is not finite; float32 [T].
        names: Those T parameters: all that have a gradient on any process.
        adversary: Gradient norm of the adversaries, likewise; None where the model has none.
    """

    norm: torch.Tensor
    bad: torch.Tensor
    spike: torch.Tensor
    ceiling: torch.Tensor
    broken: torch.Tensor
    names: tuple[str, ...]
    adversary: torch.Tensor | None = None


class Strategy(Protocol):
    """One way of running a training step."""

    name: str
    """Its name in a recipe."""
    processes: Processes
    """The processes that share the step."""

    def prepare(self, model: nn.Module, config: OptimConfig) -> nn.Module:
        """Take the model, already on its device; build the optimiser; return what is to be called forward."""
        ...

    def accumulate(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """The context of one micro-step; gradients are exchanged in the last one only."""
        ...

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a micro-step; none where nothing in it depends on a parameter."""
        ...

    def update(self, loss: torch.Tensor, lr: float, clip: float | None, ceiling: torch.Tensor | None = None) -> Update:
        """Clip the gradients, summed over processes, and step.

        The step is skipped where loss or gradients are not finite, or their norm exceeds the ceiling. A parameter that
        has no gradient on any process keeps its weight and its state.

        Args:
            loss: The step's loss on this process, detached.
            lr: Learning rate, of which each group of parameters takes its share.
            clip: Largest gradient norm, of adversaries and of all others apart, or None.
            ceiling: The norm, before clipping, above which the step is skipped; a scalar on the device, or None.
        """
        ...

    def clear(self) -> None:
        """Drop the gradients of the step before."""
        ...

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """The optimiser's state as `<entry>/<parameter name>`, whole, on the first process."""
        ...

    def load_optimizer_state(self, saved: Mapping[str, torch.Tensor]) -> None:
        """Put back what `optimizer_state` gave, on any number of processes."""
        ...
