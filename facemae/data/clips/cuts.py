"""Where a video was cut: one frame shows something else than the frames before."""

import collections
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from facemae.video.source import Frame

SIDE = 16
"""Frames are compared as grey squares of this side."""

LEAST = 0.25
"""Least change of a cut."""

TIMES = 4.0
"""A cut changes the picture this many times more than is usual just before it: a swaying camera cuts nothing."""

UNKNOWN = 0.5
"""Least change of a cut at the start of a video, where nothing is usual yet."""

MORE = 1.25
"""A second cut there changes the picture this many times more than the first: noise changes it from the start on."""

REPEATED = 0.01
"""A smaller change is none: a frame shown again, or one in which next to nothing moves."""

AWAY = 3
"""Frames. Where the picture from before is back within so many, there was no cut: a flash, a lost frame, an insert."""

_BEFORE = 5
_STANDS = 8
"""After so many frames without a change the picture stands still: what was usual before is over."""

_WINDOW = 5
_NOISE = 16.0
"""Grey values squared: flat walls have no pattern, only noise."""

_LEAST_PATTERN = 0.1

Pattern = NDArray[np.float32]


@dataclass(frozen=True)
class _Change:
    size: float
    cut: bool


class CutFinder:
    """Tells of each frame of a video whether it is the first after a cut.

    The measure is the share of the pattern that changed: grey values, less their local mean and in units of their local
    standard deviation, so that light switched on or exposure changes it little; half the mean squared difference of two
    frames in units of the mean square of both. It is 0 for equal frames and about 1 for unrelated ones.

    Each frame is compared with the last that differed from the one before it by `REPEATED`: where a rate is reached by
    showing frames twice or thrice, what happens between them happens in one step. A cut is a change above `LEAST` and
    above `TIMES` what is usual: the largest of the last five changes, of which frames shown again are none, and the
    largest that was taken for a cut is not counted. A shot in which everything changes all the time ends but once.
    """

    def __init__(self) -> None:
        self._last: Pattern | None = None
        self._changes: collections.deque[_Change] = collections.deque(maxlen=_BEFORE)
        self._repeated = 0
        self._waiting: collections.deque[tuple[Frame, Pattern]] = collections.deque()

    def mark(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, bool]]:
        """All frames of a video with whether each is the first after a cut; the first of all is not.

        At most `AWAY` frames are held: from what seems a cut until it is clear that the picture before does not return.
        """
        for frame in frames:
            self._waiting.append((frame, pattern_of(frame.image)))
            yield from self._decided(ended=False)
        yield from self._decided(ended=True)

    def _decided(self, *, ended: bool) -> Iterator[tuple[Frame, bool]]:
        while self._waiting:
            frame, pattern = self._waiting[0]
            changed = 0.0 if self._last is None else change(self._last, pattern)
            cut = changed > self._limit()
            if not cut:
                self._note(pattern, changed)
            elif self._returns():
                # What shows nothing of the video is no frame to compare the next with.
                cut = False
            elif len(self._waiting) <= AWAY and not ended:
                return
            else:
                self._changes.append(_Change(changed, cut))
                self._last, self._repeated = pattern, 0
            self._waiting.popleft()
            yield frame, cut

    def _limit(self) -> float:
        """The largest change that is none of a cut."""
        usual = self._usual()
        if usual is None:
            return max([UNKNOWN, *(MORE * entry.size for entry in self._changes)])
        return max(LEAST, TIMES * usual)

    def _usual(self) -> float | None:
        """How much the picture changes at a time; None where nothing but a cut is known."""
        cuts = sorted(entry.size for entry in self._changes if entry.cut)
        rest = [entry.size for entry in self._changes if not entry.cut] + cuts[:-1]
        return max(rest, default=0.0 if self._repeated >= _STANDS else None)

    def _returns(self) -> bool:
        """Whether one of the frames behind the first waiting is like the last before it."""
        assert self._last is not None  # the first frame of all has changed nothing
        like = max(LEAST, TIMES * (self._usual() or 0.0))
        return any(change(self._last, pattern) <= like for _, pattern in list(self._waiting)[1 : AWAY + 1])

    def _note(self, pattern: Pattern, changed: float) -> None:
        if self._last is not None and changed < REPEATED:
            self._repeated += 1
            if self._repeated >= _STANDS:
                self._changes.clear()
            return
        if self._last is not None:
            self._changes.append(_Change(changed, cut=False))
        self._last, self._repeated = pattern, 0


def pattern_of(image: NDArray[np.uint8]) -> Pattern:
    """Float32 [16, 16]: what a frame looks like, whatever the light."""
    # Rows and columns are thinned first: averaging all of full HD takes longer than decoding it.
    height, width = image.shape[:2]
    thin = image[:: max(height // (8 * SIDE), 1), :: max(width // (8 * SIDE), 1)]
    small = cv2.resize(np.ascontiguousarray(thin), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    mean = cv2.blur(grey, (_WINDOW, _WINDOW))
    spread = np.maximum(cv2.blur(grey * grey, (_WINDOW, _WINDOW)) - mean * mean, 0)
    return np.asarray((grey - mean) / np.sqrt(spread + _NOISE), np.float32)


def change(one: Pattern, two: Pattern) -> float:
    """Share of the pattern that differs, from 0 to about 1."""
    strength = (float((one * one).mean()) + float((two * two).mean())) / 2
    return 0.5 * float(((one - two) ** 2).mean()) / max(strength, _LEAST_PATTERN)
