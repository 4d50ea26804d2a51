"""Packing videos into a shard set of clips.

Every video becomes a small tar of its own beside the set; these are put together in a random order at the end. So a
pack that was killed goes on with the videos it had not finished, and the shards do not depend on how many processes
there were. It takes twice the room of the set while it lasts.
"""

import importlib.metadata
import re
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facemae.data.clips.job import VideoJob, VideoReport, pack_video, part_names, read_report, write_report
from facemae.data.clips.pool import in_processes
from facemae.data.clips.settings import ClipSettings
from facemae.data.clips.workplace import plan_digest, unfinished, workplace
from facemae.data.ingest.folder import Listing
from facemae.data.ingest.keys import make_keys
from facemae.data.ingest.videos import list_videos, separate_maps, separate_sounds, without_separate
from facemae.data.pack import PackReport, finish_set
from facemae.data.schema import DatasetCard
from facemae.data.shard_writer import ShardWriter, read_range
from facemae.data.target import check_apart, check_target, move_into_place, tidy, workspace
from facemae.errors import DataError, UsageError
from facemae.faces.registry import open_detector
from facemae.parallel import usable_cores
from facemae.rng import generator

SHARD_CLIPS = 500
"""Clips a shard unless asked otherwise: a quarter of a gigabyte of three-second clips."""
_LIBRARIES = ("facemae", "av", "numpy", "opencv-python-headless", "pillow", "scipy", "simplejpeg", "soundfile", "soxr")
"""Distributions that decide what becomes of a video: a pack does not go on with others."""
OUTSIDE = 0.7
"""Clips with less of the face than this in the crop of some frame are counted."""
_SHOWN = 10
_LONGEST_KEY = 80
"""Person and piece are added behind it."""


@dataclass(frozen=True)
class ClipPackReport(PackReport):
    """What was packed, and how well faces were found.

    Attributes:
        videos: Videos looked at.
        seconds_stored: Seconds of clips.
        frames: Frames of all videos.
        made: Frames of those that were packed by this call; the others were finished before.
        looked: Frames in which faces were looked for.
        found: Frames of these with a face.
        cuts: Cuts found in the videos.
        shake: Medians over the kept faces, in pixels of the stored crop: with detected boxes, with the steady ones.
        inside: Share of the face within the crop: the least of all frames, and the mean over the clips.
        outside: Clips with a frame in which less than `OUTSIDE` of the face is within the crop.
        remarks: (path, remark) of videos that were kept, such as a silent track.
    """

    videos: int = 0
    seconds_stored: float = 0.0
    frames: int = 0
    made: int = 0
    looked: int = 0
    found: int = 0
    cuts: int = 0
    shake: tuple[float, float] | None = None
    inside: tuple[float, float] | None = None
    outside: int = 0
    remarks: list[tuple[str, str]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report for a person."""
        share = self.found / self.looked if self.looked else 0.0
        rate = self.made / self.seconds if self.seconds else 0.0
        faces = f"a face in {share:.1%} of {self.looked} frames looked at"
        more = [f"{self.videos} videos, {self.frames} frames, {rate:.0f} of them a second of work; {faces}"]
        if self.shake is not None:
            more.append(
                f"crops shake by {self.shake[1]:.2f} pixels from frame to frame (median; by each frame's own box "
                f"{self.shake[0]:.2f})"
            )
        if self.inside is not None:
            more.append(
                f"{self.inside[1]:.1%} of the face is in its crop (mean; at least {self.inside[0]:.1%}); "
                f"{self.outside} clips have frames with less than {OUTSIDE:.0%}"
            )
        if self.cuts:
            more.append(f"{self.cuts} cut{'s'[: self.cuts > 1]} found in the videos; no clip goes across one")
        more += _counted([text for _, text in self.remarks])
        first, *rest = super().lines()
        return [first, *more, *rest]


def _counted(remarks: Sequence[str]) -> list[str]:
    """Remarks that differ in numbers and names only, counted together; one of them stands for the rest."""
    alike: dict[str, list[str]] = {}
    for text in remarks:
        alike.setdefault(re.sub(r"\S*[\d.]\S*", "", text), []).append(text)
    ordered = sorted(alike.values(), key=len, reverse=True)
    lines = [f"{len(texts)} times{', such as' if len(set(texts)) > 1 else ''}: {texts[0]}" for texts in ordered]
    return [
        *lines[:_SHOWN],
        *([f"and {len(lines) - _SHOWN} other remarks; --json has all"] if len(lines) > _SHOWN else []),
    ]


def pack_videos(
    source: Path | str,
    out: Path | str,
    *,
    settings: ClipSettings | None = None,
    sound: Path | None = None,
    regions: Path | None = None,
    columns: dict[str, Any] | None = None,
    shard_size: int = SHARD_CLIPS,
    seed: int = 0,
    card: DatasetCard | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> ClipPackReport:
    """Pack a folder of videos, with an optional table of labels, into a new shard set of face clips.

    The set appears under `out` only when it is complete. After a kill the same call goes on; its shards are the same.

    Args:
        source: The folder; see `facemae.data.ingest.folder` for the layouts it may have.
        out: Folder to make.
        settings: How faces are found and clips are cut and stored.
        sound: Folder of separate sound files; None takes files beside the videos, else the videos' own sound.
        regions: Folder of region maps, for `ClipSettings.regions` `files`; None looks beside the videos.
        columns: Arguments of `facemae.data.ingest.folder.list_folder` about the table of labels.
        shard_size: Clips a shard.
        seed: Seed of the random assignment to shards.
        card: Dataset card.
        overwrite: Replace an older shard set under `out`.
        workers: Processes; None takes one for each core, 0 works in this one.
        progress: Called with (videos done, videos in all).
        say: Told what goes on.

    Raises:
        DataError: Nothing to pack, no usable video, or `out` holds what may not be replaced.
        UsageError: Settings that make no sense.
        StorageError: Writing failed underneath; what was finished stays, and the same call goes on.
    """
    begin = time.perf_counter()
    source, out = Path(source), Path(out)
    settings = settings or ClipSettings()
    if shard_size < 1:
        raise UsageError(f"shard size {shard_size}", expected="at least one clip a shard")
    check_apart(source, out)
    detector = open_detector(settings.detector)
    listing = list_videos(source, **(columns or {}))
    jobs = _jobs(listing, source, sound, regions, settings)
    notes = [*listing.notes, *without_separate([job.path for job in jobs], [job.sound for job in jobs], sound)]
    place = out.resolve()
    tidy(place)
    check_target(place, overwrite=overwrite)
    plan = _plan(jobs, settings, detector.name)
    for other in unfinished(place):
        if not other.name.endswith(plan_digest(plan)):
            say(f"{other} is an unfinished pack of other videos or settings; it is removed when this one is complete")
    with workplace(place, plan) as parts:
        reports, made = _make(jobs, parts, settings, workers, progress, say)
        if not any(report.ranges for report in reports):
            # Nothing to go on from: the next call looks anew.
            shutil.rmtree(parts.parent, ignore_errors=True)
            reasons = "; ".join(f"{path}: {reason}" for report in reports[:3] for path, reason in report.skipped[:1])
            raise DataError(f"none of {len(reports)} videos gives a clip ({reasons})", expected="videos with a face")
        skipped = [*listing.skipped, *(entry for report in reports for entry in report.skipped)]
        say("putting the shards together")
        index, writer = _assemble(
            place, parts, reports, card or DatasetCard(name=out.name, source=source.name), shard_size, seed, skipped,
            settings, detector.name,
        )  # fmt: skip
    return ClipPackReport(
        out,
        writer.written,
        writer.shards,
        index.digest,
        time.perf_counter() - begin,
        sorted(skipped),
        notes,
        videos=len(jobs),
        seconds_stored=sum(report.seconds for report in reports),
        frames=sum(report.frames for report in reports),
        made=made,
        looked=sum(report.looked for report in reports),
        found=sum(report.found for report in reports),
        **_boxes(reports),
        remarks=[(report.path, text) for report in reports for _, text in report.notes],
    )


def _boxes(reports: Sequence[VideoReport]) -> dict[str, Any]:
    """What `ClipPackReport` says of cuts and boxes."""
    shakes = [shake for report in reports for shake in report.shake]
    insides = [inside for report in reports for inside in report.inside]
    return {
        "cuts": sum(report.cuts for report in reports),
        "shake": (statistics.median(a for a, _ in shakes), statistics.median(b for _, b in shakes)) if shakes else None,
        "inside": (min(a for a, _ in insides), statistics.fmean(b for _, b in insides)) if insides else None,
        "outside": sum(least < OUTSIDE for least, _ in insides),
    }


def _jobs(
    listing: Listing, source: Path, sound: Path | None, regions: Path | None, settings: ClipSettings
) -> list[VideoJob]:
    """The videos to pack, with the files that belong to them."""
    paths = [file.path for file in listing.files]
    sounds = separate_sounds(paths, source, sound)
    maps = separate_maps(paths, regions or source, settings.regions == "files")
    keys = make_keys(paths, longest=_LONGEST_KEY)
    parts = zip(keys, listing.files, sounds, maps, strict=True)
    return [
        VideoJob(number, key, file.file, file.path, beside, file.meta(), map_file)
        for number, (key, file, beside, map_file) in enumerate(parts)
    ]


def _plan(jobs: Sequence[VideoJob], settings: ClipSettings, detector: str) -> dict[str, Any]:
    """All that decides what becomes of each video; files are known by size and time of their last change."""

    def stamp(path: Path | None) -> list[Any] | None:
        if path is None:
            return None
        try:
            found = path.stat()
        except OSError:
            return None
        return [found.st_size, found.st_mtime_ns]

    return {
        "versions": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "settings": settings.as_dict(),
        "detector": detector,
        "videos": [
            [job.key, job.path, job.meta, stamp(job.file), str(job.sound), stamp(job.sound), stamp(job.maps)]
            for job in jobs
        ],
    }


def _make(
    jobs: Sequence[VideoJob],
    parts: Path,
    settings: ClipSettings,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
    say: Callable[[str], None],
) -> tuple[list[VideoReport], int]:
    """The reports of all videos in the order of the jobs, those of an earlier call among them; frames of this one's."""
    done = {job.number: report for job in jobs if (report := read_report(parts, job.number)) is not None}
    if done:
        say(f"going on: {len(done)} of {len(jobs)} videos are finished")
    left = [(job, parts, settings) for job in jobs if job.number not in done]
    made = 0
    finished = in_processes(pack_video, left, usable_cores() if workers is None else workers)
    for (job, *_), outcome in finished:
        report = outcome
        if report is None:
            # Its process is gone, so there is nobody else to write this down.
            report = VideoReport(job.path, skipped=[(job.path, "reading it ends the process (a crash of the decoder)")])
            write_report(parts, job.number, report)
        done[job.number] = report
        made += report.frames
        if progress is not None:
            progress(len(done), len(jobs))
    return [done[job.number] for job in jobs], made


def _assemble(
    place: Path,
    parts: Path,
    reports: Sequence[VideoReport],
    card: DatasetCard,
    shard_size: int,
    seed: int,
    skipped: list[tuple[str, str]],
    settings: ClipSettings,
    detector: str,
) -> tuple[Any, ShardWriter]:
    samples = [(number, part) for number, report in enumerate(reports) for part in report.ranges]
    packed = {"detector": detector, "storage": str(settings.storage), "regions": settings.regions, **card.packed}
    card = card.model_copy(update={"packed": packed, "crop": settings.crop_recipe(detector)})
    with workspace(place) as temporary:
        writer = ShardWriter(temporary, shard_size)
        try:
            for position in generator(seed, "pack").permutation(len(samples)):
                number, (start, stop) = samples[position]
                writer.write(*read_range(parts / part_names(number)[0], start, stop))
            writer.close()
        finally:
            writer.abandon()
        index = finish_set(temporary, writer, card, seed, sorted(skipped))
        move_into_place(temporary, place)
    return index, writer
