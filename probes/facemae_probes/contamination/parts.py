"""The images that are compared: parts of shard sets, and what is kept of each image."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae.data.decode import decode_image
from facemae.data.duplicates import SIDE, pixel_digest, thumbnail, thumbnail_hash
from facemae.data.index import ShardIndex
from facemae.data.reader import ShardReader, image_extension
from facemae.data.schema import IMAGE_EXTENSIONS
from facemae.data.select import choose
from facemae.errors import DecodeError, UsageError
from facemae.files import storage_errors
from facemae.parallel import in_threads

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Part:
    """What a run reads of a shard set.

    Attributes:
        folder: The shard set.
        where: Column to value, as in a recipe's stream.
        keys: File that lists the samples, or None for all.
        shards: So many leading shards, or None for all.
    """

    folder: Path
    where: Mapping[str, str] = field(default_factory=dict)
    keys: Path | None = None
    shards: int | None = None


class Images:
    """The images of a part that were not erased.

    Args:
        part: The part.

    Raises:
        DataError: There is no index.
        UsageError: No sample is chosen.
        IndexMismatchError: There are fewer shards.

    Attributes:
        part: The part.
        index: Its index.
        samples: int64 [N], positions in the index.
    """

    def __init__(self, part: Part) -> None:
        self.part, self.index = part, ShardIndex.open(part.folder)
        if part.shards is not None:
            self.index = self.index.prefix(part.shards)
        chosen = choose(self.index, part.where, part.keys)
        every = np.arange(len(self.index)) if chosen is None else chosen
        self.samples: NDArray[np.int64] = np.setdiff1d(every, np.array(self.index.dropped, dtype=np.int64))
        if not len(self.samples):
            raise UsageError(f"no sample of {part.folder} is left to compare", expected="samples that were not erased")
        self._reader = ShardReader(self.index)

    def __len__(self) -> int:
        return len(self.samples)

    def key(self, place: int) -> str:
        """Key of the sample at a place in `samples`."""
        return self.index.key(int(self.samples[place]))

    def describe(self) -> dict[str, Any]:
        """What determines these images, as plain values."""
        return {
            "data": self.index.digest,
            "chosen": hashlib.sha256(np.ascontiguousarray(self.samples, dtype="<i8").tobytes()).hexdigest(),
            "samples": len(self),
            "where": dict(self.part.where),
        }

    def image(self, place: int) -> NDArray[np.uint8] | None:
        """The image uint8 [H, W, 3]; None where there is none, or it does not decode.

        Raises:
            IndexMismatchError: The bytes are not those the index describes.
            StorageError: Reading failed.
        """
        sample = self._reader.read(int(self.samples[place]), self._extensions)
        extension = image_extension(sample.members)
        if extension is None:
            return None
        try:
            image: NDArray[np.uint8] = decode_image(sample.members[extension], channels=3, name=sample.key)
        except DecodeError:
            return None
        return image

    @property
    def _extensions(self) -> list[str]:
        return [name for name in self.index.extensions if name.rpartition(".")[2] in IMAGE_EXTENSIONS]


@dataclass(frozen=True)
class Fingerprints:
    """What is kept of each image: 33 bytes in memory, and its thumbnail of one kilobyte in a file.

    Attributes:
        digests: Of the pixels, S16 [N].
        hashes: Perceptual hashes, uint8 [N, 8].
        mirrored: Those of the mirrored images.
        small: Thumbnails, uint8 [N, 32, 32], mapped from the file.
        decoded: Whether there is an image that decodes, bool [N].
    """

    digests: NDArray[np.bytes_]
    hashes: NDArray[np.uint8]
    mirrored: NDArray[np.uint8]
    small: NDArray[np.uint8]
    decoded: NDArray[np.bool_]

    @classmethod
    def of(cls, images: Images, file: Path, progress: Callable[[int], None]) -> "Fingerprints":
        """Look at every image once.

        Args:
            images: The images.
            file: Where thumbnails are kept.
            progress: Called with how many are done.

        Raises:
            StorageError: The file cannot be written.
        """
        count = len(images)
        digests = np.zeros(count, dtype="S16")
        hashes, mirrored = np.zeros((count, 8), dtype=np.uint8), np.zeros((count, 8), dtype=np.uint8)
        decoded = np.zeros(count, dtype=bool)
        nothing = np.zeros((SIDE, SIDE), dtype=np.uint8)
        with storage_errors(file, "writing"), file.open("wb") as handle:
            for place, found in enumerate(in_threads(partial(_look, images), range(count))):
                if found is not None:
                    digests[place], decoded[place] = found.digest, True
                    hashes[place], mirrored[place] = (np.frombuffer(code, np.uint8) for code in found.hashes)
                handle.write((nothing if found is None else found.small.astype(np.uint8)).tobytes())
                progress(place + 1)
        small = np.memmap(file, dtype=np.uint8, mode="r", shape=(count, SIDE, SIDE))
        return cls(digests, hashes, mirrored, small, decoded)


@dataclass(frozen=True)
class _Look:
    digest: bytes
    hashes: tuple[bytes, bytes]
    small: NDArray[np.float32]


def _look(images: Images, place: int) -> _Look | None:
    image = images.image(place)
    if image is None:
        return None
    small = thumbnail(image)
    mirrored = np.ascontiguousarray(small[:, ::-1])
    return _Look(pixel_digest(image), (thumbnail_hash(small), thumbnail_hash(mirrored)), small)


def facts_key(facts: Mapping[str, Any]) -> str:
    """Hexadecimal sha256 of facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
