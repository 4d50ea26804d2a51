"""Clips that lie in a shard set as stills: samples that share a value of a column, in the order of their frames."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae_probes.tasks.columns import Columns
from facemae_probes.tasks.units import SOURCES, tells

SAME = ("split", "subject")
"""Columns that have one value a clip, beside the labels and the source where that is more than each frame's file."""


@dataclass(frozen=True)
class ClipColumns:
    """Which column tells clips apart, and which orders their frames.

    Attributes:
        clip: Samples with one value are the frames of one clip; samples without a value are left out.
        frame: Column of frame numbers or times; None takes the order of keys, whole numbers in them by value.
    """

    clip: str
    frame: str | None = None


def as_clips(columns: Columns, how: ClipColumns, labels: list[str]) -> tuple[Columns, dict[int, NDArray[np.int64]]]:
    """One row a clip in place of one row a frame.

    Args:
        columns: Metadata of frames.
        how: What makes a clip.
        labels: Label columns, which must agree in all frames of a clip.

    Returns:
        Columns with the values of each clip's first frame, the clip's name as its key; and for each sample that stands
        for a clip its frames in order, as indices into the shard set.

    Raises:
        ProbeError: A column is missing, frames have no finite number, or a clip has a number twice, or two labels,
            splits, subjects or sources.
    """
    names = columns.require(how.clip, "of clips")
    order = _order(columns, how, names)
    members: dict[str, list[int]] = {}
    for row in order:
        if (name := names[row]) is not None:
            members.setdefault(name, []).append(row)
    if not members:
        raise ProbeError(f"column {how.clip!r} has no value", expected="the clip of each frame")
    sources = [name for name in SOURCES if name in columns.values and tells(columns.text(name))]
    texts = {name: columns.text(name) for name in (*labels, *SAME, *sources) if name in columns.values}
    for clip, rows in members.items():
        for name, column in texts.items():
            found = {column[row] for row in rows}
            if len(found) > 1:
                shown = ", ".join(sorted(str(value) for value in found)[:3])
                raise ProbeError(f"clip {clip!r} has several values of {name!r}: {shown}", expected="one value a clip")
    # In the order of the shard set, as the rows of other tasks are.
    listed = sorted(members.items(), key=lambda entry: entry[1][0])
    first = columns.take(np.array([rows[0] for _, rows in listed], dtype=np.int64))
    values: dict[str, list[Any]] = {**first.values, "key": [name for name, _ in listed]}
    frames = {int(columns.samples[rows[0]]): columns.samples[np.array(rows, dtype=np.int64)] for _, rows in listed}
    return Columns(first.samples, values), frames


def _order(columns: Columns, how: ClipColumns, clips: Sequence[str | None]) -> list[int]:
    """Rows in the order of frames, clips mixed."""
    if how.frame is None:
        keys = [_natural(str(key)) for key in columns.values["key"]]
        return sorted(range(len(columns)), key=lambda row: keys[row])
    times = []
    for row, text in enumerate(columns.require(how.frame, "of frame numbers")):
        try:
            time = float(text or "")
        except ValueError:
            time = math.nan
        if not math.isfinite(time):
            key = columns.values["key"][row]
            raise ProbeError(f"sample {key} has the frame {text!r}", expected=f"a finite number in {how.frame!r}")
        times.append(time)
    for (clip, time), count in Counter(zip(clips, times, strict=True)).items():
        if clip is not None and count > 1:
            found = f"clip {clip!r} has {count} frames with {time:g} in {how.frame!r}"
            raise ProbeError(found, expected="a number of its own for every frame of a clip")
    return sorted(range(len(columns)), key=lambda row: times[row])


def _natural(key: str) -> list[tuple[str, int]]:
    """A key by which `v1_2` comes before `v1_10`: texts and the whole numbers behind them; equal ones as they are."""
    parts = re.split("([0-9]+)", key)
    numbers = [*(int(part) for part in parts[1::2]), -1]
    return [*zip(parts[::2], numbers, strict=True), (key, 0)]
