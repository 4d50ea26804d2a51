"""Video files as frames with times."""

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from facemae.errors import DecodeError, StorageError
from facemae.files import storage_errors
from facemae.video.decoding import MAX_PIXELS, Damage, decoded_frames, open_container, video_stream
from facemae.video.picture import Orientation, Pixels, ToRgb, orientation_of, square_size
from facemae.video.timeline import LOOK_AHEAD, Timeline

if TYPE_CHECKING:
    import av

_USUAL_RATE = Fraction(25)
_MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class VideoInfo:
    """What a file says about its video; only the frames themselves are certain.

    Attributes:
        width: Of the upright frames with square pixels.
        height: Likewise.
        rotation: Clockwise turn in degrees that made them upright: 0, 90, 180 or 270.
        mirrored: Whether they were mirrored besides.
        fps: Average frames a second.
        duration: Seconds, or None where it is not stated.
        frames: Their number by the header; None where it is not stated. Never relied on.
        codec: Its name in FFmpeg, such as `h264`.
        container: Likewise, such as `matroska,webm`.
        has_sound: Whether the file has a sound stream.
        interlaced: Whether the first frame is made of two fields, which are given as they are.
        pixel_aspect: Width of a stored pixel over its height.
        stretched: Whether frames are stretched for it; see `facemae.video.picture.square_size`.
    """

    width: int
    height: int
    rotation: int
    mirrored: bool
    fps: float
    duration: float | None
    frames: int | None
    codec: str
    container: str
    has_sound: bool
    interlaced: bool
    pixel_aspect: float
    stretched: bool


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame.

    Attributes:
        number: Its place in presentation order, from 0.
        time: Its presentation time in seconds; that of the first frame is 0.
        image: uint8 RGB [H, W, 3], upright, its pixels square.
        duration: Seconds for which it is shown, by the file; the distance from the frame before where that is silent.
    """

    number: int
    time: float
    image: Pixels
    duration: float = 0.0


class VideoSource:
    """A video file, read frame by frame in memory that does not grow with its length.

    It is a context manager. Every iteration reads the file from its start. All frames have the size of the first: those
    of another size, which some streams have after a cut, are scaled to it. What is damaged is left out (see `damage`).
    Where files with sound were put one behind another, so that time stamps start anew, the video ends with the first:
    what of the sound would belong to which of the pictures behind it, nothing in the file says.

    Args:
        path: The file. Its content decides what it is, not its name.
        max_pixels: Larger frames are refused before any is decoded.

    Attributes:
        info: What the file says about its video.

    Raises:
        DecodeError: On entering: empty, no video, a damaged header, too large frames, or not one frame decodes.
        StorageError: The file cannot be read.
        MissingExtraError: PyAV is not installed.
    """

    info: VideoInfo

    def __init__(self, path: Path | str, *, max_pixels: int = MAX_PIXELS) -> None:
        self.path = Path(path)
        self._max_pixels = max_pixels
        self._reading: _Reading | None = None
        self._fresh = False

    def __enter__(self) -> Self:
        self._restart()
        self.info = self._current.info
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reading is not None:
            self._reading.close()

    def __iter__(self) -> Iterator[Frame]:
        """Frames in presentation order. An iteration that goes on elsewhere ends when another is begun."""
        if not self._fresh:
            self._restart()
        self._fresh = False
        return self._current.frames()

    @property
    def origin(self) -> float:
        """Presentation time of the first frame on the file's own time line, in seconds; sound stands on the same.

        Certain once all frames have been read: the first may have no time stamp, or a wrong one.
        """
        return self._current.timeline.origin

    @property
    def repaired(self) -> int:
        """Frames so far whose timestamp was missing or did not rise; see `facemae.video.timeline.Timeline`."""
        return self._current.timeline.repaired

    @property
    def joint(self) -> tuple[int, int] | None:
        """Bytes of the file between which another begins; None where none does. Known once all frames are read."""
        return self._current.joint

    @property
    def damage(self) -> str | None:
        """What was found wrong so far, in one line; None where nothing was. Complete once all frames have been read."""
        return self._current.damage.text

    @property
    def _current(self) -> "_Reading":
        if self._reading is None:
            raise ValueError("a VideoSource is used in a `with` statement")
        return self._reading

    def _restart(self) -> None:
        if self._reading is not None:
            self._reading.close()
        self._reading = _Reading(self.path, self._max_pixels)
        self._fresh = True


class _Reading:
    """One pass through a file. The first frame is decoded at once: it tells size, rotation and origin."""

    def __init__(self, path: Path, max_pixels: int) -> None:
        self._name = str(path)
        self.damage = Damage()
        self.joint: tuple[int, int] | None = None
        self._reached = 0
        _check_file(path)
        with contextlib.ExitStack() as stack:
            self._container = stack.enter_context(open_container(path, self._name, max_pixels=max_pixels))
            self._stream = video_stream(self._container, self._name, max_pixels=max_pixels)
            rate = self._stream.average_rate or self._stream.guessed_rate or _USUAL_RATE
            # AVI has no presentation times, only a rate: what stands there are times of decoding.
            self._avi = self._container.format.name == "avi"
            base = self._stream.time_base or Fraction(1, _MICROSECONDS)
            self.timeline = Timeline(base, float(1 / rate), constant=self._avi)
            self._decoded = decoded_frames(self._container, self._stream, self.damage)
            self._ahead: deque[av.VideoFrame] = deque()
            self._first = next(self._decoded, None)
            if self._first is None:
                raise DecodeError(
                    f"{self._name}: none of its frames decodes ({self.damage.text or 'it has no packets'})",
                    expected=f"a whole video, of at most {max_pixels} pixels a frame",
                )
            self._orientation = orientation_of(self._first, self._stream.metadata)
            aspect = float(self._stream.sample_aspect_ratio or 1)
            self._size = square_size(self._first.width, self._first.height, aspect)
            self._to_rgb = ToRgb()
            self._place = self.timeline.place(*self._stamps(self._first))
            if self._avi:
                # Its first frame leaves the decoder late by those that are reordered, but stands at the start.
                self.timeline.origin = float((self._stream.start_time or 0) * base)
            self.info = _info(self._container, self._stream, self._first, self._orientation, self._size, float(rate))
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Close the file."""
        self._decoded.close()
        self._stack.close()

    def frames(self) -> Iterator[Frame]:
        frame, place, number = self._first, self._place, 0
        self._first = None
        while frame is not None:
            image = self._orientation.apply(self._to_rgb(frame, *self._size))
            yield Frame(number, place[0], image, place[1])
            del image
            self._reached = max(self._reached, _byte(frame))
            end, frame = place[0] + place[1], self._next()
            if frame is None:
                return
            stamp, duration = self._stamps(frame)
            following = self._following(stamp)
            if self.info.has_sound and (back := self.timeline.goes_back(stamp, following)):
                self.joint = self._reached, _byte(frame)
                anew = stamp is not None and self.timeline.starts_anew(stamp)
                self.damage.note(
                    f"time stamps start anew at {end:.2f} s: what follows, another file, is left out"
                    if anew
                    else f"time stamps go back by {back:.2f} s at {end:.2f} s: what follows, whose sound is not known, "
                    "is left out"
                )
                return
            place, number = self.timeline.place(stamp, duration, following), number + 1

    def _next(self) -> "av.VideoFrame | None":
        return self._ahead.popleft() if self._ahead else next(self._decoded, None)

    def _following(self, stamp: int | None) -> list[int | None]:
        """Stamps of the next frames, where that of this one is doubtful."""
        if not self.timeline.doubtful(stamp):
            return []
        while len(self._ahead) < LOOK_AHEAD and (frame := next(self._decoded, None)) is not None:
            self._ahead.append(frame)
        return [self._stamps(frame)[0] for frame in self._ahead]

    def _stamps(self, frame: "av.VideoFrame") -> tuple[int | None, int | None]:
        return (frame.dts if self._avi else frame.pts), frame.duration


def _byte(frame: "av.VideoFrame") -> int:
    """Where in the file the packet of a frame begins; 0 where the container does not tell."""
    return (frame.opaque[1] or 0) if isinstance(frame.opaque, tuple) else 0


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise StorageError(f"{path} is a folder", expected="a video file")
    with storage_errors(path, "reading"), path.open("rb") as file:
        if not file.read(1):
            raise DecodeError(f"{path}: the file has zero bytes", expected="a video file")


def _info(
    container: "av.container.InputContainer",
    stream: "av.VideoStream",
    first: "av.VideoFrame",
    orientation: Orientation,
    size: tuple[int, int],
    fps: float,
) -> VideoInfo:
    width, height = size[::-1] if orientation.transposed else size
    if stream.duration is not None and stream.time_base is not None:
        duration: float | None = float(stream.duration * stream.time_base)
    else:
        duration = container.duration / _MICROSECONDS if container.duration else None
    return VideoInfo(
        width=width,
        height=height,
        rotation=orientation.rotation,
        mirrored=orientation.mirrored,
        fps=fps,
        duration=duration,
        frames=stream.frames or None,
        codec=stream.codec_context.name,
        container=container.format.name,
        has_sound=bool(container.streams.audio),
        interlaced=first.interlaced_frame,
        pixel_aspect=float(stream.sample_aspect_ratio or 1),
        stretched=size != (first.width, first.height),
    )
