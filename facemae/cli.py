"""The one command, `facemae`.

Subcommands are entry points of the group ``facemae.commands``; any installed package can add one. The modules they name
are light: they declare options and import torch, timm and the rest only inside the function that runs. `facemae --help`
therefore answers at once.
"""

import difflib
import importlib.metadata
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from facemae.errors import FacemaeError, UsageError

GROUP = "facemae.commands"


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUP)}


class EntryPointGroup(TyperGroup):
    """A command group whose members are looked up among the installed entry points.

    An entry point names a `typer.Typer`, which holds one command or a group of them.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the installed subcommands, the library's own first in the order a newcomer meets them."""
        found = _entry_points()
        order = [
            "quickstart",
            "data",
            "config",
            "pretrain",
            "status",
            "extract",
            "probe",
            "study",
            "bench",
            "env",
        ]
        known = [name for name in order if name in found]
        return known + sorted(set(found) - set(known))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The subcommand that the arguments name.

        Raises:
            UsageError: There is none of that name.
        """
        names = self.list_commands(ctx)
        if args and args[0] not in names and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], names, 1)
            raise UsageError(
                f"there is no command {args[0]!r}",
                expected=f"one of {', '.join(names)}",
                fix=f"facemae {near[0]}" if near else "facemae --help says what each of them does",
            )
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The subcommand of this name, or None where none is installed."""
        entry = _entry_points().get(cmd_name)
        if entry is None:
            return None
        command = get_command(entry.load())
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=EntryPointGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(importlib.metadata.version("facemae"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Self-supervised pretraining of facial representations.

    Start with [bold]facemae quickstart[/bold]: the whole path on procedural faces in a few minutes.
    """


def main() -> None:
    """Run the command line; exit with 0 on success, 1 on failure, 2 on wrong usage.

    Interrupts and closed pipes end inside typer, with 130 and 1.
    """
    try:
        app()
    except FacemaeError as error:
        print(f"facemae: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
