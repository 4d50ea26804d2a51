"""Sound streams of any container to mono pieces with their times, by FFmpeg through PyAV."""

import contextlib
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from facemae.errors import DecodeError
from facemae.extras import needs_extra
from facemae.files import storage_errors
from facemae.sound.wave import Wave

with needs_extra("video", "decoding sound"):
    import av
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,mxf,dv,h264,hevc,m4v,ivf,gif,mjpeg,"
    "wav,w64,aiff,caf,au,flac,mp3,aac,ogg,ac3,eac3,amr,ape,wv,tta"
)
"""What bytes may be taken for. FFmpeg would also take text for a picture of it, and playlists for what they name."""

_FAR, _NEAR, _AHEAD = 0.5, 0.05, 2
"""Seconds from where it is due that make a time stamp doubtful; within which those behind it stand where they are due
if it is wrong; and how many of those are looked at."""

_FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}


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
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    with storage_errors(path, "reading"):
        size = path.stat().st_size
        with path.open("rb"):
            pass
    if not size:
        raise DecodeError(f"{path}: the file has zero bytes", expected="a file with sound")
    try:
        # With its scheme: a name with a colon is no address. Titles are in any encoding, and nobody reads them.
        container = av.open(f"file:{path}", container_options=options, metadata_errors="replace")
    except (av.FFmpegError, IndexError) as error:  # IndexError: streams without a header
        _check_readable(path, error)
        raise DecodeError(
            f"{path}: no sound or video file that FFmpeg knows: {_reason(error)} ({size} bytes)",
            expected="a whole file: mp4, mov, mkv, webm, avi, mpg, wav, flac, mp3, ogg, m4a, …",
        ) from error
    with container:
        yield container


def sound_stream(container: InputContainer) -> AudioStream | None:
    """The first sound stream that can be decoded, or None."""
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def has_pictures(container: InputContainer) -> bool:
    """Whether the container has a video; the cover of a music file is none."""
    return any(not stream.disposition & av.stream.Disposition.attached_pic for stream in container.streams.video)


def pieces(
    container: InputContainer,
    stream: AudioStream,
    damaged: Callable[[str], None],
    joint: tuple[int, int] | None = None,
) -> Iterator[Piece]:
    """All of a stream, packet by packet.

    Priming that the container declares (edit list of mp4, codec delay of Matroska, the tag of LAME) is left out by
    FFmpeg, and the times are those of the samples that remain.

    Args:
        container: An open file.
        stream: Its sound stream.
        damaged: Told in words of each packet that does not decode, and of a file that cannot be read on.
        joint: Bytes of the file between which another begins, whose sound is left out; None: all is one file.

    Yields:
        Pieces of at least one sample, of bounded length.
    """
    packets, last = container.demux(stream), -math.inf
    while True:
        try:
            packet = next(packets, None)
            if packet is not None and joint is not None:
                if _behind(packet, last, joint):
                    return
                last = last if packet.pts is None else packet.pts
            frames = [] if packet is None else packet.decode()
        except av.FFmpegError as error:
            _check_readable(Path(container.name.removeprefix("file:")), error)
            damaged(_reason(error))
            if not isinstance(error, av.InvalidDataError):
                return
            continue
        if packet is None:
            return
        for frame in frames:
            if isinstance(frame, AudioFrame) and frame.samples:
                yield _piece(frame)


def mended(found: Iterator[Piece], count: Callable[[], None]) -> Iterator[Piece]:
    """Pieces of which one or two among others have time stamps far off are given none: they go on from those before.

    Such a stamp would else be followed: silence as far as there, and none of the sound that stands before it.

    Args:
        found: What `pieces` gives.
        count: Called for each stamp that is taken away.
    """
    ahead: deque[Piece] = deque()
    end: float | None = None
    while True:
        ahead.extend(itertools.islice(found, 1 + _AHEAD - len(ahead)))
        if not ahead:
            return
        piece = ahead.popleft()
        if piece.time is not None and end is not None and abs(piece.time - end) > _FAR and _go_on(piece, ahead, end):
            count()
            piece = replace(piece, time=None)
        if piece.time is not None or end is not None:
            end = (end or 0.0 if piece.time is None else piece.time) + len(piece.wave) / piece.rate
        yield piece


def _go_on(piece: Piece, ahead: Iterable[Piece], end: float) -> bool:
    """Whether pieces behind this one stand where they would if it had begun at `end`."""
    due = end + len(piece.wave) / piece.rate
    for other in ahead:
        if other.time is not None and abs(other.time - due) < _NEAR:
            return True
        due += len(other.wave) / other.rate
    return False


def _behind(packet: "Packet[AudioStream]", last: float, joint: tuple[int, int]) -> bool:
    """Whether a packet lies behind the joint; between its two bytes time stamps tell, if there was sound before."""
    if packet.pos is None or packet.pos <= joint[0]:
        return False
    return packet.pos >= joint[1] or packet.pts is None or packet.pts < last or math.isinf(last)


def _check_readable(path: Path, error: Exception) -> None:
    """Tell a device that fails from a file that is damaged: FFmpeg reports an I/O error for some of either.

    Raises:
        StorageError: The file cannot be read to its end.
    """
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, OSError):
        with storage_errors(path, "reading"), path.open("rb") as file:
            while file.read(1 << 20):
                pass


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


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
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    # Channel by channel: ten times as fast as NumPy's mean over so short an axis.
    total = values[0].astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    for channel in values[1:]:
        total += channel
    total /= len(values)
    kind = frame.format.name.removesuffix("p")
    if kind == "u8":
        total -= 128
    return np.asarray(total / _FULL_SCALE.get(kind, 1.0), np.float32)
