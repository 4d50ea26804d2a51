"""Clips as they are stored in shards: JPEG files one behind another, or a short H.264 file.

The same frames give the same bytes, in one thread, without dates or names of encoders. Which of the two is the default,
and what each costs, is in ``docs/decisions/0041-stored-clips.md``.
"""

import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, Literal

import simplejpeg

from facemae.errors import DataError
from facemae.video.library import pyav
from facemae.video.picture import Pixels

Kind = Literal["mjpeg", "mp4"]
Chroma = Literal["420", "444"]

_MATRIX_601, _LIMITED = 5, 1
_TAG_601 = 6
_RATE_DIGITS = 1001


@dataclass(frozen=True)
class Storage:
    """How a clip is stored.

    Attributes:
        kind: `mjpeg` or `mp4`; also the extension of the member.
        quality: JPEG quality, 1 to 100, for mjpeg.
        chroma: Colour at half (`420`) or at full resolution (`444`), for mjpeg. mp4 has 4:2:0.
        crf: Constant rate factor of H.264 for mp4: 0 to 51, smaller is better.
        gop: Frames from one key frame to the next, for mp4.
        preset: Effort of x264.
    """

    kind: Kind = "mjpeg"
    quality: int = 90
    chroma: Chroma = "420"
    crf: int = 18
    gop: int = 12
    preset: str = "medium"

    def __post_init__(self) -> None:
        if self.kind not in ("mjpeg", "mp4"):
            raise DataError(f"no way to store clips is called {self.kind!r}", expected="mjpeg or mp4")
        if self.chroma not in ("420", "444"):
            raise DataError(f"chroma is {self.chroma!r}", expected="420 or 444")
        for name, low, high in (("quality", 1, 100), ("crf", 0, 51), ("gop", 1, 1000)):
            if not low <= getattr(self, name) <= high:
                raise DataError(f"{name} of stored clips is {getattr(self, name)}", expected=f"{low} to {high}")


@dataclass(frozen=True)
class Written:
    """What was written of a clip.

    Attributes:
        count: Frames.
        size: Bytes.
        sizes: Bytes of each JPEG, for the sample's metadata, so that any frame can be read alone; None for mp4.
    """

    count: int
    size: int
    sizes: tuple[int, ...] | None


def write_clip(frames: Iterable[Pixels], target: BinaryIO, *, fps: float | Fraction, storage: Storage) -> Written:
    """Encode a clip, frame by frame: as mjpeg in memory that does not grow with its length, as mp4 in its bytes'.

    Args:
        frames: uint8 RGB [S, S, 3], all of one size; sides even for mp4.
        target: Receives the bytes, from where it stands on.
        fps: Frames a second. mjpeg does not hold it; it belongs into the sample's metadata.
        storage: How.

    Raises:
        DataError: No frames, frames of different sizes, an odd size for mp4, or a rate that is not above zero.
        MissingExtraError: PyAV is not installed, for mp4.
    """
    if not fps > 0:
        raise DataError(f"a clip of {fps} frames a second cannot be stored", expected="a rate above zero")
    checked = _checked(frames, storage)
    return (
        _write_mjpeg(checked, target, storage) if storage.kind == "mjpeg" else _write_mp4(checked, target, fps, storage)
    )


def _checked(frames: Iterable[Pixels], storage: Storage) -> Iterator[Pixels]:
    """The frames, as long as they are as they must be."""
    shape: tuple[int, ...] | None = None
    for number, frame in enumerate(frames):
        if shape is None:
            shape = frame.shape
            if len(shape) != 3 or shape[2] != 3 or frame.dtype != "uint8":
                raise DataError(f"frames are {frame.dtype} {list(shape)}", expected="uint8 [H, W, 3]")
            if storage.kind == "mp4" and (shape[0] % 2 or shape[1] % 2):
                raise DataError(
                    f"frames of {shape[1]} x {shape[0]} pixels cannot be stored as mp4",
                    expected="even sides: its colour has half the resolution",
                    fix="choose an even size, or store as mjpeg",
                )
        elif frame.shape != shape:
            raise DataError(f"frame {number} is {list(frame.shape)}, the first was {list(shape)}", expected="one size")
        yield frame
    if shape is None:
        raise DataError("a clip without frames cannot be stored", expected="at least one frame")


def _write_mjpeg(frames: Iterator[Pixels], target: BinaryIO, storage: Storage) -> Written:
    sizes = []
    for frame in frames:
        data = simplejpeg.encode_jpeg(frame, quality=storage.quality, colorspace="RGB", colorsubsampling=storage.chroma)
        target.write(data)
        sizes.append(len(data))
    return Written(len(sizes), sum(sizes), tuple(sizes))


def _write_mp4(frames: Iterator[Pixels], target: BinaryIO, fps: float | Fraction, storage: Storage) -> Written:
    first = next(frames)
    # Its index can be put in front only once all is there.
    whole = io.BytesIO()
    count = _encode_mp4(itertools.chain([first], frames), whole, first, fps, storage)
    target.write(whole.getbuffer())
    return Written(count, len(whole.getbuffer()), None)


class _Written(io.RawIOBase):
    """What has been written so far, read at a place of its own: the muxer moves the frames behind the index."""

    def __init__(self, whole: io.BytesIO) -> None:
        self._whole, self._place = whole, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        with self._whole.getbuffer() as held:
            found = bytes(held[self._place :] if size < 0 else held[self._place : self._place + size])
        self._place += len(found)
        return found

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        ends = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._whole.getbuffer().nbytes}
        self._place = ends[whence] + offset
        return self._place

    def tell(self) -> int:
        return self._place


def _encode_mp4(
    frames: Iterable[Pixels], whole: io.BytesIO, first: Pixels, fps: float | Fraction, storage: Storage
) -> int:
    av = pyav()
    kinds = av.video.reformatter.Interpolation
    flags = int(kinds.BILINEAR | kinds.ACCURATE_RND | kinds.FULL_CHR_H_INP)
    reformatter = av.video.reformatter.VideoReformatter()
    rate = Fraction(fps).limit_denominator(_RATE_DIGITS)
    count = 0
    options = {"movflags": "faststart", "fflags": "bitexact"}
    with av.open(whole, "w", format="mp4", options=options, io_open=lambda *_: _Written(whole)) as container:
        # Without B-frames packet k is frame k, so a frame is found by its number alone. The rate control's assembly
        # (mbtree) rounds by what lies in memory beside a narrow picture; cpu-independent takes the exact form.
        settings = {
            "crf": str(storage.crf),
            "preset": storage.preset,
            "flags": "+bitexact",
            "x264-params": "scenecut=0:cpu-independent=1",
        }
        stream = container.add_stream("libx264", rate=rate, options=settings)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.thread_count = 1
        context.gop_size, context.max_b_frames = storage.gop, 0
        context.color_range, context.colorspace = _LIMITED, _TAG_601
        for frame in frames:
            picture = reformatter.reformat(
                av.VideoFrame.from_ndarray(frame, format="rgb24"),
                format="yuv420p",
                dst_colorspace=_MATRIX_601,
                dst_color_range=_LIMITED,
                interpolation=flags,
                threads=1,
            )
            picture.pts, picture.time_base, count = count, 1 / rate, count + 1
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return count
