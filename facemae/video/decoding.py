"""Opening containers and decoding their frames, with what is damaged left out and noted."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facemae.errors import DecodeError
from facemae.video.library import pyav

if TYPE_CHECKING:
    import av

MAX_PIXELS = 64_000_000
"""Largest frame that is decoded, as for still images; eight times the pixels of 4K video. A header can claim more."""

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg,h264,hevc,m4v,ivf,mxf,dv,gif,mjpeg"
)
"""What bytes may be taken for. FFmpeg would also take text for a picture of it, and playlists for what they name."""

_MISSING = 2.5
"""Frames, at the average rate, that a stated duration may be longer without being damage."""

_PATIENCE = 32
"""So many failures of the demultiplexer, one after another, end the file."""


class Damage:
    """What was found wrong in a file, counted; one text says it.

    Attributes:
        left_out: Frames that were decoded but are not given, since what they build on is damaged.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._counts: dict[str, int] = {}

    def note(self, what: str) -> None:
        """Count one finding."""
        self._counts[what] = self._counts.get(what, 0) + 1

    @property
    def text(self) -> str | None:
        """One line, or None where nothing was found."""
        parts = [what if count == 1 else f"{what} ({count} times)" for what, count in self._counts.items()]
        if self.left_out:
            parts.append(f"{self.left_out} frames after damage are left out")
        return "; ".join(parts) or None


def open_container(source: Any, name: str, *, max_pixels: int) -> "av.container.InputContainer":
    """Open a video by its content, whatever its name ends in. What it gives is a context manager.

    Args:
        source: Path of a file, or a binary file object.
        name: What the video is called in messages.
        max_pixels: Decoders refuse larger frames.

    Raises:
        DecodeError: No known container, or one whose header is damaged.
    """
    library = pyav()
    settings = {"format_whitelist": FORMATS, "max_pixels": str(max_pixels)}
    if isinstance(source, Path):
        # With its scheme: a name with a colon is no address, and nothing is fetched from anywhere.
        source, settings["protocol_whitelist"] = f"file:{source}", "file"
    try:
        container: av.container.InputContainer = library.open(source, "r", options=settings, metadata_errors="replace")
    except (library.error.FFmpegError, IndexError) as error:
        # PyAV raises an IndexError for containers whose streams have no header.
        if isinstance(error, library.error.MemoryError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise DecodeError(
            f"{name}: no video file, or its header is damaged ({reason})",
            expected="H.264, HEVC, VP9, MPEG-1, 2 or 4 in mp4, mov, mkv, webm, avi or mpg",
        ) from error
    return container


def video_stream(container: "av.container.InputContainer", name: str, *, max_pixels: int) -> "av.VideoStream":
    """The moving picture of a container: not its cover, and whatever the place of its sound.

    Raises:
        DecodeError: There is none, its codec is unknown, or its frames are too large.
    """
    cover = pyav().stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    best = container.streams.best("video")
    stream = best if best in streams else next(iter(streams), None)
    if stream is None:
        held = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise DecodeError(f"{name}: holds no video stream ({held})", expected="a file with a moving picture")
    context = stream.codec_context
    if context is None:
        raise DecodeError(f"{name}: its video is in a codec that FFmpeg does not know")
    if context.width * context.height > max_pixels:
        raise DecodeError(
            f"{name}: the header claims {context.width} x {context.height} pixels",
            expected=f"at most {max_pixels} pixels",
            fix="shrink the video before packing",
        )
    # One thread: the same frames everywhere, none held back; many files are spread over processes instead.
    context.thread_count = 1
    # Otherwise missing parts of a picture are made up from its neighbours, and no one is told.
    context.options = {"err_detect": "explode", "max_pixels": str(max_pixels)}
    context.copy_opaque = True
    found: av.VideoStream = stream
    return found


def decoded_frames(
    container: "av.container.InputContainer", stream: "av.VideoStream", damage: Damage
) -> "Generator[av.VideoFrame]":
    """All intact frames of a stream in presentation order.

    A packet that is cut off or does not decode is left out, with the frames that follow it up to the next key frame,
    since they build on it. `opaque` of each frame holds the number of its packet, and the packet's byte in the file.

    Args:
        container: Where the stream lies; it is read once, from where it stands.
        stream: What `video_stream` gave.
        damage: Receives what is found.
    """
    broken: int | None = None  # the last damaged packet, while no key frame has come after it
    for number, packet in enumerate(_packets(container, stream, damage)):
        frames = _decode(stream, packet, number, damage)
        if frames is None:
            broken = number
        for frame in frames or ():
            # Frames come in another order than packets: what was sent before the damage is whole.
            place = frame.opaque[0] if isinstance(frame.opaque, tuple) else number
            if frame.is_corrupt:
                damage.note("a frame is incomplete")
                broken = place if broken is None else max(broken, place)
            elif broken is not None and place > broken and frame.key_frame:
                broken = None
            if broken is None or place < broken:
                yield frame
            else:
                damage.left_out += 1


def _decode(
    stream: "av.VideoStream", packet: "av.Packet[av.VideoStream] | None", number: int, damage: Damage
) -> "list[av.VideoFrame] | None":
    """Frames that come out of the decoder when a packet goes in; None where it is damaged."""
    av = pyav()
    if packet is not None:
        if packet.is_corrupt:
            damage.note("a packet is cut off or out of sequence")
            return None
        packet.opaque = number, packet.pos
    try:
        return stream.decode(packet)
    except av.error.EOFError:
        return []
    except av.error.MemoryError:
        raise
    except av.error.FFmpegError as error:
        damage.note(f"a packet does not decode: {error.strerror}")
        return None


def _packets(
    container: "av.container.InputContainer", stream: "av.VideoStream", damage: Damage
) -> "Iterator[av.Packet[av.VideoStream] | None]":
    """Packets up to the end of the file, and None, which empties the decoder."""
    av = pyav()
    count, failures, end = 0, 0, 0.0
    reading = container.demux(stream)
    while failures < _PATIENCE:
        try:
            packet = next(reading)
        except StopIteration:
            break
        except av.error.MemoryError:
            raise
        except av.error.FFmpegError as error:
            if failures == 0:
                damage.note(f"the file cannot be read on after {count} packets: {error.strerror}")
            failures += 1
            reading = container.demux(stream)
            continue
        failures = 0
        if packet.size:
            count += 1
            if packet.pts is not None and packet.time_base is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            yield packet
    _check_end(container, stream, count, end, damage)
    yield None


def _check_end(
    container: "av.container.InputContainer", stream: "av.VideoStream", count: int, end: float, damage: Damage
) -> None:
    """Compare what was read with what the header states, where it was written with the header."""
    promised = len(stream.index_entries) if stream.frames else 0
    if count < promised:
        damage.note(f"the file ends after {count} of {promised} packets")
    if "matroska" not in container.format.name:
        return
    stated = _seconds(stream.metadata.get("DURATION", ""))
    if stated is None and len(container.streams) == 1 and container.duration:
        stated = container.duration / 1_000_000
    if stated is not None and end < stated - _MISSING / float(stream.average_rate or 25):
        damage.note(f"the file ends at {end:.2f} of {stated:.2f} seconds")


def _seconds(text: str) -> float | None:
    """Seconds of Matroska's `HH:MM:SS.fraction`."""
    try:
        hours, minutes, seconds = (float(part) for part in text.split(":"))
    except ValueError:
        return None
    return 3600 * hours + 60 * minutes + seconds
