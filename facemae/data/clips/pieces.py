"""Which stretch of a video becomes which clip."""

import itertools
import math
from dataclasses import dataclass

from facemae.data.clips.settings import ClipSettings
from facemae.data.clips.survey import Person

_ROUNDING = 1e-6


@dataclass(frozen=True)
class Piece:
    """A stretch of frames at the stored rate: frame k stands at k / fps after the video's first.

    Attributes:
        first: Its first frame.
        count: How many.
    """

    first: int
    count: int

    def seconds(self, fps: float) -> float:
        """How long it is."""
        return self.count / fps


def frames_of(person: Person, fps: float, frames: int) -> tuple[int, int]:
    """Frames from a face's first to its last: the first, and the one behind the last.

    Args:
        person: Who, and when.
        fps: Frames a second of the clips.
        frames: Frames of the whole video at that rate.
    """
    return math.ceil(person.start * fps - _ROUNDING), min(math.ceil(person.stop * fps - _ROUNDING), frames)


def cut_pieces(first: int, stop: int, fps: float, settings: ClipSettings) -> list[Piece]:
    """Pieces of nearly equal length that cover a stretch of frames; none if that is too short.

    Args:
        first: Its first frame.
        stop: The frame behind its last.
        fps: Frames a second of the clips.
        settings: Shortest and longest clip.
    """
    count = stop - first
    if count < 1 or count < settings.shortest * fps - _ROUNDING:
        return []
    number = math.ceil(count / max(1, math.floor(settings.longest * fps + _ROUNDING)))
    borders = [first + count * each // number for each in range(number + 1)]
    return [Piece(begin, end - begin) for begin, end in itertools.pairwise(borders)]
