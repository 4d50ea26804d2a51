"""Times of frames, repaired where a file gives none or contradictory ones."""

from fractions import Fraction

JUMP = 1.0
"""Seconds. A time that goes back by more begins a new section: files joined, or a clock that wrapped around."""

_STEP_BACK = 0.1


class Timeline:
    """Turns presentation timestamps, frame by frame, into times that rise strictly from zero.

    A missing timestamp becomes that of the frame before plus its duration. One that does not rise puts the frame a
    tenth of a nominal duration after the one before, so that the next good timestamp counts again. One that goes back
    by more than `JUMP` shifts itself and all that follow to one nominal duration after the frame before.

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
        self._lasts = nominal

    def place(self, stamp: int | None, duration: int | None) -> tuple[float, float]:
        """Time and duration in seconds of the next frame in presentation order.

        Args:
            stamp: Its presentation timestamp, or None.
            duration: Its duration in the same unit; None or zero where the file does not say.
        """
        if self._first is None and stamp is not None:
            self._first = stamp
            # Matroska's frames before zero come without a stamp: the first that has one stands behind them.
            self._shift = self._before + self._lasts if self._before >= 0 else 0.0
            self.origin = float(stamp * self._base) - self._shift
        time = self._time(stamp)
        self._lasts = float(duration * self._base) if duration else self._usual(time)
        self._before = time
        return time, self._lasts

    def starts_anew(self, stamp: int | None) -> bool:
        """Whether a new section begins with the frame that has this timestamp; asked before it is placed."""
        if stamp is None or self._first is None or self._before < 0:
            return False
        return float((stamp - self._first) * self._base) + self._shift <= self._before - JUMP

    def _time(self, stamp: int | None) -> float:
        before = self._before
        if stamp is None or self._first is None:
            self.repaired += not self._constant
            return before + self._lasts if before >= 0 else 0.0
        time = float((stamp - self._first) * self._base) + self._shift
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
