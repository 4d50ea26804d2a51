"""Several models on several tasks: each cell is a result of its own, and a table of those there are."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facemae.errors import FacemaeError
from facemae.files import write_text
from facemae_probes.choosing.plan import Say
from facemae_probes.metrics import find_metric
from facemae_probes.results.report import MARK, marked, read_result
from facemae_probes.results.result import ProbeResult
from facemae_probes.results.scoring import SHOWN

CELLS = "cells"


@dataclass(frozen=True)
class Cell:
    """One model on one task.

    Attributes:
        model: Name of the model in the table.
        task: Name of the task in the table: benchmark and target, or columns.
        protocol: The protocol's written form.
        run: Makes the result in a folder, or reads it back where it is finished.
    """

    model: str
    task: str
    protocol: str
    run: Callable[[Path], ProbeResult]

    def folder(self, out: Path) -> Path:
        """Where its result lies."""
        return out / CELLS / _plain(self.task) / _plain(self.protocol) / _plain(self.model)


def run_grid(cells: Sequence[Cell], out: Path, say: Say) -> dict[str, str]:
    """Run or continue a grid, and write `table.md` and `table.json` after every cell.

    A cell that fails is named and the others go on.

    Args:
        cells: What is asked.
        out: Folder of the grid.
        say: Told how it goes.

    Returns:
        Errors by folder of the failed cells.
    """
    failed: dict[str, str] = {}
    for number, cell in enumerate(cells, 1):
        folder = cell.folder(out)
        say(f"{number} of {len(cells)}: {cell.model} on {cell.task}, {cell.protocol}")
        try:
            cell.run(folder)
        except FacemaeError as error:
            failed[str(folder.relative_to(out))] = str(error)
            say(f"failed: {error}")
        write_table(cells, out)
    return failed


def write_table(cells: Sequence[Cell], out: Path) -> list[dict[str, Any]]:
    """Write `table.md` and `table.json` of the finished cells.

    Returns:
        The rows of the table.
    """
    rows = []
    for cell in cells:
        result = read_result(cell.folder(out))
        if result is not None:
            rows += _rows(cell, result.data, cell.folder(out).relative_to(out).as_posix())
    write_text(out / "table.json", json.dumps(rows, indent=1) + "\n")
    write_text(out / "table.md", markdown(rows))
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown: a section a task and protocol, a line a model and probe."""
    lines: list[str] = []
    for head in dict.fromkeys((row["task"], row["protocol"], row["on_test"]) for row in rows):
        own = [row for row in rows if (row["task"], row["protocol"], row["on_test"]) == head]
        task, protocol, on_test = head
        metrics = list(own[0]["metrics"])
        titles = [own[0]["metrics"][name]["title"] for name in metrics]
        about = f"Intervals: 95 % bootstrap over {own[0]['unit']}s ({own[0]['units']}). Settings chosen on "
        lines += [
            f"## {task}, {protocol}{f' ({MARK})' if on_test else ''}",
            "",
            f"| model | probe | {' | '.join(titles)} | n |",
            "|---|---|" + "---|" * (len(metrics) + 1),
            *(_line(row, metrics) for row in own),
            "",
            about + f"{own[0]['chosen_on']}.",
            "",
        ]
    return "\n".join(lines) or "No cell is finished.\n"


def _line(row: dict[str, Any], metrics: Sequence[str]) -> str:
    cells = [_shown(row["metrics"][name]) for name in metrics]
    star = " *" if row["chosen"] else ""
    return f"| {_cell(row['model'])} | {row['probe']}{star} | {' | '.join(cells)} | {row['count']} |"


def _shown(entry: dict[str, Any]) -> str:
    if entry["value"] is None:
        return "-"
    if entry["low"] is None:
        return f"{entry['value']:.3f}"
    return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"


def _rows(cell: Cell, data: dict[str, Any], folder: str) -> list[dict[str, Any]]:
    task, kind = data["task"], data["task"]["kind"]
    return [
        {
            "model": cell.model,
            "task": cell.task,
            "protocol": data["protocol"]["name"],
            "on_test": data["protocol"]["on_test"],
            "mark": marked(data).strip(),
            "chosen_on": data["protocol"]["chosen_on"],
            "probe": probe,
            "chosen": probe == data["chosen"]["probe"],
            "count": entry["test"]["count"],
            "unit": task["unit"],
            "units": task["units"]["test"],
            "metrics": {
                name: {"title": find_metric(name, kind).title, **_bounds(entry["test"]["intervals"][name])}
                for name in SHOWN[kind]
            },
            "folder": folder,
        }
        for probe, entry in data["results"].items()
    ]


def _bounds(interval: dict[str, Any]) -> dict[str, Any]:
    return {name: interval[name] for name in ("value", "low", "high")}


def _plain(name: str) -> str:
    """A name as a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
