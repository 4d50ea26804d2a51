"""Files that are there whole or not at all.

A reader never meets half a file: it is written under a temporary name in the same folder, flushed to the disk and then
renamed. A failure underneath (disk full, permission denied, device error) becomes a `StorageError` that says so, and
the temporary file is removed.
"""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from facemae.errors import StorageError

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EFBIG: "file too large"}


def storage_error(error: OSError, path: Path, doing: str = "writing") -> StorageError:
    """Say in plain words what the operating system reported.

    Args:
        error: What was raised.
        path: The file or folder concerned.
        doing: The activity, for the message: "writing", "reading".
    """
    folder = _existing(path)
    if error.errno in _FULL:
        return StorageError(
            f"{_FULL[error.errno]}: {doing} {path} failed ({error.strerror})",
            expected="enough room for the whole file",
            fix=f"free space on the volume of {folder} and run the same command again",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(
            f"{doing} {path} is not permitted ({error.strerror})",
            expected="a file this user may read" if doing == "reading" else "a folder this user may write",
            fix=f"check owner and permissions of {path if doing == 'reading' else folder}, or choose another folder",
        )
    return StorageError(f"{doing} {path} failed: {error.strerror or error}", fix="check the path and the device")


@contextlib.contextmanager
def storage_errors(path: Path, doing: str = "writing") -> Iterator[None]:
    """Turn an `OSError` in the block into a `StorageError` about `path`, or about an unrelated file that it names."""
    try:
        yield
    except OSError as error:
        named = Path(error.filename) if isinstance(error.filename, str) else path
        if _belongs(named, path):
            raise storage_error(error, path, doing) from error
        raise storage_error(error, named, "using") from error


def _belongs(named: Path, path: Path) -> bool:
    """Whether an error about one file is one about `path`: a parent that cannot be made, or a temporary name of it."""
    temporary = path.with_name(f"{path.name}.tmp")
    return named.parent == path.parent or named in path.parents or {path, temporary} & {*named.parents} != set()


def _existing(path: Path) -> Path:
    """The nearest folder above that is there, where room or permission is missing; a temporary one is gone by now."""
    return next((folder for folder in path.parents if folder.is_dir()), path.parent)


def fsync_folder(folder: Path) -> None:
    """Make renames and new names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; they order renames themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Flush a finished file to the disk."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well.

    For libraries that write to a path of their own. Missing parent folders are made. The temporary name starts with a
    dot and ends as `path` does, so that writers that look at the extension behave.

    Raises:
        StorageError: Writing failed underneath; nothing is left behind and an older `path` is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.tmp.{path.name}")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            fsync_file(temporary)
            temporary.replace(path)
            fsync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` only when the block ends well; see `atomic_path`."""
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        yield handle


def write_text(path: Path | str, text: str) -> None:
    """Write a small text file atomically, as UTF-8."""
    with atomic_write(path) as handle:
        handle.write(text.encode())
