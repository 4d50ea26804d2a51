"""Sharing work among the cores this process may use."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 256


def local_processes() -> int:
    """Processes of this run on this machine, as torchrun and `facemae.train.processes.launcher` tell each of them."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def usable_cores() -> int:
    """Cores this process may use: a scheduler or container often grants fewer than the machine has.

    Processes of one run on one machine divide them.
    """
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, granted // local_processes())


def in_threads(function: Callable[[Item], Result], items: Sequence[Item], *, ahead: int = _AHEAD) -> Iterator[Result]:
    """Apply a function that leaves Python free, reading or decoding, in one thread a core.

    Args:
        function: What to do with an item.
        items: The items.
        ahead: How many may be done before the first result is taken, which bounds the memory of results.

    Yields:
        The results in the order of the items.
    """
    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(items), ahead):
            yield from pool.map(function, items[start : start + ahead])
