"""Which sample each slot of a global batch reads, as a pure function of the step.

A global batch of G samples is C lanes side by side, each of G / C slots; slot j belongs to lane ``j * C // G``. Within
a lane's slots every stream has its share. A process takes the slots of a contiguous group of lanes, so in an epoch it
reads only those lanes' shards, and any number of processes that divides C sees the same global batches.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facemae.data.order import Order
from facemae.errors import UsageError


@dataclass(frozen=True, slots=True)
class SlotRef:
    """One slot of a global batch and the sample it reads.

    Attributes:
        stream: Name of the stream.
        lane: Lane of the stream.
        position: Position in the lane, counted from the start of the run.
        sample: Index into the stream's shard set.
        epoch: Epoch of the lane at that position.
    """

    stream: str
    lane: int
    position: int
    sample: int
    epoch: int


class Plan:
    """The slots of every step.

    Args:
        streams: Name, order and share of each stream.
        batch_size: Samples G in a global batch.
        lanes: Number C of lanes; every order has as many.

    Raises:
        UsageError: The batch cannot be cut into whole numbers of slots; the message lists sizes that can.
    """

    def __init__(self, streams: Sequence[tuple[str, Order, int]], batch_size: int, lanes: int) -> None:
        if not streams:
            raise UsageError("the plan has no stream", expected="one entry or more in data.streams")
        for name, order, _ in streams:
            if order.lanes != lanes:
                raise ValueError(f"stream {name!r} has {order.lanes} lanes; the plan has {lanes}")
        names = [name for name, _, _ in streams]
        if len(set(names)) < len(names):
            raise UsageError(f"data.streams has a name twice: {', '.join(names)}", expected="a different name for each")
        self.orders = {name: order for name, order, _ in streams}
        self.batch_size = batch_size
        self.lanes = lanes
        shares = [share for _, _, share in streams]
        check_batch(batch_size, lanes, shares)
        self.slots_per_lane = {name: batch_size * share // (sum(shares) * lanes) for name, _, share in streams}

    def check_world(self, world: int) -> None:
        """See the function of this name."""
        check_world(self.lanes, world)

    def epochs(self, step: int) -> dict[str, float]:
        """How often each stream's samples have been read before a step; a whole number where an epoch ends."""
        return {name: step * self.slots_per_lane[name] / order.lane_length for name, order in self.orders.items()}

    def first_slot(self, rank: int, world: int) -> int:
        """Number of the first slot of a process in the global batch."""
        return rank * (self.batch_size // world)

    def slots(self, step: int, rank: int = 0, world: int = 1) -> list[SlotRef]:
        """What one process reads in one step.

        Args:
            step: Optimiser step, from 0.
            rank: Number of the process.
            world: Number of processes; divides the lanes.

        Returns:
            batch_size / world slots, in slot order. All processes' lists one after another are the global batch.
        """
        self.check_world(world)
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world}")
        mine = self.lanes // world
        return [
            slot
            for lane in range(rank * mine, (rank + 1) * mine)
            for name, order in self.orders.items()
            for slot in self._lane_slots(name, order, lane, step)
        ]

    def _lane_slots(self, name: str, order: Order, lane: int, step: int) -> list[SlotRef]:
        count = self.slots_per_lane[name]
        positions = np.arange(step * count, (step + 1) * count)
        samples = order.samples(lane, positions).tolist()
        return [
            SlotRef(name, lane, position, sample, order.epoch_of(position))
            for position, sample in zip(positions.tolist(), samples, strict=True)
        ]


def check_world(lanes: int, world: int) -> None:
    """Raise UsageError, listing legal numbers of processes, where `world` does not divide the lanes."""
    legal = [number for number in range(1, lanes + 1) if lanes % number == 0]
    if world not in legal:
        raise UsageError(
            f"{world} processes cannot share {lanes} lanes equally",
            expected=f"one of {', '.join(map(str, legal))} processes",
            fix="start with one of these numbers; a new run may also set data.lanes",
        )


def check_batch(batch_size: int, lanes: int, shares: Sequence[int]) -> None:
    """Raise UsageError, listing legal sizes, where a stream's part of the batch is no multiple of the lanes."""
    total = sum(shares)
    unit = math.lcm(*(lanes * total // math.gcd(lanes * total, share) for share in shares))
    if batch_size > 0 and batch_size % unit == 0:
        return
    below = batch_size // unit * unit
    sizes = [size for size in (below, below + unit, below + 2 * unit) if size > 0]
    parts = f" and shares {':'.join(map(str, shares))}" if len(shares) > 1 else ""
    raise UsageError(
        f"a batch of {batch_size} cannot be cut into {lanes} lanes{parts}",
        expected=f"a multiple of {unit}: {', '.join(map(str, sizes))}, …",
        fix="set optim.batch_size to one of these, or change data.lanes or the shares",
    )
