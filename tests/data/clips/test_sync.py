"""A flash and a click at the same time stay together: packed, loaded and windowed, at all rates."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from facemae.config import DataConfig, MelSettings, StreamConfig
from facemae.data.clips.pack import pack_videos
from facemae.data.clips.settings import ClipSettings
from facemae.data.loader import build_loader
from facemae.data.schema import Batch, ClipSpec, SoundSpec, ViewSpec
from facemae.sound.mel import frame_span
from tests.data.clips.films import brighter, face, film

RATES: dict[str, Fraction | None] = {
    "25": Fraction(25),
    "2997": Fraction(30000, 1001),
    "30": Fraction(30),
    "variable": None,
    "early": Fraction(25),
}
SOUND_RATES = (16000, 44100, 48000)
AT = 0.9
"""Seconds at which the light goes on; the click is at the first frame that shows it."""
LENGTH = 2.0
EARLY = 0.2
"""Seconds before its sound at which the video called so begins: Matroska gives no time stamps before zero."""
MEL = MelSettings(hop_ms=5, window_ms=10, mels=32, pad="floor")
FPS = 25.0


def times(rate: Fraction | None) -> list[float]:
    if rate is not None:
        return [float(number / rate) for number in range(round(LENGTH * rate))]
    steps = np.random.default_rng(0).choice([20, 33, 40, 67], 80)
    stamps = np.concatenate([[0], np.cumsum(steps)]) / 1000
    return [float(stamp) for stamp in stamps[stamps < LENGTH]]


def make(path: Path, rate: Fraction | None, sound_rate: int, early: float = 0.0) -> float:
    """Write the video; when its light goes on."""
    shown = times(rate)
    first = next(number for number, time in enumerate(shown) if time >= AT)
    dark, light = face(), brighter(face())
    wave = np.zeros(round(LENGTH * sound_rate), np.float32)
    click = round((shown[first] - early) * sound_rate)
    length = round(0.004 * sound_rate)
    wave[click : click + length] = 0.8 * np.sin(2 * np.pi * 2000 * np.arange(length) / sound_rate)
    stamps = None if rate is not None and not early else [round((time - early) * 1000) for time in shown]
    frames = [light if number >= first else dark for number in range(len(shown))]
    muxer = {"avoid_negative_ts": "disabled"} if early else None
    film(path, frames, fps=rate or 25, stamps=stamps, wave=wave, rate=sound_rate, muxer=muxer)
    return shown[first]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("sync") / "videos"
    for name, rate in RATES.items():
        for sound_rate in SOUND_RATES:
            early = EARLY if name == "early" else 0.0
            ending = "mkv" if rate is None or early else "mp4"
            make(source / f"fps{name}_{sound_rate}.{ending}", rate, sound_rate, early)
    pack_videos(source, source.parent / "shards", settings=ClipSettings(size=32, detections=4, fps=FPS), workers=0)
    return source.parent / "shards"


def load(shards: Path, frames: int, seeds: Sequence[int]) -> list[Batch]:
    view = ViewSpec("main", 32, 3, crop="resize", flip=False, clip=ClipSpec(frames, 1 / FPS))
    sound = SoundSpec("sound", "main", round(frames / FPS * 200), MEL)
    data = DataConfig(streams=(StreamConfig(shards=str(shards)),), lanes=1)
    return [
        batch
        for seed in seeds
        for batch in build_loader(
            data, [view], seed=seed, batch_size=len(RATES) * len(SOUND_RATES), stop_step=1, sounds=[sound]
        )
    ]


def lit(batch: Batch, place: int) -> int | None:
    """First bright frame of a view that has dark ones before it."""
    light = batch.views["main"].image[place].float().mean(dim=(1, 2, 3)).numpy()
    bright = np.flatnonzero(light > (light.min() + light.max()) / 2)
    return int(bright[0]) if light.max() - light.min() > 40 and bright[0] > 0 else None


def clicked(batch: Batch, place: int) -> float:
    """Middle of the loudest frame of the spectrogram, in seconds after the window's start."""
    mel = batch.sounds["sound"].mel[place].numpy()
    start, stop = frame_span(int(mel.mean(axis=1).argmax()), MEL)
    return (start + stop) / 2


@pytest.mark.parametrize("frames", [50, 25])
def test_light_and_click_stay_within_a_frame(shards: Path, frames: int) -> None:
    seen = set()
    for batch in load(shards, frames, range(4)):
        for place, key in enumerate(batch.keys):
            first = lit(batch, place)
            if first is None:
                continue  # this window does not hold the moment
            seen.add(key)
            assert abs(clicked(batch, place) - first / FPS) < 1 / FPS, key
    assert len(seen) == len(RATES) * len(SOUND_RATES)


def test_a_shifted_sound_is_noticed(shards: Path) -> None:
    """The measure is no tautology: sound that lies two frames later does not pass."""
    (batch,) = load(shards, 50, [0])
    place = next(place for place in range(len(batch)) if lit(batch, place) is not None)
    first = lit(batch, place)
    assert first is not None
    batch.sounds["sound"].mel[place] = batch.sounds["sound"].mel[place].roll(round(2 / FPS * 200), dims=0)
    assert abs(clicked(batch, place) - first / FPS) > 1 / FPS
