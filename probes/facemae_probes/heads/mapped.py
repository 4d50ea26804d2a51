"""Memory maps of features that are larger than memory."""

import mmap
from typing import Any

from numpy.typing import NDArray


def forget(array: NDArray[Any]) -> None:
    """Let go of pages of a read-only map, which would otherwise count as this process's memory once read."""
    pages = getattr(array, "_mmap", None)
    if isinstance(pages, mmap.mmap) and getattr(array, "mode", None) == "r" and hasattr(pages, "madvise"):
        pages.madvise(mmap.MADV_DONTNEED)
