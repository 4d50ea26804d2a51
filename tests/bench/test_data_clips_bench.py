"""The bench of clips: both sides read the same frames and make the same spectrogram."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from facemae.bench.commands import app
from facemae.bench.data_clips import MEL, seek_sound
from facemae.sound.mel import log_mel
from facemae.sound.source import SoundSource
from facemae.video.source import VideoSource
from tests.data.clips.films import face, film, noise
from tests.data.clips.test_clip_sound import part


def test_packed_clips_show_what_the_originals_do(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    for number in range(8):
        film(tmp_path / f"{number}.mkv", [face(number % 3)] * 75, wave=noise(3.0, 44100), rate=44100)
    done = CliRunner().invoke(app, ["data", "--clips", str(tmp_path), "--count", "8", "--rounds", "1", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["bench"], found["unit"]) == ("data, clips with sound", "clips/s")
    assert found["settings"]["mean_difference_of_255"] < 8
    assert found["settings"]["mean_difference_of_mel"] < 0.02
    assert found["ratio"] > 0


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_the_baseline_hears_the_window_that_it_seeks(name: str, tmp_path: Path) -> None:
    path = film(tmp_path / name, [face()] * 80, wave=noise(3.2, 48000), rate=48000)
    check_window(path)


def test_the_baseline_passes_over_the_part_of_a_packet_that_it_lands_in(tmp_path: Path) -> None:
    """As a seek does in mpg."""
    path = tmp_path / "a.mpg"
    part(path, [face()] * 80, noise(3.2, 48000), "vob")
    check_window(path)


def check_window(path: Path) -> None:
    with VideoSource(path) as source:
        whole = SoundSource(path, rate=MEL.rate, origin=source.origin).read()
    for start in (0.0, 0.4):
        heard = seek_sound(path, start, 2.56)
        expected = whole[round(start * MEL.rate) :][: len(heard)]
        assert len(heard) == round(2.56 * MEL.rate)
        assert np.abs(log_mel(heard, MEL, 250) - log_mel(expected, MEL, 250)).mean() < 0.02


def test_too_few_videos_are_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["data", "--clips", str(tmp_path)])
    assert done.exit_code != 0
    assert "holds 0 videos" in str(done.exception)
