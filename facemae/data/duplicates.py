"""Finding images that are there more than once.

Exact duplicates have the same pixels after decoding, whatever their files look like. Near-duplicates, such as the same
photo scaled or compressed again, have perceptual hashes that differ in few bits and, as thumbnails, correlate. The hash
is pHash: 64 signs of the lowest frequencies of a cosine transform, against their median. Alone it is too coarse for
faces, which are all alike in their lowest frequencies.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np

BITS = 64
SIDE = 32
_LOW = 8
_FLAT_LIMIT = 50_000
_SHORT = 10
_QUERIES = 4096

Array = np.ndarray[Any, Any]


def pixel_digest(image: Array) -> bytes:
    """16 bytes that are equal for equal pixels of equal shape; `image` is uint8 [H, W, C]."""
    hasher = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    hasher.update(np.ascontiguousarray(image).data)
    return hasher.digest()


def thumbnail(image: Array) -> Array:
    """A uint8 RGB image [H, W, 3] as grey float32 [32, 32]."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small: Array = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    return small


def correlation(first: Array, second: Array) -> float:
    """Pearson correlation of two thumbnails; 0 where one is flat."""
    a, b = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 0 else 0.0


def perceptual_hash(image: Array) -> bytes:
    """The 64-bit pHash of a uint8 RGB image [H, W, 3], as 8 bytes."""
    return thumbnail_hash(thumbnail(image))


def thumbnail_hash(small: Array) -> bytes:
    """The pHash of a thumbnail, float32 [32, 32]; that of its mirror image is the hash of the mirrored image."""
    low = cv2.dct(small)[:_LOW, :_LOW].ravel()
    # The first coefficient is the mean brightness; it would pull the median without telling images apart.
    return np.packbits(low > np.median(low[1:])).tobytes()


def exact_groups(digests: Sequence[bytes | None]) -> list[list[int]]:
    """Groups of two or more positions with the same digest, ordered by their first; None belongs to no group."""
    groups: dict[bytes, list[int]] = {}
    for position, digest in enumerate(digests):
        if digest is not None:
            groups.setdefault(digest, []).append(position)
    return [group for group in groups.values() if len(group) > 1]


def near_pairs(hashes: Array, distance: int) -> Array:
    """Pairs of rows whose hashes differ in at most `distance` bits.

    Up to fifty thousand rows every pair is compared. Beyond that only those that agree in one of `distance` + 1 equal
    blocks of bits: two hashes that differ in at most `distance` bits must agree in one of them, so none is missed.
    Where these blocks are short, too many rows agree in one of them, and every pair is compared after all.

    Args:
        hashes: uint8 [N, 8].
        distance: Bits that may differ.

    Returns:
        int64 [n, 2], the smaller position first.
    """
    found = [pairs[pairs[:, 1] > pairs[:, 0]] for pairs in near_across(hashes, hashes, distance)]
    return np.concatenate(found) if found else np.zeros((0, 2), dtype=np.int64)


def near_across(queries: Array, hashes: Array, distance: int) -> Iterator[Array]:
    """Pairs of a query and a row whose hashes differ in at most `distance` bits; compared as in `near_pairs`.

    Args:
        queries: uint8 [M, 8].
        hashes: uint8 [N, 8].
        distance: Bits that may differ.

    Yields:
        int64 [n, 2], position of the query and of the row, for some thousand queries at a time.
    """
    import faiss

    if not len(queries) or not len(hashes):
        return
    block = BITS // (distance + 1)
    if len(hashes) <= _FLAT_LIMIT or block < _SHORT:
        search: Any = faiss.IndexBinaryFlat(BITS)
    else:
        search = faiss.IndexBinaryMultiHash(BITS, distance + 1, block)
    search.add(hashes)
    for start in range(0, len(queries), _QUERIES):
        # faiss counts distances below the radius.
        limits, _, labels = search.range_search(queries[start : start + _QUERIES], distance + 1)
        first = start + np.repeat(np.arange(len(limits) - 1), np.diff(limits).astype(np.int64))
        yield np.stack([first, labels], axis=1)


def clusters(pairs: Array, count: int) -> list[list[int]]:
    """Positions 0 … count-1 that pairs connect, as groups of two or more, ordered by their first."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not len(pairs):
        return []
    graph = coo_matrix((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    groups = [group.tolist() for group in np.split(order, cuts) if len(group) > 1]
    return sorted(groups)
