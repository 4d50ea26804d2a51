"""The sound of a video, cut to its clips, in the form in which shards hold it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facemae.data.clips.pieces import Piece
from facemae.sound import store
from facemae.sound.blocks import BlockReader
from facemae.sound.level import SILENT, level
from facemae.sound.source import SoundSource

FLAC = "flac"

LONGER = 0.5
"""Seconds by which a separate sound may differ from its video without a note."""

TOLD = 0.1
"""Seconds of lateness, gaps and overlaps that are not worth a note."""

_LEAST_LEVEL = -120.0
"""dBFS that stands for silence: JSON has no infinity."""


@dataclass(frozen=True)
class Sound:
    """The sound beneath one clip.

    Attributes:
        data: FLAC; None where the clip has none, or silence only.
        meta: What the sample's metadata says of it.
    """

    data: bytes | None
    meta: dict[str, Any]


class SoundTrack:
    """The sound of a video, to be cut to its clips. It is read once to know it, and once for each person.

    Args:
        path: File with the sound: the video, or another beside it.
        origin: Time of the video's first frame on the file's time line; 0 for a separate file, which starts with it.
        rate: Samples a second of the stored sound.
        joint: See `SoundSource`.
        until: Likewise.

    Attributes:
        seconds: From the video's first frame to the end of the sound.
        silent: Whether no sample is loud enough to be sound.

    Raises:
        DataError: The file has no sound.
        DecodeError: No part of its sound decodes.
        StorageError: The file cannot be read.
    """

    def __init__(
        self, path: Path, origin: float, rate: int, joint: tuple[int, int] | None = None, until: float = 0.0
    ) -> None:
        self.source = SoundSource(path, rate=rate, origin=origin, joint=joint, until=until)
        self.rate = rate
        self.seconds = sum(len(block) for block in self.source.blocks()) / rate
        self._silences = self.source.silences
        self.silent = self.source.report.level < SILENT

    def cut(self, pieces: Sequence[Piece], fps: float) -> Iterator[Sound]:
        """The sound of each piece, exactly beneath its frames; silence where the sound had none.

        A piece beneath which there is none, or only silence, has no data, and its metadata says `stored: false`.

        Args:
            pieces: Rising, none overlapping another.
            fps: Frames a second of the clips.
        """
        reader = BlockReader(self.source.blocks())
        for piece in pieces:
            start = round(piece.first / fps * self.rate)
            stop = round((piece.first + piece.count) / fps * self.rate)
            wave = reader.between(start, stop)
            short = stop - start - len(wave)
            padded = np.pad(wave, (0, short))
            missing = round(short / self.rate + self._filled(start / self.rate, stop / self.rate), 3)
            loud = level(padded)
            stored = {"rate": self.rate, "samples": stop - start} if loud >= SILENT else {"stored": False}
            told = {"missing_s": missing} if missing else {}
            meta = {**stored, "level_db": round(max(loud, _LEAST_LEVEL), 1), **told}
            yield Sound(store.encode(padded, self.rate) if loud >= SILENT else None, meta)

    def _filled(self, start: float, stop: float) -> float:
        """Seconds between two times in which the file has no sound, before its end."""
        return sum(max(0.0, min(end, stop) - max(begin, start)) for begin, end in self._silences)
