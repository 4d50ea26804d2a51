"""Keeping the memory of a step for the next one, instead of giving it back to the system."""

import contextlib
import ctypes
import os
from collections.abc import Iterator

# glibc, malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
# Once a threshold is set, glibc no longer raises it by itself when large blocks are freed: so it is left where that
# would have led.
_AFTER = {_TRIM_THRESHOLD: 2**26, _MMAP_THRESHOLD: 2**25, _MMAP_MAX: 65536}
_KEEPING = {_TRIM_THRESHOLD: 2**30, _MMAP_MAX: 0}

_CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES", "LD_PRELOAD")


def memory_choice() -> str | None:
    """The environment variable by which the user chose how memory is kept, or another allocator; None without one."""
    return next((name for name in _CHOSEN if os.environ.get(name)), None)


@contextlib.contextmanager
def kept_memory() -> Iterator[bool]:
    """Let glibc keep freed memory, up to a gigabyte at its end, while the block runs.

    A training step frees and asks again for the same large tensors. By default glibc maps each of them anew, and the
    system fills every page with zeros at its first touch: 14 % of a step of `fmae_tiny`, see
    docs/decisions/0024-kept-memory.md. No number changes.

    Yields:
        Whether it does; nothing is done with another allocator, or where the user chose (see `memory_choice`).
    """
    found = memory_choice() is None and _set(_KEEPING)
    try:
        yield found
    finally:
        if found:
            _set(_AFTER)
            ctypes.CDLL(None).malloc_trim(0)


def _set(options: dict[int, int]) -> bool:
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):
        return False
    # Other C libraries have no such function.
    if not (hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt")):
        return False
    done = [library.mallopt(name, value) == 1 for name, value in options.items()]
    return all(done)
