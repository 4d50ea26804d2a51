"""Log-mel spectrograms as Kaldi defines them, each published choice a setting.

The defaults are those of AudioMAE (Huang et al., 2022) on which HiCMAE (Sun et al., 2024), MMA-DFER and CAV-MAE build:
Kaldi's filter bank features with 128 bands at 16 kHz and a Hann window, normalised by the mean and twice the standard
deviation of AudioSet. The steps, for samples x of a wave:

1. `centre`: the mean of the whole wave is subtracted.
2. Frame k is the `window` samples from k `hop` on; only frames that lie wholly inside the wave exist (`frames_of`).
3. `remove_dc`: each frame's mean is subtracted from it.
4. x[n] - `preemphasis` x[n - 1] within the frame; its first sample counts as its own predecessor.
5. Times the window function, padded with zeros to the next power of two, Fourier transform.
6. `power`: |X|^2, or |X|.
7. Triangles between `mels` + 2 points equally spaced on mel(f) = 1127 ln(1 + f / 700) from `low` to `high`. The slopes
   are straight in mel, not in Hz, and the triangles are not scaled to equal areas (librosa does both otherwise).
8. ln(max(value, `floor`)).
9. Frames that are missing are filled (`pad`), frames beyond the wanted number are cut.
10. (value - `mean`) / (`scale` `std`).
"""

import functools
import math

import numpy as np
from numpy.typing import NDArray

from facemae.config.sounds import MelSettings
from facemae.sound.wave import Wave

Floats = NDArray[np.float64]


def frames_of(seconds: float, settings: MelSettings) -> int:
    """Frames that lie wholly inside that much sound (Kaldi's `snip_edges`).

    1 + (samples - window) // hop, none where the sound is shorter than a window: 2.56 s at 16 kHz give 254.
    """
    return _whole_frames(round(seconds * settings.rate), settings)


def seconds_of(frames: int, settings: MelSettings) -> float:
    """The least sound that gives that many whole frames: (frames - 1) hops and a window; 256 take 2.575 s."""
    return ((frames - 1) * settings.hop_samples + settings.window_samples) / settings.rate if frames > 0 else 0.0


def nominal_seconds(frames: int, settings: MelSettings) -> float:
    """That many hops: the sound that published systems give to that many frames, 2.56 s to 256.

    It is shorter than `seconds_of`, so the last frames (two of them at 25 and 10 ms) are padding.
    """
    return frames * settings.hop_samples / settings.rate


def frame_span(frame: int, settings: MelSettings) -> tuple[float, float]:
    """From when to when frame k looks, in seconds after the wave's start: k hop to k hop + window, end excluded.

    Its centre is half a window after k hop: 12.5 ms at the defaults.
    """
    start = frame * settings.hop_samples
    return start / settings.rate, (start + settings.window_samples) / settings.rate


def log_mel(wave: Wave, settings: MelSettings, frames: int) -> NDArray[np.float32]:
    """Normalised log-mel spectrogram of a wave, in exactly so many frames.

    Equal, within float32, to `torchaudio.compliance.kaldi.fbank(htk_compat=True, window_type="hanning",
    num_mel_bins=128, dither=0, frame_shift=10)` of the wave less its mean, padded or cut and normalised as AudioMAE
    does.

    Args:
        wave: float32 [N] in [-1, 1] at `settings.rate`.
        settings: What to compute.
        frames: Length of the result; missing frames are filled (`settings.pad`), further ones are left out.

    Returns:
        float32 [frames, mels].
    """
    if wave.ndim != 1:
        raise ValueError(f"the wave has shape {wave.shape}; expected [N]")
    found = _spectrogram(wave, settings, frames)
    result = np.full((frames, settings.mels), 0.0 if settings.pad == "zero" else math.log(settings.floor), np.float32)
    result[: len(found)] = found
    result -= np.float32(settings.mean)
    result /= np.float32(settings.scale * settings.std)
    return result


def _spectrogram(wave: Wave, settings: MelSettings, most: int) -> NDArray[np.float32]:
    """Log-mel frames before padding and normalisation, at most so many."""
    window, hop = settings.window_samples, settings.hop_samples
    count = min(_whole_frames(len(wave), settings), most)
    if count < 1:
        return np.zeros((0, settings.mels), np.float32)
    if settings.centre:
        wave = wave - wave.mean(dtype=np.float64).astype(np.float32)
    cut = np.lib.stride_tricks.sliding_window_view(wave, window)[: (count - 1) * hop + 1 : hop]
    size = _fft_size(window)
    frames = np.zeros((count, size), np.float32)
    inside = frames[:, :window]
    inside[:] = cut - cut.mean(axis=1, keepdims=True) if settings.remove_dc else cut
    if settings.preemphasis:
        # The right side is complete before the left one is written to.
        inside[:, 1:] -= np.float32(settings.preemphasis) * inside[:, :-1]
        inside[:, 0] *= np.float32(1 - settings.preemphasis)
    inside *= _window(settings.window, window)
    spectrum = np.fft.rfft(frames, axis=1)
    values = spectrum.real**2 + spectrum.imag**2
    if settings.power == "magnitude":
        values = np.sqrt(values)
    bands = values @ _filter_bank(settings.rate, size, settings.mels, settings.low, settings.high_hz)
    return np.log(np.maximum(bands, np.float32(settings.floor)))


def _whole_frames(samples: int, settings: MelSettings) -> int:
    return max(0, 1 + (samples - settings.window_samples) // settings.hop_samples)


def _fft_size(window: int) -> int:
    return 1 << (window - 1).bit_length()


@functools.lru_cache(maxsize=16)
def _window(name: str, length: int) -> NDArray[np.float32]:
    turn = 2 * np.pi * np.arange(length) / (length - 1)
    hann = 0.5 - 0.5 * np.cos(turn)
    values: Floats = {
        "hanning": hann,
        "hamming": 0.54 - 0.46 * np.cos(turn),
        "povey": np.maximum(hann, 0) ** 0.85,
        "blackman": 0.42 - 0.5 * np.cos(turn) + 0.08 * np.cos(2 * turn),
        "rectangular": np.ones(length),
    }[name]
    return _kept(values)


@functools.lru_cache(maxsize=16)
def _filter_bank(rate: int, size: int, mels: int, low: float, high: float) -> NDArray[np.float32]:
    """Weights [size / 2 + 1, mels] of the triangles, as Kaldi has them: the bin of half the rate weighs nothing."""
    points = np.linspace(_mel(low), _mel(high), mels + 2)
    bins = np.array([_mel(rate / size * k) for k in range(size // 2)])[:, None]
    left, centre, right = points[:-2], points[1:-1], points[2:]
    triangles = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    return _kept(np.pad(np.maximum(triangles, 0), ((0, 1), (0, 0))))


def _mel(hertz: float) -> float:
    return 1127.0 * math.log1p(hertz / 700.0)


def _kept(values: Floats) -> NDArray[np.float32]:
    """As float32, not to be written to: the caches hand out the same array each time."""
    kept = np.ascontiguousarray(values, np.float32)
    kept.flags.writeable = False
    return kept
