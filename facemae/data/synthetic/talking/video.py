"""A clip as a video file.

H.264 without reordered frames and uncompressed sound in a QuickTime file: both begin at time 0 and every sample stays
what and where it was. AAC would add a run-up of its own, which readers cut off differently.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from facemae.data.regions import MEMBER, encode_map
from facemae.data.synthetic.talking.film import Film
from facemae.data.synthetic.talking.talk import Talk
from facemae.extras import needs_extra
from facemae.files import atomic_path, atomic_write

if TYPE_CHECKING:
    import av

EXTENSION = "mov"
SOUND_RATE = 16000
_OPTIONS = {"preset": "veryfast", "crf": "14", "bf": "0"}


def write_clip(path: Path, talk: Talk, *, size: int, fps: float = 25.0, silent_track: bool = False) -> None:
    """Draw a clip and write it whole or not at all, after its region maps; see `maps_path`.

    Args:
        path: File to make; should end in `EXTENSION`.
        talk: The clip.
        size: Side of the frames in pixels; even.
        fps: Frames a second.
        silent_track: Give clips without speech a track of silence; otherwise they have no sound track.

    Raises:
        MissingExtraError: PyAV is not installed.
        StorageError: Writing failed underneath.
    """
    with needs_extra("video", "writing videos"):
        import av

    sounds = talk.speech is not None or silent_track
    with (
        atomic_path(path) as temporary,
        atomic_write(maps_path(path)) as maps,
        av.open(temporary, "w", format="mov", options={"fflags": "+bitexact"}) as file,
    ):
        video = file.add_stream("libx264", rate=_exact(fps), options=_OPTIONS)
        video.width = video.height = size
        video.pix_fmt = "yuv420p"
        # One thread: cutting a picture into slices would make the bytes depend on the machine.
        video.codec_context.thread_count = 1
        if sounds:
            audio = file.add_stream("pcm_s16le", rate=SOUND_RATE, layout="mono")
            for part in (*_sound(talk), None):
                file.mux(audio.encode(part))
        for frame in _frames(talk, size, fps, maps):
            file.mux(video.encode(frame))
        file.mux(video.encode(None))


def maps_path(path: Path) -> Path:
    """Where the region maps of a clip are: beside it, PNG files one behind another, one a frame."""
    return path.with_suffix(f".{MEMBER}")


def _exact(fps: float) -> Fraction:
    """29.97 as 30000/1001, as cameras mean it; whole rates as they are."""
    ntsc = Fraction(round(fps) * 1000, 1001)
    return ntsc if abs(fps - float(ntsc)) < 0.005 else Fraction(fps).limit_denominator(1000)


def _frames(talk: Talk, size: int, fps: float, maps: BinaryIO) -> Iterator["av.VideoFrame"]:
    """The frames; their region maps are written as they come."""
    import av

    for k, drawn in enumerate(Film(talk, size).shots(float(_exact(fps)))):
        maps.write(encode_map(drawn.regions))
        frame = av.VideoFrame.from_ndarray(drawn.image, format="rgb24")
        frame.pts, frame.time_base = k, 1 / _exact(fps)
        yield frame


def _sound(talk: Talk) -> Iterator["av.AudioFrame"]:
    """The sound in parts of a second."""
    import av

    wave = np.round(talk.wave(SOUND_RATE) * 32767).astype(np.int16)
    for start in range(0, len(wave), SOUND_RATE):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + SOUND_RATE], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
        yield frame
