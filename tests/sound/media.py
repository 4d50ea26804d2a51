"""Sound and video files made for the tests: clicks, tones, shifted and broken time stamps."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from numpy.typing import NDArray

Wave = NDArray[np.float32]

CODECS = {
    "aac.mp4": ("aac", "fltp"),
    "aac.mov": ("aac", "fltp"),
    "aac.mkv": ("aac", "fltp"),
    "pcm.avi": ("pcm_s16le", "s16"),
    "pcm.mov": ("pcm_s16le", "s16"),
    "mp3.mp3": ("libmp3lame", "fltp"),
    "mp3.avi": ("libmp3lame", "fltp"),
    "opus.webm": ("libopus", "flt"),
    "mp2.mpg": ("mp2", "s16"),
    "flac.mkv": ("flac", "s16"),
}
"""Encoder and sample format by kind of file."""

PICTURES = {"mp4": "mpeg4", "mov": "mpeg4", "mkv": "mpeg4", "avi": "mpeg4", "webm": "libvpx", "mpg": "mpeg1video"}


def click(rate: int, seconds: float, at: float) -> Wave:
    """Silence with a short burst that starts at a time: a windowed tone, which codecs keep better than one sample."""
    wave = np.zeros(round(seconds * rate), np.float32)
    first = round(at * rate)
    length = round(0.004 * rate)
    n = np.arange(length)
    wave[first : first + length] = 0.8 * np.hanning(length) * np.sin(2 * np.pi * 2000 * n / rate)
    return wave


def click_time(wave: Wave, rate: int) -> float:
    """When a burst of `click` starts: the place where it correlates best with one."""
    burst = click(rate, 0.004, 0.0)
    found = np.correlate(wave, burst, "valid")
    return int(np.argmax(np.abs(found))) / rate


def tone(rate: int, seconds: float, hertz: float, amplitude: float = 0.5) -> Wave:
    """A sine."""
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def amplitude_at(wave: Wave, rate: int, hertz: float) -> float:
    """Amplitude of a sine in the middle of a wave, by a windowed sum."""
    inside = wave[len(wave) // 8 : -len(wave) // 8].astype(np.float64)
    window = np.hanning(len(inside))
    turn = np.exp(-2j * np.pi * hertz * np.arange(len(inside)) / rate)
    return float(2 * np.abs((inside * window * turn).sum()) / window.sum())


def write_media(
    path: Path,
    kind: str,
    pieces: Sequence[tuple[float, Wave]],
    rate: int,
    *,
    channels: int = 1,
    video: tuple[float, float] | None = (0.0, 1.0),
) -> Path:
    """A file of a kind in `CODECS`.

    Args:
        path: Where; its extension need not match.
        kind: Codec and container.
        pieces: Start in seconds and wave [N] of each stretch of sound; every channel gets the same.
        rate: Samples a second.
        channels: 1 or 2.
        video: Start and length in seconds of a grey video of 25 fps, or None. It flashes nowhere.
    """
    codec, sample_format = CODECS[kind]
    container_format = {"mkv": "matroska", "mpg": "mpeg"}.get(kind.split(".")[1], kind.split(".")[1])
    layout = "stereo" if channels == 2 else "mono"
    with av.open(str(path), "w", format=container_format) as container:
        pictures = None
        if video is not None:
            pictures = cast("VideoStream", container.add_stream(PICTURES[kind.split(".")[1]], rate=25))
            pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound = cast("AudioStream", container.add_stream(codec, rate=rate, layout=layout))
        packets: list[Any] = []
        if pictures is not None and video is not None:
            for index in range(round(video[1] * 25)):
                picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 128, np.uint8), format="rgb24")
                picture.pts, picture.time_base = round(video[0] * 25) + index, Fraction(1, 25)
                packets += pictures.encode(picture)
            packets += pictures.encode(None)
        size = sound.codec_context.frame_size or 1024
        for start, wave in pieces:
            for first in range(0, len(wave), size):
                frame = _sound_frame(wave[first : first + size], sample_format, layout, channels)
                frame.sample_rate = rate
                frame.pts, frame.time_base = round(start * rate) + first, Fraction(1, rate)
                packets += sound.encode(frame)
        packets += sound.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def _sound_frame(wave: Wave, sample_format: str, layout: str, channels: int) -> av.AudioFrame:
    values = np.repeat(wave[None], channels, axis=0)
    if sample_format.startswith("s16"):
        values = np.round(values * 32767).astype(np.int16)
    if not sample_format.endswith("p"):
        values = values.T.reshape(1, -1)
    return av.AudioFrame.from_ndarray(np.ascontiguousarray(values), format=sample_format, layout=layout)
