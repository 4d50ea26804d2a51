"""What the processes of a pool are given in tests; light to import, as each of them does."""

import os
import signal
import time
from pathlib import Path

from facemae.errors import DataError


def double(number: int) -> int:
    """Twice the number; 3 ends its process as a crash of a library does."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    return 2 * number


def refuse(number: int) -> int:
    """An error."""
    raise DataError(f"task {number}")


def sleep(folder: str, number: int) -> None:
    """Say that it began, and last longer than any test."""
    (Path(folder) / f"{number}").touch()
    time.sleep(600)
