"""Small videos whose frames carry their number in their brightness."""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from facemae.rng import generator

Pixels = NDArray[np.uint8]

WIDTH, HEIGHT = 64, 48
DARKEST, STEP = 20, 4

CODECS: dict[str, dict[str, Any]] = {
    "h264": {"codec": "libx264", "options": {"bf": "2"}},
    "h264-plain": {"codec": "libx264", "options": {"bf": "0", "g": "10", "sc_threshold": "0"}},
    "hevc10": {"codec": "libx265", "pixels": "yuv420p10le", "options": {"x265-params": "log-level=none:pools=none"}},
    "vp9": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "mpeg1": {"codec": "mpeg1video", "options": {"bf": "2", "b": "8000000"}},
    "mpeg2": {"codec": "mpeg2video", "options": {"bf": "2", "b": "8000000"}},
    "mpeg4": {"codec": "mpeg4", "options": {"bf": "2", "b": "8000000"}},
    "lossless": {"codec": "ffv1"},
    "raw": {"codec": "rawvideo"},
}

KINDS: dict[str, tuple[str, str | None]] = {
    "h264.mp4": ("h264", None),
    "h264.mov": ("h264", None),
    "h264.mkv": ("h264", None),
    "h264.avi": ("h264", None),
    "h264.mpg": ("h264", "mpegts"),
    "h264.m2ts": ("h264", "mpegts"),
    "h264.flv": ("h264", None),
    "hevc10.mp4": ("hevc10", None),
    "vp9.webm": ("vp9", None),
    "vp9.mkv": ("vp9", None),
    "mpeg1.mpg": ("mpeg1", "mpeg"),
    "mpeg2.mpg": ("mpeg2", "vob"),
    "mpeg2.vob": ("mpeg2", None),
    "mpeg2.mxf": ("mpeg2", None),
    "vp9.ivf": ("vp9", None),
    "mpeg4.asf": ("mpeg4", None),
    "mpeg4.3g2": ("mpeg4", None),
    "mpeg4.avi": ("mpeg4", None),
    "mpeg4.mp4": ("mpeg4", None),
    "mpeg4.mov": ("mpeg4", None),
}
"""File name, codec of `CODECS`, and the container where the name does not say it."""


def numbered(count: int, *, width: int = WIDTH, height: int = HEIGHT) -> list[Pixels]:
    """Frames whose left half has the brightness of their number, and whose right half is noise."""
    frames = []
    for number in range(count):
        image = np.full((height, width, 3), DARKEST + STEP * number, np.uint8)
        image[:, width // 2 :] = generator(0, "noise", number).integers(0, 256, (height, width - width // 2, 1))
        frames.append(image)
    return frames


def number_of(image: Pixels) -> int:
    """The number that an image of `numbered` carries."""
    return round((float(image[8:-8, 6 : image.shape[1] // 2 - 10].mean()) - DARKEST) / STEP)


def write_video(
    path: Path,
    frames: Iterable[Pixels],
    *,
    codec: str = "h264",
    container: str | None = None,
    rate: Fraction | int = 25,
    stamps: Sequence[int] | None = None,
    sound: str | None = None,
    prepare: Callable[[Any], object] = lambda _: None,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Write a video with PyAV.

    Args:
        path: The file.
        frames: uint8 [H, W, 3].
        codec: One of `CODECS`.
        container: FFmpeg's name of it, where the path does not say it.
        rate: Frames a second.
        stamps: Milliseconds of each frame, for a variable rate.
        sound: Codec of a second of silence in a stream that comes first.
        prepare: Called with the video stream before encoding.
        muxer: Options of the container.
    """
    av = pytest.importorskip("av")
    settings = CODECS[codec]
    frames = list(frames)
    with av.open(str(path), "w", format=container, options=muxer or {}) as file:
        tone = file.add_stream(sound, rate=48000) if sound else None
        stream = file.add_stream(settings["codec"], rate=rate, options=settings.get("options", {}))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = settings.get("pixels", "yuv420p")
        stream.codec_context.thread_count = 1
        base = Fraction(1, 1000) if stamps else 1 / Fraction(rate)
        if stamps:
            stream.codec_context.time_base = base
        prepare(stream)
        if tone is not None:
            tone.layout = "mono"
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.int16), format="s16", layout="mono")
            silence.sample_rate, silence.pts, silence.time_base = 48000, 0, Fraction(1, 48000)
            file.mux(tone.encode(silence))
            file.mux(tone.encode())
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (stamps[number] if stamps else number), base
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a file of `KINDS` with twenty frames when it is first asked for."""
    folder = tmp_path_factory.mktemp("videos")
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            codec, container = KINDS[kind]
            made[kind] = write_video(folder / kind, numbered(20), codec=codec, container=container)
        return made[kind]

    return make
