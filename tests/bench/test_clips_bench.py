"""`facemae bench clips`: every way is measured against the same baseline, and reads the same frames."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from facemae.bench.clips import STORAGES, ClipsBenchSettings, bench_clips
from facemae.bench.commands import app
from facemae.errors import DataError, MissingExtraError
from tests.video.conftest import numbered, write_video


def test_every_way_is_measured_in_one_run() -> None:
    pytest.importorskip("decord")
    pytest.importorskip("av")
    done = CliRunner().invoke(app, ["clips", "--count", "1", "--rounds", "1", "--size", "64", "--json"])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["settings"]["storage"] for line in lines} == set(STORAGES)
    assert {line["settings"]["reader"] for line in lines} >= {"simplejpeg", "PyAV", "decord"}
    assert {line["unit"] for line in lines} == {"clips/s"}
    for line in lines:
        settings = line["settings"]
        assert 0 < settings["mean_error_of_255"] < 8, line["bench"]  # a neighbouring frame differs by more
        assert settings["bytes_a_clip"] > 1000
        assert settings["frames_a_clip"] == 75
        exact = settings["reader"] == "PyAV" or "simplejpeg" in settings["reader"]
        assert abs(settings["mean_shift_of_255"]) < (0.4 if exact else 2.5)


def test_a_folder_without_videos_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    with pytest.raises(DataError, match="holds no videos"):
        bench_clips(tmp_path, ClipsBenchSettings())


def test_videos_that_are_too_short_are_an_error(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    write_video(tmp_path / "short.mp4", numbered(5))
    with pytest.raises(DataError, match=r"no video of .* has 61 frames"):
        bench_clips(tmp_path, ClipsBenchSettings(size=32))


def test_without_decord_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(MissingExtraError, match="the baseline needs an optional package"):
        bench_clips(tmp_path, ClipsBenchSettings())
