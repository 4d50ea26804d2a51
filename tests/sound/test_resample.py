"""Resampling moves nothing, keeps levels, lets nothing fold over, and does not know where blocks end."""

import numpy as np
import pytest

from facemae.rng import generator
from facemae.sound.resample import MARGIN, StreamResampler, resample, shared_grid
from tests.sound.media import amplitude_at, tone

RATES = [8000, 16000, 22050, 44100, 48000, 96000, 11025, 44056]


@pytest.mark.parametrize("source", RATES)
def test_a_click_stays_at_its_sample(source: int) -> None:
    wave = np.zeros(2 * source, np.float32)
    wave[source] = 1.0
    made = resample(wave, source, 16000)
    assert int(np.argmax(np.abs(made))) == 16000
    assert len(made) == 32000


@pytest.mark.parametrize("source", RATES)
def test_the_phase_of_a_tone_is_kept_to_a_thousandth_of_a_sample(source: int) -> None:
    made = resample(tone(source, 2.0, 1500.0), source, 16000)
    inside = slice(4000, 28000)
    np.testing.assert_allclose(
        made[inside], tone(16000, 2.0, 1500.0)[inside], atol=0.5 * 2 * np.pi * 1500 / 16000 / 1000
    )


@pytest.mark.parametrize("source", RATES)
def test_the_level_of_a_tone_is_kept(source: int) -> None:
    for hertz in (50.0, 1000.0, 0.45 * min(source, 16000)):
        made = resample(tone(source, 2.0, hertz), source, 16000)
        assert 20 * np.log10(amplitude_at(made, 16000, hertz) / 0.5) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("source", [22050, 44100, 48000, 96000])
def test_a_tone_above_half_the_new_rate_does_not_fold_over(source: int) -> None:
    for hertz in (8200.0, 9000.0, 10500.0):
        made = resample(tone(source, 2.0, hertz), source, 16000)
        assert 20 * np.log10(np.abs(made[4000:28000]).max() / 0.5) < -125


@pytest.mark.parametrize(("source", "rate"), [(44100, 16000), (8000, 48000), (48000, 16000), (16000, 16000)])
def test_blocks_of_any_length_give_the_same_samples(source: int, rate: int) -> None:
    draw = generator(0, "blocks", source)
    wave = (0.3 * draw.standard_normal(source)).astype(np.float32)
    stream = StreamResampler(source, rate)
    parts, at = [], 0
    while at < len(wave):
        length = int(draw.integers(0, 3000))
        parts.append(stream.feed(wave[at : at + length]))
        at += length
    parts.append(stream.flush())
    np.testing.assert_array_equal(np.concatenate(parts), resample(wave, source, rate))


def test_the_shared_grid_lasts_equally_long_at_both_rates() -> None:
    for source in RATES:
        before, skip = shared_grid(source, 16000)
        assert before * 16000 == skip * source
        assert before / source >= MARGIN
    assert shared_grid(44100, 16000) == (2205, 800)
