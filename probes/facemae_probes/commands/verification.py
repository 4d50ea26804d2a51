"""`facemae probe verify`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from facemae_probes.commands import options


def register(app: typer.Typer) -> None:
    """Add the command to `facemae probe`."""
    app.command("verify")(verify)


def verify(
    data: Annotated[Path, typer.Option(help="Indexed shard set that has the images.")],
    pairs: Annotated[Path, typer.Option(help="LFW's pairs.txt, or a CSV with first, second, same and fold.")],
    model: options.Model,
    out: Annotated[Path | None, typer.Option(help="Folder for verification.json and features.")] = None,
    layers: options.Layers = "all",
    pooling: options.Poolings = options.ALL,
    random_init: options.RandomInit = None,
    cache: options.Cache = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    json_output: options.AsJson = False,
) -> None:
    """Tell whether pairs of images show the same person, as LFW does it.

    Cosine similarity of frozen features; threshold, layer and pooling of each fold are chosen on the other folds.

    Example: facemae probe verify --data shards/lfw --pairs pairs.txt --model runs/first --out results/lfw
    """
    from facemae.files import write_text
    from facemae_probes.verification import verify as run

    result = run(
        data,
        options.model_source(model, data, random_init),
        pairs,
        layers=options.parse_layers(layers),
        poolings=options.parse_poolings(pooling),
        cache=cache if cache is not None or out is None else out / "features",
        seed=seed,
        say=options.say,
    )
    if out is not None:
        write_text(out / "verification.json", json.dumps(result, indent=2) + "\n")
    if json_output:
        typer.echo(json.dumps(result))
        return
    for text in result["warnings"]:
        typer.echo(f"warning: {text}", err=True)
    typer.echo("\n".join(lines(result)))


def lines(result: dict[str, Any]) -> list[str]:
    """A result for people."""
    accuracy, interval = result["accuracy"], result["interval"]
    count = result["pairs"]["folds"]
    found = [
        f"accuracy {accuracy['mean']:.4f} ± {accuracy['standard_error']:.4f} (mean and standard error of {count} folds)"
    ]
    for name, entry in result["measures"].items():
        if entry["value"] is None:
            found.append(f"{name}: not told, {entry['reason']}")
        elif entry["low"] is None:
            found.append(f"{name} {entry['value']:.4f}")
        else:
            found.append(f"{name} {entry['value']:.4f} [{entry['low']:.4f}, {entry['high']:.4f}]")
    about = f"intervals: 95 % bootstrap over {interval['units']} {interval['unit']}s"
    return [*found, about, f"protocol: {result['protocol']}"]
