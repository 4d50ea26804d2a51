"""Random changes of a view's pixels that leave its geometry alone: colour, grey, blur, solarisation.

Each operation is defined as in torchvision (`torchvision.transforms.v2.functional`) and computed on uint8 by OpenCV;
results differ from torchvision's by rounding.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np

from facemae.data.preprocess import Pixels
from facemae.data.schema import PhotometricSpec

# ITU-R BT.601, as torchvision and OpenCV have it.
_LUMA = np.array([0.2989, 0.587, 0.114], np.float32)


Change = Callable[[Pixels], Pixels]
"""What is done to a view's pixels: uint8 [H, W, C] as it was given and as it becomes, C 1 or 3."""


def draw_change(spec: PhotometricSpec, rng: np.random.Generator) -> Change:
    """Draw a view's photometric changes, to be applied to one image or to each frame of a clip alike.

    Colour comes first: with its probability, brightness, contrast, saturation and hue are each changed by a factor
    uniform in its range, in random order. Then, each with its own probability: grey, blur with a sigma uniform in its
    range, solarisation. The order is that of SimCLR, BYOL and DINO. All numbers are drawn whether they are used or not,
    so switching one operation off changes no other.

    Args:
        spec: What may happen.
        rng: The sample's own generator.

    Returns:
        The change; it never writes to its input, and gives the input itself where nothing happens.
    """
    order = rng.permutation(4)
    colour, *places, grey, blur, width, solarise = rng.random(9).tolist()
    steps: list[tuple[Callable[[Pixels, float], Pixels], float]] = []
    if colour < spec.colour:
        ranges = (spec.brightness, spec.contrast, spec.saturation, spec.hue)
        factors = [low + (high - low) * place for (low, high), place in zip(ranges, places, strict=True)]
        for operation in order:
            low, high = ranges[operation]
            # A range that is a single point leaves the image as it is: 1 as a factor, 0 as a shift.
            if low < high:
                steps.append((_COLOUR[operation], factors[operation]))
    if grey < spec.grey:
        steps.append((saturation, 0.0))
    if blur < spec.blur:
        low, high = spec.sigma
        steps.append((gaussian_blur, low + (high - low) * width))
    if solarise < spec.solarise:
        steps.append((solarised, spec.threshold))

    def apply(image: Pixels) -> Pixels:
        for step, amount in steps:
            image = step(image, amount)
        return image

    return apply


def brightness(image: Pixels, factor: float) -> Pixels:
    """Pixels times a factor of at least 0."""
    return _linear(image, factor, 0.0)


def contrast(image: Pixels, factor: float) -> Pixels:
    """Pixels' distance from the image's mean grey, times a factor of at least 0."""
    means = np.array(cv2.mean(image)[: image.shape[2]])
    mean = float(means @ _LUMA) if image.shape[2] == 3 else float(means[0])
    return _linear(image, factor, mean * (1 - factor))


def saturation(image: Pixels, factor: float) -> Pixels:
    """Pixels' distance from their own grey, times a factor of at least 0; factor 0 makes an RGB image grey."""
    matrix = factor * np.eye(3, dtype=np.float32) + (1 - factor) * _LUMA
    changed: Pixels = cv2.transform(image, matrix)
    return changed


def hue(image: Pixels, shift: float) -> Pixels:
    """RGB pixels with their hue turned by a share of the circle, -0.5 to 0.5."""
    # In uint8 OpenCV has 256 hues, which is off by ten levels and hardly faster.
    pixels = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2HSV)
    degrees = pixels[..., 0]
    degrees += np.float32(360 * shift % 360)
    degrees -= np.float32(360) * (degrees >= 360)
    changed: Pixels = cv2.convertScaleAbs(cv2.cvtColor(pixels, cv2.COLOR_HSV2RGB))
    return changed


def gaussian_blur(image: Pixels, sigma: float) -> Pixels:
    """Gaussian blur whose kernel reaches three sigmas, with the border reflected; sigma in pixels."""
    side = 2 * math.ceil(3 * sigma) + 1
    blurred = cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101)
    changed: Pixels = blurred.reshape(image.shape)
    return changed


def solarised(image: Pixels, threshold: float) -> Pixels:
    """Pixels of at least the threshold inverted."""
    levels = np.arange(256)
    table = np.where(levels >= threshold, 255 - levels, levels).astype(np.uint8)
    changed: Pixels = cv2.LUT(image, table).reshape(image.shape)
    return changed


def _linear(image: Pixels, factor: float, offset: float) -> Pixels:
    changed: Pixels = cv2.addWeighted(image, factor, image, 0.0, offset).reshape(image.shape)
    return changed


_COLOUR = (brightness, contrast, saturation, hue)
