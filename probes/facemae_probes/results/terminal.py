"""Tables on a terminal."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.table import Table

_WIDEST = 10_000
"""Columns: more than any table takes."""


def print_table(table: "Table", lines: Callable[[], Sequence[str]]) -> None:
    """Print a table, or the same in lines where it is too wide: squeezed, it would lose its intervals first.

    What is not a terminal counts as eighty columns wide.

    Args:
        table: The table.
        lines: Says the same without columns.
    """
    from rich.console import Console

    console = Console()
    if console.measure(table, options=console.options.update(max_width=_WIDEST)).maximum <= console.width:
        console.print(table)
    else:
        typer.echo("\n".join(lines()))
