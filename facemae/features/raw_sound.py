"""The sound of a video or of a file, streamed to the windows that lie above it."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from facemae.data.clips.sound_track import TOLD
from facemae.sound.blocks import BlockReader
from facemae.sound.level import SILENT, level
from facemae.sound.resample import StreamResampler
from facemae.sound.source import BLOCK, SoundSource
from facemae.sound.wave import Wave, rounded_to_16_bits

Stretch = tuple[float, float]
"""Seconds on the video's clock: start and end."""


class RawSound:
    """The sound of one file. It is read once to know it, and once for each walk through its windows.

    Args:
        path: A video or a sound file.
        origin: Time of the video's first frame on the file's time line; 0 for a file of sound alone.
        rate: Samples a second at which it is kept, as packing does.
        heard: Samples a second that the model hears.
        joint: See `facemae.sound.source.SoundSource`.

    Attributes:
        seconds: From the video's first frame to the end of the sound.
        notes: What a user must know of it.

    Raises:
        DataError: The file has no sound.
        DecodeError: No part of its sound decodes.
        StorageError: The file cannot be read.
    """

    def __init__(
        self, path: Path, *, origin: float, rate: int, heard: int, joint: tuple[int, int] | None = None
    ) -> None:
        self.source = SoundSource(path, rate=rate, origin=origin, joint=joint)
        self._rate, self._heard = rate, heard
        self.seconds = sum(len(block) for block in self.source.blocks()) / rate
        self.silent = self.source.report.level < SILENT
        self.notes = list(self._remarks())

    def _remarks(self) -> Iterator[str]:
        laid = self.source.report.laid
        if self.silent:
            yield "a silent track, which counts as none"
        elif self.source.info.start > TOLD:
            yield f"the sound begins {self.source.info.start:.2f} s after the picture"
        if laid.filled / self.source.info.rate > TOLD:
            yield f"{laid.filled / self.source.info.rate:.2f} s of gaps in the sound are silence"
        if self.source.damage:
            yield self.source.damage

    def audible(self, stretches: Sequence[Stretch]) -> list[bool]:
        """Whether anything in each stretch is loud enough to be sound, as packing decides it; reads the file once.

        Args:
            stretches: As for `walk`.
        """
        if self.silent:
            return [False] * len(stretches)
        whole = BlockReader(self.source.blocks())
        return [
            max(level(block) for block in self._stored(whole, stretch)) >= SILENT if stretch[1] > stretch[0] else False
            for stretch in stretches
        ]

    def walk(self, stretches: Iterable[Stretch]) -> Iterator[BlockReader]:
        """The sound of each stretch, cut off at its ends, at the rate that the model hears.

        Args:
            stretches: Rising in time, none overlapping another. A reader is used before the next is asked for.
        """
        whole = BlockReader(self.source.blocks())
        for stretch in stretches:
            yield BlockReader(self._resampled(self._stored(whole, stretch)))

    def _stored(self, whole: BlockReader, stretch: Stretch) -> Iterator[Wave]:
        first, stop = (round(moment * self._rate) for moment in stretch)
        for begin in range(first, stop, BLOCK):
            yield rounded_to_16_bits(whole.take(begin, min(BLOCK, stop - begin)))

    def _resampled(self, blocks: Iterable[Wave]) -> Iterator[Wave]:
        stream = StreamResampler(self._rate, self._heard)
        for block in blocks:
            yield stream.feed(block)
        yield stream.flush()
