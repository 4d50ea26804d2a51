"""Sound streams of any container to mono pieces with their times, by FFmpeg through PyAV."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facemae.errors import DecodeError
from facemae.extras import needs_extra
from facemae.files import storage_error

with needs_extra("video", "decoding sound"):
    import av
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

Wave = NDArray[np.float32]

_FULL_SCALE = {"s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}


@dataclass(frozen=True)
class Piece:
    """Some samples as they came out of the decoder."""

    time: float | None
    """Seconds of the first sample on the container's time line, after encoder priming is left out."""
    rate: int
    """Samples a second."""
    wave: Wave
    """float32 [N], the mean of the channels."""
    invalid: int
    """Samples that were no numbers and are now zero."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a file of any container that FFmpeg knows; its name does not matter.

    Only local files are read: a playlist that names an address, or another file by a protocol, does not open.

    Raises:
        DecodeError: The file is empty or no container of sound or video.
        StorageError: It cannot be read.
    """
    try:
        size = path.stat().st_size
        if not size:
            raise DecodeError(f"{path}: the file has zero bytes", expected="a file with sound")
        # An absolute path, since `a:b.wav` would be a protocol called `a`.
        container = av.open(str(path.resolve()), container_options={"protocol_whitelist": "file"})
    except av.FFmpegError as error:
        if isinstance(error, OSError) and not isinstance(error, ValueError):
            raise storage_error(error, path, "reading") from error
        raise DecodeError(
            f"{path}: no sound or video file that FFmpeg knows: {error.strerror} ({size} bytes)",
            expected="a whole file: mp4, mov, mkv, webm, avi, mpg, wav, flac, mp3, ogg, m4a, …",
        ) from error
    except OSError as error:
        raise storage_error(error, path, "reading") from error
    with container:
        yield container


def sound_stream(container: InputContainer) -> AudioStream | None:
    """The first sound stream that can be decoded, or None."""
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def has_pictures(container: InputContainer) -> bool:
    """Whether the container has a video; the cover of a music file is none."""
    return any(not stream.disposition & av.stream.Disposition.attached_pic for stream in container.streams.video)


def pieces(container: InputContainer, stream: AudioStream, damaged: Callable[[str], None]) -> Iterator[Piece]:
    """All of a stream, packet by packet.

    Priming that the container declares (edit list of mp4, codec delay of Matroska, the tag of LAME) is left out by
    FFmpeg, and the times are those of the samples that remain.

    Args:
        container: An open file.
        stream: Its sound stream.
        damaged: Told in words of each packet that does not decode, and of a file that cannot be read on.

    Yields:
        Pieces of at least one sample, of bounded length.
    """
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            frames = [] if packet is None else packet.decode()
        except av.FFmpegError as error:
            damaged(str(error.strerror))
            if _is_last(error):
                return
            continue
        if packet is None:
            return
        for frame in frames:
            if isinstance(frame, AudioFrame) and frame.samples:
                yield _piece(frame)


def _is_last(error: "av.FFmpegError") -> bool:
    """Whether nothing can come after an error: the file itself failed, not one packet of it."""
    return not isinstance(error, av.InvalidDataError)


def _piece(frame: AudioFrame) -> Piece:
    time = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
    wave = mono(frame)
    valid = np.isfinite(wave)
    invalid = wave.size - int(np.count_nonzero(valid))
    return Piece(time, frame.sample_rate, np.where(valid, wave, np.float32(0)) if invalid else wave, invalid)


def mono(frame: AudioFrame) -> Wave:
    """The mean of a frame's channels.

    Whole numbers are scaled so that their least value is -1; fractions stay as they are. The channels weigh the same,
    whatever loudspeaker they are meant for.

    Returns:
        float32 [N].
    """
    name = frame.format.name
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    wave = values.mean(axis=0, dtype=np.float64 if values.dtype.itemsize > 2 else np.float32)
    if name.startswith("u8"):
        wave = (wave - 128) / 128
    elif name.removesuffix("p") in _FULL_SCALE:
        wave = wave / _FULL_SCALE[name.removesuffix("p")]
    return np.asarray(wave, np.float32)
