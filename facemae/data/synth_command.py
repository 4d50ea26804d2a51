"""`facemae data synth`: a shard set of procedural faces."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `synth` to the commands of `facemae data`."""
    app.command("synth")(synth)


def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")],
    count: Annotated[int, typer.Option(min=3, help="Faces to draw.")] = 4000,
    identities: Annotated[int, typer.Option(min=3, help="Persons among them.")] = 160,
    size: Annotated[int, typer.Option(min=16, help="Side of the pictures in pixels; even.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything.")] = 0,
    shard_size: Annotated[int, typer.Option(min=1, help="Samples a shard.")] = 2000,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Worker processes; one a core unless given. Never changes the result.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Also write a contact sheet (PNG) here.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older shard set.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Draw procedural faces with all labels and region maps, and pack them.

    Example: [bold]facemae data synth faces --count 4000 --sheet faces.png[/bold]

    Labels: expression, 18 action units (AU12: 0 or 1; intensity_AU12: 0 to 1), pose, light, occlusion, attributes. The
    splits share no person; `identity_split` cuts the images of the training persons, for probing identity.
    """
    import json

    from facemae.data.progress import progress
    from facemae.data.synthetic.dataset import make_dataset

    with progress("drawing faces") as report_progress:
        report = make_dataset(
            out,
            count=count,
            identities=identities,
            size=size,
            seed=seed,
            processes=processes,
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
