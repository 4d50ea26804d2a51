"""Freed memory is kept for the next step: the system zeroes no page twice."""

import ctypes
import resource
import sys
from contextlib import AbstractContextManager, nullcontext

import pytest

from facemae.train.allocator import kept_memory

SIZE = 2**26
PAGES = SIZE // resource.getpagesize()


def touch(library: ctypes.CDLL) -> None:
    place = library.malloc(SIZE)
    ctypes.memset(place, 1, SIZE)
    library.free(place)


def pages_taken(context: AbstractContextManager[bool]) -> int:
    """Pages that five equal uses of memory take from the system, after a first one."""
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes = [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    with context as kept:
        assert kept
        touch(library)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            touch(library)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_pages_are_not_taken_from_the_system_again_and_again() -> None:
    assert pages_taken(nullcontext(True)) >= 5 * PAGES
    assert pages_taken(kept_memory()) < PAGES
    assert pages_taken(nullcontext(True)) >= 5 * PAGES


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    with kept_memory() as kept:
        assert not kept
