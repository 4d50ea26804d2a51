"""Worker processes: deaf to a job's signals, named when they die, gone when the training process is."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facemae.data.pack import PackItem, pack_samples

pytestmark = [
    pytest.mark.slow,  # each test starts an interpreter, a fork server and two workers
    pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's"),
]

SCRIPT = """
import faulthandler, multiprocessing, sys
from facemae.config import DataConfig, StreamConfig
from facemae.data.loader import build_loader
from facemae.data.schema import ViewSpec
from facemae.errors import FacemaeError

if __name__ == "__main__":
    faulthandler.dump_traceback_later(200)
    data = DataConfig(streams=(StreamConfig(shards=sys.argv[1]),), lanes=2)
    loader = build_loader(data, (ViewSpec("main", 16, 3),), seed=0, batch_size=4, stop_step=60, workers=2)
    batches = iter(loader)
    next(batches)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    if sys.stdin.readline() == "leave\\n":
        sys.exit()
    try:
        print(sum(1 for _ in batches), flush=True)
    except FacemaeError as error:
        print(type(error).__name__, error.found, flush=True)
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(buffer, "PNG")
    folder = tmp_path_factory.mktemp("processes") / "shards"
    pack_samples([PackItem(f"face_{i}", buffer.getvalue(), "png", {}) for i in range(16)], folder)
    return folder


def start(shards: Path, tmp_path: Path) -> tuple["subprocess.Popen[str]", list[int]]:
    script = tmp_path / "reads.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(shards)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    workers = [int(number) for number in process.stdout.readline().split()]
    assert len(workers) == 2
    return process, workers


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # In a container without an init process, the dead may stay as entries that nobody collects.
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_jobs_signals_do_not_stop_the_workers(shards: Path, tmp_path: Path) -> None:
    process, workers = start(shards, tmp_path)
    for pid in workers:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(pid, number)
    assert process.communicate("go on\n", timeout=240)[0] == "59\n"


def test_a_killed_worker_is_said_in_plain_words(shards: Path, tmp_path: Path) -> None:
    process, workers = start(shards, tmp_path)
    os.kill(workers[0], signal.SIGKILL)
    output = process.communicate("go on\n", timeout=240)[0]
    assert output.startswith("DataError a loader process ended unexpectedly")


def test_workers_end_with_a_killed_training_process(shards: Path, tmp_path: Path) -> None:
    process, workers = start(shards, tmp_path)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while not all(gone(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert all(gone(pid) for pid in workers)


def test_a_loader_left_in_mid_run_does_not_hold_up_the_end(shards: Path, tmp_path: Path) -> None:
    process, workers = start(shards, tmp_path)
    process.communicate("leave\n", timeout=240)
    assert process.returncode == 0
    assert all(gone(pid) for pid in workers)
