"""Members of a shard: the same bytes each time, any window to the sample, damage told."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import soundfile

from facemae.errors import DataError, DecodeError
from facemae.rng import generator
from facemae.sound.resample import resample
from facemae.sound.store import encode, read_window, write
from facemae.sound.wave import Wave
from tests.sound.media import click, click_time, tone

RATE = 16000


def noise(seconds: float, rate: int = RATE) -> Wave:
    """Noise of whole sixteen-bit steps."""
    steps = generator(0, "noise").integers(-20000, 20000, size=round(seconds * rate))
    return (steps / 32768).astype(np.float32)


def wav(wave: Wave, rate: int = RATE, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format="WAV", subtype=subtype)
    return file.getvalue()


def test_sixteen_bits_come_back_exactly_and_the_bytes_are_the_same_each_time() -> None:
    wave = noise(3.0)
    data = encode(wave, RATE)
    assert data == encode(wave, RATE)
    assert data[:4] == b"fLaC"
    np.testing.assert_array_equal(read_window(data, 0.0, 3.0, name="a").wave, wave)


def test_a_long_sound_written_in_blocks_is_the_same_bytes() -> None:
    wave = noise(3.0)
    file = io.BytesIO()
    assert write((wave[at : at + 777] for at in range(0, len(wave), 777)), RATE, file) == len(wave)
    assert file.getvalue() == encode(wave, RATE)


def test_a_sound_of_no_samples_is_refused() -> None:
    with pytest.raises(DataError, match="a sound of no samples") as caught:
        encode(np.zeros(0, np.float32), RATE)
    assert "a clip without sound" in str(caught.value)


def test_too_loud_samples_are_clipped_and_do_not_wrap() -> None:
    data = encode(np.array([2.0, 1.0, -1.0, -3.0], np.float32), RATE)
    top = 32767 / 32768
    np.testing.assert_array_equal(
        read_window(data, 0, 4 / RATE, name="a").wave, np.array([top, top, -1, -1], np.float32)
    )


@pytest.mark.parametrize("pack", [lambda wave: encode(wave, RATE), wav])
def test_any_window_is_that_part_with_silence_beyond_the_ends(pack: Callable[[Wave], bytes]) -> None:
    wave = noise(2.0)
    data = pack(wave)
    for start, seconds in [
        (0.0, 0.5),
        (0.733, 0.2),
        (1.9, 0.5),
        (-0.25, 0.5),
        (-1.0, 0.5),
        (3.0, 0.5),
        (-0.5, 3.0),
        (1, 0),
    ]:
        window = read_window(data, start, seconds, name="a")
        first, count = round(start * RATE), round(seconds * RATE)
        padded = np.concatenate([np.zeros(2 * RATE, np.float32), wave, np.zeros(2 * RATE, np.float32)])
        np.testing.assert_array_equal(window.wave, padded[2 * RATE + first : 2 * RATE + first + count])
        held = max(0.0, min(start + seconds, 2.0) - max(start, 0.0))
        assert window.missing == pytest.approx(seconds - held)
        assert window.rate == RATE


@pytest.mark.parametrize("stored", [44100, 48000, 22050, 8000])
def test_another_rate_is_resampled_as_the_whole_would_be(stored: int) -> None:
    wave = (tone(stored, 2.0, 700.0) * np.linspace(0, 1, 2 * stored)).astype(np.float32)
    data = wav(wave, stored, "FLOAT")
    whole = resample(wave, stored, RATE)
    for start in (-0.2, 0.0, 0.3331, 0.73, 1.2):
        window = read_window(data, start, 0.64, rate=RATE, name="a")
        assert window.rate == RATE
        assert len(window.wave) == round(0.64 * RATE)
        first = round(start * RATE)
        expected = np.concatenate([np.zeros(RATE, np.float32), whole])[RATE + first : RATE + first + len(window.wave)]
        # What the filter rings before the sound's first sample is in the window only.
        begin = max(0, 200 - first) if first < 0 else 0
        np.testing.assert_allclose(window.wave[begin:], expected[begin:], atol=1e-5)
    beyond = read_window(data, 1.8, 0.64, rate=RATE, name="a")
    assert beyond.missing == pytest.approx(0.44)
    assert len(beyond.wave) == round(0.64 * RATE)


@pytest.mark.parametrize("stored", [44100, 16000, 11025])
def test_a_click_keeps_its_place_in_a_window(stored: int) -> None:
    data = encode(click(stored, 3.0, 1.5), stored)
    for start in (0.0, 0.3337, 1.23):
        window = read_window(data, start, 1.75, rate=RATE, name="a")
        assert click_time(window.wave, RATE) == pytest.approx(1.5 - start, abs=1.5 / RATE)


def test_channels_of_a_stored_wav_are_averaged() -> None:
    both = np.stack([tone(RATE, 1.0, 300.0), tone(RATE, 1.0, 500.0)], axis=1)
    window = read_window(wav(both, subtype="FLOAT"), 0.0, 1.0, name="a")
    np.testing.assert_allclose(window.wave, both.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "key7: not FLAC or WAV"),
        (b"ID3 an mp3", "key7: not FLAC or WAV"),
        (b"fLaC" + bytes(100), "key7: the sound does not decode"),
        (b"RIFF\x00\x00\x00\x00WAVE", "key7: the sound does not decode"),
    ],
)
def test_what_is_no_sound_is_named(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message) as caught:
        read_window(data, 0.0, 1.0, name="key7")
    assert "BytesIO" not in str(caught.value)


def test_damage_is_told_where_the_window_meets_it() -> None:
    wave = noise(10.0)
    data = bytearray(encode(wave, RATE))
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    np.testing.assert_array_equal(read_window(bytes(data), 0.0, 1.0, name="a").wave, wave[:RATE])
    with pytest.raises(DecodeError, match="a: the sound does not decode"):
        read_window(bytes(data), 4.0, 2.0, name="a")
    with pytest.raises(DecodeError, match="a: the sound does not decode"):
        read_window(bytes(data[:middle]), 7.0, 1.0, name="a")


def test_numbers_that_are_none_are_damage() -> None:
    wave = noise(1.0)
    wave[100] = np.nan
    with pytest.raises(DecodeError, match="samples that are no numbers"):
        read_window(wav(wave, subtype="FLOAT"), 0.0, 1.0, name="a")


def test_a_window_of_negative_length_is_refused() -> None:
    with pytest.raises(ValueError, match="-1 seconds"):
        read_window(encode(noise(1.0), RATE), 0.0, -1, name="a")
