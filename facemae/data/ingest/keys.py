"""WebDataset keys for files."""

import collections
import hashlib
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

LONGEST = 88
"""A key and its extension fit the 100 bytes that every tar reader knows."""


def _plain(path: str) -> str:
    stem = PurePosixPath(path).with_suffix("").as_posix()
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_") or "sample"


def make_keys(paths: Sequence[str], *, longest: int = LONGEST) -> list[str]:
    """One key a path, unique and free of dots and slashes.

    WebDataset cuts a key at the first dot of the base name, so `face.01.png` and `face.02.png` would become one sample.
    Everything but letters, digits, hyphen and underscore becomes an underscore; where that makes two paths alike (in
    any case: some file systems ignore it), or a key too long, each gets a hash of its own path at the end. The key of
    a path depends on no order.

    Args:
        paths: Relative paths with forward slashes, all different.
        longest: Most characters of a key.
    """
    plain = [_plain(path) for path in paths]
    times = collections.Counter(key.lower() for key in plain)
    keys = []
    for path, key in zip(paths, plain, strict=True):
        if times[key.lower()] > 1 or len(key) > longest:
            mark = hashlib.blake2b(path.encode(), digest_size=6).hexdigest()
            key = f"{key[: longest - len(mark) - 1]}-{mark}"
        keys.append(key)
    return keys
