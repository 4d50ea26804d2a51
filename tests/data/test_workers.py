"""Loader processes: quiet about a training process that was killed, and about nothing else."""

import subprocess
import sys

import pytest

ASKED_AND_LEFT = """
import os, socket, sys, threading
from multiprocessing import resource_sharer
from facemae.data.workers import start_worker

HUSH
shared = resource_sharer.DupFd(1)
address = shared._id[0]
for _ in range(3):
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(address)
# It still answers.
os.write(shared.detach(), b"answered")
resource_sharer.stop(timeout=20)
"""


@pytest.mark.parametrize("hushed", [True, False])
def test_a_worker_does_not_tell_of_a_process_that_was_killed_while_it_asked(hushed: bool) -> None:
    code = ASKED_AND_LEFT.replace("HUSH", "start_worker(0)" if hushed else "")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "answered"
    # Without the worker's hook, multiprocessing tells of each: else this test would show nothing.
    assert done.stderr.count("Traceback") == (0 if hushed else 3)


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("raise EOFError", "EOFError"),
        ("threading.Thread(target=sys.excepthook, args=(ValueError, ValueError(7), None)).start()", "ValueError: 7"),
    ],
)
def test_a_worker_tells_of_all_other_errors(where: str, error: str) -> None:
    code = f"import sys, threading\nfrom facemae.data.workers import start_worker\nstart_worker(0)\n{where}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.rstrip().splitlines()[-1].startswith(error)
