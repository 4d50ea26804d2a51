"""The summary on a terminal."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from facemae_probes.results.terminal import print_table
from facemae_probes.tour.probing import METRIC_NAMES

if TYPE_CHECKING:
    from rich.table import Table

MEASURED = ("probe", "metric", "constant", "random", "pretrained", "difference")
"""Columns of what a probe reached; `measured` gives their cells."""
_NOTE = (
    "So short a run shows the path, not the method: a hundred thousand faces are few, and kNN may even lose. Macro-F1 "
    "decides at 0.5, where a probe says no to rare action units; always saying yes is the constant answer there."
)


def span(found: dict[str, float], signed: bool = False) -> str:
    """A value with its interval, in percent points."""
    sign = "+" if signed else ""
    return f"{100 * found['value']:{sign}.1f} [{100 * found['low']:{sign}.1f}, {100 * found['high']:{sign}.1f}]"


def measured(row: dict[str, Any]) -> list[str]:
    """The cells of `MEASURED`, in percent."""
    return [
        row["probe"],
        METRIC_NAMES[row["metric"]],
        f"{100 * row['constant']:.1f}",
        span(row["random"]),
        span(row["pretrained"]),
        span(row["gain"], signed=True),
    ]


def units(summary: dict[str, Any]) -> str:
    """What the intervals of the table are drawn over, in the plural."""
    return " or ".join(f"{unit}s" for unit in dict.fromkeys(row["unit"] for row in summary["rows"]))


def _tall(summary: dict[str, Any], table: "Table") -> list[str]:
    """The table without columns."""
    lines = [str(table.title)]
    for row in summary["rows"]:
        lines += [
            f"{row['question']} ({row['classes']}), {row['probe']}, {METRIC_NAMES[row['metric']]}",
            f"  constant {100 * row['constant']:.1f}, random {span(row['random'])}",
            f"  pretrained {span(row['pretrained'])}, difference {span(row['gain'], signed=True)}",
        ]
    return [*lines, str(table.caption)]


def print_summary(summary: dict[str, Any], folder: Path) -> None:
    """Print the table of the probes, the time, and where to look."""
    from rich.table import Table

    table = Table(
        title=f"What frozen features know (percent, 95 % bootstrap interval over {units(summary)})",
        caption="constant: the best answer that is the same for every image; random: the same encoder before training",
    )
    for column in ("question", *MEASURED):
        table.add_column(column, no_wrap=column != "question")
    for row in summary["rows"]:
        table.add_row(
            f"{row['question']} ({row['classes']})",
            *measured(row),
        )
    print_table(table, lambda: _tall(summary, table))
    typer.echo(_NOTE)
    for question, about in {row["question"]: row["about"] for row in summary["rows"]}.items():
        typer.echo(f"{question}: on {about}")
    lines = [f"{summary['seconds']:.0f} s on {summary['cores']} cores", f"page:     {folder / summary['page']}"]
    lines += [f"{name}: {folder / path}" for name, path in summary["pictures"].items()]
    lines += [f"model:    {folder / summary['model']}", f"features: {folder / summary['features']}"]
    lines.append(f"next:     facemae extract PHOTOS --model {folder / summary['model']} --out features.npz")
    typer.echo("\n".join(lines))
