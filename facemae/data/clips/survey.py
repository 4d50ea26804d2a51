"""First pass through a video: who is in it, when and where."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facemae.data.clips.settings import ClipSettings
from facemae.faces.detector import Detector
from facemae.faces.steady import jitter, share_seen, steady_path
from facemae.faces.tracks import Track, Tracker
from facemae.video.rate import count_at_rate
from facemae.video.source import Frame, VideoInfo, VideoSource

_TIE = 1e-6
_BORNE_OUT = 0.005
_BRIDGE = 0.5
"""Seconds: a face seen so soon after a video's start, or until so short before its end, was there from start to end."""


@dataclass(frozen=True, eq=False)
class Person:
    """One face of a video.

    Attributes:
        track: Where it was detected.
        start: Seconds from the video's first frame.
        stop: Likewise.
        seen: Share of the looked-at frames from first to last in which it was detected.
        shake: (with the detected boxes, with the steady one): how far the stored crop's corners shake, in its pixels,
            at the rate of the detections; see `facemae.faces.steady.jitter`.
    """

    track: Track
    start: float
    stop: float
    seen: float
    shake: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Survey:
    """What the first pass found.

    Attributes:
        info: What the file says of itself.
        origin: The first frame's time on the file's own time line.
        seconds: From the first frame's start to the end of the last.
        frames: Frames that decoded.
        looked: Frames in which faces were looked for.
        found: Frames of these in which one of the people was detected.
        people: The most prominent first.
        damage: What is wrong with the file; None where nothing is.
        repaired: Frames whose time stamps had to be repaired.
        fps: Frames a second of the clips.
        count: Frames of the whole video at that rate.
        joint: Where in the file another begins; see `facemae.video.source.VideoSource.joint`.
    """

    info: VideoInfo
    origin: float
    seconds: float
    frames: int
    looked: int
    found: int
    people: tuple[Person, ...]
    damage: str | None
    repaired: int
    fps: float
    count: int
    joint: tuple[int, int] | None = None


def survey(path: Path, detector: Detector, settings: ClipSettings) -> Survey:
    """Look through a video once, in memory that does not grow with its length.

    Raises:
        DecodeError: No frame decodes.
        StorageError: The file cannot be read.
    """
    tracker = Tracker(bridge=_BRIDGE)
    looked = frames = 0
    last: Frame | None = None
    with VideoSource(path) as source:
        for frame, look in _looked_at(source, settings.detections):
            last, frames = frame, frame.number + 1
            if look:
                looked += 1
                tracker.add(frame.number, frame.time, detector.detect(frame.image))
        assert last is not None  # a source without one raises
        seconds = last.time + last.duration
        fps = settings.fps or _measured_rate(frames, seconds, source.info.fps)
        tracks = tracker.finish()
        return Survey(
            info=source.info,
            origin=source.origin,
            seconds=seconds,
            frames=frames,
            looked=looked,
            found=len({int(number) for track in tracks for number in track.numbers}),
            people=tuple(_person(track, seconds, settings) for track in tracks),
            damage=source.damage,
            repaired=source.repaired,
            fps=fps,
            count=count_at_rate(last, fps),
            joint=source.joint,
        )


def _measured_rate(frames: int, seconds: float, stated: float) -> float:
    """Frames a second: the header's where the frames bear it out, which rounds less than their time stamps do."""
    measured = frames / seconds if seconds > 0 else stated
    return stated if abs(measured / stated - 1) < _BORNE_OUT else measured


def _looked_at(frames: VideoSource, rate: float) -> Iterator[tuple[Frame, bool]]:
    """Frames, and whether faces are looked for in them: in the first one not earlier than each k / rate."""
    due = 0
    for frame in frames:
        look = frame.time + _TIE >= due / rate
        if look:
            due = int((frame.time + _TIE) * rate) + 1
        yield frame, look


def _person(track: Track, seconds: float, settings: ClipSettings) -> Person:
    start, stop = float(track.times[0]), float(track.times[-1])
    start = 0.0 if start <= _BRIDGE else start
    stop = seconds if stop >= seconds - _BRIDGE else stop
    paths = [
        steady_path(track, track.times, margin=settings.margin, smoothing=smoothing)
        for smoothing in (0.0, settings.smoothing)
    ]
    detected, steady = (jitter(np.asarray(path), settings.size) for path in paths)
    return Person(track, start, stop, share_seen(track), (detected, steady))
