"""Procedural clips with labels that need motion or sound: who trains, chooses and is tested, and their features."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facemae.data.index import ShardIndex
from facemae.data.reader import ShardReader
from facemae.errors import UsageError
from facemae.features.clip_sources import sample_windows
from facemae.features.clips import ClipExtractor
from facemae_probes.tasks.columns import Columns, read_columns

NEEDS = {
    "circling": "order of frames",
    "tempo": "order of frames",
    "rate": "order of frames, or sound",
    "register": "sound",
    "intonation": "sound",
    "emotion": "a frame",
}
"""What a label needs. All but `emotion` are drawn evenly from two values."""
SPLITS = ("train", "valid", "test")

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LabelledClips:
    """Clips of one or two shard sets.

    Attributes:
        sets: Each set with the metadata of the clips that are taken from it.
        columns: The metadata of all, set after set; `samples` are positions within their own sets.
        labels: Those of `NEEDS` that the clips have.
    """

    sets: tuple[tuple[Path, Columns], ...]
    columns: Columns
    labels: tuple[str, ...]


def open_clips(data: Path, test: Path | None = None) -> LabelledClips:
    """The clips of a set, or those that train and choose of one and all of another to be tested.

    Args:
        data: Indexed shard set with splits.
        test: Another one, whose clips are tested instead; its splits play no part.

    Raises:
        UsageError: There are no such labels, a split of a label is empty or trains one class only, or `test` is `data`.
    """
    columns = read_columns(data)
    sets = [(data, columns)]
    if test is not None:
        if ShardIndex.open(test).digest == ShardIndex.open(data).digest:
            raise UsageError(
                f"the same clips train and are tested: {test.name}",
                expected="clips drawn with another seed",
                fix="facemae data synth --clips N --seed S, or leave --test out",
            )
        fresh = read_columns(test)
        known = _splits(columns, data)
        sets = [
            (data, columns.take(np.flatnonzero(known != "test"))),
            (test, Columns(fresh.samples, {**fresh.values, "split": ["test"] * len(fresh)})),
        ]
    joined = _join([part for _, part in sets])
    labels = tuple(name for name in NEEDS if name in joined.values)
    if not labels:
        raise UsageError(
            f"clips of {data.name} without labels",
            expected=", ".join(NEEDS),
            fix="facemae data synth OUT --clips N, then facemae data pack OUT: labels come from its labels.csv",
        )
    splits = _splits(joined, data)
    for label in labels:
        _check_label(label, joined, splits)
    return LabelledClips(tuple(sets), joined, labels)


def parts(columns: Columns) -> list[NDArray[np.int64]]:
    """Rows of train, valid and test."""
    splits = np.array(columns.text("split"), dtype=object)
    return [np.flatnonzero(splits == name) for name in SPLITS]


def clip_features(
    clips: LabelledClips, blocks: Mapping[int, ClipExtractor], report: Callable[[int, int], None] = lambda *_: None
) -> dict[int, dict[str, Floats]]:
    """Features of each clip, the mean of its windows, by block: `all`, and `frames` and `sound` where it has both.

    Args:
        clips: The clips.
        blocks: Extractors of one encoder, each of another block.
        report: Told how many clips are done, of how many.

    Returns:
        By block and part float32 [N, D], in the order of `clips.columns`; NaN where a clip has no sound.
    """
    seen: dict[int, list[Floats]] = {layer: [] for layer in blocks}
    heard: dict[int, list[Floats]] = {layer: [] for layer in blocks}
    cut = next(iter(blocks.values()))
    for shards, columns in clips.sets:
        reader = ShardReader(ShardIndex.open(shards))
        for sample in columns.samples.tolist():
            windows = list(sample_windows(reader.read(sample), cut.model, cut.windows))
            # The last window may be mostly held frames: whole ones speak for the clip where there are any.
            windows = [window for window in windows if window.real == 1] or windows
            for layer, extractor in blocks.items():
                rows = extractor.of_windows(windows)
                seen[layer].append(rows.video.mean(axis=0))
                if rows.sound is not None and rows.has_sound is not None:
                    known = rows.sound[rows.has_sound]
                    heard[layer].append(known.mean(axis=0) if len(known) else np.full(rows.sound.shape[1:], np.nan))
            report(len(seen[next(iter(blocks))]), len(clips.columns))
    return {layer: _joined(seen[layer], heard[layer]) for layer in blocks}


def _joined(seen: list[Floats], heard: list[Floats]) -> dict[str, Floats]:
    frames = np.stack(seen).astype(np.float32)
    if not heard:
        return {"all": frames}
    sound = np.stack(heard).astype(np.float32)
    return {"all": np.concatenate([frames, sound], axis=1), "frames": frames, "sound": sound}


def _splits(columns: Columns, data: Path) -> NDArray[np.object_]:
    splits = np.array(columns.require("split", "that says who trains"), dtype=object)
    for name in SPLITS:
        if not (splits == name).any():
            raise UsageError(
                f"no clips of split {name!r} in {data.name}", expected=", ".join(SPLITS), fix="pack more persons"
            )
    return splits


def _check_label(label: str, columns: Columns, splits: NDArray[np.object_]) -> None:
    texts = np.array([text or "" for text in columns.text(label)], dtype=object)
    for name, least in zip(SPLITS, (2, 1, 1), strict=True):
        values = set(texts[splits == name]) - {""}
        if len(values) < least:
            raise UsageError(
                f"label {label!r} has {len(values)} values in the clips of split {name!r}",
                expected=f"at least {least}",
                fix="pack more clips",
            )


def _join(tables: list[Columns]) -> Columns:
    names = dict.fromkeys(name for table in tables for name in table.values)
    values = {
        name: [value for table in tables for value in table.values.get(name, [None] * len(table))] for name in names
    }
    return Columns(np.concatenate([table.samples for table in tables]), values)
