"""`facemae probe contamination`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from facemae.errors import UsageError
from facemae_probes.commands import options


def register(app: typer.Typer) -> None:
    """Add the command to `facemae probe`."""
    app.command("contamination")(check)


def check(
    data: Annotated[Path, typer.Option(help="Indexed shard set that is probed on.")],
    pretraining: Annotated[
        list[Path] | None, typer.Option(help="Indexed shard set that was pretrained on. Repeatable.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run or checkpoint folder: what its streams are pinned to, where it lies still.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="COLUMN=VALUE; only such samples of --pretraining. Repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for pairs.csv, result.json and clean-SPLIT.txt.")] = None,
    split: Annotated[str, typer.Option(help="Column of splits of --data.")] = "split",
    cache: Annotated[Path | None, typer.Option(help="Folder of earlier results; default OUT/cache.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find images of a probing set that were pretrained on, exactly or nearly.

    OUT/clean-test.txt lists the test samples without a match, one key a line.

    Example: facemae probe contamination --data shards/raf-db --run runs/first --out results/contamination

    Example: facemae probe contamination --data shards/own --pretraining shards/own --where split=train
    """
    from facemae.data.progress import progress
    from facemae_probes.contamination import Part, contamination, initial_warnings, streams_of

    if (run is None) == (not pretraining):
        raise UsageError("give either --pretraining or --run", fix="--pretraining DIR, once for each set")
    if run is not None and where:
        raise UsageError("--where with --run", expected="the choice that the run's recipe makes", fix="leave it out")
    if run is not None:
        from facemae.checkpoint import find_checkpoint

        checkpoint = find_checkpoint(run)
        parts, warnings = streams_of(checkpoint), initial_warnings(checkpoint)
    else:
        chosen = options.parse_pairs(where, "--where", "COLUMN=VALUE")
        parts = tuple(Part(folder, chosen) for folder in pretraining or ())
        warnings = []
    kept = cache if cache is not None or out is None else out / "cache"
    with progress("comparing") as report:
        found = contamination(parts, data, split=split, cache=kept, progress=report)
    found = replace(found, warnings=tuple(warnings))
    if out is not None:
        from facemae.files import write_text

        found.write_pairs(out / "pairs.csv")
        write_text(out / "result.json", json.dumps(found.to_json(pairs=False), indent=2) + "\n")
        for name, keys in found.clean.items():
            if name and keys:
                found.write_clean(out / f"clean-{name}.txt", name)
    typer.echo(json.dumps(found.to_json(pairs=False)) if json_output else "\n".join(found.lines()))
