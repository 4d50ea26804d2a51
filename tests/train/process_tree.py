"""The processes of a run, as Linux shows them."""

import re
from pathlib import Path


def children(pid: int) -> list[int]:
    """What a process has started itself."""
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for member in found:
        found += children(member)
    return found


def ranks(pid: int) -> dict[int, int]:
    """The processes a run was started in, and the number of each."""
    titles = {child: Path(f"/proc/{child}/cmdline").read_text() for child in children(pid)}
    found = {child: re.search(r"facemae rank (\d+) of", title) for child, title in titles.items()}
    return {child: int(title[1]) for child, title in found.items() if title is not None}


def alive(pid: int) -> bool:
    """Whether a process runs."""
    state = Path(f"/proc/{pid}/stat")
    # In a container without an init process, the dead may stay as entries that nobody collects.
    try:
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
