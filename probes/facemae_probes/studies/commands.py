"""`facemae study`: one command from raw data to a table of results."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="One command from data to a table of results.",
)


@app.callback()
def group() -> None:
    """One command from data to a table of results."""


@app.command("ferplus")
def ferplus(
    data: Annotated[Path, typer.Option(help="FER+ images with labels.csv, or an indexed shard set packed from them.")],
    out: Annotated[Path, typer.Option(help="Folder of the study; the same command continues it.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to the recipe, such as optim.total=80.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Recipe that is pretrained.")] = "fmae_tiny",
    layers: Annotated[str, typer.Option(help="`all`, or block numbers such as 5,11 or -1.")] = "5,8,11",
    pooling: Annotated[str, typer.Option(help="Comma-separated: mean, cls, cls+mean, gridK.")] = "mean,grid2,grid4",
    probe: Annotated[str, typer.Option(help="Comma-separated: linear, knn, attentive.")] = "linear,knn,attentive",
    json_output: Annotated[bool, typer.Option("--json", help="Print results.json instead of a table.")] = False,
) -> None:
    """Pretrain on the train split of FER+, probe the frozen encoder, compare with its baselines.

    Baselines are the same encoder with random weights, raw pixels and HOG. Probe, layer and pooling are chosen on the
    valid split. What is already done is not done again.

    Example: facemae study ferplus --data fer2013plus --out studies/ferplus
    """
    import json
    from dataclasses import replace

    from facemae_probes.commands import parse_layers, parse_names
    from facemae_probes.studies.ferplus import PLAN, run_study

    plan = replace(
        PLAN,
        probes=tuple(parse_names(probe)),  # type: ignore[arg-type]
        layers=parse_layers(layers),
        poolings=tuple(parse_names(pooling)),
    )
    results = run_study(
        data,
        out,
        recipe=recipe,
        overrides=overrides or (),
        plan=plan,
        command=_command(
            data, out, {"recipe": recipe, "layers": layers, "pooling": pooling, "probe": probe}, overrides
        ),
        say=lambda text: typer.echo(text, err=True),
    )
    typer.echo(json.dumps(results) if json_output else (out / "report" / "report.md").read_text(encoding="utf-8"))


def _command(data: Path, out: Path, options: dict[str, str], overrides: list[str] | None) -> str:
    """The command line with every option, and folders by name: reports are published."""
    import shlex

    words = ["facemae", "study", "ferplus", "--data", data.resolve().name, "--out", out.resolve().name]
    for name, value in options.items():
        words += [f"--{name}", value]
    return shlex.join([*words, *(overrides or [])])
