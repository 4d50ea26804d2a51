"""Region maps: which part of a face each pixel of a sample shows.

A map is a member `region.png` beside picture or clip: an 8-bit grey PNG whose values are those of `Region`, of any
resolution, covering the very area of the picture. Beneath a clip there is one map for all frames, or one for each, the
PNG files one behind another, so that the map of any frame is read alone. The sample's metadata says under `regions`
where the map comes from.
"""

import mmap
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from facemae.data.decode import decode_image
from facemae.errors import DecodeError

MEMBER = "region.png"
"""Extension of the member that holds a sample's maps."""

Map = NDArray[np.uint8]
"""uint8 [h, w], values of `Region`."""


class Region(IntEnum):
    """Values of a region map. Left and right are the subject's own, so `LEFT_EYE` lies on the image's right."""

    BACKGROUND = 0
    SKIN = 1
    HAIR = 2
    LEFT_BROW = 3
    RIGHT_BROW = 4
    LEFT_EYE = 5
    RIGHT_EYE = 6
    NOSE = 7
    UPPER_LIP = 8
    LOWER_LIP = 9
    MOUTH = 10
    EAR = 11
    NECK = 12
    CLOTHES = 13
    BEARD = 14
    GLASSES = 15
    OCCLUDER = 16


Parts = tuple[tuple[Region, ...], ...]

AREAS: dict[str, Parts] = {
    "background": ((Region.BACKGROUND, Region.EAR, Region.NECK, Region.CLOTHES, Region.OCCLUDER),),
    "skin": ((Region.SKIN, Region.BEARD, Region.GLASSES),),
    "left_eye": ((Region.LEFT_BROW,), (Region.LEFT_EYE,)),
    "right_eye": ((Region.RIGHT_BROW,), (Region.RIGHT_EYE,)),
    "nose": ((Region.NOSE,),),
    "mouth": ((Region.UPPER_LIP,), (Region.MOUTH,), (Region.LOWER_LIP,)),
    "hair": ((Region.HAIR,),),
}
"""What masks call parts of a face: MARLIN's seven groups, each in the order in which its parts are taken. The eleven
classes that MARLIN knows have no ears, neck, clothes, beard, glasses or covering things; they count as what such maps
have there."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = 12
"""Bytes of a PNG chunk beside its data: length, kind and checksum."""
_GREY_8 = bytes((8, 0))


def _mirrored() -> Map:
    values = np.arange(256, dtype=np.uint8)
    for region in Region:
        if region.name.startswith("LEFT_"):
            other = Region[region.name.replace("LEFT_", "RIGHT_")]
            values[region], values[other] = other, region
    return values


_MIRRORED = _mirrored()


def mirrored(maps: Map) -> Map:
    """Maps [..., h, w] of the mirrored picture: turned round, and the subject's left and right exchanged."""
    return np.ascontiguousarray(_MIRRORED[maps[..., ::-1]])


def encode_maps(maps: Iterable[Map]) -> bytes:
    """The bytes of a member: PNG files one behind another.

    Args:
        maps: uint8 [h, w] each; one for the whole sample, or one for each frame of its clip.
    """
    return b"".join(encode_map(found) for found in maps)


def encode_map(found: Map) -> bytes:
    """One map [h, w] as PNG."""
    done, data = cv2.imencode(".png", found, [cv2.IMWRITE_PNG_COMPRESSION, 4])
    assert done
    return bytes(data.tobytes())


class RegionMaps:
    """The maps of a member, each decoded when it is asked for.

    Args:
        data: The member, or a file mapped into memory.
        name: What it is called in error messages.

    Attributes:
        count: How many there are.

    Raises:
        DecodeError: The bytes are no PNG files one behind another.
    """

    def __init__(self, data: bytes | mmap.mmap, *, name: str) -> None:
        self._data, self._name = data, name
        self._places = list(_split(data, name))
        self.count = len(self._places)

    def read(self, numbers: Sequence[int]) -> Map:
        """Some maps, uint8 [T, h, w]; numbers that repeat cost nothing.

        Raises:
            DecodeError: One of them is damaged, of another size than the first, or no region map.
        """
        found = {number: self._one(number) for number in dict.fromkeys(numbers)}
        if len({one.shape for one in found.values()}) > 1:
            raise DecodeError(f"{self._name}: region maps of several sizes", expected="one size for all frames")
        return np.stack([found[number] for number in numbers])

    def _one(self, number: int) -> Map:
        start, stop = self._places[number]
        data = self._data[start:stop]
        # Palettes and depths would be converted to brightness, which is another number.
        if data[24:26] != _GREY_8:
            raise DecodeError(
                f"{self._name}: a region map is no grey PNG of 8 bits", expected="values of Region as grey"
            )
        found = decode_image(data, channels=1, name=self._name)[..., 0]
        if found.max() > max(Region):
            raise DecodeError(f"{self._name}: a region map holds {found.max()}", expected=f"0 to {max(Region)}")
        return found


def _split(data: bytes | mmap.mmap, name: str) -> Iterator[tuple[int, int]]:
    """Begin and end of the PNG files in some bytes, by the lengths that their chunks state."""
    start = 0
    while start < len(data):
        place, kind = start + len(_SIGNATURE), b""
        if data[start:place] != _SIGNATURE:
            raise DecodeError(f"{name}: region map {start} bytes on is no PNG", expected="PNG files one behind another")
        while kind != b"IEND":
            kind = data[place + 4 : place + 8]
            place += int.from_bytes(data[place : place + 4]) + _HEADER
            if not kind or place > len(data):
                raise DecodeError(f"{name}: a region map is cut off", expected="whole PNG files")
        yield start, place
        start = place
    if not start:
        raise DecodeError(f"{name}: the region map is empty", expected="a PNG")


def cut_map(found: Map, shape: tuple[int, int], box: tuple[float, float, float, float], size: int) -> Map:
    """A box of a map at another size: each pixel takes what its centre shows, the border's where it lies beyond.

    Args:
        found: uint8 [..., h, w].
        shape: Height and width of the picture that the map covers, in whose pixels the box is given.
        box: Left, top, width and height; may be fractions and reach beyond the border.
        size: Side of the result.

    Returns:
        uint8 [..., size, size].
    """
    height, width = found.shape[-2:]
    centres = (np.arange(size) + 0.5) / size
    rows = np.floor((box[1] + centres * box[3]) * height / shape[0]).astype(np.int64).clip(0, height - 1)
    columns = np.floor((box[0] + centres * box[2]) * width / shape[1]).astype(np.int64).clip(0, width - 1)
    # One axis after the other is three times as fast as both at once.
    taken: Map = found.take(rows, axis=-2).take(columns, axis=-1)
    return taken
