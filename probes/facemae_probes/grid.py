"""Several models on several tasks: each cell is a result of its own, and a table of those there are."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facemae.errors import FacemaeError, UsageError
from facemae.files import write_text
from facemae_probes.choosing.plan import Say
from facemae_probes.results.grid_table import Head, grid_table, markdown
from facemae_probes.results.result import ProbeResult

CELLS = "cells"


@dataclass(frozen=True)
class Cell:
    """One model on one task.

    Attributes:
        model: Name of the model in the table.
        task: Name of the task in the table: benchmark and target, or columns.
        shards: The shard set, as it was named.
        protocol: The protocol's written form.
        run: Makes the result in a folder, or reads it back where it is finished.
        origin: What the model's name stands for: a path, or a baseline.
    """

    model: str
    task: str
    shards: str
    protocol: str
    run: Callable[[Path], ProbeResult]
    origin: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells cells of a grid apart."""
        return (self.task, self.shards, self.protocol, self.model)

    @property
    def folder(self) -> str:
        """Where its result lies in the grid's folder.

        Names alone would give two cells one folder: a file name cannot hold all that they may.
        """
        digest = hashlib.sha256(json.dumps([*self.key, self.origin]).encode()).hexdigest()[:10]
        readable = "_".join(_plain(name) for name in (self.task, self.protocol, self.model))
        return f"{CELLS}/{readable}-{digest}"

    def head(self) -> Head:
        """What the table says of it."""
        names = {"model": self.model, "task": self.task, "shards": self.shards, "protocol": self.protocol}
        return {**names, "folder": self.folder}


def run_grid(cells: Sequence[Cell], out: Path, say: Say) -> dict[str, str]:
    """Run or continue a grid, and write `table.md` and `table.json` after every cell.

    A cell that fails is named, in the table too, and the others go on. The table has only what this call ran or read
    back, never an older result to another question.

    Args:
        cells: What is asked.
        out: Folder of the grid.
        say: Told how it goes.

    Returns:
        Errors by folder of the failed cells.

    Raises:
        UsageError: Two cells are the same.
    """
    _refuse_duplicates(cells)
    asked = [cell.head() for cell in cells]
    finished: list[tuple[Head, dict[str, Any]]] = []
    failed: list[tuple[Head, str]] = []
    for number, (cell, head) in enumerate(zip(cells, asked, strict=True), 1):
        say(f"{number} of {len(cells)}: {cell.model} on {cell.task}, {cell.protocol}")
        try:
            finished.append((head, cell.run(out / cell.folder).data))
        except FacemaeError as error:
            failed.append((head, str(error)))
            say(f"failed: {error}")
        lines = [(head, error.partition("\n")[0]) for head, error in failed]
        _write_table(out, grid_table(asked, finished, lines))
    return {head["folder"]: error for head, error in failed}


def _refuse_duplicates(cells: Sequence[Cell]) -> None:
    twice = [key for key, count in Counter(cell.key for cell in cells).items() if count > 1]
    if twice:
        task, shards, protocol, model = twice[0]
        raise UsageError(
            f"{model} on {task} of {shards}, {protocol}, is asked for twice",
            expected="each model, task and protocol once",
        )


def _write_table(out: Path, table: dict[str, Any]) -> None:
    write_text(out / "table.json", json.dumps(table, indent=1, allow_nan=False) + "\n")
    write_text(out / "table.md", markdown(table))


def _plain(name: str) -> str:
    """What of a name a file name can hold."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")[:60] or "unnamed"
