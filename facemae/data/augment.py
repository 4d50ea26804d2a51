"""Views: a random crop, a flip, changes of colour and a mask, drawn from the sample's own generator.

What is drawn depends on seed, view, stream, epoch and sample, and on nothing else; no process, no worker, no order.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from facemae.data.masks import draw_mask
from facemae.data.photometric import draw_change
from facemae.data.preprocess import Box, Pixels, part_box, resize_frames
from facemae.data.regions import Map, cut_map, mirrored
from facemae.data.schema import WHOLE, MaskSpec, ViewSpec
from facemae.rng import generator

Place = tuple[Box | None, bool]
"""Part of an image that a view takes, None for all of it, and whether it is mirrored."""

_TRIES = 10


def make_view(
    image: Pixels,
    spec: ViewSpec,
    seed: int,
    stream: str,
    epoch: int,
    sample: int,
    *,
    out: Pixels | None = None,
    regions: Map | None = None,
) -> tuple[Pixels, NDArray[np.int64] | None]:
    """One view of one image.

    Args:
        image: uint8 [H, W, C], upright; C as in the view.
        spec: The view.
        seed: The run's seed.
        stream: Name of the sample's stream.
        epoch: Epoch of the stream the sample is read in.
        sample: The sample's index in its shard set.
        out: Where to write the pixels: uint8 [C, S, S], contiguous.
        regions: The image's region map, uint8 [1, h, w], where the view's mask needs one.

    Returns:
        uint8 [C, S, S], contiguous and not normalised, and int64 [keep], the ascending indices of visible patches;
        [copies, keep] where the view has several masks, None where it has none.
    """
    path = (spec.name, stream, epoch, sample)
    place = _draw_place(image, spec, seed, path)
    pixels = np.empty((image.shape[2], spec.image_size, spec.image_size), np.uint8) if out is None else out
    _fill(pixels[None], image[None], spec, place, seed, path)
    shown = None if regions is None else place_regions(regions, image.shape[:2], spec.image_size, place)
    return pixels, None if spec.mask is None else _draw_masks(spec.mask, seed, path, shown)


def make_clip_view(
    frames: NDArray[np.uint8],
    spec: ViewSpec,
    seed: int,
    stream: str,
    epoch: int,
    sample: int,
    *,
    out: NDArray[np.uint8],
    regions: Map | None = None,
) -> NDArray[np.int64] | None:
    """One view of the frames of a clip: all are cropped, mirrored and changed alike.

    Args:
        frames: uint8 [T, H, W, C].
        spec: The view.
        seed: As in `make_view`.
        stream: As in `make_view`.
        epoch: As in `make_view`.
        sample: As in `make_view`.
        out: Where to write the pixels: uint8 [T, C, S, S], contiguous.
        regions: Region maps of the first frame of each step, uint8 [steps, h, w], where the view's mask needs them.

    Returns:
        The mask, as `make_view`.
    """
    path = (spec.name, stream, epoch, sample)
    place = _draw_place(frames[0], spec, seed, path)
    _fill(out, frames, spec, place, seed, path)
    shown = None if regions is None else place_regions(regions, frames.shape[1:3], spec.image_size, place)
    return None if spec.mask is None else _draw_masks(spec.mask, seed, path, shown)


def place_regions(maps: Map, shape: tuple[int, int], size: int, place: Place) -> Map:
    """Region maps as a view shows them: the same part, at the same size, mirrored with the pixels.

    Args:
        maps: uint8 [T, h, w].
        shape: Height and width of the image they lie on.
        size: Side of the view.
        place: Part of the image, None for all of it, and whether it is mirrored; left and right are then exchanged.

    Returns:
        uint8 [T, size, size].
    """
    box, mirror = place
    left, top, width, height = box or (0, 0, shape[1], shape[0])
    found = cut_map(maps, shape, (left, top, width, height), size)
    return mirrored(found) if mirror else found


def _draw_place(image: Pixels, spec: ViewSpec, seed: int, path: tuple[str | int, ...]) -> Place:
    """Which part of the image is taken, None for all of it, and whether it is mirrored."""
    rng = generator(seed, "crop", *path)
    left, top, width, height = part_box(spec.part, image.shape[1], image.shape[0])
    box = None if spec.part == WHOLE else (left, top, width, height)
    if spec.crop == "random_resized":
        x, y, width, height = random_box(width, height, spec.scale, spec.ratio, rng)
        box = left + x, top + y, width, height
    return box, bool(spec.flip and rng.random() < 0.5)


def _fill(out: Pixels, frames: Pixels, spec: ViewSpec, place: Place, seed: int, path: tuple[str | int, ...]) -> None:
    """Write frames as the view shows them: uint8 [T, H, W, C] into [T, C, S, S]."""
    box, mirror = place
    change = None if spec.photometric is None else draw_change(spec.photometric, generator(seed, "photometric", *path))
    scaled = resize_frames(frames, spec.image_size, box=box, interpolation=spec.interpolation)
    for frame, target in zip(scaled, out, strict=True):
        planes(frame if change is None else change(frame), mirror=mirror, out=target)


def _draw_masks(
    spec: MaskSpec, seed: int, path: tuple[str | int, ...], regions: Map | None = None
) -> NDArray[np.int64]:
    first = draw_mask(spec, generator(seed, "mask", *path), regions)
    if spec.copies == 1:
        return first
    others = (draw_mask(spec, generator(seed, "mask", *path, copy), regions) for copy in range(1, spec.copies))
    return np.stack([first, *others])


def random_box(
    width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> Box:
    """Draw the part of an image that a random resized crop takes.

    The distribution is that of torchvision's ``RandomResizedCrop``: area uniform, aspect ratio log-uniform,
    ten tries, then the largest central part whose aspect ratio is allowed.

    Returns:
        Left, top, width and height in pixels, within the image.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_TRIES):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h
    w, h = width, height
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (width - w) // 2, (height - h) // 2, w, h


def planes(image: Pixels, *, mirror: bool = False, out: Pixels | None = None) -> Pixels:
    """Interleaved pixels [H, W, C] as contiguous planes [C, H, W], mirrored left to right on demand."""
    height, width, channels = image.shape
    if mirror:
        image = cv2.flip(image, 1)
    out = np.empty((channels, height, width), np.uint8) if out is None else out
    # Five times faster than a transposed copy in NumPy or torch; writes into `out`.
    cv2.split(image, [out[channel] for channel in range(channels)])
    return out
