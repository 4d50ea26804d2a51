"""Packing goes on after a kill, does not depend on the number of processes, and survives a crash in one of them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from facemae.data.clips.pack import pack_videos
from facemae.data.clips.pool import in_processes
from facemae.data.clips.settings import ClipSettings
from facemae.data.clips.workplace import unfinished, workplace
from facemae.data.index import ShardIndex
from facemae.errors import DataError
from tests.data.clips.films import face, film, noise
from tests.data.clips.tasks import double, refuse

SETTINGS = ClipSettings(size=32, detections=5)
COUNT = 8
_PACK = """
import sys, time
from pathlib import Path
from facemae.data.clips import job, pack
from facemae.data.clips.settings import ClipSettings
made = job.pack_video
def slowly(*arguments):
    time.sleep(0.3)
    return made(*arguments)
pack.pack_video = slowly
pack.pack_videos(Path(sys.argv[1]), Path(sys.argv[2]), settings=ClipSettings(size=32, detections=5), workers=0)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work") / "videos"
    for number in range(COUNT):
        film(folder / f"video{number}.mkv", [face(number % 2)] * (13 + number), wave=noise(0.9, 16000))
    return folder


@pytest.fixture(scope="module")
def digest(source: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return pack_videos(source, tmp_path_factory.mktemp("whole") / "out", settings=SETTINGS, workers=0).digest


def test_a_killed_pack_goes_on_and_gives_the_same_shards(source: Path, digest: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", _PACK, str(source), str(out)])
    try:
        deadline = time.monotonic() + 200
        while len(list(tmp_path.glob(".out.clips-*/parts/[0-9]*.json"))) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not out.exists()
    (folder,) = unfinished(out)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("parts/[0-9]*.json")}
    assert 3 <= len(before) < COUNT

    said: list[str] = []
    report = pack_videos(source, out, settings=SETTINGS, workers=0, say=said.append)
    assert said[0] == f"going on: {len(before)} of {COUNT} videos are finished"
    assert report.digest == digest
    assert unfinished(out) == []


def test_two_processes_give_the_same_shards_as_one(source: Path, digest: str, tmp_path: Path) -> None:
    assert pack_videos(source, tmp_path / "out", settings=SETTINGS, workers=2).digest == digest


def test_other_settings_do_not_go_on_from_there(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / ".out.clips-0123456789ab" / "parts").mkdir(parents=True)
    said: list[str] = []
    pack_videos(source, out, settings=ClipSettings(size=24, detections=5), workers=0, say=said.append)
    assert "unfinished pack of other videos or settings" in said[0]
    assert unfinished(out) == []
    assert len(ShardIndex.open(out)) == COUNT


@pytest.mark.parametrize("other", [{"a": 1}, {"a": 2}])
def test_two_packs_of_one_place_do_not_meet(tmp_path: Path, other: dict[str, int]) -> None:
    with (
        workplace(tmp_path / "out", {"a": 1}) as parts,
        pytest.raises(DataError, match="being packed by another process"),
        workplace(tmp_path / "out", other),
    ):
        pass
    assert not parts.exists()


def test_a_name_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    with workplace(tmp_path / "o1", {"a": 1}) as parts:
        with workplace(tmp_path / "o[1]", {"a": 1}) as own:
            assert own != parts
        assert not own.exists()
        assert parts.exists()


def test_a_workplace_stays_when_the_work_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with workplace(tmp_path / "out", {"a": 1}) as parts:
            (parts / "00000000.json").write_text("{}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert len(unfinished(tmp_path / "out")) == 1


def test_one_crash_costs_one_task() -> None:
    found = dict(in_processes(double, [(number,) for number in range(6)], 2))
    assert found == {(number,): None if number == 3 else 2 * number for number in range(6)}


def test_a_crash_with_one_task_left_costs_that_task_only() -> None:
    assert dict(in_processes(double, [(3,)], 8)) == {(3,): None}


_SLOW = """
import signal, sys
# What is started in the background of a shell ignores Ctrl-C, and so would this.
signal.signal(signal.SIGINT, signal.default_int_handler)
from facemae.data.clips.pool import in_processes
from tests.data.clips.tasks import sleep
if __name__ == "__main__":
    list(in_processes(sleep, [(sys.argv[1], number) for number in range(4)], 2))
"""


def test_ctrl_c_does_not_wait_for_the_videos_at_work(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW, str(tmp_path)],
        cwd=root,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    deadline = time.monotonic() + 200
    while not list(tmp_path.iterdir()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=240)
    assert process.returncode != 0
    assert said.count("KeyboardInterrupt") == 1


def test_an_error_of_a_task_is_raised() -> None:
    with pytest.raises(DataError, match=r"task [01]"):
        list(in_processes(refuse, [(0,), (1,)], 2))
