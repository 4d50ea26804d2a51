"""`facemae probe list`, `doctor` and `pack`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

PARTS = ("train", "valid", "test")

Name = Annotated[str, typer.Argument(metavar="BENCHMARK", help="Name; see facemae probe list.")]
Data = Annotated[Path, typer.Option(help="The owner's folder, as it was unpacked.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `facemae probe`."""
    app.command("list")(show_list)
    app.command("doctor")(doctor)
    app.command("pack")(pack)


def show_list(json_output: AsJson = False) -> None:
    """List the benchmarks: classes, counts of each known version, metric, unit, licence.

    Example: facemae probe list
    """
    from facemae_probes.benchmarks.registry import all_benchmarks

    if json_output:
        entries = [benchmark.model_dump(mode="json", exclude={"layouts"}) for benchmark in all_benchmarks()]
        layouts = [[_layout(layout) for layout in benchmark.layouts] for benchmark in all_benchmarks()]
        typer.echo(json.dumps([{**e, "layouts": found} for e, found in zip(entries, layouts, strict=True)], indent=2))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("benchmark", "family", "target", "metric", "train/valid/test", "unit"):
        table.add_column(column, no_wrap=True)
    for benchmark in all_benchmarks():
        table.add_row(
            benchmark.name,
            benchmark.family,
            "\n".join(_size(target) for target in benchmark.targets),
            "\n".join(target.metric for target in benchmark.targets),
            "\n".join(_counts(version) for version in benchmark.versions),
            benchmark.unit,
        )
    Console().print(table)
    for benchmark in all_benchmarks():
        typer.echo(f"{benchmark.name}: {benchmark.title}; licence: {benchmark.licence}")


def _size(target: Any) -> str:
    return f"{len(target.classes)} {target.kind}" if target.classes else str(target.kind)


def _counts(version: Any) -> str:
    return "/".join(str(version.counts.get(split, "-")) for split in PARTS)


def _layout(layout: Any) -> dict[str, Any]:
    return {name: getattr(layout, name) for name in ("name", "needs", "roots", "sources")}


def doctor(
    name: Name,
    data: Annotated[Path, typer.Option(help="The owner's folder, or shards packed from it.")],
    every: Annotated[bool, typer.Option("--all", help="Decode every image, not 200 of them.")] = False,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Look for equal images in different splits; decodes every image.")
    ] = False,
    json_output: AsJson = False,
) -> None:
    """Name what is missing or wrong in a copy of a benchmark, and say which version it is.

    Exit code 1 if anything is wrong.

    Example: facemae probe doctor raf-db --data basic/
    """
    from facemae.data.progress import progress
    from facemae_probes.benchmarks.doctor import examine
    from facemae_probes.benchmarks.registry import benchmark

    with progress("decoding") as report:
        found = examine(benchmark(name), data, decode_all=every, duplicates=duplicates, progress=report)
    typer.echo(json.dumps(found.as_dict(), indent=2) if json_output else "\n".join(found.lines()))
    if not found.sound:
        raise typer.Exit(1)


def pack(
    name: Name,
    data: Data,
    out: Annotated[Path, typer.Option(help="Shard set to make.")],
    clusters: Annotated[
        bool, typer.Option(help="Look for near-duplicate images, where they are the units of the benchmark.")
    ] = True,
    resize: Annotated[int | None, typer.Option(min=1, help="Scale down to this shorter side in pixels.")] = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Samples a shard.")] = 2000,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older shard set.")] = False,
    json_output: AsJson = False,
) -> None:
    """Pack a benchmark for probing: its labels, splits and units of independence.

    Example: facemae probe pack raf-db --data basic/ --out shards/raf-db
    """
    from facemae.data.progress import progress
    from facemae_probes.benchmarks.packing import pack_benchmark
    from facemae_probes.benchmarks.registry import benchmark

    with progress("packing") as report:
        result = pack_benchmark(
            benchmark(name),
            data,
            out,
            clusters=clusters,
            resize=resize,
            shard_size=shard_size,
            overwrite=overwrite,
            progress=report,
        )
    typer.echo(json.dumps(result.as_dict(), indent=2) if json_output else "\n".join(result.lines()))
