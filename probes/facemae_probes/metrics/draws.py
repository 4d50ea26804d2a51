"""Draws of units: with replacement for intervals, swaps of two models for tests.

Replicate r is a function of seed, r and the number of units alone: neither the number of replicates nor the size of a
block changes it.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from facemae.rng import generator
from facemae_probes.metrics.base import Array, Statistic

BLOCK = 4_000_000
"""Samples times draws in a block, which bounds the memory."""


def bootstrap(units: int, replicates: int, seed: int, *, samples: int) -> Iterator[Array]:
    """Blocks [units, B] of how often each unit is drawn when as many as there are, are drawn with replacement.

    B is bounded by the number of samples, since some metrics hold a number for each sample and draw.
    """
    for block in _blocks(samples, replicates):
        counts = np.empty((len(block), units))
        for row, replicate in zip(counts, block, strict=True):
            drawn = generator(seed, "bootstrap", replicate).integers(units, size=units, dtype=np.uint32)
            row[:] = np.bincount(drawn, minlength=units)
        yield np.ascontiguousarray(counts.T)


def swaps(units: int, replicates: int, seed: int, *, samples: int) -> Iterator[Array]:
    """Blocks [units, B] of zeros and ones: whether two models change places on a unit; B as in `bootstrap`."""
    for block in _blocks(2 * samples, replicates):
        swapped = [generator(seed, "swap", replicate).integers(2, size=units, dtype=np.uint8) for replicate in block]
        yield np.ascontiguousarray(np.stack(swapped, axis=1), dtype=np.float64)


def replicate_values(statistics: Sequence[Statistic], draws: Iterator[Array]) -> Array:
    """[S, replicates]: values of several statistics on the same draws."""
    blocks = [np.stack([statistic(counts) for statistic in statistics]) for counts in draws]
    return np.concatenate(blocks, axis=1)


def _blocks(samples: int, replicates: int) -> Iterator[range]:
    size = max(1, BLOCK // max(samples, 1))
    for start in range(0, replicates, size):
        yield range(start, min(start + size, replicates))
