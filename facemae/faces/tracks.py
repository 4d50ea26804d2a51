"""Detections of many frames linked to persons.

Tracking by detection as in SORT and ByteTrack (Bewley et al. 2016; Zhang et al. 2022), without a model of motion: faces
in video move little between frames. As in ByteTrack, weak detections may continue a track but start none.

Boxes alone do not tell who comes out of a crossing on which side. So nobody is followed through one: where a face
covers more than half of another, both tracks end, and new ones begin when two faces are seen apart again.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from facemae.errors import DataError
from facemae.faces.detector import Box, Face, area, shared_area


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


DropKind = Literal["short", "seldom", "weak", "covered"]


@dataclass(frozen=True)
class Dropped:
    """Detections that became no track.

    Attributes:
        kind: `short`, `seldom` and `weak` are what false positives are; `covered` is where one face hides another.
        start: Time of the first in seconds.
        stop: Time of the last.
        frames: In how many frames they were.
        reason: What was wrong, with the numbers.
    """

    kind: DropKind
    start: float
    stop: float
    frames: int
    reason: str


_COVERED = 0.5
"""Shared area as a share of the smaller box from which on one face hides the other."""

_NEAR = 0.2
"""Likewise, from which on a face may be one of the two that hid each other."""

_UNCLEAR = 3
"""After this many times `bridge` with one face only, the other one is taken to be gone."""

_RECENT = 4
"""Detections that a track's velocity is taken from."""


@dataclass(eq=False)
class _Open:
    """A track that may go on. `first` and `last` number the frames looked at; `unclear` is one of two faces."""

    first: int
    last: int = 0
    unclear: bool = False
    parted: bool = False
    numbers: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
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
            self.last - self.first + 1,
        )

    def expected(self, time: float) -> Box:
        """Its last box, moved on at the velocity of its last detections."""
        left, top, right, bottom = self.boxes[-1]
        then = max(-_RECENT, -len(self.times))
        if self.times[-1] <= self.times[then]:
            return self.boxes[-1]
        share = (time - self.times[-1]) / (self.times[-1] - self.times[then])
        x, y = (
            (self.boxes[-1][k] + self.boxes[-1][k + 2] - self.boxes[then][k] - self.boxes[then][k + 2]) * share / 2
            for k in (0, 1)
        )
        return left + x, top + y, right + x, bottom + y


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

    Attributes:
        dropped: What the last call of `finish` left out, in the order of time.
    """

    dropped: tuple[Dropped, ...] = ()

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
        self._dropped: list[Dropped] = []
        self._lone: list[tuple[float, float]] = []
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
        self._close(before=time - self.bridge)
        pairs = self._told_apart(self._pairs(faces), time)
        self._open += [track for track in pairs if track not in self._open]
        for track, face in pairs.items():
            track.append(number, time, self._looked, face)
        used = list(pairs.values())
        self._lone += [(time, face.score) for face in faces if face.score < self.start_score and face not in used]

    def cut(self) -> None:
        """End all tracks: what comes next was taken at another time or place, though a face may stand where one was."""
        self._close(ending=True)

    def finish(self) -> list[Track]:
        """The tracks of the clip, the most prominent (largest times longest) first; the tracker is empty afterwards."""
        self._close(ending=True)
        found = sorted(self._done, key=prominence, reverse=True)
        if self._lone:
            times, best = [time for time, _ in self._lone], max(score for _, score in self._lone)
            reason = f"a score of at most {best:.2f}, below {self.start_score:g}, starts no track"
            self._dropped.append(Dropped("weak", times[0], times[-1], len(set(times)), reason))
        self.dropped = tuple(sorted(self._dropped, key=lambda drop: drop.start))
        self._reset()
        return found

    def _pairs(self, faces: Sequence[Face]) -> dict[_Open, Face]:
        """Each face with the track it continues or, where strong enough, with a new one."""
        taken: dict[int, _Open] = {}
        if faces and self._open:
            shares = np.array([[_union_share(track.boxes[-1], face.box) for face in faces] for track in self._open])
            for row, column in zip(*linear_sum_assignment(shares, maximize=True), strict=True):
                if shares[row, column] >= self.overlap:
                    taken[int(column)] = self._open[int(row)]
        for track in [track for track in self._open if track.unclear]:
            self._part(track, faces, taken)
        for place, face in enumerate(faces):
            if place not in taken and face.score >= self.start_score:
                taken[place] = _Open(self._looked)
        return {track: faces[place] for place, track in taken.items()}

    def _part(self, unclear: _Open, faces: Sequence[Face], taken: dict[int, _Open]) -> None:
        """Two faces that hid each other: two new tracks where both are seen again, else still one of them."""
        near = [
            place
            for place, face in enumerate(faces)
            if taken.get(place, unclear) is unclear and _cover(unclear.boxes[-1], face.box) > _NEAR
        ]
        if len(near) > 1:
            self._close(unclear)
            for place in near:
                taken[place] = _Open(self._looked, parted=True)
        elif near and self._last - unclear.times[0] <= _UNCLEAR * self.bridge:
            taken[near[0]] = unclear
        elif near:
            self._close(unclear)
            taken.pop(near[0], None)

    def _told_apart(self, pairs: dict[_Open, Face], time: float) -> dict[_Open, Face]:
        """End the tracks of faces that cover each other, and hold whichever is still seen as unclear."""
        both = [*self._open, *(track for track in pairs if track not in self._open)]
        places = {
            track: [pairs[track].box] if track in pairs else [track.boxes[-1], track.expected(time)] for track in both
        }
        covered: dict[_Open, None] = {}
        for one, two in itertools.combinations(both, 2):
            if self._are_two(one, two, pairs) and any(
                _cover(here, there) > _COVERED for here in places[one] for there in places[two]
            ):
                covered |= {one: None, two: None}
        seen = [pairs[track] for track in covered if track in pairs]
        held = any(track.unclear and track in pairs for track in covered)
        rest = {track: face for track, face in pairs.items() if track not in covered or track.unclear}
        self._close(*(track for track in covered if not track.unclear))
        if seen and not held:
            rest[_Open(self._looked, unclear=True)] = seen[0]
        return rest

    def _are_two(self, one: _Open, two: _Open, pairs: dict[_Open, Face]) -> bool:
        """Whether both were seen at the same time, each more than once: else one may be the other, found anew."""
        at_once = one.first <= two.last and two.first <= one.last
        return at_once and all(len(track.times) > 1 or track.parted or track.unclear for track in (one, two))

    def _close(self, *tracks: _Open, before: float = -math.inf, ending: bool = False) -> None:
        """End these tracks, those not seen since `before`, or all."""
        over = [track for track in self._open if ending or track in tracks or track.times[-1] < before]
        self._open = [track for track in self._open if track not in over]
        for track in over:
            closed = track.closed()
            dropped = self._dropped_for(closed, track.unclear)
            if dropped is None:
                self._done.append(closed)
            else:
                start, stop = float(closed.times[0]), float(closed.times[-1])
                self._dropped.append(Dropped(dropped[0], start, stop, len(closed), dropped[1]))

    def _dropped_for(self, track: Track, unclear: bool) -> tuple[DropKind, str] | None:
        """Why a track is none; None where it is one."""
        # A frame lasts until the next: without that, a clip of n frames would count as n - 1.
        lasted = float(track.times[-1] - track.times[0]) + self._step
        clip = self._last - self._first + self._step
        share, score = len(track) / track.looked, float(np.median(track.scores))
        if unclear:
            return "covered", f"one face covers another for {lasted:.2f} s"
        if lasted < min(self.least_seconds, clip):
            return "short", f"{lasted:.2f} s, less than {self.least_seconds:g} s"
        if share < self.least_share:
            return "seldom", f"detected in {share:.0%} of the frames, less than {self.least_share:.0%}"
        if score < self.least_score:
            return "weak", f"a median score of {score:.2f}, less than {self.least_score:g}"
        return None


def prominence(track: Track) -> float:
    """Summed over the frames, the side of the box."""
    return sum(float(np.sqrt(area(box))) for box in track.boxes.tolist())


def _cover(one: Sequence[float], two: Sequence[float]) -> float:
    """Shared area as a share of the smaller box."""
    return shared_area(one, two) / max(min(area(one), area(two)), 1e-9)


def _union_share(one: Sequence[float], two: Sequence[float]) -> float:
    """Intersection over union."""
    shared = shared_area(one, two)
    return shared / (area(one) + area(two) - shared) if shared > 0 else 0.0
