"""`facemae probe grid`: several models on several tasks, one table."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facemae.errors import UsageError
from facemae_probes.commands import options

if TYPE_CHECKING:
    from facemae_probes.benchmarks.base import Benchmark
    from facemae_probes.grid import Cell


def register(app: typer.Typer) -> None:
    """Add the command to `facemae probe`."""
    app.command("grid")(grid)


def grid(
    out: Annotated[Path, typer.Option(help="Folder of the grid; the same command continues it.")],
    models: Annotated[
        list[str], typer.Option("--model", help="[NAME=]MODEL: a run, a checkpoint, pixels or hog. Repeatable.")
    ],
    tasks: Annotated[
        list[str], typer.Option("--task", help="BENCHMARK[:TARGET]=SHARDS, or COLUMN=SHARDS. Repeatable.")
    ],
    protocols: Annotated[
        list[str] | None, typer.Option("--protocol", help="Default that of the benchmark. Repeatable.")
    ] = None,
    probe: options.Probes = options.ALL_PROBES,
    finetune: options.Finetune = None,
    layers: options.Layers = "all",
    pooling: options.Poolings = options.ALL,
    draws: options.Draws = 10,
    seed: options.Seed = 0,
    json_output: Annotated[bool, typer.Option("--json", help="Print table.json instead of the table.")] = False,
) -> None:
    """Probe several models on several tasks, and write one table.

    Every cell is a result in a folder of its own; a finished one is read back. A cell that fails is named, the others
    go on, and the exit code is 1.

    Example: facemae probe grid --model runs/first --model hog --task raf-db=shards/raf-db --out results/grid
    """
    from facemae_probes.grid import run_grid

    plan = options.read_plan(probe, layers, pooling, seed, None, finetune)
    named = dict(_named(text) for text in models)
    if len(named) < len(models):
        raise UsageError("two models of one name", expected="--model NAME=MODEL with different names")
    cells = [
        _cell(name, model, task, protocol, plan, out, draws)
        for task in tasks
        for protocol in protocols or [""]
        for name, model in named.items()
    ]
    failed = run_grid(cells, out, say=options.say)
    typer.echo((out / ("table.json" if json_output else "table.md")).read_text(encoding="utf-8"))
    for folder in failed:
        typer.echo(f"failed: {folder}", err=True)
    if failed:
        raise typer.Exit(1)


def _named(text: str) -> tuple[str, str]:
    name, equals, model = text.partition("=")
    return (name, model) if equals else (Path(text).name, text)


def _cell(name: str, model: str, task: str, protocol: str, plan: Any, out: Path, draws: int) -> "Cell":
    from facemae_probes.benchmarks.registry import BENCHMARKS, benchmark
    from facemae_probes.grid import Cell
    from facemae_probes.protocols.registry import parse_protocol

    asked, equals, shards = task.partition("=")
    if not equals:
        raise UsageError(f"--task {task}", expected="BENCHMARK[:TARGET]=SHARDS, or COLUMN=SHARDS")
    known, _, target = asked.partition(":")
    named, usual = None, "official"
    if known in BENCHMARKS:
        named = benchmark(known)
        named.target(target or None)
        usual = named.protocol
    chosen = parse_protocol(protocol or usual, draws=draws)
    run: Callable[[Path], Any] = partial(_run, name, model, Path(shards), named, asked, chosen, plan, out)
    return Cell(name, asked, str(Path(shards)), chosen.name, run, origin=str(Path(model)))


def _run(
    name: str,
    model: str,
    shards: Path,
    benchmark: "Benchmark | None",
    asked: str,
    protocol: Any,
    plan: Any,
    out: Path,
    folder: Path,
) -> Any:
    from facemae_probes.benchmarks.ask import Question, ask_benchmark
    from facemae_probes.runner import run_probe

    # Asked here, inside the cell: shards that are not there are an error of the cell and not of the grid.
    question = Question(asked)
    if benchmark is not None:
        question = ask_benchmark(benchmark, shards, target=asked.partition(":")[2] or None)
    source = options.model_source(model, shards)
    source.name = name
    return run_probe(
        shards,
        source,
        question.label,
        plan=replace(plan, metric=plan.metric or question.metric),
        kind=question.kind,
        protocol=protocol,
        unit=question.unit,
        slices=question.slices,
        classes=question.classes,
        benchmark=question.about,
        out=folder,
        cache=out / "features",
        say=options.say,
    )
