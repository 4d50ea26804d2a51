"""Sound that comes in blocks, read by the numbers of its samples."""

from collections.abc import Iterable

import numpy as np

from facemae.sound.wave import Wave


class BlockReader:
    """Samples of a stream by their numbers; first ones may only rise. What has been passed is not held.

    Args:
        blocks: float32 [N] each.
    """

    def __init__(self, blocks: Iterable[Wave]) -> None:
        self._blocks = iter(blocks)
        self._held = np.zeros(0, np.float32)
        self._start = 0

    def between(self, first: int, stop: int) -> Wave:
        """Samples [first, stop), fewer where the stream has no more; `first` is at least 0."""
        while self._start + len(self._held) < stop and (block := next(self._blocks, None)) is not None:
            self._drop(first)
            self._held = np.concatenate([self._held, block])
        self._drop(first)
        return self._held[: max(0, stop - self._start)]

    def take(self, first: int, count: int) -> Wave:
        """Samples [first, first + count), silence outside the stream; `first` may be negative."""
        found = np.zeros(count, np.float32)
        begin = max(first, 0)
        part = self.between(begin, max(first + count, begin))
        found[begin - first :][: len(part)] = part
        return found

    def _drop(self, first: int) -> None:
        passed = min(max(0, first - self._start), len(self._held))
        self._start, self._held = self._start + passed, self._held[passed:]
