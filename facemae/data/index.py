"""The index of a shard set: where each sample's bytes lie, without reading the tars.

It lies in `SHARDS/index/`. `index.json` names the shards in order, their sizes and content digests, and the folder of
columns that belongs to it; replacing that one file is what makes a new index valid. Look-ups read the columns in place,
so opening an index of ten million samples takes hardly any time and no memory.

Order matters: a run pins the first n shards it started with. Indexing a set again keeps the order of the shards it
already knows and puts new ones behind them.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facemae.data.columns import Column, StringColumn
from facemae.errors import DataError, IndexMismatchError
from facemae.files import storage_error, storage_errors

SCHEMA = 1
FOLDER = "index"
HEAD = "index.json"
LINEAGE = "lineage.jsonl"
SHEET = "contact-sheet.png"
"""A picture of some samples, drawn by `facemae data stats`; an erasure removes it."""


@dataclass(frozen=True)
class ShardInfo:
    """One shard: path relative to the set, number of samples, length of the file, digest of its content."""

    name: str
    samples: int
    bytes: int
    digest: str


@dataclass(frozen=True)
class MemberRef:
    """Where a member lies in its shard: first byte, number of bytes, CRC-32."""

    offset: int
    size: int
    crc32: int


def key_hash(key: str) -> int:
    """64 bits by which keys are looked up."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


def join_digest(digests: Sequence[str]) -> str:
    """Digest of an ordered list of shard digests."""
    return hashlib.blake2b("\n".join(digests).encode(), digest_size=32).hexdigest()


class ShardIndex:
    """The samples of a shard set by position 0 … N-1. Open one with `ShardIndex.open`.

    Safe to share with forked processes and cheap to send to spawned ones, which open the files anew.

    Attributes:
        folder: The shard set.
        shards: The shards in order.
        shard_sizes: int64 [S], samples of each shard.
        digest: Digest over the ordered shard digests; what a run pins.
        extensions: Every member extension in the set.
    """

    def __init__(self, folder: Path, head: Mapping[str, Any], n_shards: int | None = None) -> None:
        self.folder = folder
        self._head = head
        self.extensions: tuple[str, ...] = tuple(head["extensions"])
        self._pin(n_shards)
        columns = self.columns_folder
        try:
            self._keys = StringColumn(columns, "key")
            self._starts = Column(columns / "member_start.npy")
            self._members = Column(columns / "member.npy")
            self._hashes = Column(columns / "key_hash.npy")
            self._hash_order = Column(columns / "key_order.npy")
            dropped = Column(columns / "dropped.npy")
            self._dropped = dropped.read(0, len(dropped))
        except FileNotFoundError as error:
            raise self._replaced(error) from error
        except OSError as error:
            raise storage_error(error, columns, "reading") from error

    def _pin(self, n_shards: int | None) -> None:
        """Restrict to the first shards; None keeps all."""
        self.shards = tuple(ShardInfo(*entry) for entry in self._head["shards"][:n_shards])
        self.shard_sizes = np.array([shard.samples for shard in self.shards], dtype=np.int64)
        self.digest = join_digest([shard.digest for shard in self.shards])
        self._bounds = np.concatenate([[0], np.cumsum(self.shard_sizes)])
        self._length = int(self._bounds[-1])

    @property
    def columns_folder(self) -> Path:
        """Folder of the column files that belong to this state of the index."""
        return self.folder / FOLDER / str(self._head["columns"])

    @classmethod
    def open(cls, folder: Path | str) -> "ShardIndex":
        """Open the index of a shard set.

        Raises:
            DataError: There is no such folder, or no index in it.
            IndexMismatchError: The index was written by another version of the format.
        """
        folder = Path(folder)
        head = read_head(folder)
        return cls(folder, head)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.folder, self._head, len(self.shards)))

    def __len__(self) -> int:
        return self._length

    def _check(self, i: int) -> int:
        if not 0 <= i < self._length:
            raise IndexError(f"sample {i} of {self._length}")
        return int(i)

    def members(self, i: int) -> dict[str, MemberRef]:
        """Members of sample i by extension, in the order of the tar."""
        start, stop = self._starts.read(self._check(i), i + 2).tolist()
        return {
            self.extensions[code]: MemberRef(offset, size, crc)
            for code, crc, offset, size in self._members.read(start, stop).tolist()
        }

    def member_table(self, start: int, stop: int) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
        """Members of samples `start` to `stop`: the first of each (int64 [n + 1]) and `MEMBER_RECORD` entries."""
        starts = self._starts.read(start, stop + 1)
        return starts, self._members.read(int(starts[0]), int(starts[-1]))

    def key(self, i: int) -> str:
        """Key of sample i."""
        return self._keys[self._check(i)]

    def keys(self, start: int = 0, stop: int | None = None) -> list[str]:
        """Keys of samples `start` to `stop`, read in one go."""
        return self._keys.read(start, self._length if stop is None else min(stop, self._length))

    def shard_of(self, i: int) -> int:
        """Number of the shard that holds sample i."""
        return int(np.searchsorted(self._bounds, self._check(i), side="right")) - 1

    def shard_range(self, shard: int) -> range:
        """Positions of a shard's samples."""
        return range(int(self._bounds[shard]), int(self._bounds[shard + 1]))

    def find(self, key: str) -> int | None:
        """Position of a key, or None."""
        wanted = key_hash(key)
        low, high = 0, len(self._hashes)
        while high - low > 512:
            middle = (low + high) // 2
            if self._hashes.item(middle) < wanted:
                low = middle
            else:
                # The entry in the middle may be the first of equal hashes, so it stays inside.
                high = middle + 1
        window = self._hashes.read(low, high)
        first = low + int(np.searchsorted(window, np.uint64(wanted)))
        while first < len(self._hashes) and self._hashes.item(first) == wanted:
            position = int(self._hash_order.item(first))
            if self._keys[position] == key:
                return position if position < self._length else None
            first += 1
        return None

    @functools.cached_property
    def subject_codes(self) -> "np.ndarray[Any, Any]":
        """int32 [N], number of each sample's subject in `subjects`, -1 where unknown; memory-mapped."""
        return self._column("subject_code").memmap()[: self._length]

    @functools.cached_property
    def split_codes(self) -> "np.ndarray[Any, Any]":
        """int16 [N], number of each sample's split in `splits`, -1 where unknown; memory-mapped."""
        return self._column("split_code").memmap()[: self._length]

    def _column(self, name: str) -> Column:
        try:
            return Column(self.columns_folder / f"{name}.npy")
        except FileNotFoundError as error:
            raise self._replaced(error) from error

    def _replaced(self, error: FileNotFoundError) -> IndexMismatchError:
        return IndexMismatchError(
            f"the index of {self.folder} was replaced while it was in use, or is incomplete ({error})",
            fix=f"start again; if that does not help: facemae data index {self.folder}",
        )

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits by their number."""
        return tuple(self._head["splits"])

    @functools.cached_property
    def subjects(self) -> Sequence[str]:
        """Names of the subjects by their number, read from disk."""
        return StringColumn(self.columns_folder, "subject")

    @functools.cached_property
    def dropped(self) -> tuple[int, ...]:
        """Positions of the samples that `data drop` erased, ascending."""
        return tuple(i for i in self._dropped.tolist() if i < self._length)

    @functools.cached_property
    def dropped_set(self) -> frozenset[int]:
        """`dropped` for asking whether a position is in it."""
        return frozenset(self.dropped)

    @functools.cached_property
    def substitutes(self) -> dict[int, int]:
        """For each erased sample the one that is read in its place.

        It is the next one of the same split that is not erased, in the order of the index; the first follows the last.
        An erased sample without any such neighbour is missing here.
        """
        if not self.dropped:
            return {}
        gone = self.dropped_set
        found: dict[int, int] = {}
        for i in self.dropped:
            split = self.split_codes[i]
            steps = ((i + step) % self._length for step in range(1, self._length))
            neighbour = next((j for j in steps if j not in gone and self.split_codes[j] == split), None)
            if neighbour is not None:
                found[i] = neighbour
        return found

    def prefix(self, n_shards: int) -> "ShardIndex":
        """The index as it was when it had `n_shards` shards: what a run pinned.

        Raises:
            IndexMismatchError: The set has fewer shards now.
        """
        if not 0 < n_shards <= len(self.shards):
            raise IndexMismatchError(
                f"{self.folder} has {len(self.shards)} shards",
                expected=f"at least the {n_shards} shards the run started with",
                fix="put the missing shards back",
            )
        # Sharing the open columns keeps a view whole even where the index was replaced meanwhile.
        view = object.__new__(ShardIndex)
        view.__dict__.update(self.__dict__)
        for name in ("subject_codes", "split_codes", "subjects", "dropped", "dropped_set", "substitutes"):
            view.__dict__.pop(name, None)
        view._pin(n_shards)
        return view

    def ancestors(self) -> list[str]:
        """Digests this list of shards had before samples were erased from it, newest first.

        A run that pinned one of them may continue: erased samples are read as their named substitutes.
        """
        current = {shard.name: shard.digest for shard in self.shards}
        digests = []
        for event in reversed(read_lineage(self.folder)):
            undone = {name: before for name, (before, after) in event["shards"].items() if current.get(name) == after}
            if undone:
                current.update(undone)
                digests.append(join_digest(list(current.values())))
        return digests

    def accepts(self, digest: str) -> bool:
        """Whether a run that pinned `digest` may read this list of shards."""
        return digest == self.digest or digest in self.ancestors()


def read_head(folder: Path) -> dict[str, Any]:
    """Read and check `index.json`, which says what the index holds and which columns belong to it.

    Raises:
        DataError: There is no such folder, no index in it, or it is none.
        IndexMismatchError: The index was written by another version of the format.
    """
    path = folder / FOLDER / HEAD
    if not path.is_file():
        raise _no_index(folder, path)
    with storage_errors(path, "reading"):
        data = path.read_bytes()
    try:
        head = json.loads(data)
        version = head["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not an index: {error}", fix=f"facemae data index {folder}") from error
    if version != SCHEMA:
        raise IndexMismatchError(
            f"{path} has format {version}", expected=f"format {SCHEMA}", fix=f"facemae data index {folder}"
        )
    wrong = [name for name, fits in _HEAD_FIELDS.items() if not fits(head.get(name))]
    if wrong:
        raise DataError(
            f"{path} is not an index: {', '.join(wrong)} missing or malformed", fix=f"facemae data index {folder}"
        )
    checked: dict[str, Any] = head
    return checked


def _no_index(folder: Path, path: Path) -> DataError:
    if not folder.is_dir():
        aside = sorted(folder.absolute().parent.glob(f".{folder.name}.replaced-*"))
        return DataError(
            f"there is no shard set {folder}",
            expected="a folder of .tar shards with an index",
            fix=f"the set that was being replaced lies beside it: mv {aside[0]} {folder}"
            if aside
            else "facemae data pack FOLDER --out SHARDS makes one of images or videos",
        )
    count = sum(1 for _ in folder.rglob("*.tar"))
    fix = f"facemae data index {folder}" if count else f"facemae data pack {folder} --out SHARDS"
    return DataError(f"{folder} has {count} .tar shards and no index", expected=str(path), fix=fix)


def _is_shard_entry(entry: object) -> bool:
    kinds = (str, int, int, str)
    return isinstance(entry, list) and len(entry) == 4 and all(map(isinstance, entry, kinds))


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_HEAD_FIELDS: dict[str, Callable[[Any], bool]] = {
    "columns": lambda value: isinstance(value, str),
    "extensions": _is_texts,
    "splits": _is_texts,
    "shards": lambda value: isinstance(value, list) and bool(value) and all(map(_is_shard_entry, value)),
}
"""What `index.json` must hold beside its format."""


def read_lineage(folder: Path) -> list[dict[str, Any]]:
    """Erasures of a shard set, oldest first: ``{"reason": "drop", "shards": {name: [before, after]}}`` with digests."""
    path = folder / LINEAGE
    if not path.exists():
        return []
    with storage_errors(path, "reading"):
        lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def build_index(
    folder: Path | str, *, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> ShardIndex:
    """Index every `.tar` in a folder and below it, whoever wrote it.

    Every byte is read once for the checksums.

    Args:
        folder: The shard set.
        workers: Processes that read shards; None takes the cores of this machine.
        progress: Called with (shards done, shards in all).

    Raises:
        DataError: No shards, a compressed or damaged one, or a key that two samples share.
    """
    from facemae.data.index_build import build

    return build(Path(folder), workers=workers, progress=progress)
