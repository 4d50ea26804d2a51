"""Sound laid on a time line: late sound waits, early sound is cut, gaps are silence, overlaps are cut."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from facemae.sound.wave import Wave

TOLERANCE = 0.02
"""Seconds by which a time stamp may miss the end of the sound before it, and the sound counts as going on.

Containers round time stamps (Matroska to milliseconds); half a frame of video is as much as may go unseen."""

MAX_GAP = 600.0
"""Seconds of silence filled in at most, unless the pictures go on for longer; else a longer gap is taken for a broken
time stamp."""

MAX_BACK = 10.0
"""Seconds a time stamp may go back; more is taken for time stamps that start anew."""

_SILENCE = np.zeros(16384, np.float32)
_SILENCE.flags.writeable = False


class TimeStampError(ValueError):
    """A time stamp that cannot be followed."""


@dataclass
class Laid:
    """What laying the sound changed; counts since the start."""

    gaps: int = 0
    """Gaps between pieces that were filled with silence."""
    filled: int = 0
    """Samples of silence in them."""
    overlaps: int = 0
    """Pieces of which a part was cut since sound was there already."""
    cut: int = 0
    """Samples cut so."""
    silences: list[tuple[int, int]] = field(default_factory=list)
    """First sample and end of each stretch after zero that was filled: late sound, and gaps."""


class TimeLine:
    """Lays pieces of sound one after another by their time stamps.

    Args:
        rate: Samples a second.
        first: Where the laid sound starts, in samples; may be negative.
        until: Seconds up to which any gap is filled.
    """

    def __init__(self, rate: int, first: int, until: float = 0.0) -> None:
        self.laid = Laid()
        """What has been filled and cut so far."""
        self._rate = rate
        self._until = until
        self._next = first
        self._expected: int | None = None

    @property
    def end(self) -> float:
        """Seconds at which the last piece ends."""
        return (self._next if self._expected is None else self._expected) / self._rate

    def lay(self, seconds: float | None, wave: Wave) -> Iterator[Wave]:
        """Lay one piece.

        A piece stands at the sample nearest to its time; pieces that follow one another within `TOLERANCE` are joined
        without a break, whatever their stamps say.

        Args:
            seconds: Where its first sample stands; None: where the piece before ended.
            wave: float32 [N].

        Yields:
            The sound that follows what was yielded before, in blocks of bounded length.

        Raises:
            TimeStampError: The time stamp jumps by more than `MAX_GAP` forwards, to behind `until`, or by more than
                `MAX_BACK` backwards.
        """
        start = self._start(seconds)
        if self._expected is not None and start < self._expected:
            lost = min(self._expected - start, len(wave))
            self.laid.overlaps += 1
            self.laid.cut += lost
            start, wave = self._expected, wave[lost:]
        self._expected = start + len(wave)
        if start < self._next:
            wave = wave[self._next - start :]
        elif len(wave):
            if start > max(self._next, 0):
                self.laid.silences.append((max(self._next, 0), start))
            yield from _silence(start - self._next)
            self._next = start
        if len(wave):
            self._next += len(wave)
            yield wave

    def _start(self, seconds: float | None) -> int:
        """The sample a piece starts at, by its time stamp and the end of the piece before."""
        expected = self._expected
        if seconds is None:
            return max(self._next, 0) if expected is None else expected
        start = round(seconds * self._rate)
        jump = (start - (self._next if expected is None else expected)) / self._rate
        if (jump > MAX_GAP and seconds > self._until) or (expected is not None and jump < -MAX_BACK):
            place = "starts at" if expected is None else f"jumps from {self.end:.3f} s to"
            raise TimeStampError(f"the sound {place} {seconds:.3f} s by its time stamps, and is left out from there")
        if expected is None:
            return start
        if abs(jump) <= TOLERANCE:
            return expected
        if start > max(expected, self._next):
            self.laid.gaps += 1
            self.laid.filled += start - max(expected, self._next)
        return start


def _silence(count: int) -> Iterator[Wave]:
    while count > 0:
        part = min(count, len(_SILENCE))
        yield _SILENCE[:part]
        count -= part
