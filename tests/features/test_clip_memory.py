"""Features of videos of any length take the memory of short ones."""

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facemae.features.clip_extraction import plan_clips
from facemae.features.clip_listing import FilesPart, open_clips
from facemae.features.extractor import load
from facemae.features.writers import read_clip_features
from tests.data.clips.films import brighter, face, film
from tests.features.clip_models import crop_recipe, save, voice

MEASURED = """
import re, sys
from pathlib import Path
from facemae.cli import main
target = Path(sys.argv.pop(1))
try:
    main()
finally:
    target.write_text(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""
"""The command, which leaves its largest resident size in kB: what wait4 tells of a child has its parent's in it."""


def peak(video: Path, run: Path, out: Path) -> int:
    """Largest resident size of a process that extracts features of a video, in bytes."""
    told = out.with_name("peak")
    arguments = [sys.executable, "-c", MEASURED, told, "extract", video, "--model", run, "--out", out]
    given = [*map(str, arguments), "--device", "cpu", "--overwrite", "--json"]
    subprocess.run(given, stdout=subprocess.DEVNULL, check=True)
    return int(told.read_text()) * 1024


def long_film(path: Path, seconds: int) -> Path:
    image = face()
    shown: Any = _Repeated([brighter(image, 2 * abs(k - 12)) for k in range(25)], 25 * seconds)
    return film(path, shown, wave=voice(float(seconds)) if seconds < 100 else np.tile(voice(10.0), seconds // 10))


class _Repeated:
    """Frames that are there without memory of their own."""

    def __init__(self, images: list[np.ndarray], count: int) -> None:
        self._images, self._count = images, count

    def __getitem__(self, number: int) -> np.ndarray:
        if number >= self._count:
            raise IndexError(number)
        return self._images[number % len(self._images)]


def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path: Path) -> None:
    """Of the 10 s more, the frames are 12 MB as they are read and 1.7 MB as they are cut."""
    run = save(tmp_path / "run", crop=crop_recipe(detections=3))
    extractor = load(run, device="cpu").clips()

    def most(seconds: int) -> int:
        parts = open_clips([long_film(tmp_path / f"{seconds}.mp4", seconds)])
        raw = plan_clips(extractor, parts).raw
        assert raw is not None
        assert isinstance(parts[0], FilesPart)
        tracemalloc.start()
        try:
            made = raw.windows_of(parts[0].files[0], lambda _: None)
            shown = sum(window.pictures is not None for window in made)
            assert shown == pytest.approx(seconds / 0.64, abs=1)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    most(1)  # what is imported and kept on first use
    short, long = most(2), most(12)
    assert long - short < 1e6, f"grew by {(long - short) / 1e6:.1f} MB"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_minutes_take_the_memory_of_ten_seconds(tmp_path: Path) -> None:
    run = save(tmp_path / "run", crop=crop_recipe(detections=3))
    short, long = (peak(long_film(tmp_path / f"{s}.mp4", s), run, tmp_path / "f.parquet") for s in (10, 600))
    print(f"10 s: {short / 1e6:.0f} MB, 600 s: {long / 1e6:.0f} MB")
    assert long - short < 200e6
    rows = read_clip_features(tmp_path / "f.parquet").columns
    assert len(rows["keys"]) == 938
    assert rows["has_video"].all()
    assert rows["has_sound"].all()
    assert rows["end"][-1] == pytest.approx(600, abs=0.05)
