"""The place in which videos are packed: what is finished there is not made again after a kill."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from facemae.errors import DataError
from facemae.files import storage_errors

PARTS = "parts"


def plan_digest(plan: dict[str, Any]) -> str:
    """What all that decides a shard set is called by."""
    return hashlib.blake2b(json.dumps(plan, sort_keys=True, default=str).encode(), digest_size=6).hexdigest()


def unfinished(out: Path) -> list[Path]:
    """Workplaces beside `out` that a kill left, or that are at work."""
    name = re.compile(rf"\.{re.escape(out.name)}\.clips-[0-9a-f]{{12}}")
    parent = out.absolute().parent
    return sorted(path for path in parent.iterdir() if name.fullmatch(path.name)) if parent.is_dir() else []


@contextlib.contextmanager
def workplace(out: Path, plan: dict[str, Any]) -> Iterator[Path]:
    """The folder beside `out` for the work of one plan, locked. It stays when the block fails, to go on from there.

    At the end of the block it is removed, and with it what killed packs of this place left.

    Yields:
        A folder for finished videos; it may hold some of an earlier run.

    Raises:
        DataError: Another process packs into the same place.
        StorageError: The folder cannot be made.
    """
    root = out.absolute().parent / f".{out.name}.clips-{plan_digest(plan)}"
    with storage_errors(root), contextlib.ExitStack() as stack:
        (root / PARTS).mkdir(parents=True, exist_ok=True)
        folders = unfinished(out)
        for folder in folders:
            stack.callback(os.close, _lock(folder, out))
        yield root / PARTS
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _lock(folder: Path, out: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise DataError(
            f"{out} is being packed by another process", expected="one process at a time", fix="wait for it"
        ) from None
    except OSError:
        # A file system without locks: nobody can tell.
        pass
    return descriptor
