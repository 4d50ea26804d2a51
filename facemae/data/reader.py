"""Random access to the samples of an indexed shard set."""

import collections
import threading
import time
import zlib
from collections.abc import Collection
from typing import Any

from facemae.data.columns import PositionalFile
from facemae.data.index import MemberRef, ShardIndex
from facemae.data.metadata import parse_json
from facemae.data.regions import MEMBER
from facemae.data.schema import IMAGE_EXTENSIONS, Sample
from facemae.errors import DataError, IndexMismatchError
from facemae.files import storage_error

_ATTEMPTS = 3
_FIRST_WAIT = 0.2


def image_extension(members: Collection[str]) -> str | None:
    """Extension of a sample's still image: one of `IMAGE_EXTENSIONS`, or one that ends in it, such as `face.jpg`.

    A region map is none, see `facemae.data.regions`.
    """
    for wanted in IMAGE_EXTENSIONS:
        if wanted in members:
            return wanted
    return next((name for wanted in IMAGE_EXTENSIONS for name in members if _is_image(name, wanted)), None)


def _is_image(name: str, wanted: str) -> bool:
    return name.endswith(f".{wanted}") and name != MEMBER


class ShardReader:
    """Reads samples by position.

    Bytes are checked against the index before they are handed out. Reading an erased sample gives its substitute. A
    failing read is tried three times before it stops the run. May be shared with forked and spawned processes and used
    from several threads.

    Args:
        index: The index.
        open_files: Shards kept open at a time.
    """

    def __init__(self, index: ShardIndex, open_files: int = 64) -> None:
        self.index = index
        self._limit = open_files
        self._files: collections.OrderedDict[int, PositionalFile] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.index, self._limit))

    def __len__(self) -> int:
        return len(self.index)

    def read(self, i: int, extensions: Collection[str] | None = None) -> Sample:
        """Sample i, or its substitute where it was erased; `Sample.index` says which.

        Args:
            i: Position in the index.
            extensions: Members to read; None reads all. The `json` member is always read.

        Raises:
            IndexMismatchError: The bytes are not those the index describes.
            StorageError: Reading failed three times.
        """
        i = self._present(i)
        members = self.index.members(i)
        wanted = members if extensions is None else [name for name in members if name in extensions or name == "json"]
        data = {name: self._read_member(i, name, members[name]) for name in wanted}
        return Sample(self.index.key(i), i, data, self._parse(i, data.get("json")))

    def meta(self, i: int) -> dict[str, Any]:
        """The parsed `json` member of sample i or its substitute; empty where there is none."""
        i = self._present(i)
        member = self.index.members(i).get("json")
        return self._parse(i, None if member is None else self._read_member(i, "json", member))

    def _parse(self, i: int, data: bytes | None) -> dict[str, Any]:
        if data is None:
            return {}
        name = self.index.shards[self.index.shard_of(i)].name
        return parse_json(data, self.index.key(i), self.index.folder / name)

    def _present(self, i: int) -> int:
        if i not in self.index.dropped_set:
            return i
        substitute = self.index.substitutes.get(i)
        if substitute is None:
            raise DataError(
                f"sample {i} of {self.index.folder} was erased and its split has no other sample",
                fix="train on another split, or pack the data anew",
            )
        return substitute

    def _file(self, shard: int) -> PositionalFile:
        with self._lock:
            if shard in self._files:
                self._files.move_to_end(shard)
                return self._files[shard]
            info = self.index.shards[shard]
            path = self.index.folder / info.name
            if not path.exists():
                raise IndexMismatchError(
                    f"shard {path} is in the index and not on the disk",
                    expected=f"all {len(self.index.shards)} shards",
                    fix=f"put it back, or index what is there: facemae data index {self.index.folder}",
                )
            file = PositionalFile(path)
            if file.size() != info.bytes:
                raise self._changed(shard, f"has {file.size()} bytes", f"{info.bytes} bytes, as when it was indexed")
            self._files[shard] = file
            while len(self._files) > self._limit:
                self._files.popitem(last=False)
            return file

    def _changed(self, shard: int, found: str, expected: str) -> IndexMismatchError:
        path = self.index.folder / self.index.shards[shard].name
        return IndexMismatchError(
            f"shard {path} changed under its index: {found}",
            expected=expected,
            fix=f"restore the shard, or index it as it is now: facemae data index {self.index.folder}",
        )

    def _read_member(self, i: int, name: str, member: MemberRef) -> bytes:
        shard = self.index.shard_of(i)
        data = self._retry(shard, member)
        if len(data) != member.size:
            raise self._changed(shard, f"{self.index.key(i)}.{name} is cut off", f"{member.size} bytes")
        crc = zlib.crc32(data)
        if crc != member.crc32:
            raise self._changed(
                shard, f"{self.index.key(i)}.{name} has checksum {crc:08x}", f"checksum {member.crc32:08x}"
            )
        return data

    def _retry(self, shard: int, member: MemberRef) -> bytes:
        for attempt in range(_ATTEMPTS):
            try:
                return self._file(shard).read(member.offset, member.size)
            except OSError as error:
                with self._lock:
                    # A stale handle of a network file system only recovers when the file is opened again.
                    self._files.pop(shard, None)
                if attempt + 1 < _ATTEMPTS:
                    time.sleep(_FIRST_WAIT * 4**attempt)
                    continue
                raise storage_error(error, self.index.folder / self.index.shards[shard].name, "reading") from error
        raise AssertionError("unreachable")
