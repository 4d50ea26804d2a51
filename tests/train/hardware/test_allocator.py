"""Freed memory is kept for the next step: the system zeroes no page twice."""

import ctypes
import resource
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from facemae.train.hardware import allocator
from facemae.train.hardware.allocator import kept_memory, memory_choice
from facemae.train.record.log import read_lines
from facemae.train.trainer import pretrain
from tests.train.conftest import Tiny

SIZE = 2**26


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
@pytest.mark.skipif(memory_choice() is not None, reason="the environment chooses how memory is kept")
def test_pages_are_not_taken_from_the_system_again_and_again() -> None:
    # Not their number: it depends on the size of the system's pages.
    before, kept, after = (pages_taken(context) for context in (nullcontext(True), kept_memory(), nullcontext(True)))
    assert kept < min(before, after) / 4


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").is_dir(), reason="the system has no such pages")
@pytest.mark.skipif(memory_choice() is not None, reason="the environment chooses how memory is kept")
def test_kept_memory_may_be_in_large_pages_and_is_given_back() -> None:
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    with kept_memory() as kept:
        assert kept
        place = library.malloc(ctypes.c_size_t(SIZE))
        ctypes.memset(place, 1, SIZE)
        middle = mapping_of(place + SIZE // 2)
        assert "hg" in middle["VmFlags"].split()
        # What is not touched is not there.
        assert SIZE // 2 < resident(middle) < SIZE + 2**27
        library.free(ctypes.c_void_p(place))
    assert resident(mapping_of(place + SIZE // 2)) < SIZE // 2


@pytest.mark.skipif(memory_choice() is not None, reason="the environment chooses how memory is kept")
def test_no_addresses_are_taken_where_they_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def taken() -> int:
        """Bytes by which the heap is lengthened."""
        status = Path("/proc/self/status")

        def size() -> int:
            (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmSize:"))
            return 1024 * int(line.split()[1])

        before = size()
        with kept_memory():
            return size() - before

    monkeypatch.setattr(allocator, "_OVERCOMMIT", tmp_path / "overcommit")
    free = taken()
    assert free >= 2**28
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert 0 < taken() <= free / 8
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    (tmp_path / "overcommit").write_text("2\n")
    assert taken() < 2**20
    (tmp_path / "overcommit").write_text("0\n")
    assert taken() > free / 2
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**40, resource.RLIM_INFINITY))
    assert taken() < 2**20


def resident(mapping: dict[str, str]) -> int:
    return 1024 * int(mapping["Rss"].split()[0]) if mapping else 0


def mapping_of(place: int) -> dict[str, str]:
    """What Linux says of the mapping that has an address; empty where none has."""
    found: dict[str, str] = {}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, _, rest = line.partition(" ")
        if not first.endswith(":"):
            start, end = (int(text, 16) for text in first.split("-"))
            inside = start <= place < end
        elif inside:
            found[first[:-1]] = rest.strip()
    return found


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_what_the_user_chose_is_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("the allocator is touched"))
    assert memory_choice() is not None
    with kept_memory() as kept:
        assert not kept


def test_a_run_says_that_the_user_chose(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")
    pretrain(tiny("optim.total=8 samples", "optim.warmup=0", "efficiency.device=cpu"), tmp_path / "run")
    (said,) = [event["text"] for event in read_lines(tmp_path / "run/log/events.jsonl") if event["event"] == "setup"]
    assert said.endswith("loader processes; GLIBC_TUNABLES is set and decides what is done with freed memory")


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facemae.train.hardware.allocator.memory_choice", lambda: None)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    with kept_memory() as kept:
        assert not kept
