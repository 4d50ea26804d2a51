"""How a training step is spread over processes.

The trainer speaks to this interface only. A strategy owns the optimiser, because some (DeepSpeed) own clipping,
accumulation and the update as well. All of them keep fp32 weights and compute the same training; they read and write
one canonical, name-keyed state.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from facemae.config import OptimConfig
from facemae.train.optim import build_optimizer, load_optimizer_tensors, optimizer_tensors


@dataclass(frozen=True)
class Update:
    """What an update was, still on the device.

    Attributes:
        norm: Gradient norm over all processes, before clipping; scalar.
        bad: 1.0 where loss or gradients were not finite and the update was skipped, on every process alike; scalar.
        broken: 1.0 for each parameter whose gradient, before clipping, has a norm that is not finite; float32 [T].
        names: Those T parameters.
    """

    norm: torch.Tensor
    bad: torch.Tensor
    broken: torch.Tensor
    names: tuple[str, ...]


class Strategy(Protocol):
    """One way of running a training step."""

    rank: int
    """This process's number."""
    world: int
    """Number of processes."""

    def prepare(self, model: nn.Module, config: OptimConfig) -> nn.Module:
        """Take the model, already on its device; build the optimiser; return what is to be called forward."""
        ...

    def accumulate(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """The context of one micro-step; gradients are exchanged in the last one only."""
        ...

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a micro-step."""
        ...

    def update(self, loss: torch.Tensor, lr: float, clip: float | None) -> Update:
        """Clip and step; skip the step where loss or gradients are not finite.

        Args:
            loss: The step's loss on this process, detached.
            lr: Learning rate.
            clip: Largest gradient norm, or None.
        """
        ...

    def clear(self) -> None:
        """Drop the gradients of the step before."""
        ...

    def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        ...

    def agree(self, flag: bool) -> bool:
        """Whether any process raised the flag; the same answer on all."""
        ...

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """The optimiser's state as `<entry>/<parameter name>`, whole, on the first process."""
        ...

    def load_optimizer_state(self, saved: Mapping[str, torch.Tensor]) -> None:
        """Put back what `optimizer_state` gave, on any number of processes."""
        ...


class SingleProcess:
    """The whole step in this process."""

    rank = 0
    world = 1

    def __init__(self) -> None:
        self._model: nn.Module = nn.Identity()
        self._optimizer: torch.optim.AdamW | None = None
        self._parameters: dict[str, nn.Parameter] = {}

    def prepare(self, model: nn.Module, config: OptimConfig) -> nn.Module:
        """See `Strategy`."""
        self._model = model
        self._optimizer = build_optimizer(model, config)
        self._parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        return model

    def accumulate(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """See `Strategy`."""
        return contextlib.nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        """See `Strategy`."""
        loss.backward()  # type: ignore[no-untyped-call]

    def update(self, loss: torch.Tensor, lr: float, clip: float | None) -> Update:
        """See `Strategy`."""
        optimizer = self._prepared()
        gradients = {name: value.grad for name, value in self._parameters.items() if value.grad is not None}
        # As torch's get_total_norm does, but the norms on the way say which gradient is to blame: clipping by a norm
        # that is not a number makes all of them look bad.
        norms = torch.stack(torch._foreach_norm(list(gradients.values())))  # noqa: SLF001 (as torch's clipping does)
        norm = torch.linalg.vector_norm(norms)
        bad = 1 - (torch.isfinite(norm) & torch.isfinite(loss)).float()
        if clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self._parameters.values(), clip, norm)
        for group in optimizer.param_groups:
            group["lr"] = lr
        # The fused kernel leaves weights, moments and its step count alone where this is 1: no look from the host.
        optimizer.found_inf = bad  # type: ignore[attr-defined]
        optimizer.step()
        return Update(norm, bad, 1 - torch.isfinite(norms).float(), tuple(gradients))

    def clear(self) -> None:
        """See `Strategy`."""
        self._prepared().zero_grad(set_to_none=True)

    def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """See `Strategy`."""
        return tensor

    def agree(self, flag: bool) -> bool:
        """See `Strategy`."""
        return flag

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """See `Strategy`."""
        return optimizer_tensors(self._model, self._prepared())

    def load_optimizer_state(self, saved: Mapping[str, torch.Tensor]) -> None:
        """See `Strategy`."""
        load_optimizer_tensors(self._model, self._prepared(), saved)

    def _prepared(self) -> torch.optim.AdamW:
        assert self._optimizer is not None, "prepare() comes first"
        return self._optimizer
