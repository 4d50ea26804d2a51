"""First pass through a video: who is in it, when and where."""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facemae.data.clips.cuts import CutFinder
from facemae.data.clips.settings import ClipSettings
from facemae.faces.detector import Detector
from facemae.faces.steady import agreed, jitter, share_seen, steady_path
from facemae.faces.tracks import Dropped, Track, Tracker
from facemae.video.rate import count_at_rate
from facemae.video.source import Frame, VideoInfo, VideoSource

_TIE = 1e-6
_BORNE_OUT = 0.005
"""Share by which the frames may differ from the rate that a header states, and still bear it out."""


@dataclass(frozen=True, eq=False)
class Person:
    """One face of a video, followed without a break.

    Attributes:
        track: Where it was detected.
        start: Seconds from the video's first frame: where it was first detected, or the cut just before.
        stop: Likewise: where it was last detected, or, if that was the last frame looked at before a cut or before the
            video's end, there. Detections that stand alone count for neither; see `facemae.faces.steady.agreed`.
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
        dropped: Detections that became no person.
        cuts: Times of the first frame behind each cut.
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
    dropped: tuple[Dropped, ...]
    cuts: tuple[float, ...]
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
    tracker, shots = Tracker(), [_Shot(0.0)]
    looked = frames = 0
    last: Frame | None = None
    with VideoSource(path) as source:
        for frame, look, cut in _looked_at(source, settings.detections):
            if last is not None and cut:
                tracker.cut()
                shots.append(_Shot(frame.time, (last.time + frame.time) / 2 + 2 * _TIE))
            last, frames = frame, frame.number + 1
            if look:
                looked, shots[-1].looked = looked + 1, frame.time
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
            people=tuple(_person(track, shots, seconds, settings) for track in tracks),
            dropped=tracker.dropped,
            cuts=tuple(shot.first for shot in shots[1:]),
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


@dataclass
class _Shot:
    """What is between two cuts: the time of its first frame, where it starts, and the last frame looked at.

    It starts half a frame before its first: from there on, that is the frame nearest in time.
    """

    first: float
    start: float = 0.0
    looked: float = 0.0


def _looked_at(frames: VideoSource, rate: float) -> Iterator[tuple[Frame, bool, bool]]:
    """Frames, whether faces are looked for in them, and whether they are the first behind a cut.

    Faces are looked for in the first frame not earlier than each k / rate, and in the first behind each cut.
    """
    due = 0
    for frame, cut in CutFinder().mark(frames):
        look = cut or frame.time + _TIE >= due / rate
        if look:
            due = int((frame.time + _TIE) * rate) + 1
        yield frame, look, cut


def _person(track: Track, shots: Sequence[_Shot], seconds: float, settings: ClipSettings) -> Person:
    kept = track.times[agreed(track, settings.smoothing)]
    start, stop = float(kept[0]), float(kept[-1])
    place = bisect.bisect_right(shots, start, key=lambda shot: shot.first) - 1
    # Up to a cut or an end there is no frame in which the face was looked for in vain.
    end = shots[place + 1].start if place + 1 < len(shots) else seconds
    stop = end if stop == shots[place].looked else stop
    start = shots[place].start if start == shots[place].first else start
    paths = [
        steady_path(track, track.times, margin=settings.margin, smoothing=smoothing)
        for smoothing in (0.0, settings.smoothing)
    ]
    detected, steady = (jitter(np.asarray(path), settings.size) for path in paths)
    return Person(track, start, stop, share_seen(track), (detected, steady))
