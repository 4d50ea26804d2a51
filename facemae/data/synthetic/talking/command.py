"""What `facemae data synth --clips` does."""

import json
import time
from pathlib import Path

import typer

from facemae.data.progress import progress
from facemae.data.synthetic.talking.dataset import make_clips
from facemae.data.synthetic.talking.worker import TalkSettings


def synth_clips(
    out: Path, settings: TalkSettings, *, workers: int | None, sheet: Path | None, overwrite: bool, as_json: bool
) -> None:
    """Draw the clips and say what was drawn.

    Args:
        out: Folder to make.
        settings: What to draw.
        workers: Worker processes; None takes one a core.
        sheet: Also write a picture of the first talking clip here.
        overwrite: Replace a folder of clips of other settings.
        as_json: Print one JSON object.
    """
    begin = time.monotonic()
    with progress("drawing clips") as report_progress:
        report = make_clips(out, settings, workers=workers, overwrite=overwrite, progress=report_progress)
    taken = time.monotonic() - begin
    if sheet is not None:
        from facemae.data.synthetic.talking.sheet import write_sheet

        talks = (settings.clip(number)[1] for number in range(settings.count))
        write_sheet(sheet, next((talk for talk in talks if talk.speech is not None), settings.clip(0)[1]))
    if as_json:
        found = {"out": str(out), "clips": report.clips, "drawn": report.drawn, "frames": report.frames}
        typer.echo(json.dumps({**found, "seconds": round(taken, 2), "sheet": str(sheet) if sheet else None}))
        return
    kept = report.clips - report.drawn
    there = f", {kept} of which were there" if kept else ""
    typer.echo(f"{report.clips} clips of {settings.identities} identities{there} under {out}, labels in labels.csv")
    typer.echo(f"next: facemae data pack {out} --out SHARDS")
    if sheet is not None:
        typer.echo(f"sheet: {sheet}")
