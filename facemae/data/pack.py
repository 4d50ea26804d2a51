"""Packing images into WebDataset shards.

Samples are dealt to the shards at random, so that no shard is one identity or one video: readers that shuffle within a
few shards would otherwise make batches of one face. The same input and seed give the same shards, byte for byte.
"""

import importlib.metadata
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facemae.data.card import write_card
from facemae.data.decode import decode_image
from facemae.data.index import ShardIndex, build_index
from facemae.data.ingest.folder import EXTENSIONS, FoldersAre, SourceFile, list_folder
from facemae.data.ingest.keys import make_keys
from facemae.data.ingest.videos import separate_maps
from facemae.data.reencode import INTERPOLATION, shrink, to_png
from facemae.data.regions import MEMBER, RegionMaps
from facemae.data.schema import DatasetCard
from facemae.data.shard_writer import ShardWriter
from facemae.data.target import SKIPPED, check_apart, check_target, move_into_place, tidy, workspace
from facemae.errors import DataError, DecodeError, UsageError
from facemae.files import storage_error, write_text
from facemae.parallel import in_threads
from facemae.rng import generator

SHARD_SIZE = 2000
"""Samples a shard unless asked otherwise: a hundred megabytes of 224-pixel JPEG crops, some files for every lane."""

_SHOWN = 10


@dataclass(frozen=True)
class PackItem:
    """One sample to pack.

    Attributes:
        key: WebDataset key, without dots.
        image: Encoded bytes, or a function that reads them when their turn comes.
        extension: `jpg`, `png` or `webp`.
        meta: The `json` member; width and height are added.
        source: What to call it in reports; the key where empty.
        more: Reads further members by extension when their turn comes, for example ``{"region.png": …}``.
    """

    key: str
    image: bytes | Callable[[], bytes]
    extension: str
    meta: dict[str, Any]
    source: str = ""
    more: Callable[[], dict[str, bytes]] | None = None


@dataclass(frozen=True)
class PackReport:
    """What was packed.

    Attributes:
        out: The shard set.
        written: Samples written.
        shards: Number of shards.
        digest: Digest of the set.
        seconds: How long it took.
        skipped: Images left out, as (path, reason); also in `skipped.jsonl`.
        notes: What was decided about splits, folders and formats.
    """

    out: Path
    written: int
    shards: int
    digest: str
    seconds: float
    skipped: list[tuple[str, str]]
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The report for a script."""
        return {**vars(self), "out": str(self.out)}

    def lines(self) -> list[str]:
        """The report for a person."""
        head = f"{self.written} samples in {self.shards} shards under {self.out} ({self.seconds:.1f} s)"
        lines = [head, f"digest {self.digest[:16]}", *self.notes]
        if self.skipped:
            lines.append(f"{len(self.skipped)} left out, see {self.out / SKIPPED}:")
            lines += [f"  {path}: {reason}" for path, reason in self.skipped[:_SHOWN]]
            if len(self.skipped) > _SHOWN:
                lines.append(f"  and {len(self.skipped) - _SHOWN} more")
        return lines


@dataclass(frozen=True)
class _Prepared:
    """A sample to write: key, members, width and height."""

    key: str
    members: dict[str, bytes]
    size: tuple[int, int]


@dataclass(frozen=True)
class _Skip:
    """An image that is left out, and why."""

    source: str
    reason: str


def pack_samples(
    items: Iterable[PackItem],
    out: Path | str,
    *,
    card: DatasetCard | None = None,
    shard_size: int = SHARD_SIZE,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    skipped: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
) -> PackReport:
    """Pack samples into a new, indexed shard set.

    The set appears under `out` only when it is complete.

    Args:
        items: The samples; keys must differ.
        out: Folder to make.
        card: Dataset card; one named after the folder where None.
        shard_size: Samples a shard.
        seed: Seed of the random assignment to shards.
        overwrite: Replace an older shard set under `out`.
        progress: Called with (samples done, samples in all).
        skipped: (path, reason) of images that were left out before; they join the report.
        notes: Lines for the report.

    Raises:
        DataError: No sample, a key twice, every image unusable, or `out` holds what may not be replaced.
        StorageError: Writing failed underneath, for example for a full disk; nothing is left behind.
    """
    begin = time.perf_counter()
    out = Path(out)
    listed = list(items)
    _check_items(listed, shard_size)
    # A link is followed: the set behind it is replaced, not the link.
    place = out.resolve()
    tidy(place)
    check_target(place, overwrite=overwrite)
    order = generator(seed, "pack").permutation(len(listed))
    left_out, sizes = list(skipped), set[tuple[int, int]]()
    with workspace(place) as temporary:
        writer = ShardWriter(temporary, shard_size)
        try:
            for done, prepared in enumerate(in_threads(_prepare, [listed[i] for i in order]), 1):
                if isinstance(prepared, _Skip):
                    left_out.append((prepared.source, prepared.reason))
                else:
                    writer.write(prepared.key, prepared.members)
                    sizes.add(prepared.size)
                if progress is not None:
                    progress(done, len(listed))
            writer.close()
        finally:
            writer.abandon()
        left_out.sort()
        if not writer.written:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out[:3])
            raise DataError(f"none of {len(left_out)} images can be packed ({reasons})", expected="images that decode")
        known = _with_size(card or DatasetCard(name=out.name), sizes)
        index = finish_set(temporary, writer, known, seed, left_out)
        move_into_place(temporary, place)
    seconds = time.perf_counter() - begin
    return PackReport(out, writer.written, writer.shards, index.digest, seconds, left_out, list(notes))


def _check_items(items: Sequence[PackItem], shard_size: int) -> None:
    if shard_size < 1:
        raise UsageError(f"shard size {shard_size}", expected="at least one sample a shard")
    if not items:
        raise DataError("there is nothing to pack", expected="at least one image")
    seen: dict[str, str] = {}
    for item in items:
        if item.key in seen:
            raise DataError(
                f"key {item.key!r} is there twice: {seen[item.key] or item.key} and {item.source or item.key}",
                expected="one sample a key",
                fix="rename one of the files",
            )
        if "." in item.key or not item.key:
            raise DataError(
                f"key {item.key!r} has a dot or is empty",
                expected="a key without dots: WebDataset cuts keys at the first",
            )
        seen[item.key] = item.source


def _prepare(item: PackItem) -> _Prepared | _Skip:
    """Key, members and size of one sample, its image decoded once in full."""
    name = item.source or item.key
    try:
        data = item.image if isinstance(item.image, bytes) else item.image()
        if not data:
            return _Skip(name, "the file is empty (0 bytes)")
        height, width = decode_image(data, channels=3, name=name).shape[:2]
        more = item.more() if item.more is not None else {}
    except DecodeError as error:
        return _Skip(name, error.found.removeprefix(f"{name}: "))
    except FileNotFoundError:
        return _Skip(name, "the file is gone")
    except PermissionError:
        return _Skip(name, "reading the file is not permitted")
    except OSError as error:
        raise storage_error(error, Path(name), "reading") from error
    meta = {**item.meta, "width": int(width), "height": int(height)}
    text = json.dumps(meta, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return _Prepared(item.key, {item.extension: data, **more, "json": text.encode()}, (int(width), int(height)))


def _with_size(card: DatasetCard, sizes: set[tuple[int, int]]) -> DatasetCard:
    """All images are squares of one side: a fact that nobody had to state."""
    if card.crop.size is None and len(sizes) == 1 and len(set(*sizes)) == 1:
        return card.model_copy(update={"crop": card.crop.model_copy(update={"size": next(iter(sizes))[0]})})
    return card


def finish_set(
    folder: Path, writer: ShardWriter, card: DatasetCard, seed: int, skipped: Sequence[tuple[str, str]]
) -> ShardIndex:
    """Write what belongs beside the shards: card, list of what was left out, index.

    Args:
        folder: Of the shards.
        writer: That wrote them.
        card: Dataset card; how it was packed is added.
        seed: Seed of the random assignment to shards.
        skipped: (path, reason).
    """
    packed = {
        "facemae": importlib.metadata.version("facemae"),
        "seed": str(seed),
        "samples": str(writer.written),
        **card.packed,
    }
    write_card(folder, card.model_copy(update={"packed": packed}))
    if skipped:
        lines = (json.dumps({"path": path, "reason": reason}, ensure_ascii=False) for path, reason in skipped)
        write_text(folder / SKIPPED, "".join(f"{line}\n" for line in lines))
    return build_index(folder)


def pack_folder(
    source: Path | str,
    out: Path | str,
    *,
    labels: Path | None = None,
    path_column: str | None = None,
    split_column: str | None = None,
    subject_column: str | None = None,
    label_columns: Sequence[str] | None = None,
    folders_are: FoldersAre = "class",
    resize: int | None = None,
    regions: Path | None = None,
    shard_size: int = SHARD_SIZE,
    seed: int = 0,
    card: DatasetCard | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> PackReport:
    """Pack a folder of images, with an optional table of labels, into a new shard set.

    Bytes are stored as they come, except formats that WebDataset readers do not know, which become PNG without loss,
    and images larger than `resize`, where that is given.

    Args:
        source: The folder; see `facemae.data.ingest.folder` for the layouts it may have.
        out: Folder to make.
        labels: Table of labels; None takes `labels.csv` in the folder, if there is one.
        path_column: Column of the table with the images' paths; None looks for the usual names.
        split_column: Column with the split; None looks for the usual names.
        subject_column: Column with the subject; None looks for the usual names.
        label_columns: Columns kept as labels; None keeps all others.
        folders_are: What folders below the splits name, where there is no table: `class`, `subject` or `nothing`.
        resize: Scale larger images down to this shorter side in pixels; the card says how.
        regions: Folder of region maps, `NAME.region.png` for an image `NAME.jpg`; None stores none.
        shard_size: Samples a shard.
        seed: Seed of the random assignment to shards.
        card: Dataset card.
        overwrite: Replace an older shard set under `out`.
        progress: Called with (samples done, samples in all).

    Raises:
        DataError: See `facemae.data.ingest.folder.list_folder` and `pack_samples`; also where source and `out` overlap.
        StorageError: Writing failed underneath; nothing is left behind.
    """
    source, out = Path(source), Path(out)
    if resize is not None and resize < 1:
        raise UsageError(f"resize {resize}", expected="a length in pixels")
    check_apart(source, out)
    listing = list_folder(
        source,
        labels=labels,
        path_column=path_column,
        split_column=split_column,
        subject_column=subject_column,
        label_columns=label_columns,
        folders_are=folders_are,
    )
    keys = make_keys([image.path for image in listing.files])
    maps = separate_maps([image.path for image in listing.files], regions or source, regions is not None)
    items = [_folder_item(*entry, resize) for entry in zip(keys, listing.files, maps, strict=True)]
    missing = maps.count(None) if regions is not None else 0
    card = card or DatasetCard(name=out.name, source=source.name)
    if resize is not None:
        crop = card.crop.model_copy(update={"size": None, "interpolation": INTERPOLATION})
        card = card.model_copy(update={"packed": {"resize": str(resize), **card.packed}, "crop": crop})
    return pack_samples(
        items,
        out,
        card=card,
        shard_size=shard_size,
        seed=seed,
        overwrite=overwrite,
        progress=progress,
        skipped=listing.skipped,
        notes=[
            *listing.notes,
            *_conversion_notes(listing.files),
            *([f"{missing} images have no region map"] if missing else []),
        ],
    )


def _conversion_notes(images: Sequence[SourceFile]) -> list[str]:
    count = sum(_stored_extension(image.file) is None for image in images)
    return [f"{count} images of other formats are stored as PNG"] if count else []


def _stored_extension(file: Path) -> str | None:
    return EXTENSIONS.get(file.suffix.lower().lstrip("."))


def _folder_item(key: str, image: SourceFile, maps: Path | None, resize: int | None) -> PackItem:
    extension = _stored_extension(image.file)

    def read() -> bytes:
        data = image.file.read_bytes()
        if extension is None:
            data = to_png(data, image.path)
        return data if resize is None or not data else shrink(data, resize, extension or "png", image.path)

    if maps is None:
        return PackItem(key, read, extension or "png", image.meta(), image.path)
    meta = {**image.meta(), "regions": {"source": "file"}}
    return PackItem(key, read, extension or "png", meta, image.path, lambda: {MEMBER: _checked_map(maps)})


def _checked_map(path: Path) -> bytes:
    data = path.read_bytes()
    maps = RegionMaps(data, name=path.name)
    if maps.count != 1:
        raise DecodeError(f"{path.name}: {maps.count} region maps of one image")
    maps.read([0])
    return data
