"""Detections of many frames linked to persons.

Tracking by detection as in SORT and ByteTrack (Bewley et al. 2016; Zhang et al. 2022), without a model of motion: faces
in video move little between frames. As in ByteTrack, weak detections may continue a track but start none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from facemae.errors import DataError
from facemae.faces.detector import Face, area, shared_area


@dataclass(frozen=True, eq=False)
class Track:
    """One face through a clip, in the frames where it was detected.

    Attributes:
        numbers: int64 [n], numbers of those frames, ascending.
        times: float64 [n], their times in seconds.
        boxes: float32 [n, 4], left, top, right, bottom in pixels.
        scores: float32 [n], as the detector gave them.
        looked: How many frames were looked at from the first to the last of these; n where none was missed.
    """

    numbers: NDArray[np.int64]
    times: NDArray[np.float64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    looked: int

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(eq=False)
class _Open:
    """A track that may go on. `before` counts the frames looked at before its first, `last` those before its last."""

    before: int
    last: int = 0
    numbers: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    boxes: list[tuple[float, ...]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def append(self, number: int, time: float, looked: int, face: Face) -> None:
        self.numbers.append(number)
        self.times.append(time)
        self.boxes.append(face.box)
        self.scores.append(face.score)
        self.last = looked

    def closed(self) -> Track:
        return Track(
            np.array(self.numbers, np.int64),
            np.array(self.times, np.float64),
            np.array(self.boxes, np.float32).reshape(-1, 4),
            np.array(self.scores, np.float32),
            self.last - self.before + 1,
        )


class Tracker:
    """Links the detections of one clip, frame by frame; keeps boxes only, never pictures.

    A detection belongs to the track whose last box it overlaps most; the sum of overlaps over all pairs is maximal.
    What is short, seldom or weak is dropped when it ends: false positives of a detector are.

    Args:
        bridge: Longest time in seconds between two detections of one track.
        overlap: Least intersection over union of neighbouring boxes of a track.
        start_score: Least score of a detection that starts a track; weaker ones only continue one.
        least_seconds: Shorter tracks are dropped, except those that last as long as their clip.
        least_share: Tracks detected in a smaller share of the frames from their first to their last are dropped.
        least_score: Tracks whose median score is smaller are dropped.
    """

    def __init__(
        self,
        *,
        bridge: float = 0.5,
        overlap: float = 0.3,
        start_score: float = 0.4,
        least_seconds: float = 0.4,
        least_share: float = 0.3,
        least_score: float = 0.3,
    ) -> None:
        self.bridge = bridge
        self.overlap = overlap
        self.start_score = start_score
        self.least_seconds = least_seconds
        self.least_share = least_share
        self.least_score = least_score
        self._reset()

    def _reset(self) -> None:
        self._open: list[_Open] = []
        self._done: list[Track] = []
        self._looked = 0
        self._number = -1
        self._first = self._last = self._step = 0.0

    def add(self, number: int, time: float, faces: Sequence[Face]) -> None:
        """Take the detections of the next frame; frames without any are given too.

        Args:
            number: The frame's number, larger than the one before.
            time: Its time in seconds, not earlier than the one before.
            faces: What the detector found.

        Raises:
            DataError: Frames are not in order.
        """
        if self._looked and (number <= self._number or time < self._last):
            raise DataError(
                f"frame {number} at {time:.3f} s after frame {self._number} at {self._last:.3f} s",
                expected="frames in the order in which they are shown",
            )
        self._first = time if self._looked == 0 else self._first
        self._step = time - self._last if self._looked else 0.0
        self._number, self._last, self._looked = number, time, self._looked + 1
        self._close(time - self.bridge)
        for track, face in self._pairs(faces):
            track.append(number, time, self._looked, face)

    def finish(self) -> list[Track]:
        """The tracks of the clip, the most prominent (largest times longest) first; the tracker is empty afterwards."""
        self._close(float("inf"), ending=True)
        found = sorted(self._done, key=_prominence, reverse=True)
        self._reset()
        return found

    def _pairs(self, faces: Sequence[Face]) -> list[tuple[_Open, Face]]:
        """Each face with the track it continues or, where strong enough, with a new one."""
        taken: dict[int, _Open] = {}
        if faces and self._open:
            shares = np.array([[_union_share(track.boxes[-1], face.box) for face in faces] for track in self._open])
            for row, column in zip(*linear_sum_assignment(shares, maximize=True), strict=True):
                if shares[row, column] >= self.overlap:
                    taken[int(column)] = self._open[int(row)]
        for place, face in enumerate(faces):
            if place not in taken and face.score >= self.start_score:
                taken[place] = _Open(before=self._looked)
                self._open.append(taken[place])
        return [(track, faces[place]) for place, track in taken.items()]

    def _close(self, before: float, *, ending: bool = False) -> None:
        """End the tracks not seen since `before`."""
        going = [track for track in self._open if track.times[-1] >= before and not ending]
        for track in self._open:
            if track not in going:
                closed = track.closed()
                if self._is_face(closed):
                    self._done.append(closed)
        self._open = going

    def _is_face(self, track: Track) -> bool:
        # A frame lasts until the next: without that, a clip of n frames would count as n - 1.
        lasted = track.times[-1] - track.times[0] + self._step
        clip = self._last - self._first + self._step
        return bool(
            lasted >= min(self.least_seconds, clip)
            and len(track) >= self.least_share * track.looked
            and float(np.median(track.scores)) >= self.least_score
        )


def _prominence(track: Track) -> float:
    """Summed over the frames, the side of the box."""
    return sum(float(np.sqrt(area(box))) for box in track.boxes.tolist())


def _union_share(one: Sequence[float], two: Sequence[float]) -> float:
    """Intersection over union."""
    shared = shared_area(one, two)
    return shared / (area(one) + area(two) - shared) if shared > 0 else 0.0
