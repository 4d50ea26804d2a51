"""The order of samples: a pure function of seed and position.

An epoch permutes the shards, joins their samples into one sequence, turns that sequence by a random amount, and cuts
it into C equal runs, one a lane. Within a run samples are shuffled, all of them or block by block. A lane of length L
is in epoch ``position // L``. Nothing here knows a rank, a worker or a world size, and nothing is stored: a whole-run
shuffle is a keyed permutation that is evaluated where it is needed, so ten million samples cost no list.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from facemae.errors import UsageError
from facemae.rng import generator

Indices = NDArray[np.int64]

_ROUNDS = 8


class Feistel:
    """A keyed permutation of ``range(size)`` in constant memory.

    A Feistel network over a rectangle of about sqrt(size) by sqrt(size) cells with addition modulo the sides, and cycle
    walking for the few cells beyond `size` (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).

    Args:
        size: Number of elements.
        rng: Gives the round keys.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size = size
        self._rows = max(1, int(np.ceil(np.sqrt(size))))
        self._columns = -(-size // self._rows)
        self._keys = rng.integers(0, 2**64, size=_ROUNDS, dtype=np.uint64)

    def __call__(self, positions: Indices) -> Indices:
        """Where each position goes; int64 of the same shape, values in ``range(size)``."""
        values = self._encrypt(np.asarray(positions, dtype=np.uint64))
        outside = values >= self.size
        while outside.any():
            values[outside] = self._encrypt(values[outside])
            outside = values >= self.size
        return values.astype(np.int64)

    def _encrypt(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        columns, rows = np.uint64(self._columns), np.uint64(self._rows)
        row, column = np.divmod(values, columns)
        for number, key in enumerate(self._keys):
            if number % 2 == 0:
                row = (row + _mix(column, key)) % rows
            else:
                column = (column + _mix(row, key)) % columns
        mixed: NDArray[np.uint64] = row * columns + column
        return mixed


def _mix(values: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    # The finaliser of SplitMix64 (Steele, Lea, Flood 2014). The top bit is cleared so that the sum above cannot wrap.
    mixed: NDArray[np.uint64] = values * np.uint64(0x9E3779B97F4A7C15) ^ key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))) >> np.uint64(1)


class _Epoch(NamedTuple):
    """The joined sequence of one epoch: where each shard's samples begin in it, and where it is turned to."""

    shards: Indices
    ends: Indices
    turn: int


class Order:
    """The order in which one stream is read.

    Args:
        shard_sizes: Samples in each shard, in index order.
        seed: The run's seed.
        lanes: Number C of parallel runs.
        block: Shuffle within blocks of this many samples of a run; None shuffles a whole run.
        stream: Name of the stream; streams with equal shards are read in different orders.
        subset: Ascending sample indices to read, where a filter applies; all samples by default.

    Raises:
        UsageError: Fewer samples than lanes, or a subset that is not ascending within the samples.
    """

    def __init__(
        self,
        shard_sizes: Sequence[int] | NDArray[np.int64],
        *,
        seed: int,
        lanes: int,
        block: int | None = None,
        stream: str = "faces",
        subset: Indices | None = None,
    ) -> None:
        sizes = np.asarray(shard_sizes, dtype=np.int64)
        self.seed, self.lanes, self.block, self.stream = seed, lanes, block, stream
        self._subset = None if subset is None else np.asarray(subset, dtype=np.int64)
        if self._subset is not None:
            sizes = _sizes_within(sizes, self._subset, stream)
        self._sizes = sizes
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64) if len(sizes) else sizes
        self.samples_total = int(sizes.sum())
        self.lane_length = self.samples_total // lanes
        if self.lane_length == 0:
            raise UsageError(
                f"stream {stream!r} has {self.samples_total} samples for {lanes} lanes",
                expected="at least one sample a lane",
                fix=f"set data.lanes={1 << max(self.samples_total, 1).bit_length() - 1}, or another divisor of "
                "optim.batch_size that is no more than the samples; or widen the stream's `where`",
            )
        self._epoch = functools.lru_cache(maxsize=4)(self._build_epoch)
        self._shuffle = functools.lru_cache(maxsize=4 * lanes + 64)(self._build_shuffle)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_epoch", "_shuffle")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._epoch = functools.lru_cache(maxsize=4)(self._build_epoch)
        self._shuffle = functools.lru_cache(maxsize=4 * self.lanes + 64)(self._build_shuffle)

    @property
    def subset(self) -> Indices | None:
        """Ascending sample indices that are read; None where all are."""
        return self._subset

    @property
    def used_samples(self) -> int:
        """Samples read in one epoch: all but the N mod C that sit it out."""
        return self.lane_length * self.lanes

    def epoch_of(self, position: int) -> int:
        """The epoch a lane is in at a position."""
        return position // self.lane_length

    def sample(self, lane: int, position: int) -> int:
        """The sample at one position of a lane, as an index into the shard set."""
        return int(self.samples(lane, np.array([position]))[0])

    def samples(self, lane: int, positions: Indices) -> Indices:
        """The samples at some positions of a lane.

        Args:
            lane: 0 to C - 1.
            positions: int64 [n], counted from the start of the run; they may lie in several epochs.

        Returns:
            int64 [n], indices into the shard set.
        """
        if not 0 <= lane < self.lanes:
            raise IndexError(f"lane {lane} of {self.lanes}")
        positions = np.asarray(positions, dtype=np.int64)
        epochs, within = np.divmod(positions, self.lane_length)
        found = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            found[here] = self._in_epoch(epoch, lane * self.lane_length + self._shuffled(epoch, lane, within[here]))
        return found if self._subset is None else self._subset[found]

    def neighbour(self, sample: int) -> int:
        """The sample after this one in index order, within the subset; the last is followed by the first."""
        if self._subset is None:
            return (sample + 1) % self.samples_total
        place = int(np.searchsorted(self._subset, sample)) + 1
        return int(self._subset[place % self.samples_total])

    def _shuffled(self, epoch: int, lane: int, within: Indices) -> Indices:
        size = self.block or self.lane_length
        blocks, offsets = np.divmod(within, size)
        moved = np.empty_like(within)
        for block in np.unique(blocks).tolist():
            here = blocks == block
            moved[here] = block * size + self._shuffle(epoch, lane, block)(offsets[here])
        return moved

    def _in_epoch(self, epoch: int, places: Indices) -> Indices:
        """Samples at places of the epoch's joined sequence."""
        shards, ends, turn = self._epoch(epoch)
        places = (places + turn) % self.samples_total
        slot = np.searchsorted(ends, places, side="right")
        shard = shards[slot]
        return self._starts[shard] + places - (ends[slot] - self._sizes[shard])

    def _build_epoch(self, epoch: int) -> _Epoch:
        rng = generator(self.seed, "order", self.stream, epoch)
        shards = rng.permutation(len(self._sizes)).astype(np.int64)
        # Without the turn, a set of one shard would leave the same N mod C samples out of every epoch.
        return _Epoch(shards, np.cumsum(self._sizes[shards]), int(rng.integers(self.samples_total)))

    def _build_shuffle(self, epoch: int, lane: int, block: int) -> Feistel:
        size = self.block or self.lane_length
        rng = generator(self.seed, "shuffle", self.stream, epoch, lane, block)
        return Feistel(min(size, self.lane_length - block * size), rng)


def _sizes_within(sizes: Indices, subset: Indices, stream: str) -> Indices:
    """Samples of the subset in each shard."""
    total = int(sizes.sum())
    if len(subset) and (np.any(np.diff(subset) <= 0) or subset[0] < 0 or subset[-1] >= total):
        raise UsageError(
            f"the subset of stream {stream!r} is not a list of ascending, different indices",
            expected=f"indices from 0 to {total - 1}",
        )
    bounds = np.searchsorted(subset, np.concatenate([[0], np.cumsum(sizes)]))
    return np.diff(bounds).astype(np.int64)
