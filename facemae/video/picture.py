"""Decoded frames to upright RGB.

YCbCr becomes RGB by the matrix and the range that the frame is tagged with. Where it is not tagged, players' convention
decides: BT.709 from 1280 pixels of width or above 576 of height, else BT.601; limited range, but full for grey and for
the formats that are full by name (yuvj420p). The conversion is swscale's with chroma interpolated in full and exact
rounding, within one level of the formulas of ITU-R BT.601 and BT.709; its default is 16 times as fast and off by one
level on average, three at most. 10-bit values are reduced to 8. Transfer functions are left alone: HDR stays as coded.
Pixels that are not square are made so. Interlaced frames are left as they are.
"""

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facemae.video.library import pyav

if TYPE_CHECKING:
    import av

Pixels = NDArray[np.uint8]

_HD_WIDTH, _SD_HEIGHT = 1280, 576
_BT709, _BT601, _BT2020 = 1, 5, 9  # as swscale numbers them
_TAGGED = (1, 4, 5, 6, 7, 9)  # matrices of ITU-T H.273 that swscale knows
_BT2020_CONSTANT = 10  # of H.273; swscale has the other kind only, which is close
_LIMITED, _FULL = 1, 2
_SQUARE, _WIDEST = 0.01, 4.0


@dataclass(frozen=True)
class Orientation:
    """How a stored picture is turned to be upright.

    Attributes:
        transposed: Rows and columns are exchanged first.
        mirrored_x: Then left and right are exchanged.
        mirrored_y: And top and bottom.
    """

    transposed: bool = False
    mirrored_x: bool = False
    mirrored_y: bool = False

    @property
    def rotation(self) -> int:
        """Clockwise turn in degrees: 0, 90, 180 or 270. A picture that is mirrored too is mirrored after it."""
        if self.transposed:
            return 270 if self.mirrored_y else 90
        return 180 if self.mirrored_y else 0

    @property
    def mirrored(self) -> bool:
        """Whether left and right are exchanged besides."""
        return self.transposed != (self.mirrored_x != self.mirrored_y)

    def apply(self, pixels: Pixels) -> Pixels:
        """The upright picture, contiguous."""
        if self.transposed:
            pixels = pixels.transpose(1, 0, 2)
        if self.mirrored_x:
            pixels = pixels[:, ::-1]
        if self.mirrored_y:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)


def orientation_of(frame: "av.VideoFrame", metadata: dict[str, str]) -> Orientation:
    """The turn that a file asks for: by its display matrix, else by the tag `rotate`.

    Angles between right angles go to the nearest one.

    Args:
        frame: A decoded frame, which carries the display matrix of its stream.
        metadata: The tags of the stream.
    """
    held: Any = frame.side_data  # its stubs know motion vectors only
    for data in held:
        if data.type.name == "DISPLAYMATRIX":
            # x' = a x + c y, y' = b x + d y, with y pointing down.
            a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
            if abs(a) + abs(d) >= abs(b) + abs(c):
                return Orientation(False, a < 0, d < 0)
            return Orientation(True, c < 0, b < 0)
    tag = next((value for name, value in metadata.items() if name.lower() == "rotate"), "0")
    try:
        turn = round(float(tag) / 90) % 4
    except (ValueError, OverflowError):
        turn = 0
    return (
        Orientation(),
        Orientation(True, True, False),
        Orientation(False, True, True),
        Orientation(True, False, True),
    )[turn]


def square_size(width: int, height: int, aspect: float) -> tuple[int, int]:
    """Width and height of a stored picture when its pixels are square: one side grows, none shrinks.

    Args:
        width: In pixels as stored.
        height: Likewise.
        aspect: Width of a pixel over its height. Within a hundredth of 1 it comes from rounding, and nothing is
            stretched; beyond 1 to 4 either way no device has it, and the header is not believed.
    """
    if abs(aspect - 1) < _SQUARE or not 1 / _WIDEST <= aspect <= _WIDEST:
        return width, height
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))


class ToRgb:
    """Converts the frames of one video. It keeps swscale's tables, so one is made for each video.

    Args:
        exact: Interpolate chroma and round exactly; without it, swscale's fast path.
    """

    def __init__(self, *, exact: bool = True) -> None:
        reformatter = pyav().video.reformatter
        kinds = reformatter.Interpolation
        self._flags = int(kinds.BILINEAR)
        if exact:
            self._flags |= int(kinds.ACCURATE_RND | kinds.FULL_CHR_H_INT)
        self._reformatter = reformatter.VideoReformatter()

    def __call__(self, frame: "av.VideoFrame", width: int, height: int, channels: int = 3) -> Pixels:
        """uint8 [height, width, channels] as stored, not yet upright; a frame of another size is scaled to this one."""
        name = frame.format.name
        by_name = name.startswith(("gray", "rgb", "bgr", "gbr", "yuvj", "pal", "mono", "argb", "abgr", "0", "x"))
        hd = frame.width >= _HD_WIDTH or frame.height > _SD_HEIGHT
        # What is not tagged is told to swscale; what is tagged, it reads off the frame.
        matrix = _BT709 if hd else _BT601
        if frame.colorspace == _BT2020_CONSTANT:
            matrix = _BT2020
        limits = None if frame.color_range in (_LIMITED, _FULL) or by_name else _LIMITED
        converted = self._reformatter.reformat(
            frame,
            width,
            height,
            "rgb24" if channels == 3 else "gray",
            src_colorspace=None if frame.colorspace in _TAGGED or by_name else matrix,
            src_color_range=limits,
            dst_color_range=_FULL,
            interpolation=self._flags,
            threads=1,
        )
        pixels: Pixels = converted.to_ndarray()
        return pixels if channels == 3 else pixels[:, :, None]
