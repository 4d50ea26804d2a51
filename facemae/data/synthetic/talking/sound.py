"""Source and filter: pulses of the vocal folds and noise, shaped by the formants of the vocal tract.

Pulses after Rosenberg (JASA 49, 1971), resonators in cascade after Klatt (JASA 67, 1980, equations 2 and 3).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter1d
from scipy.signal import lfilter, resample_poly

from facemae.data.synthetic.talking.articulation import MARGIN, TRACK_RATE, read_track
from facemae.data.synthetic.talking.curve import Floats
from facemae.data.synthetic.talking.voice import Voice
from facemae.rng import generator

Floats32 = npt.NDArray[np.float32]

_RATE = 16000
_PAD = 0.2
_BLOCK = _RATE // TRACK_RATE
_BANDWIDTHS = (60.0, 90.0, 120.0, 200.0, 250.0)
_HIGHER = (3500.0, 4500.0)
_LOUDEST = 0.95
_AUDIBLE = 0.02
_ROOM = 0.0005


@dataclass(frozen=True)
class Sounding:
    """What is heard over time, each a float array [n] at `TRACK_RATE` from `-MARGIN` on.

    Attributes:
        pitch: Hz.
        voiced: Root of the mean square of the voiced part; `hiss` of the noise.
        hiss_at: Centre of the noise in Hz.
        formants: F1 to F3 in Hz, [3, n].
        voice: Whose voice.
        noise_key: Seed, identity and sample, which key the noise.
    """

    pitch: Floats
    voiced: Floats
    hiss: Floats
    hiss_at: Floats
    formants: Floats
    voice: Voice
    noise_key: tuple[int, int, int]

    def later(self, lag: float) -> "Sounding":
        """The same, heard `lag` seconds later; the ends are held."""
        if not lag:
            return self
        times = np.arange(len(self.pitch)) / TRACK_RATE - MARGIN - lag
        return replace(
            self,
            pitch=read_track(self.pitch, times),
            voiced=read_track(self.voiced, times),
            hiss=read_track(self.hiss, times),
            hiss_at=read_track(self.hiss_at, times),
            formants=np.stack([read_track(track, times) for track in self.formants]),
        )

    def mean_pitch(self, seconds: float) -> float | None:
        """The clip's pitch in Hz, averaged in semitones over where the voice is clearly heard; None where it is not."""
        times = np.arange(0, seconds, 1 / TRACK_RATE)
        audible = read_track(self.voiced, times) > _AUDIBLE
        return float(np.exp(np.log(read_track(self.pitch, times[audible])).mean())) if audible.any() else None

    def curves(self, times: Floats) -> dict[str, Floats]:
        """Pitch, loudness and formants at these times."""
        tracks = {"pitch": self.pitch, "loudness": np.hypot(self.voiced, self.hiss)}
        tracks |= {f"F{k + 1}": track for k, track in enumerate(self.formants)}
        return {name: read_track(track, times) for name, track in tracks.items()}


def synthesise(heard: Sounding, seconds: float, rate: int) -> Floats32:
    """Turn tracks into a wave.

    Args:
        heard: The tracks.
        seconds: Length of the clip.
        rate: Samples a second; a multiple of 5.

    Returns:
        float32 [round(seconds * rate)].
    """
    # Filters need a run-up, which is cut off again.
    count = math.ceil((seconds + 2 * _PAD) * TRACK_RATE) * _BLOCK
    times = np.arange(count) / _RATE - _PAD
    blocks = times[_BLOCK // 2 :: _BLOCK]
    noise = generator(heard.noise_key[0], "talking", "noise", *heard.noise_key[1:])
    breath, hiss, room = noise.standard_normal((3, count))

    source = _pulses(read_track(heard.pitch, times), heard.voice.tilt)
    voiced = source / source.std() + heard.voice.breath * breath
    tracks = [read_track(track, blocks) for track in heard.formants]
    tracks += [np.full(len(blocks), frequency * heard.voice.tract) for frequency in _HIGHER]
    for frequencies, bandwidth in zip(tracks, _BANDWIDTHS, strict=True):
        voiced = _resonate(voiced, frequencies, np.full(len(blocks), bandwidth))
    centre = read_track(heard.hiss_at, blocks)
    hiss = _resonate(hiss, np.minimum(centre, 0.45 * _RATE), 0.4 * centre)
    wave = _level(voiced) * read_track(heard.voiced, times)
    wave += _level(np.diff(hiss, prepend=0.0)) * read_track(heard.hiss, times) + _ROOM * room
    if rate != _RATE:
        share = math.gcd(rate, _RATE)
        wave = resample_poly(wave, rate // share, _RATE // share)
    start = round(_PAD * rate)
    wave = wave[start : start + round(seconds * rate)]
    return np.asarray(wave * min(1.0, _LOUDEST / max(float(np.abs(wave).max()), 1e-9)), np.float32)


def _pulses(pitch: Floats, openness: float) -> Floats:
    """Flow through the vocal folds, differentiated as the lips radiate it.

    Args:
        pitch: Hz at every sample.
        openness: Share of a period in which the folds are open.
    """
    phase = np.cumsum(pitch) / _RATE % 1
    peak, end = 0.66 * openness, openness
    rise = 0.5 - 0.5 * np.cos(np.pi * phase / peak)
    fall = np.cos(0.5 * np.pi * (phase - peak) / (end - peak))
    flow = np.where(phase < peak, rise, np.where(phase < end, fall, 0.0))
    return np.diff(flow, prepend=flow[:1])


def _resonate(sound: Floats, frequencies: Floats, bandwidths: Floats) -> Floats:
    """A resonator whose frequency and bandwidth change from block to block, both in Hz."""
    decay = np.exp(-np.pi * bandwidths / _RATE)
    second = -(decay**2)
    first = 2 * decay * np.cos(2 * np.pi * frequencies / _RATE)
    result = np.empty_like(sound)
    last = before = 0.0
    for k, (b, c) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        part = slice(k * _BLOCK, (k + 1) * _BLOCK)
        # What went out stays; the filter's inner state is made anew from it for each block's coefficients.
        out, _ = lfilter([1 - b - c], [1, -b, -c], sound[part], zi=[b * last + c * before, c * last])
        result[part] = out
        last, before = float(out[-1]), float(out[-2])
    return result


def _level(sound: Floats) -> Floats:
    """The sound with a running root of the mean square of 1, so that loudness is what the tracks say."""
    window = int(0.02 * _RATE)
    power = uniform_filter1d(uniform_filter1d(sound**2, window, mode="nearest"), window, mode="nearest")
    return np.asarray(sound / np.sqrt(np.maximum(power, 1e-12)))
