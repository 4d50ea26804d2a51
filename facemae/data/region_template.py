"""A region map of a face of average proportions, for crops whose face lies at a known place.

It is what a detector's box says and no more: upright, seen from the front, mouth closed. Patches at the border of a
region are often wrong, and a turned head is off by a patch and more; docs/decisions/0054 has what it is worth.
"""

import cv2
import numpy as np

from facemae.data.regions import Map, Region

_OVERSAMPLE = 8

_SHAPES: tuple[tuple[Region, float, float, float, float], ...] = (
    (Region.CLOTHES, 0.50, 1.55, 0.85, 0.35),
    (Region.NECK, 0.50, 1.05, 0.24, 0.30),
    (Region.HAIR, 0.50, 0.34, 0.52, 0.66),
    (Region.SKIN, 0.50, 0.52, 0.41, 0.49),
    (Region.NOSE, 0.50, 0.53, 0.085, 0.15),
    (Region.RIGHT_BROW, 0.30, 0.27, 0.12, 0.03),
    (Region.LEFT_BROW, 0.70, 0.27, 0.12, 0.03),
    (Region.RIGHT_EYE, 0.31, 0.37, 0.09, 0.045),
    (Region.LEFT_EYE, 0.69, 0.37, 0.09, 0.045),
    (Region.UPPER_LIP, 0.50, 0.765, 0.17, 0.03),
    (Region.LOWER_LIP, 0.50, 0.81, 0.15, 0.035),
)
"""From back to front: centre and half-axes of ellipses, as shares of the side of the detected box's square. Proportions
are those of faces from the front in boxes of OpenCV's cascade; how far hair reaches into the forehead is not known."""


def draw_template(size: int, margin: float) -> Map:
    """The map of a crop around a detected face.

    Args:
        size: Side of the map in pixels.
        margin: What was added on each side of the square around the detected box, as a share of its side.

    Returns:
        uint8 [size, size], values of `Region`.
    """
    side = size * _OVERSAMPLE
    drawn = np.zeros((side, side), np.uint8)
    unit = side / (1 + 2 * margin)
    for region, x, y, across, down in _SHAPES:
        centre = (round((x + margin) * unit), round((y + margin) * unit))
        axes = (max(1, round(across * unit)), max(1, round(down * unit)))
        cv2.ellipse(drawn, centre, axes, 0, 0, 360, int(region), -1)
    half = _OVERSAMPLE // 2
    return np.ascontiguousarray(drawn[half::_OVERSAMPLE, half::_OVERSAMPLE])
