"""Second pass through a video: the frames of one person's clips, in the form in which shards hold them."""

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facemae.data.clips.maps import MapSource
from facemae.data.clips.people import Appearance
from facemae.data.clips.pieces import Piece
from facemae.data.clips.settings import INTERPOLATION, ClipSettings
from facemae.data.clips.survey import Person, Survey
from facemae.data.regions import encode_map
from facemae.errors import DecodeError
from facemae.faces.crop import cut
from facemae.faces.steady import steady_path
from facemae.video.rate import at_rate
from facemae.video.source import Frame, VideoSource
from facemae.video.store import Written, write_clip


@dataclass(frozen=True, eq=False)
class Picture:
    """The frames of one clip.

    Attributes:
        data: Encoded.
        written: Number and sizes of its frames.
        boxes: float64 [T, 3]: centre x, centre y and side of the crop in each frame, in pixels of the video.
        maps: Region maps, encoded; one where all are alike. None where there are none.
    """

    data: bytes
    written: Written
    boxes: NDArray[np.float64]
    maps: bytes | None = None


def render_frames(
    path: Path,
    survey: Survey,
    appearances: Sequence[Appearance],
    fps: float,
    settings: ClipSettings,
    maps: MapSource | None = None,
) -> Iterator[tuple[Person, Piece, Picture]]:
    """Cut and encode the pieces of one number, one after the other; one frame is held at a time.

    Args:
        path: The video.
        survey: What the first pass found.
        appearances: Whose faces; rising in time, none overlapping another.
        fps: Frames a second of the clips.
        settings: How.
        maps: Region maps to cut with the frames; None for none.

    Raises:
        DecodeError: A region map is damaged, or the file has fewer frames than in the first pass.
    """
    with VideoSource(path) as source:
        shown = at_rate(source, fps)
        for person, piece, own in paths(survey, appearances, fps, settings):
            found: list[bytes] = []
            taken = itertools.islice(_from(shown, piece.first), piece.count)
            boxed = ((frame, own[number - piece.first]) for number, frame in taken)
            crops = _crops(boxed, settings.size, maps, found)
            target = io.BytesIO()
            written = write_clip(crops, target, fps=fps, storage=settings.storage)
            if written.count != piece.count:
                raise DecodeError(
                    f"{path}: {written.count} frames from frame {piece.first} on, {piece.count} before",
                    expected="a file that does not change while it is packed",
                )
            alike = found[:1] if len(set(found)) == 1 else found
            yield person, piece, Picture(target.getvalue(), written, own, b"".join(alike) or None)


def _from(shown: Iterator[tuple[int, Frame]], first: int) -> Iterator[tuple[int, Frame]]:
    return itertools.dropwhile(lambda entry: entry[0] < first, shown)


def paths(
    survey: Survey, appearances: Sequence[Appearance], fps: float, settings: ClipSettings
) -> Iterator[tuple[Person, Piece, NDArray[np.float64]]]:
    """Each piece with its boxes, float64 [T, 3]."""
    for appearance in appearances:
        track, pieces = appearance.person.track, appearance.pieces
        numbers = np.arange(pieces[0].first, pieces[-1].first + pieces[-1].count)
        boxes = steady_path(track, numbers / fps, margin=settings.margin, smoothing=settings.smoothing)
        # A face half out of the picture: its smoothed centre may lie a little beyond the border.
        boxes[:, :2] = np.clip(boxes[:, :2], 0, [survey.info.width, survey.info.height])
        for piece in pieces:
            yield appearance.person, piece, boxes[piece.first - pieces[0].first :][: piece.count]


def _crops(
    boxed: Iterable[tuple[Frame, NDArray[np.float64]]], size: int, maps: MapSource | None, found: list[bytes]
) -> Iterator[NDArray[np.uint8]]:
    """The crops of frames; their encoded region maps are added to `found`."""
    for frame, box in boxed:
        if maps is not None:
            found.append(encode_map(maps.cut(frame, box)))
        yield cropped(frame.image, box, size)


def cropped(image: NDArray[np.uint8], box: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """A frame's face, uint8 [size, size, 3], by its box of centre x, centre y and side."""
    x, y, side = (float(value) for value in box)
    return cut(image, x, y, side, size, interpolation=INTERPOLATION)
