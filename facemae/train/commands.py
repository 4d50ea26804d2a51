"""The commands `facemae config`, `facemae pretrain` and `facemae status`."""

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from facemae.config import Recipe

config_app = typer.Typer(add_completion=False)
pretrain_app = typer.Typer(no_args_is_help=True, add_completion=False)
status_app = typer.Typer(no_args_is_help=True, add_completion=False)

Overrides = Annotated[
    list[str] | None, typer.Argument(help="Changes such as optim.batch_size=512; values are YAML.", show_default=False)
]
RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe, or path of a YAML file.")]


@config_app.command()
def config(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="Name of a recipe, or path of a YAML file.")
    ] = None,
    overrides: Overrides = None,
    list_names: Annotated[bool, typer.Option("--list", help="Print the names of the library's recipes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of YAML.")] = False,
) -> None:
    """Print a recipe with everything filled in.

    Example: facemae config fmae_tiny_rising optim.batch_size=512 > mine.yaml
    """
    from facemae.errors import UsageError
    from facemae.recipe import list_recipes, load_recipe, recipe_to_yaml, recipe_tree

    if list_names:
        names = list_recipes()
        typer.echo(json.dumps(names) if as_json else "\n".join(names))
        return
    if recipe is None:
        raise UsageError("no recipe named", expected=", ".join(list_recipes()), fix="facemae config RECIPE")
    resolved = load_recipe(recipe, overrides or ())
    typer.echo(json.dumps(recipe_tree(resolved), indent=2) if as_json else recipe_to_yaml(resolved).rstrip())


@pretrain_app.command()
def pretrain(
    recipe: RecipeName,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Run folder; the same command continues it.")],
    overrides: Overrides = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="DIR|NAME=DIR", help="Shard set; with NAME= that of the stream of this name."),
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(
            "--init-from",
            metavar="PATH",
            help="Start from these weights only: a run, checkpoint, export or safetensors file.",
        ),
    ] = None,
    extend: Annotated[bool, typer.Option("--extend", help="Continue with a longer optim.total.")] = False,
    adopt_data: Annotated[
        bool, typer.Option("--adopt-data", help="Continue with shards added since the start.")
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            metavar="N",
            min=1,
            help="Processes on this machine; one for each GPU, or one on the CPU, where it is not given.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Pretrain a recipe, or continue a run.

    The same command starts and continues. SIGTERM or Ctrl-C saves at the end of the step and stops; a second Ctrl-C
    stops at once. Exit code 0 when finished or stopped by SIGTERM, 130 after Ctrl-C.

    Example: facemae pretrain fmae_tiny_rising --data shards/faces --out runs/first
    """
    from facemae.recipe import load_recipe
    from facemae.train import trainer
    from facemae.train.processes.launcher import ProcessCrash

    given = [] if processes is None else [f"efficiency.processes={processes}"]
    resolved = _with_data(load_recipe(recipe, [*(overrides or ()), *given]), data or ())
    try:
        result = trainer.pretrain(resolved, out, init_from=init_from, extend=extend, adopt_data=adopt_data)
    except ProcessCrash as crash:
        # A bug; where it happened is in that process's traceback, not in this one's.
        typer.echo(f"facemae: {crash}".rstrip(), err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(result.to_json()))
    if result.stopped == signal.SIGINT.name:
        raise typer.Exit(130)


@status_app.command()
def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show where a run is: step, speed, time left, last events.

    Example: facemae status runs/first
    """
    from facemae.train.record.status import describe, read_status

    found = read_status(run)
    typer.echo(json.dumps(found) if as_json else describe(found))


def _with_data(recipe: "Recipe", given: list[str] | tuple[str, ...]) -> "Recipe":
    """The recipe with the shard folders of `--data` filled in."""
    from facemae.errors import UsageError

    names = [stream.name for stream in recipe.data.streams]
    shards: dict[str, str] = {}
    for value in given:
        name, equals, folder = value.partition("=")
        if not equals or name not in names:
            if len(names) > 1:
                raise UsageError(
                    f"--data {value} does not say which stream it is for",
                    expected=" ".join(f"--data {stream}=DIR" for stream in names),
                )
            name, folder = names[0], value
        if name in shards:
            raise UsageError(f"--data is given twice for stream {name!r}", expected="one shard set for a stream")
        shards[name] = str(Path(folder).expanduser().resolve())
    streams = tuple(
        stream.model_copy(update={"shards": shards.get(stream.name, stream.shards)}) for stream in recipe.data.streams
    )
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"streams": streams})})
