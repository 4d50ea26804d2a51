"""The bench of clips: both sides read the same frames and make the same spectrogram."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from facemae.bench.commands import app
from tests.data.clips.films import face, film, noise


def test_packed_clips_show_what_the_originals_do(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    for number in range(8):
        film(tmp_path / f"{number}.mkv", [face(number % 3)] * 75, wave=noise(3.0, 44100), rate=44100)
    done = CliRunner().invoke(app, ["data", "--clips", str(tmp_path), "--count", "8", "--rounds", "1", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["bench"], found["unit"]) == ("data, clips with sound", "clips/s")
    assert found["settings"]["mean_difference_of_255"] < 8
    assert found["settings"]["mean_difference_of_mel"] < 0.05
    assert found["ratio"] > 0


def test_too_few_videos_are_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["data", "--clips", str(tmp_path)])
    assert done.exit_code != 0
    assert "holds 0 videos" in str(done.exception)
