"""`facemae quickstart`: the whole path on procedural faces, in minutes on two CPU cores."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def quickstart(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where everything goes; the same command continues.")
    ] = Path("quickstart"),
    count: Annotated[int, typer.Option(min=200, help="Faces to draw.")] = 4000,
    identities: Annotated[int, typer.Option(min=10, help="Persons among them.")] = 160,
    samples: Annotated[int, typer.Option(min=256, help="Faces the encoder sees in pretraining.")] = 100_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON instead of a table.")] = False,
) -> None:
    """Draw faces, pretrain on them, probe the encoder, extract features, and show what came out.

    Some thousand faces are drawn by facemae itself, so nothing is downloaded and no person is shown. Steps that are
    done are skipped when the command is run again.

    Example: [bold]facemae quickstart[/bold]
    """
    import json

    from facemae_probes.tour.settings import Settings
    from facemae_probes.tour.show import print_summary
    from facemae_probes.tour.steps import run_tour

    summary = run_tour(folder, Settings(count=count, identities=identities, samples=samples, seed=seed))
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        print_summary(summary, folder)
