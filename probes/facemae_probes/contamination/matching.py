"""Finding the images of one part that are in another too.

Copies may be brighter, cut by a pixel, or mirrored: their pHashes differ in more bits than those by which `facemae data
verify` and the clusters of benchmarks look for near-duplicates, whose rule is part of what packed sets are. Here the
gate is wider, and the correlation of thumbnails decides. `facemae study copies` measures what it finds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae.data.duplicates import near_across
from facemae.data.verify import ALIKE, NEAR
from facemae_probes.contamination.parts import Fingerprints

RULES = ((NEAR, ALIKE), (12, 0.93))
"""Bits of 64 in which hashes may differ, and the least correlation then; one of them must hold."""
_TOGETHER = 4096
"""Pairs whose thumbnails are in memory at a time: some 32 MB each as float32."""


@dataclass(frozen=True)
class Match:
    """An image that is in both parts.

    Attributes:
        probing: Place among the images of the probing set.
        pretraining: Place among those of the part; the first of those with these pixels.
        copies: How many images of the part have these pixels.
        bits: Bits in which the perceptual hashes differ.
        correlation: Of the thumbnails; None for equal pixels.
        mirrored: Whether the one is alike to the other mirrored.
    """

    probing: int
    pretraining: int
    copies: int
    bits: int
    correlation: float | None
    mirrored: bool = False

    @property
    def kind(self) -> str:
        """`exact` for equal pixels, else `near` or `mirrored`."""
        return "exact" if self.correlation is None else "mirrored" if self.mirrored else "near"


class Distinct:
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
        self.hashes, self.mirrored = prints.hashes[self.places], prints.mirrored[self.places]
        self._small = prints.small
        order = np.argsort(inverse, kind="stable")
        self._members = np.split(decoded[order], np.cumsum(counts)[:-1]) if len(counts) else []

    def small(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Thumbnails [n, S, S] of distinct images."""
        return self._small[self.places[numbers]]

    def members(self, number: int) -> list[int]:
        """Places of all images with the pixels of a distinct one."""
        found: list[int] = self._members[number].tolist()
        return found


def find_matches(probing: Fingerprints, pretraining: Fingerprints) -> Iterator[Match]:
    """Equal pixels, and images that are alike by `RULES`, as they are or mirrored.

    Args:
        probing: Images of the probing set.
        pretraining: Those of a part that was pretrained on.

    Yields:
        Every pair of a probing image and an image that differs from others of its part, once.
    """
    asked, known = Distinct(probing), Distinct(pretraining)
    _, ours, theirs = np.intersect1d(asked.digests, known.digests, assume_unique=True, return_indices=True)
    seen = set(zip(ours.tolist(), theirs.tolist(), strict=True))
    for one, other in sorted(seen):
        for place in asked.members(one):
            yield Match(place, int(known.places[other]), int(known.counts[other]), 0, None)
    for mirrored in (False, True):
        for one, other, bits, value in near_pairs(asked, known, mirrored=mirrored):
            if (one, other) not in seen:
                seen.add((one, other))
                for place in asked.members(one):
                    yield Match(place, int(known.places[other]), int(known.counts[other]), bits, value, mirrored)


def near_pairs(asked: Distinct, known: Distinct, *, mirrored: bool) -> Iterator[tuple[int, int, int, float]]:
    """Numbers of two distinct images that are alike by `RULES`, with bits and correlation, equal pixels included.

    Args:
        asked: Images.
        known: Others, or the same.
        mirrored: Whether `asked` are compared mirrored.
    """
    hashes = asked.mirrored if mirrored else asked.hashes
    for block in near_across(hashes, known.hashes, max(bits for bits, _ in RULES)):
        for start in range(0, len(block), _TOGETHER):
            pairs = block[start : start + _TOGETHER]
            first, second = (each.small(pairs[:, side]) for side, each in enumerate((asked, known)))
            values = _correlations(first[:, :, ::-1] if mirrored else first, second)
            bits = np.bitwise_count(hashes[pairs[:, 0]] ^ known.hashes[pairs[:, 1]]).sum(axis=1)
            for row in np.flatnonzero(alike(bits, values)).tolist():
                yield int(pairs[row, 0]), int(pairs[row, 1]), int(bits[row]), float(values[row])


def alike(bits: NDArray[Any], correlation: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether pairs of images are alike by `RULES`: bits that differ and correlations, both [P]."""
    found: NDArray[np.bool_] = np.any([(bits <= most) & (correlation >= least) for most, least in RULES], axis=0)
    return found


def _correlations(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pearson correlations of thumbnails [P, S, S]; 0 where one is flat."""
    a, b = (each.reshape(len(each), -1).astype(np.float32) for each in (first, second))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt(np.einsum("pi,pi->p", a, a) * np.einsum("pi,pi->p", b, b))
    products = np.einsum("pi,pi->p", a, b)
    found: NDArray[np.float32] = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    return found
