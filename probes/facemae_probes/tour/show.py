"""The summary on a terminal."""

from pathlib import Path
from typing import Any

from facemae_probes.tour.probing import METRIC_NAMES


def span(found: dict[str, float], signed: bool = False) -> str:
    """A value with its interval, in percent points."""
    sign = "+" if signed else ""
    return f"{100 * found['value']:{sign}.1f} [{100 * found['low']:{sign}.1f}, {100 * found['high']:{sign}.1f}]"


def units(summary: dict[str, Any]) -> str:
    """What the intervals of the table are drawn over, in the plural."""
    return " or ".join(f"{unit}s" for unit in dict.fromkeys(row["unit"] for row in summary["rows"]))


def print_summary(summary: dict[str, Any], folder: Path) -> None:
    """Print the table of the probes, the time, and where to look."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"What frozen features know (percent, 95 % bootstrap interval over {units(summary)})",
        caption="constant: the best answer that is the same for every image; random: the same encoder before training",
    )
    for column in ("question", "probe", "metric", "constant", "random", "pretrained", "difference"):
        table.add_column(column, no_wrap=column != "question")
    for row in summary["rows"]:
        table.add_row(
            f"{row['question']} ({row['classes']})",
            row["probe"],
            METRIC_NAMES[row["metric"]],
            f"{100 * row['constant']:.1f}",
            span(row["random"]),
            span(row["pretrained"]),
            span(row["gain"], signed=True),
        )
    console = Console()
    console.print(table)
    for question, about in {row["question"]: row["about"] for row in summary["rows"]}.items():
        console.print(f"{question}: on {about}", markup=False, highlight=False, soft_wrap=True)
    lines = [f"{summary['seconds']:.0f} s on {summary['cores']} cores", f"page:     {folder / summary['page']}"]
    lines += [f"{name}: {folder / path}" for name, path in summary["pictures"].items()]
    lines += [f"model:    {folder / summary['model']}", f"features: {folder / summary['features']}"]
    lines.append(f"next:     facemae extract PHOTOS --model {folder / summary['model']} --out features.npz")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
