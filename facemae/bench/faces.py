"""`facemae bench faces`: the default face detector against others, and a steady box against one for each frame."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from facemae.bench.faces_candidates import CANDIDATES, open_candidate
from facemae.bench.faces_clips import BenchClip, procedural_clips, video_clips
from facemae.bench.report import BenchResult, machine
from facemae.faces import Face, Tracker, jitter, open_detector, steady_path
from facemae.faces.detector import Box, Detector

SIZE, MARGIN, SMOOTHING = 160, 0.2, 0.4


@dataclass(frozen=True)
class FacesBenchSettings:
    """Size of the measurement.

    Attributes:
        clips: At most so many clips of a folder, and so many drawn ones.
        frames: At most so many frames of a clip.
        detectors: Names to compare the default with; all of `CANDIDATES` where empty.
        seed: Seed of the drawn clips.
    """

    clips: int = 20
    frames: int = 50
    detectors: tuple[str, ...] = ()
    seed: int = 0


@dataclass
class _Found:
    """What one detector found in one set of clips: times and faces of each frame, clip by clip."""

    clips: list[list[tuple[float, list[Face]]]] = field(default_factory=list)
    seconds: float = 0.0


def bench_faces(
    folder: Path | None, settings: FacesBenchSettings, *, tell: Callable[[str], None] = lambda _: None
) -> Iterator[BenchResult]:
    """Compare detectors on drawn clips and on those of a folder, in which every frame must show one face.

    A detection is right if its centre lies within a third of the face's side of the face's, and its side between half
    and twice the face's. Where a face is, is known of drawn clips; of others it is the median over all detectors and
    frames of the clip, as in talking-head recordings the head stays about where it is. Times are those of one core.

    Args:
        folder: Of videos; None compares on drawn clips only.
        settings: Size of the measurement.
        tell: Called with a line of progress now and then.

    Yields:
        For each set and other detector: frames found, wrong boxes, shake of the per-frame crop, frames/s. Then for each
        set the default's steady box against its per-frame boxes.
    """
    names = settings.detectors or tuple(CANDIDATES)
    detectors = {"default": open_detector(), **{name: open_candidate(name) for name in names}}
    sets = {"procedural": procedural_clips(settings.clips, settings.frames, settings.seed)}
    if folder is not None:
        sets["videos"] = video_clips(folder, settings.clips)
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for label, clips in sets.items():
            tell(f"{label}: {len(clips)} clips, {len(detectors)} detectors")
            yield from _results(label, clips, detectors, settings)
    finally:
        cv2.setNumThreads(before)


def _results(
    label: str, clips: Sequence[BenchClip], detectors: dict[str, Detector], settings: FacesBenchSettings
) -> Iterator[BenchResult]:
    found, truth = _detect(clips, detectors, settings.frames)
    scores = {name: _score(found[name], truth) for name in detectors}
    frames = sum(map(len, truth))
    ours = scores["default"]
    facts = {"set": label, "clips": len(clips), "frames": frames, "ours": detectors["default"].name, "threads": 1}
    here = machine()
    for name in detectors:
        if name == "default":
            continue
        theirs, said = scores[name], {**facts, "baseline": name}
        for what, key, unit in (
            ("frames with the face found", "found", "%"),
            ("wrong boxes in 1,000 frames", "wrong", "boxes"),
            ("shake of the crop by per-frame boxes", "shake", "px"),
            ("speed", "rate", "frames/s"),
        ):
            mine, other = ours[key], theirs[key]
            if key == "shake" and not (ours["tracks"] and theirs["tracks"]):
                continue
            # One box more on both sides: a ratio to none at all would say nothing.
            ratio = {
                "wrong": (other + 1000 / frames) / (mine + 1000 / frames),
                "shake": other / max(mine, 1e-9),
            }.get(key, mine / max(other, 1e-9))
            yield BenchResult(f"faces, {label}, {what}", mine, other, unit, ratio, said, here)
    if ours["tracks"]:
        yield _steadiness(label, ours, facts, here)


def _steadiness(label: str, ours: dict[str, float], facts: dict[str, Any], here: dict[str, Any]) -> BenchResult:
    said = {
        **facts,
        "baseline": "the detected box of each frame",
        "crop_px": SIZE,
        "margin": MARGIN,
        "smoothing_s": SMOOTHING,
        "clips_with_one_track": int(ours["single"]),
        "frames_in_track_percent": round(ours["tracked"], 2),
    }
    mine, other = ours["steady"], ours["shake"]
    return BenchResult(
        f"faces, {label}, shake of the crop by a steady box", mine, other, "px", other / max(mine, 0.01), said, here
    )


def _detect(
    clips: Sequence[BenchClip], detectors: dict[str, Detector], most: int
) -> tuple[dict[str, _Found], list[list[Box]]]:
    """Let all detectors look at each frame in turn, so that other load on the machine falls on all of them alike."""
    found = {name: _Found() for name in detectors}
    truth: list[list[Box]] = []
    for clip in clips:
        known: list[Box | None] = []
        for one in found.values():
            one.clips.append([])
        for _, (at, frame, box) in zip(range(most), clip.frames(), strict=False):
            known.append(box)
            for name, detector in detectors.items():
                start = time.process_time()
                faces = detector.detect(frame)
                found[name].seconds += time.process_time() - start
                found[name].clips[-1].append((at, faces))
        truth.append(_truth(known, [face for one in found.values() for _, faces in one.clips[-1] for face in faces]))
    return found, truth


def _truth(known: Sequence[Box | None], faces: Sequence[Face]) -> list[Box]:
    """Where the face is in each frame: as drawn, else where all detectors together see it."""
    middle = np.median([face.box for face in faces], axis=0).tolist() if faces else [0.0, 0.0, 0.0, 0.0]
    usual: Box = (middle[0], middle[1], middle[2], middle[3])
    return [usual if box is None else box for box in known]


def _score(found: _Found, truth: Sequence[Sequence[Box]]) -> dict[str, float]:
    frames = hits = wrong = 0
    shakes: list[float] = []
    steady: list[float] = []
    single = tracked = 0
    for clip, boxes in zip(found.clips, truth, strict=True):
        tracker = Tracker()
        for number, ((at, faces), box) in enumerate(zip(clip, boxes, strict=True)):
            right = [face for face in faces if is_right(face.box, box)]
            frames, hits, wrong = frames + 1, hits + bool(right), wrong + len(faces) - min(len(right), 1)
            tracker.add(number, at, faces)
        tracks = tracker.finish()
        single += len(tracks) == 1
        if tracks:
            times = [at for at, _ in clip]
            tracked += len(tracks[0])
            for smoothing, shake in ((0.0, shakes), (SMOOTHING, steady)):
                shake.append(jitter(steady_path(tracks[0], times, margin=MARGIN, smoothing=smoothing), SIZE))
    return {
        "found": 100 * hits / frames,
        "wrong": 1000 * wrong / frames,
        "rate": frames / found.seconds,
        "shake": float(np.mean(shakes)) if shakes else 0.0,
        "steady": float(np.mean(steady)) if steady else 0.0,
        "tracks": float(len(shakes)),
        "single": float(single),
        "tracked": 100 * tracked / frames,
    }


def is_right(box: Box, truth: Box) -> bool:
    """Whether a detected box is that of the face; see `bench_faces`."""
    side = max(truth[2] - truth[0], truth[3] - truth[1])
    share = max(box[2] - box[0], box[3] - box[1]) / max(side, 1e-9)
    apart = max(abs(box[0] + box[2] - truth[0] - truth[2]), abs(box[1] + box[3] - truth[1] - truth[3])) / 2
    return 0.5 < share < 2 and apart < side / 3
