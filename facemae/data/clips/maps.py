"""Where the region maps of clips come from: maps of the whole video, cut as its frames are, or a template."""

import mmap
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from facemae.data.clips.settings import ClipSettings
from facemae.data.clips.survey import Survey
from facemae.data.region_template import draw_template
from facemae.data.regions import Map, RegionMaps, cut_map
from facemae.errors import DecodeError
from facemae.files import storage_errors
from facemae.video.source import Frame

_ASPECT = 0.02
"""Share by which the shape of maps may differ from that of frames: they may be smaller, and sides are whole numbers."""


class MapSource(Protocol):
    """Gives the region map of a crop."""

    @property
    def kind(self) -> str:
        """What the sample's metadata says of it: `template` or `file`."""
        ...

    def cut(self, frame: Frame, box: NDArray[np.float64]) -> Map:
        """The map of a crop: centre x, centre y and side in pixels of the frame."""
        ...


class TemplateMaps:
    """The same map for every crop; see `facemae.data.region_template`.

    Args:
        settings: How crops are made.
    """

    kind = "template"

    def __init__(self, settings: ClipSettings) -> None:
        self._map = draw_template(settings.size, settings.margin)

    def cut(self, frame: Frame, box: NDArray[np.float64]) -> Map:
        """See `MapSource`."""
        return self._map


class FileMaps:
    """Maps of a whole video, one for each of its frames or one for all. They are mapped into memory, not read.

    Args:
        path: File of PNGs one behind another; see `facemae.data.regions`.
        seen: What the first pass found in the video.
        size: Side of the crops.

    Raises:
        DecodeError: No region maps, of another shape than the frames, or of another number.
        StorageError: The file cannot be read.
    """

    kind = "file"

    def __init__(self, path: Path, seen: Survey, size: int) -> None:
        self._size = size
        with storage_errors(path, "reading"), path.open("rb") as handle:
            empty = path.stat().st_size == 0
            data = b"" if empty else mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        self._maps = RegionMaps(data, name=path.name)
        if self._maps.count not in (1, seen.frames):
            raise DecodeError(f"{path.name}: {self._maps.count} region maps of {seen.frames} frames")
        height, width = self._maps.read([0]).shape[1:]
        if abs(height * seen.info.width / (width * seen.info.height) - 1) > _ASPECT:
            raise DecodeError(
                f"{path.name}: maps of {width} x {height}, frames of {seen.info.width} x {seen.info.height}"
            )

    def cut(self, frame: Frame, box: NDArray[np.float64]) -> Map:
        """See `MapSource`."""
        x, y, side = (float(value) for value in box)
        found = self._maps.read([0 if self._maps.count == 1 else frame.number])[0]
        square = (x - side / 2, y - side / 2, side, side)
        return cut_map(found, (frame.image.shape[0], frame.image.shape[1]), square, self._size)


def open_maps(path: Path | None, seen: Survey, settings: ClipSettings) -> MapSource | None:
    """The region maps of a video's clips; None where none are asked for, or there is no file for this video.

    Raises:
        DecodeError: See `FileMaps`.
    """
    if settings.regions == "template":
        return TemplateMaps(settings)
    return None if path is None else FileMaps(path, seen, settings.size)
