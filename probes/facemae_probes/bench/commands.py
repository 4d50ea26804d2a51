"""The command `facemae bench probe`, an entry point of the group `facemae.benches`."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def probe(
    rounds: Annotated[int, typer.Option(min=1, help="How often each side is timed, in turns.")] = 3,
    large: Annotated[bool, typer.Option(help="Also probe a million samples, for its memory.")] = True,
    half: Annotated[bool, typer.Option(help="Store the million in half precision.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where to put the million meanwhile: 3.1 GB.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: to see that it works.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Heads on frozen features: linear path, neighbours, and a million samples, against scikit-learn.

    Example: [bold]OMP_NUM_THREADS=1 facemae bench probe --json[/bold]

    The linear path must reach the objective within 1e-4, as must scikit-learn with tolerances no tighter than that
    takes; neighbours must be those of brute force. Peak memory is that of a process of its own.
    """
    from facemae.bench.commands import show, tell
    from facemae_probes.bench.knn import SHAPES, bench_knn
    from facemae_probes.bench.linear import bench_linear
    from facemae_probes.bench.memory import bench_memory

    if quick:
        show(bench_linear(1500, 24, 4, 1, tell=tell), as_json)
        show(bench_knn([(1500, 100, 24, 10)], 1, tell=tell), as_json)
    else:
        show(bench_linear(25_000, 384, 8, rounds, tell=tell), as_json)
        show(bench_knn(SHAPES, rounds, tell=tell), as_json)
    if large:
        samples, dimensions, queries = (20_000, 32, 50) if quick else (1_000_000, 768, 1000)
        show(bench_memory(samples, dimensions, queries, half=half, folder=folder, tell=tell), as_json)
