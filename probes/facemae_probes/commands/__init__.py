"""`facemae probe`: measure an encoder on labelled faces. One file a command; heavy things are imported when it runs."""

import typer

from facemae_probes.benchmarks import commands as benchmarks
from facemae_probes.commands import contamination, grid, results, run, verification

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Measure an encoder on labelled faces.",
)


@app.callback()
def group() -> None:
    """Measure an encoder on labelled faces."""


for module in (run, results, grid, benchmarks, contamination, verification):
    module.register(app)
