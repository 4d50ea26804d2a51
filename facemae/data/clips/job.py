"""One video into the samples of a shard set: a small tar of its own, and a report."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from facemae.data.clips.maps import MapSource, open_maps
from facemae.data.clips.people import choose
from facemae.data.clips.pieces import Piece
from facemae.data.clips.render import Picture, render_frames
from facemae.data.clips.settings import ClipSettings
from facemae.data.clips.sound_track import FLAC, LONGER, TOLD, Sound, SoundTrack
from facemae.data.clips.survey import Person, Survey, survey
from facemae.data.regions import MEMBER
from facemae.data.shard_writer import PartWriter
from facemae.errors import DataError, DecodeError
from facemae.faces.detector import Detector
from facemae.faces.registry import open_detector
from facemae.faces.steady import share_inside
from facemae.files import storage_errors, write_text
from facemae.sound.source import has_sound

_CLIPPED = 0.01
"""Seconds of sound beyond full scale that are not worth a note."""


@dataclass(frozen=True)
class VideoJob:
    """One video to pack.

    Attributes:
        number: Its place in the listing.
        key: What the keys of its clips begin with.
        file: The video.
        path: What it is called: its path relative to the source.
        sound: A separate file with its sound; None takes the video's own.
        meta: Known fields of the samples.
        maps: A file with its region maps, or None.
    """

    number: int
    key: str
    file: Path
    path: str
    sound: Path | None
    meta: dict[str, Any]
    maps: Path | None = None


@dataclass
class VideoReport:
    """What became of one video.

    Attributes:
        path: The video.
        ranges: First byte and end in the video's tar of each sample written.
        seconds: Seconds of all samples.
        frames: Frames of the video.
        looked: Frames in which faces were looked for.
        found: Frames of these with a face.
        people: Faces found in the video.
        cuts: Cuts found in it.
        shake: Of each kept face (with detected boxes, with the steady one), in pixels of the stored crop.
        inside: Of each sample the share of the face within the crop, (least, mean) over its frames.
        skipped: (what, reason) of what was left out.
        notes: (what, remark) of what is worth knowing and was kept, by kind: `damage`, `picture`, `sound`,
            `people`, `regions`.
    """

    path: str
    ranges: list[tuple[int, int]] = field(default_factory=list)
    seconds: float = 0.0
    frames: int = 0
    looked: int = 0
    found: int = 0
    people: int = 0
    cuts: int = 0
    shake: list[tuple[float, float]] = field(default_factory=list)
    inside: list[tuple[float, float]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)


def part_names(number: int) -> tuple[str, str]:
    """Names of a video's tar and of its report, which is written last."""
    return f"{number:08d}.tar", f"{number:08d}.json"


def read_report(folder: Path, number: int) -> VideoReport | None:
    """The report of a finished video; None where it is not finished."""
    path = folder / part_names(number)[1]
    if not path.is_file():
        return None
    with storage_errors(path, "reading"):
        return VideoReport(**json.loads(path.read_text(encoding="utf-8")))


def write_report(folder: Path, number: int, report: VideoReport) -> None:
    """Write the report of a finished video.

    Raises:
        StorageError: Writing failed.
    """
    write_text(folder / part_names(number)[1], json.dumps(asdict(report)))


def pack_video(job: VideoJob, folder: Path, settings: ClipSettings) -> VideoReport:
    """Make the clips of one video.

    Args:
        job: The video.
        folder: Receives the tar and the report.
        settings: How.

    Returns:
        What became of it. A video that cannot be used is left out with its reason; nothing of it is written.

    Raises:
        StorageError: Writing failed, or reading failed underneath.
    """
    report = VideoReport(job.path)
    writer = PartWriter(folder / part_names(job.number)[0])
    try:
        # Opening comes first: a link to nowhere or a file that may not be read costs that video, a device that fails
        # in the middle stops the pack.
        job.file.open("rb").close()
        for key, members in _samples(job, settings, report):
            report.ranges.append(writer.write(key, members))
        writer.close()
    except DataError as error:
        _left_out(report, job, error.found)
    except FileNotFoundError:
        _left_out(report, job, "the file is gone")
    except PermissionError:
        _left_out(report, job, "reading the file is not permitted")
    finally:
        writer.abandon()
    write_report(folder, job.number, report)
    return report


def _left_out(report: VideoReport, job: VideoJob, reason: str) -> None:
    report.ranges, report.seconds, report.shake, report.inside = [], 0.0, [], []
    report.skipped.append((job.path, reason.removeprefix(f"{job.file}: ")))


def _samples(job: VideoJob, settings: ClipSettings, report: VideoReport) -> Iterator[tuple[str, dict[str, bytes]]]:
    detector = open_detector(settings.detector)
    seen = survey(job.file, detector, settings)
    report.frames, report.looked, report.found = seen.frames, seen.looked, seen.found
    report.people, report.cuts = len(seen.people), len(seen.cuts)
    if seen.damage:
        report.notes.append(("damage", seen.damage))
    if seen.repaired:
        report.notes.append(("damage", f"time stamps of {seen.repaired} frames repaired"))
    if seen.info.interlaced:
        report.notes.append(("picture", "interlaced: its fields are not separated"))
    if seen.info.stretched:
        report.notes.append(("picture", f"pixels {seen.info.pixel_aspect:.3f} times as wide as high, made square"))
    fps = seen.fps
    choice = choose(seen, settings)
    report.skipped += [(job.path, reason) for reason in choice.skipped]
    report.notes += [("people", text) for text in choice.notes]
    sound = _sound_of(job, seen, settings, report) if choice.numbered else None
    maps = _maps_of(job, seen, settings, report) if choice.numbered else None
    for number, appearances in enumerate(choice.numbered):
        report.shake += [appearance.person.shake for appearance in appearances]
        pieces = [piece for appearance in appearances for piece in appearance.pieces]
        sounds = itertools.repeat(None) if sound is None else sound.cut(pieces, fps)
        pictures = render_frames(job.file, seen, appearances, fps, settings, maps)
        for place, ((person, piece, picture), beneath) in enumerate(zip(pictures, sounds, strict=False)):
            report.seconds += piece.seconds(fps)
            meta = _meta(job, person, number, piece, fps, picture, beneath, settings, detector)
            report.inside.append((meta["clip"]["inside"]["least"], meta["clip"]["inside"]["mean"]))
            if sound is not None:
                meta["sound"]["file"] = sound.source.path.name
            if maps is not None:
                meta["regions"] = {"source": maps.kind}
            yield f"{job.key}-{number}-{place:04d}", _members(settings, picture, beneath, meta)


def _sound_of(job: VideoJob, seen: Survey, settings: ClipSettings, report: VideoReport) -> SoundTrack | None:
    """The sound to cut, the separate file's if that has any; None where none can be used. What was amiss is noted."""
    if settings.sound_rate is None:
        return None
    separate = None if job.sound is None else _track(job.sound, seen, settings.sound_rate, separate=True)
    if isinstance(separate, SoundTrack) and not separate.silent:
        report.notes += [("sound", text) for text in _remarks(separate, seen, separate=True)]
        return separate
    own = _track(job.file, seen, settings.sound_rate, separate=False)
    taken = isinstance(own, SoundTrack) and not own.silent
    if job.sound is not None:
        reason = separate if isinstance(separate, str) else "a silent track"
        instead = "the video's own sound is taken" if taken else "the video has none of its own"
        report.notes.append(("sound", f"{job.sound.name}: {reason}; {instead}"))
    if isinstance(own, str):
        report.notes.append(("sound", own))
        return None
    report.notes += [("sound", text) for text in _remarks(own, seen, separate=False)]
    return own if taken else None


def _track(path: Path, seen: Survey, rate: int, *, separate: bool) -> SoundTrack | str:
    """The sound of a file, or why it cannot be used."""
    try:
        if not has_sound(path):
            return "no sound"
        origin, joint = (0.0, None) if separate else (seen.origin, seen.joint)
        return SoundTrack(path, origin, rate, joint, seen.seconds)
    except DataError as error:
        return f"the sound is left out: {error.found.removeprefix(f'{path}: ')}"


def _maps_of(job: VideoJob, seen: Survey, settings: ClipSettings, report: VideoReport) -> MapSource | None:
    """The region maps to cut; None where there are none or they do not fit the video, which is noted."""
    try:
        maps = open_maps(job.maps, seen, settings)
    except DecodeError as error:
        report.notes.append(("regions", f"the region maps are left out: {error.found}"))
        return None
    if maps is None and settings.regions == "files":
        report.notes.append(("regions", "no region maps"))
    return maps


def _remarks(track: SoundTrack, seen: Survey, *, separate: bool) -> Iterator[str]:
    """What a user must know of a sound, amounts in seconds."""
    source = track.source
    if track.silent:
        yield "a silent track, stored without sound"
    elif source.info.start > TOLD:
        yield f"the sound begins {source.info.start:.2f} s after the picture"
    filled, cut = (count / source.info.rate for count in (source.report.laid.filled, source.report.laid.cut))
    if filled > TOLD:
        yield f"{filled:.2f} s of gaps in the sound are filled with silence"
    if cut > TOLD:
        yield f"{cut:.2f} s of the sound are cut: by their time stamps there was sound already"
    if source.report.mended:
        yield f"time stamps of {source.report.mended} pieces of the sound repaired"
    if (clipped := source.report.clipped / track.rate) > _CLIPPED:
        yield f"the sound is beyond full scale for {clipped:.2f} s, and is clipped there"
    if source.report.invalid:
        yield f"{source.report.invalid / source.info.rate:.4f} s of the sound are no numbers, and silence here"
    if source.damage:
        yield source.damage
    if separate and abs(track.seconds - seen.seconds) > LONGER:
        yield f"{source.path.name} lasts {track.seconds:.2f} s, the video {seen.seconds:.2f} s"


def _members(settings: ClipSettings, picture: Picture, sound: Sound | None, meta: dict[str, Any]) -> dict[str, bytes]:
    text = json.dumps(meta, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return {
        settings.storage.kind: picture.data,
        **({} if picture.maps is None else {MEMBER: picture.maps}),
        **({} if sound is None or sound.data is None else {FLAC: sound.data}),
        "json": text.encode(),
    }


def _meta(
    job: VideoJob,
    person: Person,
    number: int,
    piece: Piece,
    fps: float,
    picture: Picture,
    sound: Sound | None,
    settings: ClipSettings,
    detector: Detector,
) -> dict[str, Any]:
    middle = np.median(picture.boxes, axis=0)
    still = bool((picture.boxes == picture.boxes[0]).all())
    times = (piece.first + np.arange(piece.count)) / fps
    inside = share_inside(person.track, times, picture.boxes, smoothing=settings.smoothing)
    return {
        **job.meta,
        "width": settings.size,
        "height": settings.size,
        "clip": {
            "fps": fps,
            "frames": piece.count,
            "start_s": round(piece.first / fps, 6),
            "person": number,
            "seen": round(person.seen, 4),
            # Centre and side of the crop in pixels of the video: its median, and whether it moves.
            "box": [round(float(value), 2) for value in middle],
            "still": still,
            # Share of the face that lies in the crop, over the frames.
            "inside": {"least": round(float(inside.min()), 4), "mean": round(float(inside.mean()), 4)},
            **({} if picture.written.sizes is None else {"sizes": list(picture.written.sizes)}),
        },
        "crop": settings.crop_recipe(detector.name).model_copy(update={"fps": fps}).model_dump(),
        **({} if sound is None else {"sound": sound.meta}),
    }
