"""How much memory a process and the ones it has started hold, read from the system; Linux only."""

import os
from pathlib import Path

_PROC = Path("/proc")


def resident_bytes() -> int:
    """Resident memory of this process and of all below it, loader processes among them; 0 where it cannot be told.

    Pages that several of them share count for each: the number is for seeing growth, not for adding up machines.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(_resident_pages(pid) for pid in _family(os.getpid())) * page


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for member in found:
        # One that ends meanwhile has none.
        for path in (_PROC / str(member) / "task").glob("*/children"):
            found += [int(child) for child in _read(path).split()]
    return found


def _resident_pages(pid: int) -> int:
    numbers = _read(_PROC / str(pid) / "statm").split()
    return int(numbers[1]) if numbers else 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
