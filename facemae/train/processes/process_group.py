"""The processes of a run: how they find each other, and the few things they say to each other.

Tensors on the CPU travel by gloo, tensors on the GPU by NCCL. Nothing here knows a model.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, cast

import torch
import torch.distributed as dist

from facemae.errors import ProcessError
from facemae.objectives.exchange import Alone, Exchange

Value = TypeVar("Value")

TIMEOUT = timedelta(minutes=60)
"""How long a process waits for the others. One that ends is noticed at once; this is for one that hangs, and must be
longer than what the first one does alone: measure held-out faces, draw pictures, write a checkpoint."""

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_OWN_MACHINE = ("localhost", "127.0.0.1", "::1")
_INTERFACE = "GLOO_SOCKET_IFNAME"


class Processes(Exchange, Protocol):
    """The processes that share a run: `OneProcess` or a `ProcessGroup`.

    Every process makes the same calls in the same order.
    """

    def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, as a new tensor; the same bits on each."""
        ...

    def agree(self, flag: bool) -> bool:
        """Whether any process raised the flag; the same answer on all."""
        ...

    def barrier(self) -> None:
        """Wait until every process is here."""
        ...

    def broadcast_object(self, value: Value) -> Value:
        """The first process's value, on all."""
        ...

    def gather_objects(self, value: Value) -> list[Value]:
        """Every process's value, by rank, on all."""
        ...


class OneProcess(Alone):
    """A run in one process, without torch.distributed."""

    def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """See `Processes`."""
        return tensor.clone()

    def agree(self, flag: bool) -> bool:
        """See `Processes`."""
        return flag

    def barrier(self) -> None:
        """See `Processes`."""

    def broadcast_object(self, value: Value) -> Value:
        """See `Processes`."""
        return value

    def gather_objects(self, value: Value) -> list[Value]:
        """See `Processes`."""
        return [value]


@dataclass(frozen=True)
class Place:
    """Which of a run's processes this is, and where they meet.

    Attributes:
        rank: This process's number.
        world: Number of processes.
        local_rank: Its number among those of this machine, which is its GPU's.
        rendezvous: `tcp://host:port`, `file:///path` of a file that is not there yet, or `env://`.
        one_machine: Whether all processes are on this machine, so that no host name needs to be resolved.
    """

    rank: int
    world: int
    local_rank: int
    rendezvous: str
    one_machine: bool


def find_place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """The place that torchrun or another launcher gave this process by environment variables.

    Returns:
        The place; None where neither RANK nor WORLD_SIZE is set, which is one process alone.

    Raises:
        ProcessError: Some of the variables are missing, or their values make no sense.
    """
    if not environment.get("RANK") and not environment.get("WORLD_SIZE"):
        return None
    missing = [name for name in _VARIABLES if not environment.get(name)]
    if missing:
        raise ProcessError(
            f"the environment gives this process's place only in part: {', '.join(missing)} not set",
            expected=f"all of {', '.join(_VARIABLES)}, or neither RANK nor WORLD_SIZE for one process",
            fix="start with torchrun, or unset RANK and WORLD_SIZE",
        )
    given = " ".join(f"{name}={environment[name]}" for name in _VARIABLES[:3])
    try:
        rank, world, local_rank = (int(environment[name]) for name in _VARIABLES[:3])
    except ValueError:
        raise ProcessError(f"the environment says {given}", expected="whole numbers") from None
    if not (0 <= rank < world and local_rank >= 0):
        raise ProcessError(f"the environment says {given}", expected="0 <= RANK < WORLD_SIZE and 0 <= LOCAL_RANK")
    one_machine = environment.get("LOCAL_WORLD_SIZE") == str(world) or environment["MASTER_ADDR"] in _OWN_MACHINE
    return Place(rank, world, local_rank, "env://", one_machine)


class ProcessGroup:
    """This process among the others, through torch.distributed; to be entered, and left when the run ends.

    An error that only says another process is gone leaves as a `ProcessError`, so that the process that failed first is
    the one that is heard.

    Args:
        place: Which process this is and where they meet.
        device: `cpu`, or `cuda` for the GPU of the place's `local_rank`, or for the only one that is shown.
        timeout: How long a process waits for the others.

    Raises:
        ProcessError: On entering: the processes do not find each other, or have too few GPUs. On leaving: another one
            is gone.

    Attributes:
        device: The device of this process.
        timeout: As given.
    """

    def __init__(self, place: Place, device: str = "cpu", *, timeout: timedelta = TIMEOUT) -> None:
        self.place = place
        self.rank, self.world = place.rank, place.world
        self.device = torch.device(device)
        self.timeout = timeout
        self._interface: str | None = None
        self._channel: Any = None

    def __enter__(self) -> Self:
        if dist.is_initialized():
            raise ProcessError("torch.distributed is in use in this process already", expected="one run in a process")
        if self.device.type == "cuda":
            self._take_gpu()
        self._interface = os.environ.get(_INTERFACE)
        if self._interface is None and self.place.one_machine:
            _use_loopback()
        try:
            dist.init_process_group(
                # Counts and flags are on the host: by gloo they do not wait for the GPU's queue.
                "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo",
                init_method=self.place.rendezvous,
                rank=self.rank,
                world_size=self.world,
                timeout=self.timeout,
            )
        except RuntimeError as error:
            self._close()
            raise ProcessError(
                f"process {self.rank} of {self.world} did not reach the others at {self._meeting_point()}: {error}",
                expected=f"{self.world} processes that start within {self.timeout.total_seconds():.0f} s",
                fix="see whether all were started with the same address, and whether its port is free",
            ) from error
        if self.device.type == "cuda":
            self._check_own_gpu()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._close(abort=error is not None)
        except RuntimeError:
            # Closing what is broken may fail by that; what broke it is the error.
            if error is None:
                raise
        if error is not None and is_peer_failure(error):
            raise ProcessError(
                f"process {self.rank} of {self.world} lost the others: {str(error).splitlines()[0]}",
                fix="look at what the other processes said: one of them failed, was killed, or did not answer in time",
            ) from error

    def channel(self) -> Any:
        """A second way between the same processes, for what is sent in no common order with the rest."""
        if self._channel is None:
            self._channel = dist.new_group(timeout=self.timeout)
        return self._channel

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """See `Exchange`."""
        return cast("torch.Tensor", _Gather.apply(rows, self))

    def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """See `Processes`."""
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    def agree(self, flag: bool) -> bool:
        """See `Processes`."""
        return bool(self.all_reduce_sum(torch.tensor(int(flag))) > 0)

    def barrier(self) -> None:
        """See `Processes`."""
        # dist.barrier() would go by NCCL and wait for the GPU's queue.
        self.agree(False)

    def broadcast_object(self, value: Value) -> Value:
        """See `Processes`."""
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def gather_objects(self, value: Value) -> list[Value]:
        """See `Processes`."""
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def _take_gpu(self) -> None:
        found = torch.cuda.device_count()
        # Launchers that bind a GPU to each process show it no other.
        number = 0 if found == 1 else self.place.local_rank
        if number >= found:
            raise ProcessError(
                f"process {self.rank} is number {self.place.local_rank} of its machine, which shows {found} GPUs",
                expected="a GPU for each process",
                fix="start as many processes on a machine as it has GPUs, or set efficiency.device=cpu",
            )
        self.device = torch.device("cuda", number)
        try:
            torch.cuda.set_device(self.device)
        except RuntimeError as error:
            raise ProcessError(
                f"torch {torch.__version__} cannot use GPU {number}, which is there: {str(error).splitlines()[0]}",
                expected="a driver that this version of torch knows",
                fix="update the driver, install an older torch, or set efficiency.device=cpu",
            ) from error

    def _check_own_gpu(self) -> None:
        gpus = self.gather_objects(_gpu_identity(self.device))
        rank = gpus.index(gpus[self.rank])
        if gpus[self.rank] and rank != self.rank:
            self._close()
            raise ProcessError(
                f"process {self.rank} has the same GPU as process {rank}",
                expected="a GPU for each process",
                fix="start as many processes on a machine as it has GPUs, or set efficiency.device=cpu",
            )

    def _meeting_point(self) -> str:
        if self.place.rendezvous != "env://":
            return self.place.rendezvous
        return f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"

    def _close(self, *, abort: bool = False) -> None:
        if dist.is_initialized():
            if abort and self.device.type == "cuda":
                # An orderly end waits for the other processes, which wait for this one: the error would not be told.
                dist.distributed_c10d._abort_process_group()  # noqa: SLF001  torch has no public name for it
            else:
                dist.destroy_process_group()
        if self._interface is None:
            os.environ.pop(_INTERFACE, None)


def _gpu_identity(device: torch.device) -> str:
    """What no other GPU has; empty where torch does not tell."""
    return str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))


def is_peer_failure(error: BaseException) -> bool:
    """Whether an error says no more than that another process is gone or does not answer."""
    if isinstance(error, dist.DistBackendError | dist.DistNetworkError | dist.DistStoreError):
        return True
    # gloo raises plain RuntimeErrors that name its source file.
    return isinstance(error, RuntimeError) and "gloo/" in str(error)


def _use_loopback() -> None:
    """Let gloo bind to the loopback interface; otherwise it asks what address the host's name has, if it has one."""
    names = [name for _, name in socket.if_nameindex()]
    loopback = next((name for name in ("lo", "lo0") if name in names), None)
    if loopback is not None:
        os.environ[_INTERFACE] = loopback


class _Gather(torch.autograd.Function):
    """Rows of all processes; the gradient is summed over processes and cut into the owners' rows."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, group: ProcessGroup) -> torch.Tensor:
        ctx.group, ctx.size = group, len(rows)
        gathered = rows.new_empty((group.world * len(rows), *rows.shape[1:]))
        dist.all_gather_into_tensor(gathered, rows.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = gradients
        group: ProcessGroup = ctx.group
        # In fp32: a sum over many processes in bf16 would lose what the small ones add.
        total = group.all_reduce_sum(gradient.to(torch.promote_types(gradient.dtype, torch.float32)))
        return total[group.rank * ctx.size : (group.rank + 1) * ctx.size].to(gradient.dtype), None
