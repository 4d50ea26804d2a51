"""A square cut out of a frame at any place and size, antialiased."""

import math
from typing import Literal, get_args

import numpy as np
from PIL import Image

from facemae.errors import DataError
from facemae.faces.detector import Frame, check_frame

Interpolation = Literal["bilinear", "bicubic"]

LEAST_SIDE = 8.0
"""Smaller boxes are refused, in pixels: nothing of a face is in them."""

_FILTERS = {"bilinear": (Image.Resampling.BILINEAR, 1.0), "bicubic": (Image.Resampling.BICUBIC, 2.0)}
"""Pillow's filter and its reach in pixels of the crop."""


def cut(
    frame: Frame, centre_x: float, centre_y: float, side: float, size: int, *, interpolation: Interpolation = "bilinear"
) -> Frame:
    """Cut a square out of a frame and scale it to `size`.

    The place is exact to a fraction of a pixel; pixel k covers [k, k + 1). Shrinking is antialiased: the filter grows
    with the factor. Nothing is turned. Beyond the border the outermost pixels are repeated: black would put a hard edge
    into the crop that moves when the face does, and that a model would see before the face.

    Args:
        frame: uint8 [H, W, 3].
        centre_x: Centre in pixels of the frame; `centre_y` likewise. Must lie within the frame.
        centre_y: See `centre_x`.
        side: Side of the square in pixels of the frame, at least `LEAST_SIDE`.
        size: Side of the result.
        interpolation: `bilinear` or `bicubic`.

    Returns:
        uint8 [size, size, 3].

    Raises:
        DataError: The box is no place in the frame where a face could be.
    """
    check_frame(frame)
    height, width = frame.shape[:2]
    _check(centre_x, centre_y, side, width, height)
    if interpolation not in _FILTERS or size < 1:
        raise DataError(
            f"size {size}, interpolation {interpolation!r}",
            expected=f"a size from 1 up; one of {', '.join(get_args(Interpolation))}",
        )
    resampling, reach = _FILTERS[interpolation]
    left, top = centre_x - side / 2, centre_y - side / 2
    # Pixels around the box take part as far as the filter reaches, so that a crop is the same part of a larger crop.
    beyond = math.ceil(reach * max(side / size, 1.0)) + 1
    x, y = math.floor(left) - beyond, math.floor(top) - beyond
    right, bottom = math.ceil(left + side) + beyond, math.ceil(top + side) + beyond
    around = _repeated(frame, x, y, right, bottom)
    box = (left - x, top - y, left - x + side, top - y + side)
    return np.array(Image.fromarray(around).resize((size, size), resampling, box=box))


def _check(centre_x: float, centre_y: float, side: float, width: int, height: int) -> None:
    if not (0 <= centre_x <= width and 0 <= centre_y <= height and LEAST_SIDE <= side <= 3 * max(width, height)):
        raise DataError(
            f"a box of side {side:.4g} around ({centre_x:.4g}, {centre_y:.4g}) in a frame of {width} x {height} pixels",
            expected=f"a centre within the frame and a side from {LEAST_SIDE:g} pixels to 3 times the frame's",
            fix="leave out frames without a face rather than cropping a corner of them",
        )


def _repeated(frame: Frame, left: int, top: int, right: int, bottom: int) -> Frame:
    """The pixels of a whole-numbered box, the border's where it reaches beyond."""
    height, width = frame.shape[:2]
    inside = frame[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    before = (max(-top, 0), max(bottom - height, 0)), (max(-left, 0), max(right - width, 0))
    if not any(map(any, before)):
        return np.ascontiguousarray(inside)
    return np.pad(inside, (*before, (0, 0)), mode="edge")
