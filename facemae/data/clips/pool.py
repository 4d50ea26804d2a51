"""Work in several processes, one of which may crash without taking the rest with it."""

import contextlib
import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from facemae.data.workers import context, start_worker

Result = TypeVar("Result")
Task = tuple[Any, ...]

_AHEAD = 1
"""Tasks that wait in the queue, so that no process does."""


def in_processes(
    function: Callable[..., Result], tasks: Sequence[Task], workers: int
) -> Iterator[tuple[Task, Result | None]]:
    """Call a function with each of some arguments, in processes of their own; with no worker in this process.

    A library that crashes on one task ends its process, and with it the pool. The tasks that were in flight are then
    made one at a time, which finds the one to blame; the rest go on together.

    Args:
        function: At the top level of a module, so that another process can import it.
        tasks: Arguments of the calls.
        workers: Processes; 0 makes all of them here, where a crash ends this process.

    Yields:
        Task and result as they are done, in any order; None for a task on which its process crashed.

    Raises:
        Whatever `function` raises, and KeyboardInterrupt: the processes are ended in the middle of their tasks.
    """
    if workers < 1:
        for task in tasks:
            yield task, function(*task)
        return
    left = list(tasks)
    while left:
        finished: set[int] = set()
        in_flight: dict[Future[Result], Task] = {}
        try:
            for task, result in _together(function, left, workers, in_flight):
                finished.add(id(task))
                yield task, result
        except BrokenProcessPool:
            for task in [task for task in in_flight.values() if id(task) not in finished]:
                yield task, _alone(function, task)
                finished.add(id(task))
        left = [task for task in left if id(task) not in finished]


def _together(
    function: Callable[..., Result], tasks: Sequence[Task], workers: int, in_flight: dict[Future[Result], Task]
) -> Iterator[tuple[Task, Result]]:
    waiting = iter(tasks)
    with _pool(function, min(workers, len(tasks))) as pool:
        while True:
            for task in itertools.islice(waiting, workers + _AHEAD - len(in_flight)):
                in_flight[pool.submit(function, *task)] = task
            if not in_flight:
                return
            done, _ = wait(in_flight, return_when=FIRST_COMPLETED)
            for future in done:
                result = future.result()
                yield in_flight.pop(future), result


def _alone(function: Callable[..., Result], task: Task) -> Result | None:
    try:
        with _pool(function, 1) as pool:
            return pool.submit(function, *task).result()
    except BrokenProcessPool:
        return None


@contextlib.contextmanager
def _pool(function: Callable[..., Any], workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end with the block, in the middle of a task where it is left by an error."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        workers, mp_context=context(function.__module__), initializer=start_worker, initargs=(0,)
    )
    try:
        yield pool
    except BaseException:
        # They are deaf to Ctrl-C, and an hour of film takes many minutes.
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        pool.shutdown()
