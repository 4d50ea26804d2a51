"""`facemae extract` of videos, sounds and packed clips, and what its reports share with those of images."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from facemae.data.choices import given_options
from facemae.errors import UsageError

if TYPE_CHECKING:
    from facemae.features.clip_extraction import ClipPlan, ClipReport
    from facemae.features.clips import ClipExtractor
    from facemae.features.extractor import FeatureExtractor
    from facemae.features.stream import Skip

_SHOWN = 5
_OF_CLIPS = ("per", "window", "stride", "fps", "people", "detector", "sound")
_OF_IMAGES = ("workers",)


def refuse_others(context: typer.Context, *, clips: bool) -> None:
    """Refuse options that were given and would do nothing.

    Raises:
        UsageError: Their names.
    """
    given = given_options(context, _OF_IMAGES if clips else _OF_CLIPS)
    if given:
        kind = "videos or clips" if clips else "images"
        raise UsageError(
            f"{', '.join(given)} with {kind}", expected=f"options for {kind}; facemae extract --help has them"
        )


def run_clips(
    extractor: "FeatureExtractor",
    how: dict[str, Any],
    paths: Sequence[Path],
    out: Path,
    *,
    where: dict[str, str],
    sound: Path | None,
    people: Any,
    detector: str,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Extract features of clips and report.

    Args:
        extractor: The model.
        how: Arguments of `facemae.features.clips.ClipExtractor`.
        paths: As for `facemae.features.clip_listing.open_clips`, with `where` and `sound`.
        out: The file.
        where: See `paths`.
        sound: See `paths`.
        people: As for `facemae.features.clip_extraction.plan_clips`, with `detector`.
        detector: See `people`.
        overwrite: Replace an existing file.
        dry_run: Say what would be done, and stop.
        as_json: Print one JSON object.
    """
    from facemae.data.progress import progress
    from facemae.features.clip_extraction import extract_clips, plan_clips
    from facemae.features.clip_listing import open_clips

    clips = extractor.clips(**how)
    parts = open_clips(paths, where=where, sound=sound)
    plan = plan_clips(clips, parts, detector=detector, people=people)
    for message in plan.warnings:
        say(f"warning: {message}")
    if dry_run:
        _print_plan(plan, clips, out, as_json)
        return
    with progress("extracting" if plan.clips > 1 else "extracting, seconds") as advance:
        report = extract_clips(clips, parts, out, plan=plan, overwrite=overwrite, progress=advance)
    _print_report(report, as_json)


def say(text: str) -> None:
    """A line beside the result."""
    print(text, file=sys.stderr)


def say_skipped(skipped: Sequence["Skip"]) -> None:
    """The first few of what was left out."""
    for skip in skipped[:_SHOWN]:
        typer.echo(f"  {skip.reason}")
    if len(skipped) > _SHOWN:
        typer.echo(f"  and {len(skipped) - _SHOWN} more; all are named in the file's metadata")


def papers(meta: dict[str, Any]) -> str:
    """The model and crop recipes in two lines; what is unknown is said to be."""
    model = meta["model"]
    lines = [
        f"model {model['recipe']}, {model['weights']} weights, step {model.get('step', '?')}, {model['digest'][:12]}",
        f"layer {meta['layer']}, pooling {meta['pooling']}",
        f"faces cut for the model: {_crop_text(meta['crop']['model'])}",
    ]
    lines += [f"faces cut in {source['name']}: {_crop_text(source['crop'])}" for source in meta["sources"]]
    return "\n".join(lines)


def _crop_text(crop: dict[str, object]) -> str:
    return ", ".join(f"{name} {crop[name]}" for name in ("detector", "margin", "alignment", "colour"))


def _windows_text(meta: dict[str, Any]) -> str:
    windows, sound = meta["windows"], meta["sound"]
    heard = "" if sound is None else f", {sound['window_frames']} frames of {sound['mel']['mels']} bands of sound"
    rows = "window" if meta["per"] == "window" else f"time step of {windows['step']:g} s"
    return (
        f"a row a {rows}: windows of {windows['seconds']:g} s every {windows['stride']:g} s, "
        f"{windows['frames']} pictures{heard}"
    )


def _print_plan(plan: "ClipPlan", clips: "ClipExtractor", out: Path, as_json: bool) -> None:
    if as_json:
        shapes = {"video_shape": clips.video_shape, "sound_shape": clips.sound_shape}
        typer.echo(json.dumps({"dry_run": True, "out": str(out), "clips": plan.clips, **shapes, "meta": plan.meta}))
        return
    shape = " x ".join(map(str, clips.video_shape))
    heard = "" if clips.sound_shape is None else f", of sound {' x '.join(map(str, clips.sound_shape))}"
    typer.echo(f"would write features of {plan.clips} clips, {shape} numbers a row{heard}, to {out}")
    typer.echo("\n".join([_windows_text(plan.meta), *plan.converted, papers(plan.meta)]))


def _print_report(report: "ClipReport", as_json: bool) -> None:
    rate = report.rows / max(report.seconds, 1e-9)
    if as_json:
        found = {
            "out": str(report.out),
            "clips": report.clips,
            "rows": report.rows,
            "partial": report.partial,
            "skipped": report.meta["skipped"],
            "notes": report.meta["notes"],
            "seconds": round(report.seconds, 3),
            "rows_per_second": round(rate, 1),
            "meta": report.meta,
        }
        typer.echo(json.dumps(found))
        return
    typer.echo("\n".join([_windows_text(report.meta), *report.meta["converted"]]))
    if report.skipped:
        typer.echo(f"{len(report.skipped)} clips were left out, or end where they broke:")
        say_skipped(report.skipped)
    for key, text in report.notes[:_SHOWN]:
        typer.echo(f"note: {key}: {text}")
    if len(report.notes) > _SHOWN:
        typer.echo(f"and {len(report.notes) - _SHOWN} more notes; all stand in the file's metadata")
    typer.echo(papers(report.meta))
    partial = f" ({report.partial} of them of partial windows)" if report.partial else ""
    done = f"wrote {report.rows} rows{partial} of {report.clips} clips to {report.out}"
    typer.echo(f"{done} in {report.seconds:.1f} s ({rate:.1f} rows/s)")
