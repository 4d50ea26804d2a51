"""Where images come from: sequences in memory, files, folders, shard sets. All are walked in order, one at a time."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from facemae.data.card import read_card
from facemae.data.index import FOLDER, HEAD, ShardIndex
from facemae.data.reader import ShardReader, image_extension
from facemae.data.regions import MEMBER
from facemae.data.schema import IMAGE_EXTENSIONS, DatasetCard
from facemae.data.select import select
from facemae.errors import DecodeError, UsageError
from facemae.files import storage_errors

IMAGES = "an image: " + ", ".join(IMAGE_EXTENSIONS)


@dataclass(frozen=True)
class Item:
    """One image that has not been read yet.

    Attributes:
        key: Its name in the result.
        read: Gives encoded bytes, a PIL image or an array; called once, in order, in a reading thread.
    """

    key: str
    read: Callable[[], Any]


class Source(Protocol):
    """A sized, ordered, repeatable walk over images.

    Attributes:
        name: What it is called in metadata and messages.
        card: The data card, where there is one.
        notes: What a reader of the result must know, by topic; filled by `count`.
    """

    name: str
    card: DatasetCard | None
    notes: dict[str, Any]

    def count(self) -> int:
        """How many items the walk will give."""

    def __iter__(self) -> Iterator[Item]: ...


@dataclass
class SequenceSource:
    """Paths, arrays and PIL images, in any mixture. Keys are the paths, or the positions of images in memory."""

    values: Sequence[Any]
    name: str = "images"
    card: DatasetCard | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def count(self) -> int:
        """How many there are."""
        return len(self.values)

    def __iter__(self) -> Iterator[Item]:
        for position, value in enumerate(self.values):
            if isinstance(value, str | Path):
                yield Item(str(value), _file_reader(Path(value)))
            else:
                yield Item(str(position), partial(_given, value))


@dataclass
class FolderSource:
    """The images of a folder and its subfolders, in the order of their relative paths, which are the keys.

    Names that start with a dot are not looked at. Files with other extensions are counted in `notes`.
    """

    folder: Path
    name: str = ""
    prefix: str = ""
    card: DatasetCard | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name = self.name or str(self.folder)

    def count(self) -> int:
        """Walk the names once."""
        other: dict[str, int] = {}
        number = 0
        for path in walk(self.folder):
            if _is_image(path):
                number += 1
            else:
                extension = path.suffix.lower() or "(none)"
                other[extension] = other.get(extension, 0) + 1
        if other:
            self.notes["other_files"] = other
        return number

    def __iter__(self) -> Iterator[Item]:
        for path in walk(self.folder):
            if _is_image(path):
                yield Item(self.prefix + path.relative_to(self.folder).as_posix(), _file_reader(path))


class ShardSource:
    """The samples of an indexed shard set, in its order. Keys are the samples' keys. Dropped samples are left out.

    Args:
        folder: The shard set.
        where: Only samples whose metadata has these values.
        samples: Only these positions in the index, in this order; int64 [N].
        prefix: Put before every key.
    """

    def __init__(
        self,
        folder: Path,
        *,
        where: Mapping[str, str] | None = None,
        samples: np.ndarray | None = None,
        prefix: str = "",
    ) -> None:
        self.name = str(folder)
        self.prefix = prefix
        self.index = ShardIndex.open(folder)
        self.reader = ShardReader(self.index)
        self.card: DatasetCard | None = read_card(folder)
        self.notes: dict[str, Any] = {"digest": self.index.digest}
        if where:
            self.notes["where"] = dict(where)
        self._samples = self._choose(where, samples)

    def _choose(self, where: Mapping[str, str] | None, samples: np.ndarray | None) -> np.ndarray:
        if where:
            chosen = select(self.index, where)
            if samples is not None:
                chosen = np.asarray(samples, dtype=np.int64)[np.isin(samples, chosen)]
        elif samples is not None:
            chosen = np.asarray(samples, dtype=np.int64)
        else:
            chosen = np.arange(len(self.index), dtype=np.int64)
        # Reading a dropped sample gives its substitute, which is right for training and wrong in a table of features.
        dropped = np.array(self.index.dropped, dtype=np.int64)
        kept = chosen[~np.isin(chosen, dropped)]
        if len(kept) < len(chosen):
            self.notes["dropped"] = len(chosen) - len(kept)
        return kept

    def count(self) -> int:
        """How many samples are chosen."""
        return len(self._samples)

    def samples(self) -> Iterator[tuple[str, int]]:
        """Keys and positions in the index of the chosen samples."""
        for number in self._samples:
            yield self.prefix + self.index.key(int(number)), int(number)

    def __iter__(self) -> Iterator[Item]:
        for key, sample in self.samples():
            yield Item(key, partial(self._read, sample))

    def _read(self, sample: int) -> bytes:
        members = self.index.members(sample)
        extension = image_extension(members)
        if extension is None:
            raise DecodeError(
                f"{self.index.key(sample)}: no image among the members {sorted(members)}", expected=IMAGES
            )
        found: bytes = self.reader.read(sample, [extension]).members[extension]
        return found


@dataclass
class JoinedSource:
    """Several sources, one after the other. Their keys are told apart by a prefix."""

    parts: Sequence[Source]
    name: str = ""
    card: DatasetCard | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def count(self) -> int:
        """Items of all parts."""
        return sum(part.count() for part in self.parts)

    def __iter__(self) -> Iterator[Item]:
        for part in self.parts:
            yield from part


def open_path(path: Path | str, *, where: Mapping[str, str] | None = None, prefix: str = "") -> Source:
    """The source behind a path: an image file, a folder of images or a shard set.

    Args:
        path: File or folder.
        where: Only samples whose metadata has these values; for shard sets.
        prefix: Put before every key, to tell several paths apart.

    Raises:
        UsageError: There is nothing at the path, or `where` is given for loose images.
    """
    path = Path(path)
    if path.is_dir() and is_shard_set(path):
        return ShardSource(path, where=where, prefix=prefix)
    if where:
        raise loose_files(path, "images")
    if path.is_dir():
        return FolderSource(path, prefix=prefix)
    if path.suffix == ".tar":
        raise UsageError(
            f"{path} is one shard", expected="the folder of the shard set", fix=f"facemae extract {path.parent} …"
        )
    if not path.is_file():
        raise UsageError(f"{path} does not exist", expected="an image, a folder of images or a shard set")
    if not _is_image(path):
        raise UsageError(f"{path} has no image extension", expected=IMAGES)
    return SequenceSource([path], name=str(path))


def loose_files(path: Path, what: str) -> UsageError:
    """The error of a filter by metadata where a path holds files that have none."""
    return UsageError(
        f"{path} holds loose {what}, which have no metadata to filter by",
        expected="a shard set",
        fix=f"facemae data pack {path} --out SHARDS, then extract from SHARDS",
    )


def open_paths(paths: Sequence[Path | str], *, where: Mapping[str, str] | None = None) -> JoinedSource:
    """Several paths as one source. With more than one, keys of what they hold start with the path as it was given."""
    prefixes = prefixes_of(paths)
    parts = [open_path(name, where=where, prefix=prefix) for name, prefix in prefixes.items()]
    return JoinedSource(parts, name=", ".join(prefixes))


def prefixes_of(paths: Sequence[Path | str]) -> dict[str, str]:
    """What is put before the keys of each path to tell several apart; nothing where there is one.

    Raises:
        UsageError: A path is given twice, or none is given.
    """
    names = [str(path) for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names:
        raise UsageError("no path is given", expected="files, folders or shard sets")
    if twice:
        raise UsageError(
            f"a path is given twice: {', '.join(twice)}", expected="each once, or keys would stand for two rows"
        )
    return {name: f"{name.rstrip('/')}/" if len(names) > 1 else "" for name in names}


def as_source(images: Any) -> Source:
    """A source from what `FeatureExtractor.transform` takes.

    Args:
        images: A path of an image, folder or shard set; a sequence of image paths, uint8 arrays [H, W, C] and PIL
            images; one array [N, H, W, C]; or a source.

    Raises:
        UsageError: Something else.
    """
    if isinstance(images, str | Path):
        return open_path(images)
    if isinstance(images, Image.Image):
        raise UsageError("got a single image", expected="a sequence of images", fix="transform([image])")
    if hasattr(images, "count") and hasattr(images, "card"):
        source: Source = images
        return source
    if isinstance(images, np.ndarray):
        return SequenceSource(_array_items(images))
    if hasattr(images, "columns"):
        raise UsageError("got a table", expected="one column of paths", fix="pass table['path']")
    if isinstance(images, Iterable):
        return SequenceSource(images if isinstance(images, list | tuple) else list(images))
    raise UsageError(f"got {type(images).__name__}", expected="paths, arrays, PIL images, or the path of a folder")


def _array_items(array: np.ndarray) -> Sequence[Any]:
    if array.dtype.kind in "OU":
        items: list[Any] = array.ravel().tolist()
        return items
    if array.ndim != 4:
        raise UsageError(
            f"got one array of shape {array.shape}", expected="[N, H, W, C]", fix="wrap a single image: [image]"
        )
    return list(array)


def is_shard_set(folder: Path) -> bool:
    """Whether a folder holds `.tar` shards, or the index of shards that lie below it."""
    if (folder / FOLDER / HEAD).is_file():
        return True
    with storage_errors(folder, "reading"), os.scandir(folder) as entries:
        return any(entry.name.endswith(".tar") for entry in entries)


def walk(folder: Path) -> Iterator[Path]:
    """Files below a folder in the order of their relative paths, holding one folder's names at a time.

    Raises:
        StorageError: A folder cannot be read.
    """
    yield from _walk(folder, ())


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    with storage_errors(folder, "reading"):
        status = folder.stat()
        place = (status.st_dev, status.st_ino)
        if place in above:  # a link to a folder that contains it
            return
        with os.scandir(folder) as entries:
            # The slash makes this the order of whole paths: "a-b" comes before "a/b" though "a" comes before "a-b".
            names = sorted(e.name + "/" * e.is_dir() for e in entries if not e.name.startswith("."))
    for name in names:
        if name.endswith("/"):
            yield from _walk(folder / name[:-1], (*above, place))
        else:
            yield folder / name


def _is_image(path: Path) -> bool:
    return path.suffix.lower().lstrip(".") in IMAGE_EXTENSIONS and not path.name.endswith(f".{MEMBER}")


def _given(value: Any) -> Any:
    return value


def _file_reader(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        with storage_errors(path, "reading"):
            return path.read_bytes()

    return read
