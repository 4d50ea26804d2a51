"""Where a video was cut: one frame shows something else than the frame before."""

import collections
import statistics

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 16
"""Frames are compared as grey squares of this side."""

LEAST = 0.25
"""Least change of a cut; measured values stand in ``docs/decisions/0045-packing-clips.md``."""

TIMES = 4.0
"""A cut changes the picture this many times more than the usual frame just before it: a swaying camera cuts nothing."""

_BEFORE = 3
_WINDOW = 5
_NOISE = 16.0
"""Grey values squared: flat walls have no pattern, only noise."""

_LEAST_PATTERN = 0.1

Pattern = NDArray[np.float32]


class CutFinder:
    """Tells of each frame whether it is the first after a cut.

    The measure is the share of the pattern that changed: grey values, less their local mean and in units of their local
    standard deviation, so that light switched on or exposure changes it little; half the mean squared difference of two
    frames in units of the mean square of both. It is 0 for equal frames and about 1 for unrelated ones.
    """

    def __init__(self) -> None:
        self._last: Pattern | None = None
        self._changes: collections.deque[float] = collections.deque(maxlen=_BEFORE)

    def is_cut(self, image: NDArray[np.uint8]) -> bool:
        """Take the next frame, uint8 RGB [H, W, 3]; the first of all is no cut."""
        pattern = pattern_of(image)
        last, self._last = self._last, pattern
        if last is None:
            return False
        changed = change(last, pattern)
        usual = statistics.median_low(self._changes) if self._changes else 0.0
        # A cut counts too: it is one of three, and a shot in which everything changes all the time ends but once.
        self._changes.append(changed)
        return changed > LEAST and changed > TIMES * usual


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
