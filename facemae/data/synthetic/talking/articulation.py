"""From phones to smooth tracks: the one source of what the mouth shows and of what is heard."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from facemae.data.synthetic.talking.curve import Floats
from facemae.data.synthetic.talking.phones import Phone, Segment

TRACK_RATE = 200
"""Points of a track a second."""

MARGIN = 1.0
"""Seconds that tracks reach beyond either end of the clip, for a sound that is late or early."""

_BURST = 0.25
_MOUTH_WIDTH = 0.5
_VOICE_WIDTH = 0.16


@dataclass(frozen=True)
class Tracks:
    """How mouth and voice move, each a float array [n] at `TRACK_RATE` from `-MARGIN` on.

    Attributes:
        opening: From 0 to 1, as are `spread`, `rounding` and `press`; see `Phone`.
        speaking: 1 in a phrase, 0 in a pause.
        voiced: Loudness of the voice; that of the opening is part of it. `hiss` of noise.
        hiss_at: Centre of the noise in Hz.
        formants: F1, F2, F3 in Hz, [3, n], of a vocal tract of 17.5 cm.
    """

    opening: Floats
    spread: Floats
    rounding: Floats
    press: Floats
    speaking: Floats
    voiced: Floats
    hiss: Floats
    hiss_at: Floats
    formants: Floats


def track_times(seconds: float) -> Floats:
    """Times of a track's points for a clip of this length."""
    return np.arange(round((seconds + 2 * MARGIN) * TRACK_RATE) + 1) / TRACK_RATE - MARGIN


def read_track(track: Floats, time: npt.ArrayLike) -> Floats:
    """A track at these times, in seconds; its ends are held."""
    place = (np.asarray(time, float) + MARGIN) * TRACK_RATE
    return np.asarray(np.interp(place, np.arange(len(track)), track))


def articulate(segments: Sequence[Segment], seconds: float, rate: float) -> Tracks:
    """Smooth tracks through the targets of phones, as jaw and lips glide from one to the next.

    Args:
        segments: Phones in time, without gaps.
        seconds: Length of the clip.
        rate: Syllables a second; the glides take a fixed share of a syllable.
    """
    times = track_times(seconds)
    starts = np.array([segment.start for segment in segments])
    which = np.clip(np.searchsorted(starts, times, side="right") - 1, 0, len(segments) - 1)
    stress = np.array([segment.stress for segment in segments])[which]
    ends = np.array([segment.end for segment in segments])[which]
    left = (ends - times) / (ends - starts[which])

    def steps(value: Callable[[Phone], float]) -> Floats:
        return np.array([value(segment.phone) for segment in segments])[which]

    def glide(track: Floats, width: float = _MOUTH_WIDTH) -> Floats:
        return _smooth(track, width / rate)

    opening = glide(steps(lambda phone: phone.opening) * stress)
    released = np.where(left < _BURST, steps(lambda phone: phone.burst), 0.0)
    voicing = glide(steps(lambda phone: phone.voicing), _VOICE_WIDTH)
    return Tracks(
        opening=opening,
        spread=glide(steps(lambda phone: phone.spread)),
        rounding=glide(steps(lambda phone: phone.rounding)),
        press=glide(steps(lambda phone: phone.press)),
        speaking=glide(np.array([segment.phrase >= 0 for segment in segments], float)[which]),
        voiced=voicing * (0.15 + 0.85 * opening),
        hiss=glide((steps(lambda phone: phone.hiss) + released) * stress, _VOICE_WIDTH),
        hiss_at=glide(steps(lambda phone: phone.hiss_at), _VOICE_WIDTH),
        formants=np.stack([glide(steps(lambda phone, k=k: phone.formants[k])) for k in range(3)]),  # type: ignore[misc]
    )


def _smooth(track: Floats, width: float) -> Floats:
    """A running mean under a raised cosine `width` seconds wide; symmetrical, so that nothing is moved in time."""
    half = max(1, round(width * TRACK_RATE / 2))
    window = np.hanning(2 * half + 1)[1:-1] if half > 1 else np.ones(1)
    padded = np.pad(track, len(window) // 2, mode="edge")
    return np.convolve(padded, window / window.sum(), mode="valid")
