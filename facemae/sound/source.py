"""The sound of a video, or of a file beside it, as one mono wave on the video's time line, streamed."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from facemae.errors import DataError, DecodeError
from facemae.extras import needs_extra
from facemae.sound.decoding import Piece, has_pictures, mended, opened, pieces, sound_stream
from facemae.sound.level import level
from facemae.sound.resample import StreamResampler, shared_grid
from facemae.sound.riff import wav_damage
from facemae.sound.timeline import Laid, TimeLine, TimeStampError
from facemae.sound.wave import Wave

with needs_extra("video", "decoding sound"):
    import av
    from av.audio.stream import AudioStream
    from av.container import InputContainer

BLOCK = 16384
"""Samples in every block but the last."""

_ESTIMATED = {"mp3", "aac", "ac3", "eac3", "amr", "mpeg", "mpegts"}
"""Containers that do not declare how long they are; FFmpeg's guess is no ground to call a file cut off."""


@dataclass(frozen=True)
class SoundInfo:
    """What a file says of its sound."""

    rate: int
    """Samples a second, as decoded: headers of HE-AAC declare half of it."""
    channels: int
    """Channels that were averaged."""
    codec: str
    """FFmpeg's name: "aac", "pcm_s16le"."""
    duration: float | None
    """Seconds the stream declares, else the whole file declares or FFmpeg estimates; None where nothing does."""
    start: float
    """Seconds after zero at which the sound starts; negative where it starts before the video."""


@dataclass
class SoundReport:
    """What reading found; complete once all blocks are read."""

    laid: Laid = field(default_factory=Laid)
    """Gaps filled and overlaps cut, in samples of the source."""
    level: float = float("-inf")
    """Peak of the resulting wave, dBFS; under `level.SILENT` the track counts as silent."""
    clipped: int = 0
    """Samples beyond [-1, 1] that were set to its ends: loud codecs, and the resampler between loud samples."""
    invalid: int = 0
    """Samples of the file that were no numbers; they are silence."""
    mended: int = 0
    """Pieces that stood elsewhere by their time stamp, alone or by two, and go on from those before."""
    damage: list[str] = field(default_factory=list)
    """What was wrong with the file, in words, one entry a kind."""


class SoundSource:
    """The sound of one file, mono at one rate, on the video's time line.

    Sample n of the blocks stands at n / rate seconds after the origin. Sound that starts later has silence in front,
    sound before the origin is cut, gaps in the time stamps are silence, overlaps are cut; each is counted in `report`.
    A sound sample of the source stands where its time stamp says, rounded to a sample of the source. The channels are
    averaged. The first sound stream is taken. Memory does not grow with the length of the file.

    Args:
        path: A video or a sound file; its extension does not matter.
        rate: Samples a second of the result.
        origin: Seconds from the container's zero to the presentation of the video's first frame. A file without
            video has its own zero: its first sample after the encoder's priming; the origin counts from there.
        joint: Where in the file another begins, whose sound is not taken: `facemae.video.source.VideoSource.joint`.
        until: Seconds that the video lasts, up to which any pause of the sound is one; longer than
            `facemae.sound.timeline.MAX_GAP` and behind it, it is taken for a broken time stamp, where the sound ends.

    Raises:
        DataError: The file has no sound (see `has_sound`).
        DecodeError: The file is empty, is no sound or video, or no part of its sound decodes.
        StorageError: The file cannot be read.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        rate: int,
        origin: float = 0.0,
        joint: tuple[int, int] | None = None,
        until: float = 0.0,
    ) -> None:
        if rate <= 0:
            raise ValueError(f"rate is {rate}; samples a second are above zero")
        self.path = Path(path)
        self.rate = rate
        self.origin = origin
        self.joint = joint
        self.until = until
        self.report = SoundReport()
        first = _first(self.path)
        if first is None:
            raise DataError(
                f"{self.path}: no sound in this file", expected="a sound stream with samples", fix="ask has_sound first"
            )
        self._zero = origin if first.pictures else first.time + origin
        self._declared_end = None if first.end is None else first.end - self._zero
        self.info = SoundInfo(first.rate, first.channels, first.codec, first.duration, first.time - self._zero)

    @property
    def damage(self) -> str | None:
        """What was wrong with the file, once all blocks are read; None for a whole file."""
        return "; ".join(self.report.damage) or None

    @property
    def silences(self) -> list[tuple[float, float]]:
        """Start and end in seconds of all that was filled before the sound's end, once all blocks are read."""
        return [(start / self.info.rate, end / self.info.rate) for start, end in self.report.laid.silences]

    def blocks(self) -> Iterator[Wave]:
        """The sound from the origin to its end; reads the file anew each time and starts a new `report`.

        A broken tail ends the sound where it breaks; `damage` says so.

        Yields:
            float32 [`BLOCK`], the last one shorter. The length of the whole is that of the sound, whatever the video's.

        Raises:
            StorageError: The file cannot be read.
        """
        self.report = SoundReport()
        for block in _equal_blocks(self._resampled(), BLOCK):
            self.report.clipped += int(np.count_nonzero(np.abs(block) > 1))
            self.report.level = max(self.report.level, level(block))
            yield np.clip(block, -1, 1)

    def read(self) -> Wave:
        """The whole sound at once; memory grows with its length.

        Returns:
            float32 [N].
        """
        return np.concatenate([np.zeros(0, np.float32), *self.blocks()])

    def _resampled(self) -> Iterator[Wave]:
        """Laid, with some sound from before the origin for the filter, resampled, and that part taken off again."""
        before, skip = shared_grid(self.info.rate, self.rate)
        stream = StreamResampler(self.info.rate, self.rate)

        def made() -> Iterator[Wave]:
            for wave in self._laid(TimeLine(self.info.rate, -before, self.until)):
                yield stream.feed(wave)
            yield stream.flush()

        for wave in made():
            yield wave[skip:]
            skip -= min(skip, len(wave))

    def _laid(self, line: TimeLine) -> Iterator[Wave]:
        self.report.laid = line.laid
        for number, piece in enumerate(mended(self._pieces(), self._mended)):
            if number and piece.rate != self.info.rate:
                self._damaged(f"the rate changes from {self.info.rate} to {piece.rate} Hz at {line.end:.3f} s")
                return
            self.report.invalid += piece.invalid
            try:
                yield from line.lay(None if piece.time is None else piece.time - self._zero, piece.wave)
            except TimeStampError as error:
                self._damaged(str(error))
                return
        self._check_end(line.end)

    def _pieces(self) -> Iterator[Piece]:
        with opened(self.path) as container:
            stream = sound_stream(container)
            if stream is not None:
                yield from pieces(container, stream, self._damaged, self.joint)

    def _mended(self) -> None:
        self.report.mended += 1

    def _damaged(self, text: str) -> None:
        if text not in self.report.damage:
            self.report.damage.append(text)

    def _check_end(self, end: float) -> None:
        """Compare where the sound ended with what was declared."""
        header = wav_damage(self.path)
        if header:
            self._damaged(header)
            return
        declared = self._declared_end
        # Codecs round up to whole frames, and declared lengths may have the priming in them.
        if declared is not None and end < declared - 0.1 - 4096 / self.info.rate:
            self._damaged(f"the sound ends at {end:.2f} s of {declared:.2f} s declared")


def has_sound(path: str | Path) -> bool:
    """Whether a file has a sound stream with at least one sample; silence is sound.

    Raises:
        DecodeError: The file is empty, is no sound or video, or its sound stream does not decode at all.
        StorageError: The file cannot be read.
    """
    return _first(Path(path)) is not None


@dataclass(frozen=True)
class _First:
    """A file's first piece of sound and what its headers say, in seconds on the container's time line."""

    time: float
    rate: int
    channels: int
    codec: str
    duration: float | None
    end: float | None
    pictures: bool


def _first(path: Path) -> _First | None:
    damage: list[str] = []
    with opened(path) as container:
        stream = sound_stream(container)
        decoded = iter(()) if stream is None else pieces(container, stream, damage.append)
        piece = next(decoded, None)
        if stream is None or piece is None:
            if damage:
                raise DecodeError(f"{path}: no part of its sound decodes: {damage[0]}", expected="a whole file")
            return None
        # Where the rate changes, FFmpeg's decoders label one more frame with the rate that was seen before.
        settled = next(decoded, piece)
        duration, end = _declared(container, stream)
        return _First(
            time=piece.time or 0.0,
            rate=settled.rate,
            channels=stream.codec_context.channels,
            codec=stream.codec_context.name,
            duration=duration,
            end=end,
            pictures=has_pictures(container),
        )


def _declared(container: InputContainer, stream: AudioStream) -> tuple[float | None, float | None]:
    """Duration of the sound as the file says, and the time it ends at if the file knows it for sure; in seconds."""
    kinds = set(container.format.name.split(","))
    whole = None if container.duration is None else container.duration / av.time_base
    duration = end = None
    if stream.duration is not None and stream.time_base is not None:
        duration = float(stream.duration * stream.time_base)
        end = float((stream.start_time or 0) * stream.time_base) + duration
    elif "DURATION" in stream.metadata:  # Matroska, as FFmpeg and mkvmerge write it: 00:00:03.021000000
        hours, minutes, seconds = ([0.0, 0.0] + [float(part) for part in stream.metadata["DURATION"].split(":")])[-3:]
        duration = end = 3600 * hours + 60 * minutes + seconds
    return duration or whole, None if _ESTIMATED & kinds else end


def _equal_blocks(waves: Iterator[Wave], size: int) -> Iterator[Wave]:
    """The same samples in blocks of one size, each with memory of its own."""
    held: list[Wave] = []
    count = 0
    for wave in waves:
        while len(wave):
            part = wave[: size - count]
            held.append(part)
            count += len(part)
            wave = wave[len(part) :]
            if count == size:
                yield np.concatenate(held)
                held, count = [], 0
    if count:
        yield np.concatenate(held)
