"""What processes do in the tests of those who start them; imports nothing heavy, so that they start at once."""

import os
import signal
import time
from pathlib import Path

from facemae.errors import DataError, ProcessError
from facemae.train.processes.rank import Began, Ending, Tell
from facemae.train.saving.preempt import StopRequest

RANK = int(os.environ.get("RANK", "0"))

LONG = 240
"""Seconds until a process that nobody ended gives up."""


def tell_place(stop: StopRequest, tell: Tell) -> list[str]:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    return [os.environ[name] for name in names]


def fail_after_the_others(folder: Path, stop: StopRequest, tell: Tell) -> None:
    if RANK != 1:
        tell(Began())
    meet(folder)
    if RANK == 1:
        time.sleep(0.3)
        raise DataError("the cause", expected="none", fix="nothing")
    # Its victims may be faster: what they say is no cause.
    raise ProcessError(f"process {RANK} lost the others")


def fail_alike(stop: StopRequest, tell: Tell) -> None:
    if RANK == 0:
        tell(Began())
    raise DataError("all of us")


def close_slowly(folder: Path, seconds: float, stop: StopRequest, tell: Tell) -> None:
    if RANK == 0:
        tell(Began())
        tell(Ending())
        time.sleep(seconds)
        (folder / "closed").touch()
    raise DataError("all of us")


def have_a_bug(folder: Path, stop: StopRequest, tell: Tell) -> None:
    meet(folder)
    if RANK == 1:
        raise ValueError("a bug")
    raise ProcessError("lost the others")


def leave(stop: StopRequest, tell: Tell) -> None:
    if RANK == 1:
        print("last words", flush=True)
        os._exit(3)
    time.sleep(LONG)


def be_killed(folder: Path, stop: StopRequest, tell: Tell) -> None:
    note(folder)
    if RANK == 1:
        meet(folder)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(LONG)


def signal_the_starter(number: signal.Signals, stop: StopRequest, tell: Tell) -> str | None:
    if RANK == 1:
        os.kill(os.getppid(), number)
    return wait(stop)


def hear_a_signal(stop: StopRequest, tell: Tell) -> str | None:
    # Twice: only who started the processes ends them at once.
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
    return wait(stop)


def insist(folder: Path, stop: StopRequest, tell: Tell) -> None:
    note(folder)
    if RANK == 0:
        tell(Began())
        os.kill(os.getppid(), signal.SIGINT)
        wait(stop)
        os.kill(os.getppid(), signal.SIGINT)
    time.sleep(LONG)


def sleep(folder: Path, stop: StopRequest, tell: Tell) -> None:
    note(folder)
    time.sleep(LONG)


def note(folder: Path) -> None:
    (folder / str(os.getpid())).touch()


def meet(folder: Path) -> None:
    """Wait until all processes have come so far; where one fails, the others have only seconds to start."""
    note(folder)
    while len(pids(folder)) < int(os.environ["WORLD_SIZE"]):
        time.sleep(0.01)


def pids(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir()]


def wait(stop: StopRequest) -> str | None:
    deadline = time.monotonic() + LONG / 2
    while stop.reason is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return stop.reason
