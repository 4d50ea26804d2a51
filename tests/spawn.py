"""Runs a test's function in several processes that form a gloo group.

One process imports torch, timm and facemae once in a session; it computes nothing, so that it can be forked for every
rank of every call in milliseconds. Ranks are new processes each time: nothing is left over from the call before.
"""

import atexit
import contextlib
import faulthandler
import functools
import importlib
import multiprocessing
import multiprocessing.connection
import pickle
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from facemae.train.processes.process_group import Place, ProcessGroup

Result = TypeVar("Result")

TIMEOUT = 240.0
"""Seconds the ranks get to meet, and then a call to end; a rank that hangs shows where."""
_GRACE = 60.0
"""Seconds the others get to end when a rank has failed, and a rank that hangs to say where."""
_IMPORTED = (
    "facemae.data.loader",
    "facemae.objectives.pretraining",
    "facemae.train.strategy",
    # torch's optimisers import it when they are first used.
    "torch._dynamo",
)


class RankError(AssertionError):
    """A rank failed, died or hung; the message has its traceback."""


@dataclass(frozen=True)
class _Task:
    call: bytes
    path: list[str]
    world: int
    timeout: float


@dataclass(frozen=True)
class _Outcome:
    """What became of a rank: its pickled result, or why there is none and when that was."""

    result: bytes | None
    failure: str = ""
    moment: float = float("inf")


def run_in_processes(function: Callable[..., Result], world: int, *args: Any, timeout: float = TIMEOUT) -> list[Result]:
    """Call a function in `world` processes of one thread each, as `function(group, *args)`.

    Args:
        function: A function of a module; it and its arguments are pickled, and what a test patched is not there.
        world: Number of processes; one is no exception.
        args: Further arguments, the same for all.
        timeout: Seconds it may take once all have met.

    Returns:
        The results by rank.

    Raises:
        RankError: A rank failed; of several, the one that failed first is named first.
    """
    call = pickle.dumps((function, args))
    nursery = _nursery()
    nursery.send_bytes(pickle.dumps(_Task(call, sys.path, world, timeout)))
    outcomes: list[_Outcome] = pickle.loads(nursery.recv_bytes())  # noqa: S301 (from our own process)
    failed = sorted((outcome.moment, rank) for rank, outcome in enumerate(outcomes) if outcome.result is None)
    if failed:
        raise RankError("\n".join(f"rank {rank} of {world} {outcomes[rank].failure}" for _, rank in failed))
    return [pickle.loads(outcome.result) for outcome in outcomes if outcome.result is not None]  # noqa: S301


@functools.cache
def _nursery() -> multiprocessing.connection.Connection:
    """The process that is forked for every rank, as a connection to it."""
    ours, its = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(its,), name="nursery")
    process.start()
    its.close()
    # multiprocessing waits for its processes at exit; this one ends when the connection does.
    atexit.register(ours.close)
    return ours


def _serve(parent: multiprocessing.connection.Connection) -> None:
    import torch

    torch.set_num_threads(1)
    for module in _IMPORTED:
        importlib.import_module(module)
    while True:
        try:
            task: _Task = pickle.loads(parent.recv_bytes())  # noqa: S301
        except EOFError:
            return
        sys.path[:] = task.path
        # Imports the test's module here, once; what does not unpickle fails again in the ranks, which report it.
        with contextlib.suppress(Exception):
            pickle.loads(task.call)  # noqa: S301
        parent.send_bytes(pickle.dumps(_run(task)))


def _run(task: _Task) -> list[_Outcome]:
    with tempfile.TemporaryDirectory(prefix="ranks-") as name:
        folder = Path(name)
        ranks = [_Rank(task, rank, folder) for rank in range(task.world)]
        deadline = time.monotonic() + TIMEOUT + task.timeout + _GRACE
        while waiting := {rank.end: rank for rank in ranks if rank.outcome is None}:
            for end in multiprocessing.connection.wait(list(waiting), max(0.0, deadline - time.monotonic())):
                assert isinstance(end, multiprocessing.connection.Connection)
                waiting[end].read()
                if waiting[end].failed:
                    deadline = min(deadline, time.monotonic() + _GRACE)
            if time.monotonic() >= deadline:
                for rank in waiting.values():
                    rank.give_up()
        return [rank.finish() for rank in ranks]


class _Rank:
    """One forked process, seen from the nursery."""

    def __init__(self, task: _Task, rank: int, folder: Path) -> None:
        self.outcome: _Outcome | None = None
        self._stack = folder / f"stack-{rank}"
        self.end, its = multiprocessing.Pipe(duplex=False)
        self._process = multiprocessing.get_context("fork").Process(
            target=_work, args=(its, task, rank, folder / "meeting", self._stack), daemon=True
        )
        self._process.start()
        its.close()

    @property
    def failed(self) -> bool:
        return self.outcome is not None and self.outcome.result is None

    def read(self) -> None:
        try:
            self.outcome = pickle.loads(self.end.recv_bytes())  # noqa: S301
        except EOFError:
            self._process.join()
            stack = self._stack.read_text() if self._stack.exists() else ""
            if stack:
                self.outcome = _Outcome(None, f"hung until the time was over, here:\n{stack}", time.monotonic())
            else:
                # Others notice a death before we do, and are only its victims.
                self.outcome = _Outcome(None, f"died with exit code {self._process.exitcode}", float("-inf"))

    def give_up(self) -> None:
        self._process.kill()
        self.outcome = _Outcome(None, "had to be killed", time.monotonic())

    def finish(self) -> _Outcome:
        self.end.close()
        self._process.join(_GRACE)
        self._process.kill()
        self._process.join()
        assert self.outcome is not None
        return self.outcome


def _work(parent: multiprocessing.connection.Connection, task: _Task, number: int, meeting: Path, stack: Path) -> None:
    moment = float("inf")
    with stack.open("w") as file:
        faulthandler.dump_traceback_later(TIMEOUT, exit=True, file=file)
        try:
            function, args = pickle.loads(task.call)  # noqa: S301
            with ProcessGroup(Place(number, task.world, number, f"file://{meeting}", one_machine=True)) as group:
                # A short time, in a test of this harness, must not be over before the function has begun.
                faulthandler.dump_traceback_later(task.timeout, exit=True, file=file)
                try:
                    outcome = _Outcome(pickle.dumps(function(group, *args)))
                except BaseException:
                    # Before the group is left, which makes the others fail.
                    moment = time.monotonic()
                    raise
        except BaseException:  # noqa: BLE001 (reported to the test)
            outcome = _Outcome(None, f"failed:\n{traceback.format_exc()}", moment)
        parent.send_bytes(pickle.dumps(outcome))
        faulthandler.cancel_dump_traceback_later()
