"""Memory of packing as the operating system counts it: it does not grow with the length or the number of videos."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.clips.films import face, film, noise

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads peaks from /proc")

MEGABYTE = 1024
"""Of the kilobytes that /proc counts in."""

INSIDE = """
import sys
from pathlib import Path
from facemae.data.clips.pack import pack_videos
from facemae.data.clips.settings import ClipSettings

def peak(source):
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    settings = ClipSettings(size=32, detections=2.5, longest=1.0)
    report = pack_videos(source, f"{source}-out", settings=settings, workers=0)
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    print(report.written, line.split()[1])

for source in sys.argv[1:]:
    peak(source)
"""


def video(path: Path, seconds: float) -> Path:
    """The still of a drawn face with sound: 50 kB a frame when decoded."""
    return film(path, [face()] * round(25 * seconds), wave=noise(seconds, 16000))


def test_a_longer_video_takes_no_more_memory(tmp_path: Path) -> None:
    """The longer one's frames would be 30 MB more."""
    for name, seconds in (("warm", 2), ("short", 2), ("long", 26)):
        video(tmp_path / name / "a.mkv", seconds)
    sources = [str(tmp_path / name) for name in ("warm", "short", "long")]
    done = subprocess.run([sys.executable, "-c", INSIDE, *sources], check=True, capture_output=True, text=True)
    _, short, long = (tuple(map(int, line.split())) for line in done.stdout.splitlines())
    assert (short[0], long[0]) == (2, 26)
    assert long[1] - short[1] < 12 * MEGABYTE


def tree(process: int) -> Iterator[int]:
    """A process and all below it."""
    yield process
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from tree(int(child))


def peaks(source: Path, *, workers: int) -> list[int]:
    """Peak resident memory of the command's processes in kilobytes, the largest first."""
    command = [sys.executable, "-m", "facemae", "data", "pack", str(source), "--out", f"{source}-out"]
    options = ["--workers", str(workers), "--size", "64", "--detections", "5", "--longest", "5"]
    found: dict[int, int] = {}
    with subprocess.Popen([*command, *options], env={**os.environ, "OMP_NUM_THREADS": "1"}) as running:
        while running.poll() is None:
            try:
                for process in tree(running.pid):
                    for line in Path(f"/proc/{process}/status").read_text().splitlines():
                        if line.startswith("VmHWM"):
                            found[process] = int(line.split()[1])
            except OSError:
                pass  # one ended between two looks
            time.sleep(0.05)
    assert running.returncode == 0
    # What ends at once, such as the tracker of resources, would stand in another place from run to run.
    return sorted((peak for peak in found.values() if peak > 100 * MEGABYTE), reverse=True)


def check(less: Path, more: Path, workers: int) -> None:
    """Both packed by the command: no process of the second takes more than of the first."""
    before, after = peaks(less, workers=workers), peaks(more, workers=workers)
    print("\npeak resident MB:", *([peak // MEGABYTE for peak in found] for found in (before, after)))
    assert len(after) == len(before)
    assert max(b - a for a, b in zip(before, after, strict=True)) < 32 * MEGABYTE


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_process_of_the_command_takes_more_for_a_longer_video(tmp_path: Path) -> None:
    """The longer one's frames would be 140 MB more."""
    video(tmp_path / "short/a.mkv", 5)
    video(tmp_path / "long/a.mkv", 120)
    check(tmp_path / "short", tmp_path / "long", workers=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_process_of_the_command_takes_more_for_more_videos(tmp_path: Path) -> None:
    one = video(tmp_path / "few/000.mkv", 2).read_bytes()
    (tmp_path / "many").mkdir()
    for number in range(36):
        for name in ("few", "many") if number < 4 else ("many",):
            (tmp_path / name / f"{number:03d}.mkv").write_bytes(one)
    check(tmp_path / "few", tmp_path / "many", workers=2)
