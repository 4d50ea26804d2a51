"""Sharing work among the cores this process may use."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 256


def usable_cores() -> int:
    """Cores this process may use: a scheduler or container often grants fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
