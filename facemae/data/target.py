"""The place of a new shard set: what may stand there before, and how the new one takes it.

A set is written beside its place, into `.NAME.packing-…`, and moved there when it is complete; an older one steps aside
as `.NAME.replaced-…` for that moment. The next pack of the same place tidies up what a kill left of either.
"""

import contextlib
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from facemae.data.card import CARD, read_card
from facemae.data.erasure import JOURNAL
from facemae.data.index import FOLDER, HEAD, LINEAGE, SHEET, read_head
from facemae.errors import DataError
from facemae.files import fsync_folder, storage_errors

SKIPPED = "skipped.jsonl"
"""Images that were left out, one JSON object a line."""

_BESIDE = {CARD, SKIPPED, LINEAGE, SHEET}
_SHARD = re.compile(r"shard-\d{6,}\.tar")
_INDEX = re.compile(rf"{re.escape(HEAD)}|{re.escape(JOURNAL)}|columns-[0-9a-f]{{8}}|\.[0-9a-f]{{8}}\.tmp\..+")
_UNFINISHED = re.compile(r"\.[0-9a-f]{8}\.tmp\..+|\.shard-\d{6,}\.tar\.dropping")
_SHOWN = 5


def check_apart(source: Path, out: Path) -> None:
    """Refuse a place that shares files with the source: replacing a set there would delete the user's images.

    Raises:
        DataError: One is the other or lies inside it.
    """
    here, there = source.resolve(), out.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise DataError(
            f"the source {source} and the shard set {out} overlap",
            expected="folders neither of which lies in the other",
            fix="choose another --out, beside the source",
        )


def check_target(out: Path, *, overwrite: bool) -> None:
    """Refuse a place that holds anything but a shard set that facemae packed and the caller may replace.

    Raises:
        DataError: Something else is there, or a set and `overwrite` is False.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not _is_packed(out):
        raise DataError(
            f"{out} exists and is not a shard set that facemae packed",
            expected="a new or empty folder",
            fix="choose another --out",
        )
    foreign = _foreign(out)
    if foreign:
        more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
        raise DataError(
            f"{out} holds a shard set and files that do not belong to it: {', '.join(foreign[:_SHOWN])}{more}",
            expected="a new or empty folder",
            fix="choose another --out, or move these files away",
        )
    if not overwrite:
        raise DataError(
            f"{out} already holds a shard set",
            expected="a new or empty folder",
            fix="choose another --out, or add --overwrite to replace it",
        )


def _is_packed(out: Path) -> bool:
    """Whether an index and a card say that this folder is a set of ours, and not somebody's shards or files."""
    if not (out / FOLDER / HEAD).is_file() or not (out / CARD).is_file():
        return False
    try:
        read_head(out)
        return "facemae" in read_card(out).packed
    except DataError:
        return False


def _foreign(out: Path) -> list[str]:
    """What stands in a packed set without being part of one, as paths relative to it."""
    shards = {str(entry[0]) for entry in read_head(out)["shards"]}
    found = []
    for path in sorted(out.iterdir()):
        if path.name == FOLDER:
            inner = sorted(entry.name for entry in path.iterdir())
            found += [f"{FOLDER}/{name}" for name in inner if not _INDEX.fullmatch(name)]
        elif not (path.name in _BESIDE or _UNFINISHED.fullmatch(path.name) or _is_own_shard(path.name, shards)):
            found.append(path.name)
    return found


def _is_own_shard(name: str, indexed: set[str]) -> bool:
    return name in indexed and _SHARD.fullmatch(name) is not None


def tidy(out: Path) -> None:
    """Remove what killed packs of this place left, and put back a set that one had moved aside.

    Raises:
        StorageError: The folder around the place cannot be read.
    """
    with storage_errors(out):
        _tidy(out)


def _tidy(out: Path) -> None:
    for old in _siblings(out, "replaced"):
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(out)
    for temporary in _siblings(out, "packing"):
        held = _hold(temporary)
        if held is not None:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(held)


def _siblings(out: Path, kind: str) -> list[Path]:
    name = re.compile(rf"\.{re.escape(out.name)}\.{kind}-[0-9a-f]{{8}}")
    parent = out.absolute().parent
    return sorted(path for path in parent.iterdir() if name.fullmatch(path.name)) if parent.is_dir() else []


def _hold(folder: Path) -> int | None:
    """Lock a folder for as long as this process lives; None where another holds it or it cannot be locked."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        # Held, or a file system without locks: then nobody can tell, and nothing is removed.
        os.close(descriptor)
        return None
    return descriptor


@contextlib.contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write the new set into; it is removed at the end unless it was moved into place."""
    with storage_errors(out):
        temporary = out.with_name(f".{out.name}.packing-{uuid.uuid4().hex[:8]}")
        temporary.mkdir(parents=True)
        held = _hold(temporary)
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if held is not None:
                os.close(held)


def move_into_place(temporary: Path, out: Path) -> None:
    """Give the complete set its name; an older one is removed afterwards."""
    old = out.with_name(f".{out.name}.replaced-{uuid.uuid4().hex[:8]}")
    if out.exists():
        out.rename(old)
    try:
        temporary.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    fsync_folder(out.absolute().parent)
    shutil.rmtree(old, ignore_errors=True)
