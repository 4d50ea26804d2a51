"""How much memory a process and those it has started hold, as Linux tells it, and whether that grows."""

import os
import re
import resource
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PROC = Path("/proc")
_FEWEST = 8


def resident_bytes() -> int:
    """Resident memory of this process and of all below it, loader processes among them; 0 where it cannot be told.

    Pages that several of them share count for each: the number is for seeing growth, not for adding up machines.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(_resident_pages(pid) for pid in _family(os.getpid())) * page


def peak_resident_bytes() -> int:
    """Highest resident memory of this process alone since it began."""
    found = re.search(r"^VmHWM:\s*(\d+) kB$", _read(_PROC / "self" / "status"), re.MULTILINE)
    if found is not None:
        # Unlike getrusage's, this number does not begin with that of the process that started this one.
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def growth(lines: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Whether the memory of a run grows, from the lines of metrics of one start.

    Args:
        lines: Lines with `rss_mb`, oldest first.

    Returns:
        `mb`, the median of the last quarter, and `growth_mb`, how much that is above the second quarter's: the first is
        when caches and loaders fill. None with fewer than eight lines, or where the system does not tell.
    """
    used = [float(line["rss_mb"]) for line in lines if line.get("rss_mb")]
    quarter = len(used) // 4
    if quarter < _FEWEST // 4:
        return None
    early, late = (statistics.median(part) for part in (used[quarter : 2 * quarter], used[-quarter:]))
    return {"mb": round(late, 1), "growth_mb": round(late - early, 1)}


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
