"""Near-duplicate images as units of independence, for sets that name neither persons nor sources."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from facemae.data.decode import decode_image
from facemae.data.duplicates import clusters, correlation, exact_groups, near_pairs, perceptual_hash, pixel_digest
from facemae.data.duplicates import thumbnail as make_thumbnail
from facemae.data.verify import ALIKE, NEAR
from facemae.errors import DecodeError
from facemae.parallel import in_threads

Read = Callable[[], bytes]


def near_duplicates(
    images: Sequence[Read],
    *,
    distance: int = NEAR,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.int64]:
    """Number of the cluster of every image: the position of its first member.

    The same rule as that of `facemae data verify`: equal pixels, or perceptual hashes that differ in few bits and
    thumbnails that correlate; clusters are what such pairs connect.

    Args:
        images: Read the encoded images; called twice where there are near pairs.
        distance: Bits of 64 in which hashes may differ.
        progress: Called with (images done, images in all).

    Returns:
        int64 [N]. An image that cannot be read or does not decode is a cluster of its own.
    """
    digests: list[bytes | None] = []
    hashes = np.zeros((len(images), 8), dtype=np.uint8)
    for done, (digest, code) in enumerate(in_threads(_look, images), 1):
        digests.append(digest)
        hashes[done - 1] = np.frombuffer(code, dtype=np.uint8)
        if progress is not None:
            progress(done, len(images))
    # One image stands for all with its pixels, so that thousands of black frames do not make millions of pairs.
    groups = exact_groups(digests)
    repeated = {place for group in groups for place in group[1:]}
    single = np.array([p for p, digest in enumerate(digests) if digest and p not in repeated], dtype=np.int64)
    pairs = single[near_pairs(hashes[single], distance)] if len(single) else np.zeros((0, 2), dtype=np.int64)
    places = np.unique(pairs).tolist()
    small = dict(zip(places, in_threads(_thumbnail, [images[place] for place in places]), strict=True))
    alike = [pair for pair in pairs.tolist() if correlation(small[pair[0]], small[pair[1]]) >= ALIKE]
    same = [[group[0], place] for group in groups for place in group[1:]]
    joined = np.array(alike + same, dtype=np.int64).reshape(-1, 2)
    out = np.arange(len(images), dtype=np.int64)
    for group in clusters(joined, len(images)):
        out[group] = group[0]
    return out


def _look(read: Read) -> tuple[bytes | None, bytes]:
    try:
        image = decode_image(read(), channels=3, name="image")
    except (DecodeError, OSError):
        # Packing names what is wrong with it.
        return None, bytes(8)
    return pixel_digest(image), perceptual_hash(image)


def _thumbnail(read: Read) -> NDArray[np.float32]:
    small: NDArray[np.float32] = make_thumbnail(decode_image(read(), channels=3, name="image"))
    return small


def crossing(cluster: NDArray[np.int64], splits: Sequence[str]) -> NDArray[np.bool_]:
    """Whether the cluster of an image has images of another split too: bool [N]."""
    _, codes = np.unique(np.array(splits), return_inverse=True)
    _, numbers = np.unique(cluster, return_inverse=True)
    least, most = np.full(numbers.max(initial=-1) + 1, len(codes)), np.full(numbers.max(initial=-1) + 1, -1)
    np.minimum.at(least, numbers, codes)
    np.maximum.at(most, numbers, codes)
    crosses: NDArray[np.bool_] = (least != most)[numbers]
    return crosses
