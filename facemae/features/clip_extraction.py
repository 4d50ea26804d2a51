"""Features of videos, sounds and packed clips into one file, at constant memory."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from facemae.data.clips.settings import People
from facemae.data.schema import CropRecipe
from facemae.errors import DataError, UsageError
from facemae.features.clip_listing import ClipPart, FilesPart
from facemae.features.clip_sources import sample_windows
from facemae.features.clips import ClipExtractor
from facemae.features.crops import compare_clip_crops
from facemae.features.extraction import Progress, check_new, describe_model
from facemae.features.raw_videos import MediaFile, RawMedia, raw_media
from facemae.features.sources import ShardSource
from facemae.features.stream import Skip
from facemae.features.windows import Window
from facemae.features.writers import open_writer


@dataclass(frozen=True)
class ClipPlan:
    """What an extraction will do.

    Attributes:
        clips: Videos, sounds and packed clips that are listed.
        raw: Makes windows of videos and sounds; None where there are packed clips alone.
        warnings: Differences between how these faces and the model's were cut, and what is not known of either.
        converted: What is brought to the model: sizes, rates, lengths.
        meta: What will stand in the file, apart from what only the run shows.
    """

    clips: int
    raw: RawMedia | None
    warnings: list[str]
    converted: list[str]
    meta: dict[str, Any]


@dataclass(frozen=True)
class ClipReport:
    """What an extraction did.

    Attributes:
        out: The file.
        clips: Videos, sounds and packed clips that gave rows.
        rows: Rows written.
        partial: Those of windows that reach beyond their clip's end.
        skipped: What was left out, with the reason.
        notes: (file, remark) of what is odd and was kept.
        seconds: Wall time.
        meta: The metadata in the file.
    """

    out: Path
    clips: int
    rows: int
    partial: int
    skipped: list[Skip]
    notes: list[tuple[str, str]]
    seconds: float
    meta: dict[str, Any] = field(repr=False)


def plan_clips(
    extractor: ClipExtractor, parts: Sequence[ClipPart], *, detector: str = "default", people: People = "main"
) -> ClipPlan:
    """Count the clips and compare how faces are and were cut, without reading one.

    Args:
        extractor: The model and the windows.
        parts: From `facemae.features.clip_listing.open_clips`.
        detector: What finds faces in videos; see `facemae.faces.registry.open_detector`.
        people: Whose faces: `main`, the most prominent at every moment, or `all`.

    Raises:
        UsageError: There is no clip, or there are sounds alone and the model does not hear.
    """
    clips = sum(part.count() for part in parts)
    if not clips:
        raise UsageError(
            f"no video, sound or clip in {', '.join(part.name for part in parts)}",
            expected="at least one",
            fix="check path and endings",
        )
    files = [file for part in parts if isinstance(part, FilesPart) for file in part.files]
    if len(files) == clips and not any(file.video for file in files) and extractor.model.sound is None:
        raise UsageError("sound files for a model that hears nothing", expected="a model with a sound_encoder")
    raw, unknown = raw_media(extractor.model, extractor.windows, detector, people) if files else (None, ())
    warnings: dict[str, None] = {}
    converted: dict[str, None] = dict.fromkeys(extractor.windows.notes)
    sources = []
    if unknown:
        warnings[f"how the model's faces were cut is unknown in {', '.join(unknown)}: as packing usually does"] = None
    for part in parts:
        crop = _crop(part, raw)
        warnings |= dict.fromkeys(compare_clip_crops(extractor.model.crop, crop))
        converted |= dict.fromkeys(_conversions(extractor, crop))
        card = part.card.model_dump(mode="json") if isinstance(part, ShardSource) and part.card else None
        sources.append({"name": part.name, "crop": crop.model_dump(mode="json"), "card": card, **part.notes})
    meta = _describe(extractor) | {
        "sources": sources,
        "people": people if files else None,
        "warnings": [*warnings],
        "converted": [*converted],
    }
    return ClipPlan(clips, raw, [*warnings], [*converted], meta)


def extract_clips(
    extractor: ClipExtractor,
    parts: Sequence[ClipPart],
    out: Path,
    *,
    plan: ClipPlan | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ClipReport:
    """Stream the features of clips into a file, a row a window or a time step.

    Columns are those of `facemae.features.clips.ClipRows`. What cannot be used is left out, counted and named in the
    metadata under `skipped`; what is odd, under `notes`. Where a file breaks in the middle its rows so far stay. The
    file appears whole or not at all.

    Args:
        extractor: The model and the windows.
        parts: From `facemae.features.clip_listing.open_clips`.
        out: `.npz` or `.parquet`; `facemae.features.writers.read_clip_features` reads it.
        plan: From `plan_clips`.
        overwrite: Replace an existing file.
        progress: Called as clips are done; of a single one, with seconds of it.

    Raises:
        UsageError: The file exists, has another extension, or there is no clip.
        DataError: Not one clip gives a row; no file is written.
        StorageError: Reading or writing failed underneath; no file is written.
    """
    check_new(out, overwrite)
    plan = plan or plan_clips(extractor, parts)
    walk, began = _Walk(extractor, parts, plan, progress), time.monotonic()
    rows = partly = 0
    with open_writer(out, extractor.columns()) as writer:
        for found in extractor.rows(walk.windows()):
            writer.append(found.columns())
            rows += len(found.keys)
            partly += int(found.partial.sum())
        if not rows:
            first = walk.skipped[0].reason if walk.skipped else "no windows"
            raise DataError(f"none of {plan.clips} clips gives features; the first: {first}", expected="faces or sound")
        meta = plan.meta | {
            "clips": walk.given,
            "rows": rows,
            "skipped": [{"key": skip.key, "reason": skip.reason} for skip in walk.skipped],
            "notes": [{"key": key, "note": text} for key, text in walk.notes],
        }
        writer.finish(meta)
    return ClipReport(out, walk.given, rows, partly, walk.skipped, walk.notes, time.monotonic() - began, meta)


class _Walk:
    """Windows of all clips one after the other, and what became of each."""

    def __init__(
        self, extractor: ClipExtractor, parts: Sequence[ClipPart], plan: ClipPlan, progress: Progress | None
    ) -> None:
        self.extractor, self.parts, self.plan, self.progress = extractor, parts, plan, progress
        self.skipped: list[Skip] = []
        self.notes: list[tuple[str, str]] = []
        self.given = 0
        self._done = 0

    def windows(self) -> Iterator[Window]:
        for part in self.parts:
            if isinstance(part, FilesPart):
                for file in part.files:
                    yield from self._one(file.name, partial(self._of_file, file))
            else:
                for key, sample in part.samples():
                    yield from self._one(key, partial(self._of_sample, part, sample))

    def _of_file(self, file: MediaFile) -> Iterator[Window]:
        assert self.plan.raw is not None
        return self.plan.raw.windows_of(file, lambda text: self.notes.append((file.name, text)))

    def _of_sample(self, part: ShardSource, sample: int) -> Iterator[Window]:
        read = part.reader.read(sample)
        return sample_windows(read, self.extractor.model, self.extractor.windows, prefix=part.prefix)

    def _one(self, key: str, open_windows: Callable[[], Iterator[Window]]) -> Iterator[Window]:
        """The windows of one clip; where it cannot be read on, it ends."""
        some, reached = False, 0.0
        try:
            for window in open_windows():
                some, reached = True, window.place.offset + window.start
                yield window
                self._say(reached, window.place.offset + window.place.length)
        except DataError as error:
            told = f"from {reached:.2f} s on: " if some else ""
            self.skipped.append(Skip(key, told + str(error.found).replace("\n", "; ")))
        self.given += some
        self._done += 1
        if self.progress is not None and self.plan.clips > 1:
            self.progress(self._done, self.plan.clips)

    def _say(self, reached: float, end: float) -> None:
        if self.progress is not None and self.plan.clips == 1:
            self.progress(round(reached), max(1, round(end)))


def _crop(part: ClipPart, raw: RawMedia | None) -> CropRecipe:
    if isinstance(part, FilesPart):
        assert raw is not None
        return raw.settings.crop_recipe(raw.detector.name)
    return part.card.crop if part.card else CropRecipe()


def _conversions(extractor: ClipExtractor, crop: CropRecipe) -> Iterator[str]:
    """What is brought to the model, as far as a crop recipe says it."""
    model, windows = extractor.model, extractor.windows
    if crop.size is not None and crop.size != model.input.image_size:
        yield f"faces of {crop.size} pixels are scaled to the model's {model.input.image_size}"
    if crop.fps is not None and abs(crop.fps * windows.period - 1) > 1e-6:
        yield f"of {crop.fps:g} frames a second those nearest to every {windows.period:g} s are taken"
        if crop.fps * windows.period < 1:
            yield f"{crop.fps:g} frames a second are fewer than the model's {1 / windows.period:g}: some are repeated"
    if model.sound is not None and crop.sound_rate is not None and crop.sound_rate != model.sound.input.mel.rate:
        yield f"sound of {crop.sound_rate} Hz is resampled to the model's {model.sound.input.mel.rate}"


def _describe(extractor: ClipExtractor) -> dict[str, Any]:
    model, windows = extractor.model, extractor.windows
    sound = None
    if model.sound is not None:
        sound = {"digest": model.sound.digest, "window_frames": windows.mel_frames, **model.sound.input.describe()}
    return {
        "kind": "clip features",
        **describe_model(extractor.extractor),
        "per": extractor.per,
        "windows": {
            "seconds": windows.seconds,
            "stride": windows.stride,
            "frames": windows.frames,
            "period": windows.period,
            "step": windows.step,
        },
        "clip": None if model.clip is None else {"frames": model.clip.frames, "fps": model.clip.fps},
        "sound": sound,
        "video_shape": list(extractor.video_shape),
        "sound_shape": None if extractor.sound_shape is None else list(extractor.sound_shape),
    }
