"""`facemae data synth`: a shard set of procedural faces, or a folder of videos of them."""

import json
from pathlib import Path
from typing import Annotated

import typer

from facemae.data.choices import given_options
from facemae.errors import UsageError

_OF_FACES = ("count", "shard_size")
_OF_CLIPS = ("seconds", "fps", "late")


def register(app: typer.Typer) -> None:
    """Add `synth` to the commands of `facemae data`."""
    app.command("synth")(synth)


def synth(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")],
    count: Annotated[int, typer.Option(min=3, help="Faces to draw.")] = 4000,
    clips: Annotated[
        int | None, typer.Option(min=3, help="Instead of faces, so many videos of talking faces with sound.")
    ] = None,
    identities: Annotated[
        int | None, typer.Option(min=3, help="Persons among them; 160 for faces, up to 24 for clips unless given.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=16, help="Side of the pictures in pixels; even. 64 for faces, 192 for clips.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Length of a clip.")] = 3.0,
    fps: Annotated[float, typer.Option(help="Frames a second of a clip.")] = 25.0,
    late: Annotated[float, typer.Option(help="Share of talking clips whose sound is out of time.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything.")] = 0,
    shard_size: Annotated[int, typer.Option(min=1, help="Samples a shard.")] = 2000,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes; one a core unless given. Never changes the result.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Also write a contact sheet (PNG) here.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older shard set.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Draw procedural faces with all labels and region maps, and pack them.

    Example: [bold]facemae data synth faces --count 4000 --sheet faces.png[/bold]

    With --clips: a folder of videos and labels.csv, as people record faces: head and shoulders, moving, talking; for
    [bold]facemae data pack[/bold], with region maps of every frame for --regions. A call that was stopped goes on when
    it is made again.

    Example: [bold]facemae data synth talking --clips 240 --sheet talking.png[/bold]

    Labels: expression, 18 action units (AU12: 0 or 1; intensity_AU12: 0 to 1), pose, light, occlusion, attributes. The
    splits share no person; `identity_split` cuts the images of the training persons, for probing identity.
    """
    _refuse_others(context, clips=clips is not None)
    if clips is None:
        _synth_faces(
            out,
            count=count,
            identities=identities or 160,
            size=size or 64,
            seed=seed,
            shard_size=shard_size,
            workers=workers,
            sheet=sheet,
            overwrite=overwrite,
            as_json=as_json,
        )
        return
    from facemae.data.synthetic.talking.command import synth_clips
    from facemae.data.synthetic.talking.worker import TalkSettings

    settings = TalkSettings(
        count=clips,
        identities=identities or min(24, clips),
        size=size or 192,
        seconds=seconds,
        fps=fps,
        seed=seed,
        late=late,
    )
    synth_clips(out, settings, workers=workers, sheet=sheet, overwrite=overwrite, as_json=as_json)


def _refuse_others(context: typer.Context, *, clips: bool) -> None:
    """Refuse options that were given and would do nothing."""
    given = given_options(context, _OF_FACES if clips else _OF_CLIPS)
    if given and clips:
        raise UsageError(
            f"{', '.join(given)} for clips", expected="what belongs to faces left out", fix="--clips N says how many"
        )
    if given:
        raise UsageError(f"{', '.join(given)} for faces", expected="they belong to clips", fix="add --clips N")


def _synth_faces(
    out: Path,
    *,
    count: int,
    identities: int,
    size: int,
    seed: int,
    shard_size: int,
    workers: int | None,
    sheet: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    from facemae.data.progress import progress
    from facemae.data.synthetic.dataset import make_dataset

    with progress("drawing faces") as report_progress:
        report = make_dataset(
            out,
            count=count,
            identities=identities,
            size=size,
            seed=seed,
            workers=workers,
            shard_size=shard_size,
            overwrite=overwrite,
            progress=report_progress,
        )
    if sheet is not None:
        from facemae.data.synthetic.sheet import write_sheet

        write_sheet(sheet, seed=seed, count=count, identities=identities)
    found = {"out": str(out), "written": report.written, "shards": report.shards, "digest": report.digest}
    if as_json:
        typer.echo(json.dumps({**found, "seconds": round(report.seconds, 2), "sheet": str(sheet) if sheet else None}))
        return
    typer.echo(f"{report.written} faces of {identities} identities in {report.shards} shards under {out}")
    if sheet is not None:
        typer.echo(f"contact sheet: {sheet}")
