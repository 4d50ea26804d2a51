"""Counting a shard set, and drawing some of it."""

import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from facemae.data.decode import image_size
from facemae.data.index import ShardIndex
from facemae.data.material import Material, clip_extension, sound_extension
from facemae.data.metadata import PATH, RESERVED
from facemae.data.reader import ShardReader, image_extension
from facemae.data.regions import MEMBER
from facemae.data.select import metadata
from facemae.errors import DecodeError
from facemae.files import atomic_path
from facemae.rng import generator

_MOST_VALUES = 60
_MOST_MEASURES = 12
"""Fewer of numbers that are not whole: measurements, whose single values say little."""
_MEASURED = 2000
_TILE, _CAPTION, _GAP = 96, 12, 4


@dataclass
class StatsReport:
    """Counts of a shard set, erased samples left out.

    Attributes:
        folder: The shard set.
        samples: Samples.
        dropped: Erased samples.
        shards: Shards.
        bytes: Length of all shards.
        splits: Samples of each split; None counts those without.
        subjects: Number of subjects; 0 where none is known.
        shared_subjects: Subjects with samples in more than one split.
        labels: For each label the counts of its values, or a summary: with more than sixty values, or of numbers that
            are not whole with more than twelve.
        sizes: `width` and `height`: least, median and greatest in pixels.
        measured: Samples the sizes were taken from.
        sheet: The contact sheet, where one was drawn.
        clips: Samples with a clip.
        sounds: Samples with sound.
        regions: Samples with region maps.
    """

    folder: Path
    samples: int
    dropped: int
    shards: int
    bytes: int
    splits: dict[str, int]
    subjects: int
    shared_subjects: int
    labels: dict[str, dict[str, Any]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, float, int]] = field(default_factory=dict)
    measured: int = 0
    sheet: Path | None = None
    clips: int = 0
    sounds: int = 0
    regions: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The report for a script."""
        return {**vars(self), "folder": str(self.folder), "sheet": None if self.sheet is None else str(self.sheet)}

    def lines(self) -> list[str]:
        """The report for a person."""
        lines = [f"{self.samples} samples in {self.shards} shards, {self.bytes / 1e6:.1f} MB"]
        if self.clips or self.sounds:
            lines.append(f"clips: {self.clips}, with sound: {self.sounds}")
        if self.regions:
            lines.append(f"with region maps: {self.regions}")
        if self.dropped:
            lines.append(f"erased: {self.dropped}")
        lines.append("splits: " + _counts(self.splits))
        known = f"{self.subjects}, in more than one split: {self.shared_subjects}" if self.subjects else "unknown"
        lines.append(f"subjects: {known}")
        for side, (least, median, most) in self.sizes.items():
            lines.append(f"{side}: {least} to {most} pixels, median {median:g} ({self.measured} samples)")
        lines += [f"{name}: {_counts(values)}" for name, values in self.labels.items()]
        if self.sheet is not None:
            lines.append(f"contact sheet: {self.sheet}, each with its split and its first label in words")
        return lines


def _counts(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in values.items())


def count_shards(folder: Path | str) -> StatsReport:
    """Count splits, subjects, labels and image sizes.

    Sizes come from the metadata; where that has none, from the headers of some images.
    """
    import pyarrow.compute as pc

    index = ShardIndex.open(folder)
    table = metadata(index)
    table = table.filter(pc.invert(table["dropped"]))
    owners = table.select(["subject", "split"]).filter(pc.is_valid(table["subject"]))
    pairs = owners.group_by(["subject", "split"]).aggregate([])
    subjects = pc.count_distinct(pairs["subject"]).as_py()
    often = pairs.group_by("subject").aggregate([("split", "count_distinct")])["split_count_distinct"]
    sizes, measured = _sizes(index, table)
    return StatsReport(
        folder=index.folder,
        samples=len(table),
        dropped=len(index) - len(table),
        shards=len(index.shards),
        bytes=sum(shard.bytes for shard in index.shards),
        splits=_value_counts(table["split"]),
        subjects=subjects,
        shared_subjects=sum(1 for count in often.to_pylist() if count > 1),
        labels={name: _label(table[name]) for name in table.column_names if name not in (*RESERVED, PATH)},
        sizes=sizes,
        measured=measured,
        clips=_holding(index, clip_extension),
        sounds=_holding(index, sound_extension),
        regions=_holding(index, lambda members: MEMBER if MEMBER in members else None),
    )


def _holding(index: ShardIndex, extension: Callable[[Collection[str]], str | None]) -> int:
    """How many samples have a member of a kind."""
    return sum(extension(index.members(i)) is not None for i in range(len(index)) if i not in index.dropped_set)


def _value_counts(column: Any) -> dict[str, int]:
    import pyarrow.compute as pc

    pairs = [(entry["values"], entry["counts"]) for entry in pc.value_counts(column).to_pylist()]
    numbers = all(value is None or isinstance(value, int | float) for value, _ in pairs)
    # Numbers read best in their own order, names by how often they occur.
    pairs.sort(key=lambda pair: (pair[0] is None, pair[0] or 0) if numbers else (pair[0] is None, -pair[1]))
    return {"unknown" if value is None else str(value): count for value, count in pairs}


def _label(column: Any) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = pc.count_distinct(column).as_py()
    measures = pa.types.is_floating(column.type) and pc.any(pc.not_equal(column, pc.round(column))).as_py()
    if values <= (_MOST_MEASURES if measures else _MOST_VALUES):
        return _value_counts(column)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        bounds = pc.min_max(column).as_py()
        mean = round(pc.mean(column).as_py(), 4)
        return {"values": values, "least": bounds["min"], "mean": mean, "greatest": bounds["max"]}
    return {"values": values}


def _sizes(index: ShardIndex, table: Any) -> tuple[dict[str, tuple[int, float, int]], int]:
    widths = [value for value in table["width"].to_pylist() if value is not None]
    heights = [value for value in table["height"].to_pylist() if value is not None]
    if not widths or not heights:
        reader = ShardReader(index)
        pairs = [size for i in _some(index, _MEASURED, 0) if (size := _header_size(reader, i)) is not None]
        widths, heights = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if not widths:
        return {}, 0
    sides = {"width": widths, "height": heights}
    return {name: (min(side), statistics.median(side), max(side)) for name, side in sides.items()}, len(widths)


def _header_size(reader: ShardReader, i: int) -> tuple[int, int] | None:
    extension = image_extension(reader.index.members(i))
    if extension is None:
        return None
    try:
        return image_size(reader.read(i, [extension]).members[extension], name=reader.index.key(i))
    except DecodeError:
        return None


def _some(index: ShardIndex, number: int, seed: int) -> Sequence[int]:
    order = generator(seed, "stats", index.digest).permutation(len(index))
    chosen: list[int] = [int(i) for i in order[: number + len(index.dropped)] if int(i) not in index.dropped_set]
    return chosen[:number]


def contact_sheet(folder: Path | str, path: Path, *, images: int = 64, seed: int = 0) -> Path:
    """Draw some images of the set, chosen at random, each with its split and first label.

    Args:
        folder: The shard set.
        path: PNG to write.
        images: How many.
        seed: Seed of the choice.
    """
    index = ShardIndex.open(folder)
    reader = ShardReader(index)
    chosen = sorted(_some(index, images, seed))
    columns = max(1, round(len(chosen) ** 0.5))
    rows = -(-len(chosen) // columns)
    step = (_TILE + _GAP, _TILE + _CAPTION + _GAP)
    sheet = Image.new("RGB", (columns * step[0] + _GAP, rows * step[1] + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for place, i in enumerate(chosen):
        corner = (_GAP + place % columns * step[0], _GAP + place // columns * step[1])
        tile, caption = _tile(reader, i)
        sheet.paste(tile, (corner[0] + (_TILE - tile.width) // 2, corner[1] + (_TILE - tile.height) // 2))
        draw.text((corner[0], corner[1] + _TILE), caption, fill="black")
    with atomic_path(path) as temporary:
        sheet.save(temporary, "png")
    return path


def _tile(reader: ShardReader, i: int) -> tuple[Image.Image, str]:
    sample = reader.read(i)
    try:
        tile = _picture(Material(sample))
    except DecodeError:
        return Image.new("RGB", (_TILE, _TILE), "red"), "does not decode"
    if tile is None:
        return Image.new("RGB", (_TILE, _TILE), "lightgrey"), "no image"
    scale = _TILE / max(tile.size)
    tile = tile.resize((max(1, round(tile.width * scale)), max(1, round(tile.height * scale))))
    labels = sample.meta.get("labels") or {}
    first = next((str(value) for value in labels.values() if isinstance(value, str)), "")
    # The default font has only Latin letters.
    caption = f"{sample.meta.get('split') or ''} {first}".strip().encode("ascii", "replace").decode()
    return tile, caption[:16]


def _picture(material: Material) -> Image.Image | None:
    """A still, or four frames of a clip from its first to its last; None where the sample has neither."""
    if material.clip is None:
        if image_extension(material.sample.members) is None:
            return None
        return Image.fromarray(material.still(3, None))
    last = material.clip.count - 1
    frames = material.frames([round(last * part / 3) for part in range(4)], 3)
    return Image.fromarray(np.concatenate([np.concatenate(list(frames[:2]), 1), np.concatenate(list(frames[2:]), 1)]))
