"""Frames at a constant rate out of any."""

from collections.abc import Iterable, Iterator
from fractions import Fraction

from facemae.video.source import Frame

TIE = 1e-6
"""Seconds within which two frames count as equally near; the earlier one is taken."""

END = 0.002
"""Seconds. A frame that would stand so close to the end of the last one is not made: containers round times to
milliseconds, and by rounding alone a clip would sometimes become one frame longer."""


def at_rate(frames: Iterable[Frame], fps: float | Fraction) -> Iterator[tuple[int, Frame]]:
    """Show a video at a constant rate: output k stands at k / fps and is the source frame nearest to it in time.

    Frames are dropped and repeated as needed, none is blended. Two are held at a time. The last output lies before the
    end of the last source frame (its time and duration).

    Args:
        frames: In presentation order, times rising from 0, as `VideoSource` gives them.
        fps: Frames a second of the output.

    Returns:
        Pairs of k, from 0, and the source frame with its own number and time.

    Raises:
        ValueError: `fps` is not above zero.
    """
    if not fps > 0:
        raise ValueError(f"fps is {fps}; it must be above zero")
    return _shown(frames, float(fps))


def count_at_rate(last: Frame, fps: float | Fraction) -> int:
    """How many frames `at_rate` gives of a video that ends with `last`; its pixels are not looked at."""
    limit = _end(last)
    number = max(0, int(limit * float(fps)) - 1)
    while number / float(fps) < limit:
        number += 1
    return number


def _end(last: Frame) -> float:
    """Before this time a frame can stand. One stands at its own time even where the file gives it no duration."""
    return max(last.time + TIE, last.time + last.duration - END)


def _shown(frames: Iterable[Frame], fps: float) -> Iterator[tuple[int, Frame]]:
    number = 0
    before: Frame | None = None
    for frame in frames:
        while before is not None and _nearer(before, frame, number / fps):
            yield number, before
            number += 1
        before = frame
    while before is not None and number / fps < _end(before):
        yield number, before
        number += 1


def _nearer(before: Frame, after: Frame, time: float) -> bool:
    """Whether the earlier of two frames is the one to show."""
    return time - before.time <= after.time - time + TIE
