"""Keeping the memory of a step for the next one, instead of giving it back to the system."""

import contextlib
import ctypes
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from facemae.parallel import local_processes

# glibc, malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER = -1
# Once a threshold is set, glibc no longer raises it by itself when large blocks are freed: so it is left where that
# would have led.
_AFTER = {_TRIM_THRESHOLD: 2**26, _MMAP_THRESHOLD: 2**25, _MMAP_MAX: 65536}
_KEEPING = {_TRIM_THRESHOLD: _NEVER, _MMAP_MAX: 0}

# Linux, mman.h.
_HUGE_PAGES = 14
_MOST = 2**33
_OVERCOMMIT, _STRICT = Path("/proc/sys/vm/overcommit_memory"), "2"

_CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES", "LD_PRELOAD")


def memory_choice() -> str | None:
    """The environment variable by which the user chose how memory is kept, or another allocator; None without one."""
    return next((name for name in _CHOSEN if os.environ.get(name)), None)


@contextlib.contextmanager
def kept_memory() -> Iterator[bool]:
    """Let glibc keep freed memory, in large pages where Linux has them, while the block runs.

    A training step frees and asks again for the same large tensors. By default glibc maps each of them anew, and the
    system fills every page with zeros at its first touch; addresses of small pages cost some more, see
    docs/decisions/0024-kept-memory.md. No number changes.

    Yields:
        Whether it does; nothing is done with another allocator, or where the user chose (see `memory_choice`).
    """
    found = memory_choice() is None and _set(_KEEPING)
    if found:
        _ask_for_large_pages()
    try:
        yield found
    finally:
        if found:
            _set(_AFTER)
            ctypes.CDLL(None).malloc_trim(0)


def _ask_for_large_pages() -> None:
    """Lengthen the heap by memory that takes 2 MB pages when it is touched; until then it costs addresses only.

    Where those are counted, and where the system refuses, pages stay as they are.
    """
    if _counts_addresses():
        return
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    size = min(_MOST, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4 // local_processes())
    place = library.malloc(ctypes.c_size_t(size))
    if place is None:
        return
    page = os.sysconf("SC_PAGE_SIZE")
    start = -(-place // page) * page
    if hasattr(library, "madvise"):
        library.madvise(ctypes.c_void_p(start), ctypes.c_size_t((place + size - start) // page * page), _HUGE_PAGES)
    # It stays behind as the free end of the heap.
    library.free(ctypes.c_void_p(place))


def _counts_addresses() -> bool:
    """Whether memory that is asked for and not touched counts: for a limit of the process, or of the system."""
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    if any(limit != resource.RLIM_INFINITY for limit in limits):
        return True
    try:
        return _OVERCOMMIT.read_text().strip() == _STRICT
    except OSError:
        return False


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
