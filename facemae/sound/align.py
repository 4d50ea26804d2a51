"""Which part of the sound lies beneath the frames that were sampled from a video."""

from typing import NamedTuple


class Beneath(NamedTuple):
    """A window of sound on the video's time line."""

    start: float
    """Seconds after zero; may be negative near the start of a clip."""
    seconds: float
    """Length."""


def beneath(first_time: float, last_time: float, frame_period: float, *, seconds: float | None = None) -> Beneath:
    """The window of sound exactly beneath the sampled frames.

    It reaches from the start of the first sampled frame to the end of the last one. A sampled frame stands for all
    that passes until the next one is sampled: 16 frames of 25 fps at a stride of 4 have a period of 0.16 s and span
    2.56 s, which are the 256 log-mel frames of HiCMAE; at a stride of 4 the window does not end with the picture at
    2.44 s. Where the sound's length is fixed to another one, the window keeps the centre and changes at both ends.

    Args:
        first_time: Seconds at which the first sampled frame is shown.
        last_time: Seconds at which the last sampled frame is shown.
        frame_period: Seconds a sampled frame stands for: stride / fps.
        seconds: The length the encoder of sound is fixed to; None: as long as the frames.
    """
    if last_time < first_time or frame_period <= 0:
        raise ValueError(f"frames from {first_time} to {last_time} s, each {frame_period} s")
    spanned = last_time + frame_period - first_time
    if seconds is None:
        return Beneath(first_time, spanned)
    return Beneath(first_time + (spanned - seconds) / 2, seconds)
