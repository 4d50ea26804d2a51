"""How many altered copies of its own images the contamination check finds, and how often it is wrong."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facemae.data.duplicates import correlation, thumbnail, thumbnail_hash
from facemae.errors import UsageError
from facemae_probes.contamination.matching import Distinct, alike, near_pairs
from facemae_probes.contamination.parts import Fingerprints, Images, Part

Pixels = NDArray[np.uint8]


def _jpeg(quality: int) -> Callable[[Pixels], Pixels]:
    def change(image: Pixels) -> Pixels:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        found = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert found is not None, "it was encoded just now"
        return np.asarray(found, dtype=np.uint8)

    return change


def _brighter(factor: float) -> Callable[[Pixels], Pixels]:
    return lambda image: np.clip(image * factor, 0, 255).astype(np.uint8)


def _scaled(factor: float, how: int) -> Callable[[Pixels], Pixels]:
    return lambda image: cv2.resize(image, None, fx=factor, fy=factor, interpolation=how).astype(np.uint8)


def _cut(share: float) -> Callable[[Pixels], Pixels]:
    """A share of the sides off each side, at least a pixel."""

    def change(image: Pixels) -> Pixels:
        rows, columns = (max(1, round(share * side)) for side in image.shape[:2])
        return np.ascontiguousarray(image[rows:-rows, columns:-columns])

    return change


def _turned(degrees: float) -> Callable[[Pixels], Pixels]:
    def change(image: Pixels) -> Pixels:
        rows, columns = image.shape[:2]
        turn = cv2.getRotationMatrix2D(((columns - 1) / 2, (rows - 1) / 2), degrees, 1)
        turned = cv2.warpAffine(image, turn, (columns, rows), borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(turned, dtype=np.uint8)

    return change


def _equalised(image: Pixels) -> Pixels:
    return np.repeat(cv2.equalizeHist(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[:, :, None], 3, axis=2).astype(np.uint8)


def _locally(image: Pixels) -> Pixels:
    grey = cv2.createCLAHE(2.0, (8, 8)).apply(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    return np.repeat(grey[:, :, None], 3, axis=2).astype(np.uint8)


CHANGES: Mapping[str, Callable[[Pixels], Pixels]] = {
    "twice as large": _scaled(2, cv2.INTER_CUBIC),
    "two thirds as large": _scaled(2 / 3, cv2.INTER_AREA),
    "JPEG of quality 50": _jpeg(50),
    "JPEG of quality 20": _jpeg(20),
    "brightness x 0.7": _brighter(0.7),
    "brightness x 1.3": _brighter(1.3),
    "histogram equalised": _equalised,
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "2 % off each side": _cut(0.02),
    "4 % off each side": _cut(0.04),
    "8 % off each side": _cut(0.08),
    "turned by 3 degrees": _turned(3),
    "contrast equalised place by place": _locally,
}
"""Copies that are looked for."""


def study_copies(data: Path, *, count: int = 1000) -> dict[str, Any]:
    """Compare altered copies with their originals, and all images with all others mirrored.

    Images of different faces that are alike when one is mirrored tell how often the rule errs: the mirrored photo is
    hardly ever in the set, and where it is, the number is too high.

    Args:
        data: Shard set of stills.
        count: Images that are altered, evenly spread.

    Returns:
        `images`; `found`, the share of copies by change; `mirrored_pairs` of `pairs`, that are alike mirrored.

    Raises:
        UsageError: No image decodes.
    """
    images = Images(Part(data))
    with tempfile.TemporaryDirectory(prefix="facemae-copies-") as folder:
        prints = Fingerprints.of(images, Path(folder) / "small", lambda _: None)
        distinct = Distinct(prints)
        total = len(distinct.places)
        if not total:
            raise UsageError(f"no image of {data} decodes", expected="a shard set of stills")
        mirrored = sum(one < other for one, other, *_ in near_pairs(distinct, distinct, mirrored=True))
    places = distinct.places[np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))]
    found = dict.fromkeys(CHANGES, 0)
    for place in places.tolist():
        image = images.image(place)
        assert image is not None, "it was decoded before"
        for name, change in CHANGES.items():
            found[name] += _found(thumbnail(image), thumbnail(change(image)))
    return {
        "data": images.index.digest,
        "images": len(places),
        "found": {name: number / len(places) for name, number in found.items()},
        "mirrored_pairs": mirrored,
        "pairs": total * (total - 1) // 2,
    }


def _found(original: NDArray[np.float32], copy: NDArray[np.float32]) -> bool:
    """Whether the check finds a copy, as it is or mirrored, by thumbnails."""
    code = np.frombuffer(thumbnail_hash(original), dtype=np.uint8)
    for small in (copy, np.ascontiguousarray(copy[:, ::-1])):
        bits = np.bitwise_count(code ^ np.frombuffer(thumbnail_hash(small), dtype=np.uint8)).sum()
        if alike(np.array([bits]), np.array([correlation(original, small)]))[0]:
            return True
    return False


def lines(found: Mapping[str, Any]) -> list[str]:
    """The result for a person."""
    copies = [f"{100 * share:5.1f} %  {name}" for name, share in found["found"].items()]
    alike_mirrored = f"{found['mirrored_pairs']:,} of {found['pairs']:,} pairs of different images are alike mirrored"
    return [f"found of {found['images']:,} altered copies:", *copies, alike_mirrored]
