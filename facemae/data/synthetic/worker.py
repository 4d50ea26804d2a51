"""What a worker process does: draw some samples and encode them.

Imports neither torch nor the shard writer, so that workers start at once.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from facemae.data.regions import encode_map
from facemae.data.synthetic.canvas import Pixels
from facemae.data.synthetic.draw import render
from facemae.data.synthetic.params import sample_params
from facemae.rng import generator

_QUALITY = 92

Drawn = tuple[str, dict[str, Any], bytes, bytes]
"""Key, metadata, picture as JPEG, region map as PNG."""


def image_split(seed: int, identity: int, sample: int) -> str:
    """A split of one person's images, for telling persons apart: 70 % train, 10 % valid, 20 % test."""
    # Ten images in a row are always seven, one and two: every person has images on both sides.
    deal = generator(seed, "synthetic", "image-split", identity, sample // 10).permutation(10)
    place = int(deal[sample % 10])
    return "train" if place < 7 else "valid" if place == 7 else "test"


def encode_png(image: Pixels) -> bytes:
    """An image [H, W] or RGB [H, W, 3] as PNG."""
    return _encode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 4])


def encode_jpeg(image: Pixels) -> bytes:
    """An RGB image [H, W, 3] as JPEG of quality 92."""
    return _encode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])


def _encode(kind: str, image: Pixels, options: list[int]) -> bytes:
    ordered = image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1])
    done, data = cv2.imencode(kind, ordered, options)
    assert done
    return bytes(data.tobytes())


def draw_samples(seed: int, identities: int, size: int, splits: Sequence[str], chunk: range) -> list[Drawn]:
    """Draw and encode the samples of these numbers.

    Args:
        seed: Seed of the data set.
        identities: Persons in it; sample k shows person k mod `identities`.
        size: Side of the pictures.
        splits: Split of each person.
        chunk: Numbers of the samples.
    """
    cv2.setNumThreads(1)
    drawn = []
    for number in chunk:
        identity, sample = number % identities, number // identities
        params = sample_params(seed, identity, sample)
        picture = render(params, size)
        labels = dict(picture.labels)
        if splits[identity] == "train":
            labels["identity_split"] = image_split(seed, identity, sample)
        meta = {
            "split": splits[identity],
            "subject": params.identity.name,
            "labels": labels,
            "regions": {"source": "drawn"},
        }
        key = f"{params.identity.name}_{sample:05d}"
        drawn.append((key, meta, encode_jpeg(picture.image), encode_map(picture.regions)))
    return drawn
