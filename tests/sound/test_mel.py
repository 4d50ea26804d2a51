"""Log-mel against a slow reference written out in sums, and against numbers of the published front end."""

import cmath
import math

import numpy as np
import pytest
from pydantic import ValidationError

from facemae.config import MelSettings
from facemae.sound.mel import frame_span, frames_of, log_mel, nominal_seconds, seconds_of
from facemae.sound.wave import Wave

DEFAULT = MelSettings()


def voice(rate: int, seconds: float) -> Wave:
    """A gliding voice with a dying whistle and a hiss without a draw, off centre."""
    n = np.arange(round(rate * seconds))
    t = n / rate
    hiss = 0.02 * np.sin(2 * np.pi * (0.6180339887 * n * n % 1))
    low = 0.3 * np.sin(2 * np.pi * (120 * t + 30 * t * t)) + 0.1 * np.sin(2 * np.pi * (360 * t + 90 * t * t))
    return np.asarray(low + 0.1 * np.sin(2 * np.pi * 2500 * t) * np.exp(-3 * t) + hiss + 0.02, np.float32)


def slow_frame(wave: Wave, settings: MelSettings, frame: int) -> list[float]:
    """One frame of log-mel before normalisation, from the definition, in float64 and with plain sums."""
    x = [float(value) for value in wave]
    if settings.centre:
        mean = math.fsum(x) / len(x)
        x = [value - mean for value in x]
    length, hop = settings.window_samples, settings.hop_samples
    x = x[frame * hop : frame * hop + length]
    if settings.remove_dc:
        mean = math.fsum(x) / length
        x = [value - mean for value in x]
    x = [x[n] - settings.preemphasis * x[max(0, n - 1)] for n in range(length)]
    x = [x[n] * window_value(settings.window, n / (length - 1)) for n in range(length)]
    size = 1
    while size < length:
        size *= 2
    turns = [cmath.exp(-2j * cmath.pi * n / size) for n in range(size)]
    spectrum = [abs(sum(x[n] * turns[n * k % size] for n in range(length))) for k in range(size // 2)]
    if settings.power == "power":
        spectrum = [value * value for value in spectrum]
    low, high = mel(settings.low), mel(settings.high_hz)
    step = (high - low) / (settings.mels + 1)
    result = []
    for band in range(settings.mels):
        peak = low + (band + 1) * step
        total = 0.0
        for k, value in enumerate(spectrum):
            total += value * max(0.0, 1 - abs(mel(k * settings.rate / size) - peak) / step)
        result.append(math.log(max(total, settings.floor)))
    return result


def mel(hertz: float) -> float:
    return 1127 * math.log(1 + hertz / 700)


def window_value(name: str, place: float) -> float:
    hann = 0.5 - 0.5 * math.cos(2 * math.pi * place)
    values: dict[str, float] = {
        "hanning": hann,
        "povey": hann**0.85,
        "hamming": 0.54 - 0.46 * math.cos(2 * math.pi * place),
        "blackman": 0.42 - 0.5 * math.cos(2 * math.pi * place) + 0.08 * math.cos(4 * math.pi * place),
        "rectangular": 1.0,
    }
    return values[name]


@pytest.mark.parametrize(
    "settings",
    [
        DEFAULT,
        MelSettings(rate=8000, mels=40, window="povey"),
        MelSettings(rate=22050, mels=80, window="hamming", preemphasis=0.0, remove_dc=False),
        MelSettings(mels=64, window="blackman", low=50, high=-400, power="magnitude", centre=False),
        MelSettings(mels=23, window="rectangular", low=100, high=4000, hop_ms=12.5, window_ms=32, floor=1e-5),
        MelSettings(mean=-5.081, std=4.4849, scale=1.0, pad="floor"),
    ],
    ids=["default", "povey", "hamming", "blackman", "rectangular", "cav"],
)
def test_equal_to_a_slow_reference(settings: MelSettings) -> None:
    wave = voice(settings.rate, 0.2)
    found = log_mel(wave, settings, 30)
    assert found.dtype == np.float32
    whole = frames_of(0.2, settings)
    for frame in (0, 3, whole - 1):
        expected = (np.array(slow_frame(wave, settings, frame)) - settings.mean) / (settings.scale * settings.std)
        np.testing.assert_allclose(found[frame], expected, atol=3e-5)
    missing = 0.0 if settings.pad == "zero" else math.log(settings.floor)
    np.testing.assert_allclose(found[whole:], (missing - settings.mean) / (settings.scale * settings.std), rtol=1e-6)
    assert len(found) == 30


GOLDEN = [
    [-0.29401, -0.16092, 0.25647, 0.01634, 0.20004, 0.35286],
    [-0.33916, -0.16508, 0.24498, 0.06943, 0.22013, 0.39496],
    [-0.08024, -0.66370, -0.39072, 0.03971, 0.25430, 0.32868],
    [-0.60555, -1.09971, 0.52837, 0.01953, 0.33037, 0.46378],
    [0.46703, 0.46703, 0.46703, 0.46703, 0.46703, 0.46703],
]


def test_equal_to_the_published_front_end() -> None:
    """Numbers of torchaudio 2.11: `compliance.kaldi.fbank` as HiCMAE and AudioMAE call it, padded and normalised."""
    found = log_mel(voice(16000, 2.56), DEFAULT, 256)
    np.testing.assert_allclose(found[[0, 1, 100, 253, 255]][:, [0, 1, 17, 64, 100, 127]], GOLDEN, atol=1e-4)
    assert found.sum(dtype=np.float64) == pytest.approx(2591.873, abs=0.1)
    assert np.square(found, dtype=np.float64).sum() == pytest.approx(3618.590, abs=0.1)


def test_frames_are_those_that_lie_wholly_inside() -> None:
    assert frames_of(2.56, DEFAULT) == 254
    assert frames_of(0.0249, DEFAULT) == 0
    assert frames_of(0.025, DEFAULT) == 1
    assert frames_of(0.035, DEFAULT) == 2
    assert seconds_of(256, DEFAULT) == pytest.approx(2.575)
    assert seconds_of(0, DEFAULT) == 0.0
    assert nominal_seconds(256, DEFAULT) == pytest.approx(2.56)
    assert frame_span(100, DEFAULT) == pytest.approx((1.0, 1.025))
    for settings in (DEFAULT, MelSettings(rate=22050), MelSettings(rate=44100, hop_ms=11.6)):
        for frames in (1, 2, 77, 256):
            seconds = seconds_of(frames, settings)
            assert frames_of(seconds, settings) == frames
            assert frames_of(seconds - 1 / settings.rate, settings) == frames - 1
            assert frame_span(frames - 1, settings)[1] == pytest.approx(seconds)


def test_a_frame_sees_its_span_and_nothing_else() -> None:
    settings = DEFAULT.model_copy(update={"centre": False})
    quiet = log_mel(np.zeros(16000, np.float32), settings, 98)
    for frame in (0, 40, 97):
        begin, end = (round(time * 16000) for time in frame_span(frame, settings))
        for place, seen in [(begin - 1, False), (begin + 1, True), (end - 2, True), (end, False)]:
            if 0 <= place < 16000:
                wave = np.zeros(16000, np.float32)
                wave[place] = 1.0
                assert bool((log_mel(wave, settings, 98)[frame] != quiet[frame]).any()) == seen


def test_long_sound_is_cut_and_short_sound_is_padded() -> None:
    wave = voice(16000, 1.0)
    settings = DEFAULT.model_copy(update={"centre": False})
    np.testing.assert_array_equal(log_mel(wave, settings, 20), log_mel(wave, settings, 98)[:20])
    padded = (0 + 4.2677393) / (2 * 4.5689974)
    np.testing.assert_allclose(log_mel(wave[:399], DEFAULT, 4), padded, rtol=1e-6)
    np.testing.assert_allclose(log_mel(wave[:0], DEFAULT, 4), padded, rtol=1e-6)
    floor = (math.log(DEFAULT.floor) + 4.2677393) / (2 * 4.5689974)
    np.testing.assert_allclose(log_mel(np.zeros(400, np.float32), DEFAULT, 1), floor, rtol=1e-6)


def test_the_wave_that_is_given_stays_as_it_is() -> None:
    wave = voice(16000, 0.5)
    wave.flags.writeable = False
    before = wave.copy()
    first, second = log_mel(wave, DEFAULT, 48), log_mel(wave, DEFAULT, 48)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(wave, before)


def test_settings_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"bands from 9000\.0 to 8000\.0 Hz"):
        MelSettings(low=9000)
    with pytest.raises(ValidationError, match=r"half the rate is 4000\.0 Hz"):
        MelSettings(rate=8000, high=5000)
    with pytest.raises(ValidationError, match=r"a hop of 0\.01 ms"):
        MelSettings(hop_ms=0.01)
    with pytest.raises(ValidationError, match="mel_bins"):
        MelSettings(mel_bins=64)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"shape \(1, 400\)"):
        log_mel(np.zeros((1, 400), np.float32), DEFAULT, 1)
