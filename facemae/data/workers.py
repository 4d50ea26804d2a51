"""The worker processes of a loader: how many there are, how they start, and that none outlives its run."""

import atexit
import contextlib
import functools
import multiprocessing
import multiprocessing.context
import multiprocessing.process
import os
import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import cv2
import torch

from facemae.parallel import usable_cores

_MOST_WORKERS = 8

_WORKERS: "weakref.WeakSet[multiprocessing.process.BaseProcess]" = weakref.WeakSet()
"""Workers of all loaders, to be ended when the interpreter does."""


def default_workers() -> int:
    """Worker processes for the cores this process may use: one core is left to the training process."""
    return min(usable_cores() - 1, _MOST_WORKERS)


@contextlib.contextmanager
def remembered_workers() -> Iterator[None]:
    """Processes that are started in the block are ended with this one."""
    others = set(multiprocessing.active_children())
    yield
    _WORKERS.update(set(multiprocessing.active_children()) - others)


def start_worker(_: int) -> None:
    """What a worker does before its first batch."""
    # One thread a worker: workers are the parallelism. Signals are the training process's business: a scheduler sends
    # them to every process of a job, and a worker that died of one would take the batches with it.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for number in _signals():
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = _print_unless_parent_hung_up
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), name="end-with-parent", daemon=True).start()


def _end_with(parent: Any) -> None:
    """End this worker when the training process is gone, however it went.

    torch looks at the parent's process id, which is the fork server's; the two would keep each other alive for ever.
    """
    parent.join()
    os._exit(1)


def _print_unless_parent_hung_up(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an exception, but not that of a connection which the training process did not live to make.

    It asks a thread of multiprocessing for the memory that batches lie in; where it is killed while it does, the thread
    would tell of that, and then go on. If it lives and has no answer, it says so itself.
    """
    in_a_thread = threading.current_thread() is not threading.main_thread()
    if not (in_a_thread and issubclass(kind, EOFError | ConnectionError)):
        sys.__excepthook__(kind, error, trace)


def _signals() -> list[signal.Signals]:
    names = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


@atexit.register
def _end_workers() -> None:
    """End workers whose loader was left in mid-run; they do not hear the SIGTERM that multiprocessing sends at exit."""
    for worker in list(_WORKERS):
        if worker.is_alive():
            worker.kill()


@functools.cache
def context(module: str) -> multiprocessing.context.BaseContext:
    """How workers are started.

    Forking a process whose torch threads run can deadlock, and CUDA does not survive it. A fork server is a clean
    process that imports a module once and forks quickly from then on.

    Args:
        module: What workers need, by name.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([module])
    _start_server()
    return server


def _start_server() -> None:
    """Start the fork server deaf to the signals that are meant for the training process."""
    from multiprocessing import forkserver

    if threading.current_thread() is not threading.main_thread():
        forkserver.ensure_running()
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _signals()}
    try:
        forkserver.ensure_running()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
