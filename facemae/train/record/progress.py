"""What a person sees while a run is going: a live line on a terminal, plain lines elsewhere. Always on stderr."""

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column

_WIDE = 110
"""Columns of a terminal with room for a bar beside the numbers."""


def make_bar(steps: int, console: Console) -> Bar:
    """A line that keeps its step number however narrow the terminal is."""
    count = TextColumn(
        "step {task.completed:.0f}/{task.total:.0f}",
        table_column=Column(no_wrap=True, min_width=len(f"step {steps}/{steps}")),
    )
    line = TextColumn("{task.fields[line]}", table_column=Column(no_wrap=True, overflow="ellipsis"))
    bar = [BarColumn(bar_width=20)] if console.width >= _WIDE else []
    return Bar(count, *bar, line, console=console)


class Progress:
    """The progress line of a run.

    Args:
        step: Steps already done.
        steps: Steps of the whole run.
    """

    def __init__(self, step: int, steps: int) -> None:
        self._steps = steps
        self._bar: Bar | None = None
        if sys.stderr.isatty():
            self._bar = make_bar(steps, Console(stderr=True))
            self._task = self._bar.add_task("", total=steps, completed=step, line="")

    def start(self) -> None:
        """Show it."""
        if self._bar is not None:
            self._bar.start()

    def stop(self) -> None:
        """Leave the last line standing."""
        if self._bar is not None:
            self._bar.stop()

    def advance(self, step: int) -> None:
        """Move to a step."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def show(self, record: Mapping[str, Any]) -> None:
        """Show a line of metrics."""
        if self._bar is not None:
            self._bar.update(self._task, line=metrics_line(record))
        else:
            print(f"step {record['step']}/{self._steps}  {metrics_line(record)}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Print a sentence."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)


def _rate(value: float) -> str:
    """Two digits at least: some machines make half a sample a second."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def metrics_line(record: Mapping[str, Any]) -> str:
    """One line of metrics for people."""
    loss = record.get("loss")
    parts = [
        f"loss {loss:.4f}" if loss is not None else "loss (skipped)",
        f"lr {record['lr']:.2e}",
        f"{_rate(record['samples_per_s'])} samples/s",
        f"{100 * record['data_wait']:.0f} % waiting for data",
    ]
    if record.get("eta_s") is not None:
        parts.append(f"ETA {duration(record['eta_s'])}")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as `1:02:03`, days in front where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days} d " if days else "") + f"{hours}:{minutes:02d}:{rest:02d}"
