"""What the strategies share in which every process has the whole model, its gradients and its optimiser."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from facemae.config import OptimConfig
from facemae.train.optim.adamw import build_optimizer, is_adversary, load_optimizer_tensors, optimizer_tensors
from facemae.train.processes.process_group import Processes
from facemae.train.strategy.base import Update


class Replicated(ABC):
    """A `Strategy` whose processes all make the same update, from the same gradients: the sums over processes."""

    name: str
    processes: Processes

    def __init__(self) -> None:
        self._model: nn.Module = nn.Identity()
        self._optimizer: torch.optim.AdamW | None = None
        self._parameters: dict[str, nn.Parameter] = {}
        self._others: list[nn.Parameter] = []
        self._adversaries: list[nn.Parameter] = []

    def prepare(self, model: nn.Module, config: OptimConfig) -> nn.Module:
        """See `Strategy`."""
        self._model = model
        self._optimizer = build_optimizer(model, config)
        self._parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._others = [value for name, value in self._parameters.items() if not is_adversary(name)]
        self._adversaries = [value for name, value in self._parameters.items() if is_adversary(name)]
        return model

    def accumulate(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """See `Strategy`."""
        return contextlib.nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        """See `Strategy`."""
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]

    @abstractmethod
    def _sum_over_processes(self) -> list[bool]:
        """Leave in every parameter the gradient summed over processes; zeros, or None, where no process has one.

        Returns:
            For each parameter, whether it had one on this process.
        """

    def update(self, loss: torch.Tensor, lr: float, clip: float | None, ceiling: torch.Tensor | None = None) -> Update:
        """See `Strategy`."""
        optimizer = self._prepared()
        has_gradient = self._sum_over_processes()
        summed = {name: value.grad for name, value in self._parameters.items() if value.grad is not None}
        # As torch's get_total_norm does, but the norms on the way say which gradient is to blame: clipping by a norm
        # that is not a number makes all of them look bad.
        norms = dict(zip(summed, torch._foreach_norm(list(summed.values())), strict=True)) if summed else {}  # noqa: SLF001 (as torch's clipping)
        both = torch.stack([_norm_of(norms, loss, adversary=adversary) for adversary in (False, True)])
        loss, norm, adversary = self._settle(loss, both, has_gradient)
        names = tuple(name for name in norms if self._parameters[name].grad is not None)
        broken = 1 - torch.isfinite(_stacked([norms[name] for name in names], loss)).float()
        finite = torch.isfinite(norm) & torch.isfinite(adversary) & torch.isfinite(loss)
        ceiling = torch.full_like(norm, torch.inf) if ceiling is None else ceiling
        spike = finite & (norm > ceiling)
        bad = 1 - (finite & ~spike).float()
        if clip is not None:
            for total, members in ((norm, self._others), (adversary, self._adversaries)):
                torch.nn.utils.clip_grads_with_norm_(members, clip, total)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        # The fused kernel leaves weights, moments and its step count alone where this is 1: no look from the host.
        optimizer.found_inf = bad  # type: ignore[attr-defined]
        optimizer.step()
        return Update(norm, bad, spike.float(), ceiling, broken, names, adversary if self._adversaries else None)

    def clear(self) -> None:
        """See `Strategy`."""
        self._prepared().zero_grad(set_to_none=True)

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """See `Strategy`."""
        return optimizer_tensors(self._model, self._prepared())

    def load_optimizer_state(self, saved: Mapping[str, torch.Tensor]) -> None:
        """See `Strategy`."""
        load_optimizer_tensors(self._model, self._prepared(), saved)

    def _settle(
        self, loss: torch.Tensor, norms: torch.Tensor, has_gradient: list[bool]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sum the loss, take the first process's norms on all, and drop the gradients that no process has.

        All processes have the same gradients, but unlike processors add their squares in unlike orders. One of them
        might clip, or skip, what another does not, and their weights would part.

        To the optimiser a gradient of zero is not the same as none: weights decay and momentum goes on.

        Args:
            loss: The step's loss on this process.
            norms: Gradient norms as this process has them: of the adversaries, behind that of all others.
            has_gradient: For each parameter, whether it had a gradient on this process.

        Returns:
            Loss and norms, the same bits on every process.
        """
        own = norms if self.processes.rank == 0 else torch.zeros_like(norms)
        decided, counted = (
            torch.cat([loss.float().view(1), own.float()]),
            torch.tensor(has_gradient, dtype=torch.float32),
        )
        if decided.is_cuda:
            # The host knows the counts without waiting for the device, and so it is told by the host's way.
            decided, counts = self.processes.all_reduce_sum(decided), self.processes.all_reduce_sum(counted)
        else:
            decided, counts = self.processes.all_reduce_sum(torch.cat([decided, counted])).tensor_split([3])
        for parameter, count in zip(self._parameters.values(), counts.tolist(), strict=True):
            if count == 0:
                parameter.grad = None
        return decided[0], decided[1], decided[2]

    def _prepared(self) -> torch.optim.AdamW:
        assert self._optimizer is not None, "prepare() comes first"
        return self._optimizer


def _norm_of(norms: Mapping[str, torch.Tensor], like: torch.Tensor, *, adversary: bool) -> torch.Tensor:
    """The norm of all gradients of adversaries, or of all others, from those of each."""
    members = [value for name, value in norms.items() if is_adversary(name) == adversary]
    total: torch.Tensor = torch.linalg.vector_norm(_stacked(members, like))
    return total


def _stacked(values: Iterable[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """Scalars in one tensor, which may be empty."""
    found = list(values)
    return torch.stack(found) if found else like.new_zeros(0)
