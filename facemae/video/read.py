"""Frames of stored clips, only those that are wanted."""

import io
import re
import weakref
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

import numpy as np
import simplejpeg

from facemae.errors import DataError, DecodeError
from facemae.video.decoding import MAX_PIXELS, Damage, decoded_frames, open_container, video_stream
from facemae.video.library import pyav
from facemae.video.picture import Orientation, Pixels, ToRgb, orientation_of, square_size

if TYPE_CHECKING:
    import av

_START, _END = 0xD8, 0xD9
_SCAN = 0xDA
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""In the entropy-coded part of a JPEG: 0xFF is followed by zero where it is data, and restarts are part of it."""


class StoredClip(Protocol):
    """A clip of a shard."""

    @property
    def count(self) -> int:
        """Its number of frames."""
        ...

    @property
    def fps(self) -> float | None:
        """Frames a second by the clip's own header; None where it has none."""
        ...

    def frames(self, indices: Sequence[int], channels: int = 3) -> Pixels:
        """Decode some frames.

        Args:
            indices: Their numbers, in any order, also repeated.
            channels: 3 for RGB, 1 for grey (luma of ITU-R BT.601).

        Returns:
            uint8 [T, H, W, C], T as many as indices.

        Raises:
            DecodeError: A wanted frame is damaged.
            IndexError: A number is below zero or not below `count`.
        """
        ...

    def every(self) -> Iterator[Pixels]:
        """All frames one after the other, each decoded once, one held at a time.

        Yields:
            uint8 RGB [H, W, 3].

        Raises:
            DecodeError: One of them is damaged.
        """
        ...


def open_clip(data: bytes, extension: str, *, sizes: Sequence[int] | None = None, name: str) -> StoredClip:
    """Open a stored clip; nothing is decoded yet.

    Args:
        data: The member's bytes.
        extension: `mjpeg` or `mp4`.
        sizes: Bytes of each JPEG, from the sample's metadata. Without them the borders of the frames are searched.
        name: What the sample is called in messages.

    Raises:
        DecodeError: The bytes are no such clip, or are damaged where that shows without decoding.
        DataError: Of another extension.
        MissingExtraError: PyAV is not installed, for mp4.
    """
    if not data:
        raise DecodeError(f"{name}: the clip has zero bytes", expected="an encoded clip")
    if extension == "mjpeg":
        return MjpegClip(data, sizes=sizes, name=name)
    if extension == "mp4":
        return Mp4Clip(data, name=name)
    raise DataError(f"{name}: a clip is stored as {extension!r}", expected="mjpeg or mp4")


class MjpegClip:
    """JPEG files one behind another. See `StoredClip` and `open_clip`."""

    def __init__(self, data: bytes, *, sizes: Sequence[int] | None, name: str) -> None:
        self._data = memoryview(data)
        self._name = name
        self._borders = [0, *accumulate(sizes)] if sizes is not None else list(_borders(data, name))
        if min(np.diff(self._borders), default=0) <= 0 or self._borders[-1] != len(data):
            raise DecodeError(
                f"{name}: its metadata speaks of {len(self._borders) - 1} frames of {self._borders[-1]} bytes together,"
                f" the clip has {len(data)}",
                expected="the sizes that were written with the clip",
            )

    @property
    def count(self) -> int:
        """See `StoredClip`."""
        return len(self._borders) - 1

    def frames(self, indices: Sequence[int], channels: int = 3) -> Pixels:
        """See `StoredClip`."""
        found = {index: self._frame(index, channels) for index in _wanted(indices, self.count, channels)}
        return _stacked(found, indices, self._name)

    @property
    def fps(self) -> float | None:
        """See `StoredClip`."""
        return None

    def every(self) -> Iterator[Pixels]:
        """See `StoredClip`."""
        return (self._frame(index, 3) for index in range(self.count))

    def _frame(self, index: int, channels: int) -> Pixels:
        part = self._data[self._borders[index] : self._borders[index + 1]]
        try:
            height, width = simplejpeg.decode_jpeg_header(part)[:2]
            if height * width > MAX_PIXELS:
                raise _undecodable(self._name, index, f"its header claims {width} x {height} pixels")
            pixels: Pixels = simplejpeg.decode_jpeg(part, "RGB" if channels == 3 else "GRAY", strict=True)
        except ValueError as error:
            raise _undecodable(self._name, index, str(error)) from error
        return pixels


class Mp4Clip:
    """A short H.264 file, or any other video file that came as mp4. See `StoredClip` and `open_clip`.

    In the files of `facemae.video.store` a frame is found by its number: decoding starts at the key frame before it. A
    file with frames in another order than their packets is decoded from its start, and its frames are counted so.
    Frames are given upright and with square pixels.

    Args:
        data: The bytes.
        name: What the sample is called in messages.
        exact: Convert colours exactly (see `facemae.video.picture`).
    """

    def __init__(self, data: bytes, *, name: str, exact: bool = True) -> None:
        self._name = name
        self._to_rgb = ToRgb(exact=exact)
        self._container = open_container(io.BytesIO(data), name, max_pixels=MAX_PIXELS)
        # A container that is dropped without being closed leaves kilobytes behind.
        weakref.finalize(self, self._container.close)
        self._stream = video_stream(self._container, name, max_pixels=MAX_PIXELS)
        self._aspect = float(self._stream.sample_aspect_ratio or 1)
        self._orientation: Orientation | None = None
        entries = [] if self._stream.codec_context.has_b_frames else list(self._stream.index_entries)
        self._stamps = [entry.timestamp for entry in entries]
        self._keys = [number for number, entry in enumerate(entries) if entry.is_keyframe]
        self._seekable = bool(self._keys) and self._keys[0] == 0
        self._count = len(entries) if self._seekable else sum(1 for _ in self._all())
        if not self._count:
            raise DecodeError(f"{name}: none of its frames decodes", expected="a whole video")

    @property
    def count(self) -> int:
        """See `StoredClip`."""
        return self._count

    def frames(self, indices: Sequence[int], channels: int = 3) -> Pixels:
        """See `StoredClip`."""
        wanted = _wanted(indices, self.count, channels)
        found: dict[int, Pixels] = {}
        reading = self._forward(wanted) if self._seekable else self._all()
        for number, frame in reading:
            if number in wanted:
                found[number] = self._upright(frame, channels)
                if len(found) == len(wanted):
                    break
        return _stacked(found, indices, self._name)

    @property
    def fps(self) -> float | None:
        """See `StoredClip`."""
        rate = self._stream.average_rate or self._stream.guessed_rate
        return float(rate) if rate else None

    def every(self) -> Iterator[Pixels]:
        """See `StoredClip`."""
        reading = self._forward(range(self.count)) if self._seekable else self._all()
        return (self._upright(frame, 3) for _, frame in reading)

    def _upright(self, frame: "av.VideoFrame", channels: int) -> Pixels:
        if self._orientation is None:
            self._orientation = orientation_of(frame, self._stream.metadata)
        size = square_size(frame.width, frame.height, self._aspect)
        return self._orientation.apply(self._to_rgb(frame, *size, channels))

    def _all(self) -> "Iterator[tuple[int, av.VideoFrame]]":
        """All frames in presentation order."""
        damage = Damage()
        self._container.seek(0)
        yield from enumerate(decoded_frames(self._container, self._stream, damage))
        if damage.text:
            raise DecodeError(f"{self._name}: {damage.text}", expected="an undamaged video")

    def _forward(self, wanted: Sequence[int]) -> "Iterator[tuple[int, av.VideoFrame]]":
        """Frames that have to be decoded for the wanted ones; `wanted` rises."""
        reached = -1
        numbers = {stamp: number for number, stamp in enumerate(self._stamps)}
        reading: Iterator[av.VideoFrame] = iter(())
        for number in wanted:
            key = self._keys[bisect_right(self._keys, number) - 1]
            if reached < 0 or key > reached + 1:
                self._container.seek(self._stamps[key], stream=self._stream)
                reading, reached = self._decoded(), key - 1
            while reached < number:
                frame = next(reading, None)
                if frame is None or frame.pts is None or numbers.get(frame.pts) != reached + 1:
                    raise _undecodable(self._name, reached + 1, "it is missing")
                reached += 1
                yield reached, frame

    def _decoded(self) -> "Iterator[av.VideoFrame]":
        av = pyav()
        try:
            for packet in self._container.demux(self._stream):
                for frame in packet.decode():
                    if packet.is_corrupt or frame.is_corrupt:
                        raise _undecodable(self._name, self._number(frame.pts), "it is incomplete")
                    yield frame
        except av.error.FFmpegError as error:
            if isinstance(error, av.error.MemoryError):
                raise
            raise DecodeError(
                f"{self._name}: the clip does not decode: {error.strerror}", expected="an undamaged video"
            ) from error

    def _number(self, stamp: int | None) -> int:
        return bisect_right(self._stamps, stamp or 0) - 1


def _wanted(indices: Sequence[int], count: int, channels: int) -> list[int]:
    """Rising numbers without repetitions, checked."""
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels}; a clip is decoded to 1 (grey) or 3 (RGB)")
    if not len(indices):
        raise ValueError("no frames are asked for")
    wanted = sorted({int(index) for index in indices})
    if wanted[0] < 0 or wanted[-1] >= count:
        raise IndexError(f"frames {wanted[0]} to {wanted[-1]} are asked for of a clip that has {count}")
    return wanted


def _stacked(found: Mapping[int, Pixels], indices: Sequence[int], name: str) -> Pixels:
    frames = [found.get(int(index)) for index in indices]
    missing = next((int(index) for index, frame in zip(indices, frames, strict=True) if frame is None), None)
    if missing is not None:
        raise _undecodable(name, missing, "it is missing")
    shapes = {frame.shape for frame in frames if frame is not None}
    if len(shapes) > 1:
        raise DecodeError(f"{name}: its frames have different sizes: {sorted(shapes)}", expected="one size")
    return np.stack([frame for frame in frames if frame is not None])


def _undecodable(name: str, number: int, reason: str) -> DecodeError:
    return DecodeError(f"{name}: frame {number} of the clip does not decode: {reason}", expected="an undamaged clip")


def _borders(data: bytes, name: str) -> Iterator[int]:
    """Where each JPEG of a stream starts, and where the last one ends (ITU-T T.81, annex B)."""
    at = 0
    while at < len(data):
        yield at
        if data[at : at + 2] != bytes((0xFF, _START)):
            raise DecodeError(f"{name}: no JPEG starts at byte {at} of {len(data)}", expected="JPEG files in a row")
        at = _end_of_jpeg(data, at + 2, name)
    yield at


def _end_of_jpeg(data: bytes, at: int, name: str) -> int:
    """First byte after a JPEG whose first marker segment starts at `at`."""
    while at + 2 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == _END:
            return at + 2
        if marker == 0xFF:  # padding
            at += 1
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker == _SCAN:
            found = _MARKER.search(data, at)
            at = found.start() if found else len(data)
    raise DecodeError(
        f"{name}: a JPEG of the clip has no end ({len(data)} bytes)", expected="whole JPEG files in a row"
    )
