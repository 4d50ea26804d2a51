"""Several processes, bitwise repeatable: one all-reduce of all gradients in a fixed order."""

import itertools

import torch
import torch.distributed as dist
from torch import nn

from facemae.config import OptimConfig
from facemae.train.processes.process_group import ProcessGroup
from facemae.train.strategy.replicated import Replicated


class Exact(Replicated):
    """After the last backward pass all gradients lie in one fp32 buffer, in the order of their names, and are summed.

    In what order three or more numbers are added depends on their place in the buffer that is sent. torch's
    DistributedDataParallel rearranges its buffers after the first step of every start, so a resumed run's rounding
    differs from an undisturbed one's; here it does not. Communication does not overlap with the backward pass.

    Args:
        group: The processes.
    """

    name = "exact"

    def __init__(self, group: ProcessGroup) -> None:
        super().__init__()
        self.processes = self._group = group
        self._buffer = torch.zeros(0)
        self._places: dict[str, torch.Tensor] = {}

    def prepare(self, model: nn.Module, config: OptimConfig) -> nn.Module:
        """See `Strategy`."""
        forward = super().prepare(model, config)
        ordered = sorted(self._parameters.items())
        ends = list(itertools.accumulate((value.numel() for _, value in ordered), initial=0))
        self._buffer = torch.zeros(ends[-1], device=self._group.device)
        self._places = {
            name: self._buffer[start : start + value.numel()].view_as(value)
            for (name, value), start in zip(ordered, ends[:-1], strict=True)
        }
        return forward

    def _sum_over_processes(self) -> list[bool]:
        has_gradient = [value.grad is not None for value in self._parameters.values()]
        for name, value in self._parameters.items():
            if value.grad is None:
                self._places[name].zero_()
            else:
                self._places[name].copy_(value.grad)
        dist.all_reduce(self._buffer)
        for name, value in self._parameters.items():
            # The sum stays where it is until the next step.
            value.grad = self._places[name]
        return has_gradient
