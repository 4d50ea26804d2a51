"""`facemae probe compare` and `report`: finished results."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from facemae_probes.commands import options


def register(app: typer.Typer) -> None:
    """Add the commands to `facemae probe`."""
    app.command("compare")(compare)
    app.command("report")(report)


def compare(
    first: Annotated[Path, typer.Argument(help="Folder of one result.")],
    second: Annotated[Path, typer.Argument(help="Folder of another on the same test samples.")],
    probe: Annotated[str | None, typer.Option(help="Probe kind; default each result's chosen one.")] = None,
    against: Annotated[str | None, typer.Option(help="Probe kind of the second; default that of --probe.")] = None,
    metric: Annotated[str | None, typer.Option(help="Name of a metric; default what both were chosen by.")] = None,
    part: Annotated[str | None, typer.Option("--slice", help="Only this reported slice, COLUMN=VALUE.")] = None,
    json_output: options.AsJson = False,
) -> None:
    """Compare two results on the same test samples by a paired bootstrap and a randomisation test.

    Example: facemae probe compare results/first results/random --probe linear

    Example: facemae probe compare results/tuned results/tuned --probe finetune --against scratch
    """
    from facemae_probes.results.report import require_result
    from facemae_probes.results.result import compare_results, significance
    from facemae_probes.results.words import mark, marked

    one, other = require_result(first), require_result(second)
    probes = (probe or one.chosen, against or probe or other.chosen)
    found = compare_results(one, other, probes=probes, metric=metric, part=part)
    test = significance(one, other, probes=probes, metric=metric, part=part)
    if json_output:
        both = [one.data["protocol"], other.data["protocol"]]
        about = {
            "protocols": [protocol["name"] for protocol in both],
            "on_test": [protocol["on_test"] for protocol in both],
            "mark": "; ".join(dict.fromkeys(text for text in (mark(one.data), mark(other.data)) if text)),
        }
        about["probes"] = list(probes)
        typer.echo(json.dumps({**found.to_json(), "test": test.to_json(), **about}))
        return

    def signed(value: float | None) -> str:
        return "-" if value is None else f"{value:+.4f}"

    typer.echo(
        f"{found.metric}: {first.name} {probes[0]}{marked(one.data)} - {second.name} {probes[1]}{marked(other.data)} = "
        f"{signed(found.value)} "
        f"[{signed(found.low)}, {signed(found.high)}] (95 % paired bootstrap over {found.units} {found.unit}s; "
        f"p = {test.p:.2g}, randomisation test)"
    )


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a result.")],
    json_output: options.AsJson = False,
) -> None:
    """Print a finished result again.

    Example: facemae probe report results/first
    """
    from facemae_probes.results.report import require_result

    show(require_result(folder).data, json_output, folder)


def show(data: dict[str, Any], json_output: bool, folder: Path) -> None:
    """Print a result.

    Args:
        data: The JSON result.
        json_output: As one line of JSON.
        folder: Where it lies.
    """
    if json_output:
        typer.echo(json.dumps(data))
        return
    from facemae_probes.results.table import results_table, tall_lines
    from facemae_probes.results.terminal import print_table

    for text in data["warnings"]:
        typer.echo(f"warning: {text}", err=True)
    print_table(results_table(data), lambda: tall_lines(data))
    typer.echo(f"result: {folder / 'result.json'}")
