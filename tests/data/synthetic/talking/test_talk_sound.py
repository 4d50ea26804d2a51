"""Talking faces: what is heard, and that it belongs to what is seen."""

from dataclasses import replace

import numpy as np
import pytest

from facemae.data.synthetic import EXPRESSIONS, Region
from facemae.data.synthetic.talking import Film, Talk, sample_talk, sample_voice
from facemae.errors import UsageError

RATE = 16000
FPS = 25


def loudness(talk: Talk, times: np.ndarray) -> np.ndarray:
    """Root of the mean square of the wave in 40 ms around each time."""
    wave = np.pad(talk.wave(RATE).astype(float), RATE // 50)
    return np.array([np.sqrt((wave[int(t * RATE) : int(t * RATE) + RATE // 25] ** 2).mean()) for t in times])


def opening(talk: Talk, times: np.ndarray) -> np.ndarray:
    """Height of the open mouth in pixels, measured on the region map of drawn frames."""
    film = Film(talk, 64)
    return np.array([(film.frame(t).regions == Region.MOUTH).any(axis=1).sum() for t in times.tolist()], float)


def test_a_wave_is_as_long_as_the_clip_and_clean() -> None:
    for number, emotion in enumerate(EXPRESSIONS):
        wave = sample_talk(3, number, 1, emotion=emotion, seconds=1.5).wave(RATE)
        assert wave.shape == (24000,)
        assert wave.dtype == np.float32
        assert np.isfinite(wave).all()
        assert 0.02 < np.abs(wave).max() < 0.96
        assert abs(wave.mean()) < 0.01


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_another_rate_is_the_same_sound(rate: int) -> None:
    talk = sample_talk(0, 1, 1, seconds=1)
    wave, plain = talk.wave(rate).astype(float), talk.wave(RATE).astype(float)
    assert len(wave) == rate
    times = np.arange(RATE) / RATE
    again = np.interp(times, np.arange(rate) / rate, wave)
    smooth = np.ones(8) / 8
    one, two = np.convolve(again, smooth, "same"), np.convolve(plain, smooth, "same")
    assert np.corrcoef(one, two)[0, 1] > 0.97
    assert abs(int(np.correlate(one[2000:9000], two[1900:9100]).argmax()) - 100) <= 1


@pytest.mark.parametrize("rate", [4000, 16001])
def test_rates_that_cannot_be_made_are_named(rate: int) -> None:
    with pytest.raises(UsageError, match=f"{rate} Hz"):
        sample_talk(0, 0, 0).wave(rate)


@pytest.mark.parametrize("kind", ["silent", "micro"])
def test_who_does_not_speak_is_silent(kind: str) -> None:
    talk = sample_talk(0, 0, 0, kind=kind, seconds=1)  # type: ignore[arg-type]
    assert not talk.wave(RATE).any()
    assert talk.labels()["speech"] == 0
    assert "pitch" not in talk.curves()


def test_an_open_mouth_is_loud_and_at_the_same_time() -> None:
    """Measured on drawn frames and on the wave alone."""
    times = np.arange(0, 2.4, 1 / FPS)
    seen, heard = [], []
    for identity in (0, 2, 5, 9):
        talk = sample_talk(4, identity, 0, emotion="neutral")
        wide, loud = opening(talk, times), loudness(talk, times)
        seen.append((wide - wide.mean()) / wide.std())
        heard.append((loud - loud.mean()) / loud.std())
    shifted = [
        np.mean([(a[5:-5] * np.roll(b, lag)[5:-5]).mean() for a, b in zip(seen, heard, strict=True)])
        for lag in range(-5, 6)
    ]
    assert max(shifted) > 0.7
    assert abs(int(np.argmax(shifted)) - 5) <= 1
    others = [np.mean(a * b) for i, a in enumerate(seen) for j, b in enumerate(heard) if i != j]
    assert abs(np.mean(others)) < 0.3


def test_rounded_lips_lower_the_second_formant() -> None:
    """By the curves, and by where the wave has its energy."""
    rounding, formant, balance = [], [], []
    for identity in range(8):
        talk = sample_talk(5, identity, 0, emotion="neutral")
        curves = talk.curves(FPS)
        vowels = curves["loudness"] > 0.04
        rounding.append(curves["rounding"][vowels])
        formant.append(np.log(curves["F2"] / talk.speech.voice.tract)[vowels])  # type: ignore[union-attr]
        wave = np.pad(talk.wave(RATE).astype(float), 512)
        frames = np.stack([wave[int(t * RATE) : int(t * RATE) + 1024] for t in curves["time"][vowels]])
        power = np.abs(np.fft.rfft(frames * np.hanning(1024))) ** 2
        hertz = np.fft.rfftfreq(1024, 1 / RATE)
        high, low = (power[:, (hertz > a) & (hertz < b)].sum(axis=1) for a, b in ((1400, 2700), (500, 1300)))
        balance.append(np.log(high / low))
    rounded = np.concatenate(rounding)
    assert np.corrcoef(rounded, np.concatenate(formant))[0, 1] < -0.5
    assert np.corrcoef(rounded, np.concatenate(balance))[0, 1] < -0.25


def heard_pitch(talk: Talk, time: float) -> float:
    """Pitch by autocorrelation of 80 ms."""
    wave = np.pad(talk.wave(RATE).astype(float), 1000)
    start = int(time * RATE) + 1000 - 640
    part = wave[start : start + 1280] * np.hanning(1280)
    spectrum = np.abs(np.fft.rfft(part, 4096)) ** 2
    likeness = np.fft.irfft(spectrum)[:400] / (1 - np.arange(400) / 1280)
    return RATE / (40 + int(likeness[40:300].argmax()))


def test_the_pitch_that_is_heard_is_that_of_the_curve() -> None:
    off = []
    for identity in range(6):
        talk = sample_talk(6, identity, 0)
        curves = talk.curves(FPS)
        times = curves["time"]
        loud = curves["loudness"] > 0.5 * curves["loudness"].max()
        chosen = np.flatnonzero(loud & (times > 0.1) & (times < 2.9))[::5]
        heard = np.array([heard_pitch(talk, time) for time in times[chosen]])
        off.append(12 * np.abs(np.log2(heard / curves["pitch"][chosen])))
    semitones = np.concatenate(off)
    assert len(semitones) > 20
    assert np.median(semitones) < 0.4
    assert np.mean(semitones < 1) > 0.8


def test_persons_have_voices_of_their_own() -> None:
    assert sample_voice(0, 3) == sample_voice(0, 3)
    pitch = np.log2([[float(sample_talk(0, i, s).labels()["pitch"]) for s in range(4)] for i in range(12)])
    assert pitch.mean(axis=1).std() > 1.2 * pitch.std(axis=1).mean()
    voices = [sample_voice(0, i) for i in range(200)]
    assert all(70 < voice.base < 290 and 0.85 < voice.tract < 1.2 for voice in voices)
    assert np.corrcoef([v.tract for v in voices], np.log([v.base for v in voices]))[0, 1] > 0.7


def test_faces_tell_part_of_the_voice() -> None:
    talks = [sample_talk(0, i, 0, kind="silent") for i in range(300)]
    size = [t.rest.identity.chin + t.rest.identity.width for t in talks]
    likeness = np.corrcoef(size, [sample_voice(0, i).tract for i in range(300)])[0, 1]
    assert -0.95 < likeness < -0.5


def test_expressions_change_the_voice() -> None:
    def voice(emotion: str) -> tuple[float, float]:
        curves = sample_talk(0, 3, 0, emotion=emotion, seconds=4).curves()
        top = curves["level"] > 0.9
        return float(curves["pitch"][top].mean()), float(np.quantile(curves["loudness"][top], 0.9))

    plain = voice("neutral")
    assert voice("surprise")[0] > plain[0] > voice("sadness")[0]
    assert voice("anger")[1] > plain[1] > voice("sadness")[1]


@pytest.mark.parametrize("lag", [-0.5, 0.4])
def test_a_late_sound_is_the_sound_later(lag: float) -> None:
    talk, late = sample_talk(0, 2, 2), sample_talk(0, 2, 2, lag=lag)
    assert talk.at(1.1) == late.at(1.1)
    assert (talk.labels()["synchronous"], late.labels()["synchronous"]) == ("yes", "no")
    times = np.arange(1, 2, 0.01)
    assert np.corrcoef(loudness(talk, times), loudness(late, times + lag))[0, 1] > 0.95
    assert np.allclose(
        talk.curves()["loudness"][100:200], np.roll(late.curves()["loudness"], round(-lag * 100))[100:200]
    )


def test_melody_is_heard_and_not_seen() -> None:
    talk = sample_talk(0, 2, 2)
    assert talk.speech is not None
    other = replace(talk, speech=replace(talk.speech, melody=replace(talk.speech.melody, register=-9.0, glide=-9.0)))
    assert [talk.at(t) for t in np.linspace(0, 3, 20)] == [other.at(t) for t in np.linspace(0, 3, 20)]
    assert not np.array_equal(talk.wave(), other.wave())
    assert (other.labels()["register"], other.labels()["intonation"]) == ("low", "falling")
