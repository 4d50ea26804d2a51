"""Finding the images of one part that are in another too, by the rule of `facemae data verify`."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facemae.data.duplicates import correlation, near_across
from facemae.data.verify import ALIKE, NEAR
from facemae.parallel import in_threads
from facemae_probes.contamination.parts import Fingerprints, Images

_TOGETHER = 4096
"""Pairs whose thumbnails are in memory at a time: 32 MB."""


@dataclass(frozen=True)
class Match:
    """An image that is in both parts.

    Attributes:
        probing: Place among the images of the probing set.
        pretraining: Place among those of the part; the first of those with these pixels.
        copies: How many images of the part have these pixels.
        bits: Bits in which the perceptual hashes differ.
        correlation: Of the thumbnails; None for equal pixels.
    """

    probing: int
    pretraining: int
    copies: int
    bits: int
    correlation: float | None

    @property
    def kind(self) -> str:
        """`exact` for equal pixels, else `near`."""
        return "exact" if self.correlation is None else "near"


class _Distinct:
    """Images with different pixels.

    One stands for all that have its own, so that thousands of black frames do not make millions of pairs.

    Args:
        prints: Of all images.
    """

    def __init__(self, prints: Fingerprints) -> None:
        decoded = np.flatnonzero(prints.decoded)
        digests, first, inverse, counts = np.unique(
            prints.digests[decoded], return_index=True, return_inverse=True, return_counts=True
        )
        self.digests, self.places, self.counts = digests, decoded[first], counts
        self.hashes = prints.hashes[self.places]
        order = np.argsort(inverse, kind="stable")
        self._members = np.split(decoded[order], np.cumsum(counts)[:-1]) if len(counts) else []

    def members(self, number: int) -> list[int]:
        """Places of all images with the pixels of a distinct one."""
        found: list[int] = self._members[number].tolist()
        return found


def find_matches(probing: tuple[Images, Fingerprints], pretraining: tuple[Images, Fingerprints]) -> Iterator[Match]:
    """Equal pixels, and hashes that differ in at most `NEAR` bits while thumbnails correlate with at least `ALIKE`.

    Args:
        probing: Images of the probing set.
        pretraining: Those of a part that was pretrained on.

    Yields:
        Every pair of a probing image and an image that differs from others of its part.
    """
    asked, known = _Distinct(probing[1]), _Distinct(pretraining[1])
    _, ours, theirs = np.intersect1d(asked.digests, known.digests, assume_unique=True, return_indices=True)
    for one, other in zip(ours.tolist(), theirs.tolist(), strict=True):
        for place in asked.members(one):
            yield Match(place, int(known.places[other]), int(known.counts[other]), 0, None)
    same = dict(zip(ours.tolist(), theirs.tolist(), strict=True))
    for block in near_across(asked.hashes, known.hashes, NEAR):
        pairs = np.array([pair for pair in block.tolist() if same.get(pair[0]) != pair[1]], dtype=np.int64)
        for start in range(0, len(pairs), _TOGETHER):
            yield from _alike(pairs[start : start + _TOGETHER], (asked, probing[0]), (known, pretraining[0]))


def _alike(
    pairs: NDArray[np.int64], probing: tuple[_Distinct, Images], pretraining: tuple[_Distinct, Images]
) -> Iterator[Match]:
    """Those of the pairs of distinct images whose thumbnails correlate."""
    (asked, ours), (known, theirs) = probing, pretraining
    numbers = [np.unique(pairs[:, side]).tolist() for side in (0, 1)]
    small = [
        dict(zip(found, in_threads(images.small, distinct.places[found].tolist()), strict=True))
        for found, (distinct, images) in zip(numbers, ((asked, ours), (known, theirs)), strict=True)
    ]
    differing = np.bitwise_count(asked.hashes[pairs[:, 0]] ^ known.hashes[pairs[:, 1]]).sum(axis=1)
    for (one, other), bits in zip(pairs.tolist(), differing.tolist(), strict=True):
        value = correlation(small[0][one], small[1][other])
        if value >= ALIKE:
            for place in asked.members(one):
                yield Match(place, int(known.places[other]), int(known.counts[other]), bits, value)
