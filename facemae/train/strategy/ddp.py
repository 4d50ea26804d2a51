"""Several processes with torch's DistributedDataParallel: gradients travel while the backward pass goes on."""

import contextlib
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import GradBucket  # type: ignore[attr-defined]  # missing from torch's own list of names
from torch.nn.parallel import DistributedDataParallel

from facemae.config import OptimConfig
from facemae.train.processes.process_group import ProcessGroup
from facemae.train.strategy.replicated import Replicated


class Ddp(Replicated):
    """DistributedDataParallel that sums instead of averaging, and in which every parameter takes part in every step.

    Args:
        group: The processes.
    """

    name = "ddp"

    def __init__(self, group: ProcessGroup) -> None:
        super().__init__()
        self.processes = group
        # Objectives exchange rows in the backward pass as well. On a channel of their own, gradients need no common
        # order with them. That holds for gloo; with NCCL two channels of one GPU may wait for each other, so this
        # strategy is refused for such objectives there.
        self._sending = _Sending(group.channel())
        self._wrapped: DistributedDataParallel | None = None

    def prepare(self, model: nn.Module, config: OptimConfig) -> nn.Module:
        """See `Strategy`."""
        # Raised for convolutions of one channel, whose gradient has another stride where it has one element.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
        anchored = _Anchored(super().prepare(model, config))
        # Buffers are functions of the recipe: there is nothing to broadcast before every forward pass.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(  # type: ignore[no-untyped-call]  # noqa: SLF001
            anchored, [name for name, _ in anchored.named_buffers()]
        )
        self._wrapped = DistributedDataParallel(anchored, process_group=self._sending.channel)
        # Nothing that the hook holds may hold the model: the collector does not see what torch's reducer holds, and a
        # run that goes back would keep every model it had.
        self._wrapped.register_comm_hook(self._sending, _send)
        return self._wrapped

    def accumulate(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """See `Strategy`."""
        assert self._wrapped is not None, "prepare() comes first"
        return contextlib.nullcontext() if last else self._wrapped.no_sync()

    def clear(self) -> None:
        """See `Strategy`."""
        super().clear()
        self._sending.without_gradient.clear()

    def _sum_over_processes(self) -> list[bool]:
        # The backward pass has done it.
        return [id(value) not in self._sending.without_gradient for value in self._parameters.values()]


@dataclass(frozen=True)
class _Sending:
    """What the sending of gradients needs.

    Attributes:
        channel: Where they travel.
        without_gradient: Identities of the parameters that had none in this step.
    """

    channel: Any
    without_gradient: set[int] = field(default_factory=set)


def _send(sending: _Sending, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Begin to sum a bucket's gradients over processes."""
    # A gradient that is not there yet is not coming, and counts as zero.
    sending.without_gradient.update(id(value) for value in bucket.parameters() if value.grad is None)
    work = dist.all_reduce(bucket.buffer(), group=sending.channel, async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])


class _Anchored(nn.Module):
    """A model whose loss depends on every trainable parameter, if only in name.

    Where nothing of a process's samples counts for an objective, its parameters would be missing from the graph, and
    DistributedDataParallel would wait for them. It can search each step's graph for those, but not when the loss
    depends on none at all, and the search costs time in every step of every run.

    Args:
        model: The model; its first output is the loss.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any) -> tuple[torch.Tensor, Any]:
        loss, *others = self.model(*args)
        return loss + _Nothing.apply(*(value for value in self.model.parameters() if value.requires_grad)), *others


class _Nothing(torch.autograd.Function):
    """Zero; gives its inputs no gradient, but lets those who wait for one know that it is done."""

    @staticmethod
    def forward(ctx: Any, *parameters: torch.Tensor) -> torch.Tensor:
        ctx.count = len(parameters)
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> tuple[None, ...]:
        count: int = ctx.count
        return (None,) * count
