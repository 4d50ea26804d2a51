"""Reading a tar shard from end to end: which samples it holds, where their bytes lie, and their checksums.

The grouping is WebDataset's: a member's key is its path up to the first dot of the base name, the rest is its
extension, in lower case; members of one sample follow each other.
"""

import hashlib
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from facemae.data.metadata import Row, metadata_row, metadata_table
from facemae.errors import ShardError
from facemae.files import storage_errors

MEMBER_RECORD = np.dtype([("extension", "<u2"), ("crc32", "<u4"), ("offset", "<u8"), ("size", "<u8")])
"""One member of a sample: number of its extension, CRC-32 of its bytes, where they lie in the tar, how many."""

_KEY = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
_META = re.compile(r"__[^/]*__($|/)")
_CHUNK = 1 << 20
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
COMPRESSED_SUFFIXES = {".tgz": "gzip", ".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
_UNPACK = {"gzip": "gunzip", "bzip2": "bunzip2", "xz": "unxz", "zstd": "unzstd"}


@dataclass(frozen=True)
class ShardScan:
    """What one shard holds.

    Attributes:
        name: Path relative to the shard set.
        bytes: Length of the file.
        digest: BLAKE2b-256 over names, sizes and bytes of the members, in hexadecimal; headers' times and owners, the
            file's name and its time do not enter.
        keys: Keys of the n samples.
        starts: int64 [n + 1], first member of each sample.
        members: `MEMBER_RECORD` entries, their extensions numbered by `extensions`.
        extensions: Extensions found.
        metadata: pyarrow.Table with n rows; see `facemae.data.metadata`.
    """

    name: str
    bytes: int
    digest: str
    keys: list[str]
    starts: np.ndarray[Any, Any]
    members: np.ndarray[Any, Any]
    extensions: list[str]
    metadata: Any


def split_name(name: str) -> tuple[str, str] | None:
    """Key and extension of a tar member by WebDataset's rule; None for what it skips."""
    match = _KEY.match(name)
    if match is None or _META.match(name):
        return None
    return match.group(1), match.group(2).lower()


def compressed_error(path: Path, kind: str) -> ShardError:
    """The refusal of a compressed shard, with the command that makes it usable."""
    tool = _UNPACK[kind]
    target = path.with_suffix(".tar") if path.suffix == ".tgz" else path.with_suffix("")
    if path.suffix == ".tar":
        command = f"{tool} < {path} > {path}.plain && mv {path}.plain {path}"
    elif path.suffix == ".tgz":
        command = f"{tool} < {path} > {target} && rm {path}"
    else:
        command = f"{tool} {path}"
    return ShardError(
        f"shard {path} is compressed with {kind}",
        expected="a plain .tar: members of a compressed archive cannot be read at random (images gain nothing from it)",
        fix=f"repack it: {command}",
    )


def _open_tar(handle: BinaryIO, path: Path) -> tarfile.TarFile:
    magic = handle.read(6)
    handle.seek(0)
    for start, kind in _COMPRESSED.items():
        if magic.startswith(start):
            raise compressed_error(path, kind)
    try:
        return tarfile.open(fileobj=handle, mode="r:")
    except tarfile.TarError as error:
        found = "is empty" if not magic else f"is not a tar archive ({error})"
        raise ShardError(
            f"shard {path} {found}", expected="a tar archive", fix="copy it again from its source, or remove it"
        ) from error


def iter_members(path: Path) -> Iterator[tuple[tarfile.TarInfo, str, str, BinaryIO]]:
    """Members of a shard that belong to samples: header, key, extension and the open file.

    The caller may read at `header.offset_data`. Every member handed out is there in full.

    Raises:
        ShardError: Compressed, not a tar, truncated, or going on behind its end; says the last whole key and the bytes
            found.
    """
    with path.open("rb") as handle:
        length = handle.seek(0, 2)
        handle.seek(0)
        last: str | None = None
        current: str | None = None
        with _open_tar(handle, path) as archive:
            while True:
                try:
                    header = archive.next()
                except tarfile.TarError as error:
                    raise _truncated(path, length, last, str(error)) from error
                if header is None:
                    break
                if header.offset_data + header.size > length:
                    raise _truncated(path, length, last, f"member {header.name} ends beyond the file")
                named = split_name(header.name) if header.isfile() else None
                if named is not None:
                    if named[0] != current:
                        # Only when the next sample begins is it certain that none of this one's members are missing.
                        last, current = current, named[0]
                    yield header, *named, handle
                # tarfile keeps every header; a shard of a million samples would keep a gigabyte.
                archive.members = []  # type: ignore[attr-defined]
            _check_end(handle, path, length, last, archive.offset)


def _check_end(handle: BinaryIO, path: Path, length: int, last: str | None, offset: int) -> None:
    """Check that the archive ends where tarfile stopped: it stops, without a word, at any header it cannot read."""
    handle.seek(offset)
    mark = handle.read(tarfile.BLOCKSIZE)
    if len(mark) < tarfile.BLOCKSIZE:
        raise _truncated(path, length, last, "the end-of-archive mark is missing")
    if mark.strip(b"\0"):
        raise _truncated(path, length, last, f"no valid header at byte {offset}")
    # A zeroed header and the joint of two archives look like the end, too.
    while rest := handle.read(_CHUNK):
        if rest.count(0) < len(rest):
            whole = f"the last whole sample before it is {last!r}" if last is not None else "no whole sample before it"
            raise ShardError(
                f"shard {path} goes on behind an end-of-archive mark at byte {offset} of {length}; {whole}",
                expected="zeros only: either a header was overwritten with zeros, or archives were joined with cat",
                fix="copy the shard again from its source, or keep joined archives as shards of their own",
            )


def _truncated(path: Path, length: int, last: str | None, detail: str) -> ShardError:
    whole = f"the last whole sample is {last!r}" if last is not None else "no sample is whole"
    return ShardError(
        f"shard {path} is truncated or damaged: {length} bytes found, {whole} ({detail})",
        expected="a whole tar archive",
        fix="copy the shard again from its source, or remove it and index the set anew",
    )


_KEPT = ("json", "cls")
"""Members whose content enters the metadata."""


@dataclass(frozen=True)
class _Read:
    """A member that was read: where it lies, its checksum, and its content where that is kept."""

    key: str
    extension: str
    crc: int
    offset: int
    size: int
    data: bytes | None


def _read_members(path: Path, hasher: Any) -> Iterator[_Read]:
    """Read the members of a shard once, feeding names, sizes and bytes to the hasher."""
    for header, key, extension, handle in iter_members(path):
        handle.seek(header.offset_data)
        hasher.update(f"{len(header.name)}:{header.name}:{header.size}:".encode())
        crc, parts, left = 0, [], header.size
        while left:
            chunk = handle.read(min(left, _CHUNK))
            if not chunk:
                raise _truncated(path, path.stat().st_size, key, "the file became shorter while it was read")
            hasher.update(chunk)
            crc = zlib.crc32(chunk, crc)
            left -= len(chunk)
            if extension in _KEPT:
                parts.append(chunk)
        data = b"".join(parts) if extension in _KEPT else None
        yield _Read(key, extension, crc, header.offset_data, header.size, data)


class _Scanner:
    """Collects the samples of one shard as its members go by."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: list[str] = []
        self.starts: list[int] = []
        self.members: list[tuple[int, int, int, int]] = []
        self.extensions: dict[str, int] = {}
        self.rows: list[Row] = []
        self._sample: dict[str, bytes] = {}
        self._seen: set[str] = set()

    def add(self, member: _Read) -> None:
        if not self.keys or member.key != self.keys[-1]:
            self.finish_sample()
            self.keys.append(member.key)
            self.starts.append(len(self.members))
        if member.extension in self._seen:
            raise ShardError(
                f"shard {self.path} holds member {member.key}.{member.extension} twice",
                expected="one member of each extension in a sample",
                fix="repack the shard without the duplicate",
            )
        self._seen.add(member.extension)
        code = self.extensions.setdefault(member.extension, len(self.extensions))
        self.members.append((code, member.crc, member.offset, member.size))
        if member.data is not None:
            self._sample[member.extension] = member.data

    def finish_sample(self) -> None:
        if self.keys:
            self.rows.append(metadata_row(self.keys[-1], self._sample, self.path))
        self._sample, self._seen = {}, set()


def shard_digest(folder: Path, name: str) -> str:
    """The content digest of a shard as it is now, without looking into its members.

    Raises:
        ShardError: See `iter_members`.
        StorageError: Reading failed underneath.
    """
    hasher = hashlib.blake2b(digest_size=32)
    with storage_errors(folder / name, "reading"):
        for _ in _read_members(folder / name, hasher):
            pass
    return hasher.hexdigest()


def scan_shard(folder: Path, name: str) -> ShardScan:
    """Read one shard from end to end.

    Args:
        folder: The shard set.
        name: The shard's path relative to it.

    Raises:
        ShardError: See `iter_members`; also a member that is there twice, or a `json` member that does not parse.
        StorageError: Reading failed underneath.
    """
    path = folder / name
    scanner = _Scanner(path)
    hasher = hashlib.blake2b(digest_size=32)
    with storage_errors(path, "reading"):
        for member in _read_members(path, hasher):
            scanner.add(member)
        length = path.stat().st_size
    scanner.finish_sample()
    return ShardScan(
        name=name,
        bytes=length,
        digest=hasher.hexdigest(),
        keys=scanner.keys,
        starts=np.array([*scanner.starts, len(scanner.members)], dtype=np.int64),
        members=np.array(scanner.members, dtype=MEMBER_RECORD),
        extensions=list(scanner.extensions),
        metadata=metadata_table(scanner.rows),
    )
