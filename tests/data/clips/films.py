"""Small videos of drawn faces with sound, for packing."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from tests.faces.conftest import drawn_face, empty_frame

Pixels = NDArray[np.uint8]
Wave = NDArray[np.float32]

SIDE = 128


def face(person: int = 0) -> Pixels:
    """A drawn face from the front, uint8 [128, 128, 3]."""
    return drawn_face(person, SIDE)


def nobody() -> Pixels:
    """A background, uint8 [160, 160, 3]."""
    return empty_frame(0)


def brighter(image: Pixels, by: int = 90) -> Pixels:
    """The same picture with more light."""
    lit: Pixels = np.clip(image.astype(int) + by, 0, 255).astype(np.uint8)
    return lit


def noise(seconds: float, rate: int) -> Wave:
    """Hiss at a quarter of full scale."""
    wave: Wave = (0.25 * np.sin(np.arange(round(seconds * rate)) ** 1.5)).astype(np.float32)
    return wave


def film(
    path: Path,
    frames: Sequence[Pixels],
    *,
    fps: Fraction | int = 25,
    stamps: Sequence[int] | None = None,
    wave: Wave | None = None,
    rate: int = 16000,
    container: str | None = None,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Write a video, H.264 with AAC in mp4 and mov, else with FLAC.

    Args:
        path: The file.
        frames: uint8 [H, W, 3] of even sides.
        fps: Frames a second.
        stamps: Milliseconds of each frame, for a variable rate.
        wave: Sound [N]; None for none.
        rate: Its samples a second.
        container: FFmpeg's name, where the path does not say it.
        muxer: Options of the container.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    base = Fraction(1, 1000) if stamps else 1 / Fraction(fps)
    codec = "aac" if path.suffix in (".mp4", ".mov") and container is None else "flac"
    with av.open(str(path), "w", format=container, options=muxer or {}) as file:
        stream: Any = file.add_stream("libx264", rate=Fraction(fps), options={"preset": "ultrafast", "crf": "12"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = base
        sound: Any = None if wave is None else file.add_stream(codec, rate=rate, layout="mono")
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (stamps[number] if stamps else number), base
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if wave is not None:
            _write_sound(file, sound, wave, rate, codec)
    return path


def _write_sound(file: Any, stream: Any, wave: Wave, rate: int, codec: str) -> None:
    kind = "fltp" if codec == "aac" else "s16"
    size = stream.codec_context.frame_size or 1024
    for first in range(0, len(wave), size):
        part = wave[None, first : first + size]
        data: Any = part if kind == "fltp" else (part * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data), format=kind, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
        file.mux(stream.encode(frame))
    file.mux(stream.encode())
