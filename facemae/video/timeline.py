"""Times of frames, repaired where a file gives none or contradictory ones."""

from collections.abc import Sequence
from fractions import Fraction

JUMP = 1.0
"""Seconds. A time that goes back by more begins a new section: files joined, or a clock that wrapped around."""

LOOK_AHEAD = 3
"""Stamps that follow a doubtful one and tell whether it is wrong: up to two may be so in a row."""

_STEP_BACK = 0.1
_PAUSE = 2.0
"""Frames, at the rate of the stream, by which a time may rise and not be doubtful."""


class Timeline:
    """Turns presentation timestamps, frame by frame, into times that rise strictly from zero.

    A missing timestamp becomes that of the frame before plus its duration. One that does not rise puts the frame a
    tenth of a nominal duration after the one before, so that the next good timestamp counts again. One that goes back
    by more than `JUMP` shifts itself and all that follow to one nominal duration after the frame before. One that
    leaves the others, forwards or back, and from which those that follow return, is wrong, and taken for missing.

    Args:
        base: Seconds of one unit of the timestamps.
        nominal: Seconds of a frame at the rate of the stream.
        constant: Whether the container knows a constant rate only, so that a missing timestamp is none to repair.

    Attributes:
        origin: Absolute time of the first frame in seconds; 0 where the file gives none. Where the first frames have
            no stamp it is known with the first that has one, and may be below zero.
        repaired: How many frames were put at another time than their timestamp's.
    """

    def __init__(self, base: Fraction, nominal: float, *, constant: bool = False) -> None:
        self.origin = 0.0
        self.repaired = 0
        self._nominal = nominal
        self._constant = constant
        self._base = base
        self._first: int | None = None
        self._shift = 0.0
        self._before = -1.0
        self._placed = 0
        self._lasts = nominal

    def doubtful(self, stamp: int | None) -> bool:
        """Whether the stamps that follow are needed to place the frame that has this one."""
        if stamp is None or self._first is None or self._before < 0:
            return False
        rise = self._of(stamp) - self._before
        return rise > _PAUSE * self._nominal or rise <= -JUMP

    def place(
        self, stamp: int | None, duration: int | None, following: Sequence[int | None] = ()
    ) -> tuple[float, float]:
        """Time and duration in seconds of the next frame in presentation order.

        Args:
            stamp: Its presentation timestamp, or None.
            duration: Its duration in the same unit; None or zero where the file does not say.
            following: Stamps of the next `LOOK_AHEAD` frames, where this one is `doubtful`.
        """
        if self._first_is_wrong(stamp, following):
            self._first = None
            self.repaired += 1
        if (step := self._step_past(stamp, following)) is not None:
            self.repaired += 1
            self._before += step
            self._placed += 1
            return self._before, self._lasts
        if self._first is None and stamp is not None:
            self._first = stamp
            # Matroska's frames before zero come without a stamp: the first that has one stands behind them.
            self._shift = self._before + self._lasts if self._before >= 0 else 0.0
            self.origin = float(stamp * self._base) - self._shift
        time = self._time(stamp)
        self._lasts = float(duration * self._base) if duration else self._usual(time)
        self._before = time
        self._placed += 1
        return time, self._lasts

    def goes_back(self, stamp: int | None, following: Sequence[int | None] = ()) -> float:
        """Seconds by which the frames from this one on go back, where that is more than `JUMP`; otherwise 0.

        Asked before the frame is placed; arguments as for `place`.
        """
        if stamp is None or self._first is None or self._before < 0 or self._of(stamp) > self._before - JUMP:
            return 0.0
        if self._first_is_wrong(stamp, following) or self._step_past(stamp, following) is not None:
            return 0.0
        return self._before - self._of(stamp)

    def starts_anew(self, stamp: int) -> bool:
        """Whether a stamp that goes back is about where the first one was, as in files put one behind another."""
        return self._first is not None and abs(float((stamp - self._first) * self._base)) <= JUMP

    def _of(self, stamp: int) -> float:
        assert self._first is not None
        return float((stamp - self._first) * self._base) + self._shift

    def _step_past(self, stamp: int | None, following: Sequence[int | None]) -> float | None:
        """Seconds to the frame before of one whose stamp is wrong, by those that follow; None where it is right."""
        if stamp is None or not self.doubtful(stamp):
            return None
        time, others = self._of(stamp), [self._of(other) for other in following if other is not None]
        # On the other side of the stamp before, or between the two: there the file goes on.
        held = [other for other in others if self._before < other and (time <= self._before or other < time)]
        if not held or 2 * len(held) < len(others):
            return None
        return min(self._lasts, (min(held) - self._before) / 2)

    def _first_is_wrong(self, stamp: int | None, following: Sequence[int | None]) -> bool:
        """Whether the file goes on far before its first stamp, from its second frame on."""
        if stamp is None or self._first is None or self._placed != 1 or stamp >= self._first:
            return False
        others = [other for other in following if other is not None]
        rising = all(one < other for one, other in zip([stamp, *others], others, strict=False))
        back = [float((self._first - other) * self._base) >= JUMP for other in (stamp, *others)]
        return bool(others) and rising and all(back)

    def _time(self, stamp: int | None) -> float:
        before = self._before
        if stamp is None or self._first is None:
            self.repaired += not self._constant
            return before + self._lasts if before >= 0 else 0.0
        time = self._of(stamp)
        if before < 0 or time > before:
            return time
        self.repaired += 1
        if time > before - JUMP:
            return before + _STEP_BACK * self._nominal
        due = before + self._nominal
        self._shift += due - time
        return due

    def _usual(self, time: float) -> float:
        """Where a file gives no durations: the distance from the frame before, or the nominal one for the first."""
        return time - self._before if self._before >= 0 else self._nominal
