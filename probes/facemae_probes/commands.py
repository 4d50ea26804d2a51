"""`facemae probe`: measure a frozen encoder on labelled faces."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facemae.errors import UsageError
from facemae_probes.benchmarks.commands import register as register_benchmarks
from facemae_probes.contamination_command import register as register_contamination
from facemae_probes.grid_command import register as register_grid
from facemae_probes.targets import KINDS

if TYPE_CHECKING:
    from facemae_probes.benchmarks.ask import Question

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Measure a frozen encoder on labelled faces.",
)


@app.callback()
def group() -> None:
    """Measure a frozen encoder on labelled faces."""


@app.command("run")
def run(
    data: Annotated[Path, typer.Option(help="Indexed shard set with labels and splits.")],
    model: Annotated[
        str, typer.Option(help="Run folder, checkpoint or exported encoder; or a baseline: `pixels`, `hog`.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for result.json, predictions and pictures.")],
    benchmark: Annotated[
        str | None,
        typer.Argument(metavar="[BENCHMARK]", help="Takes labels, units and slices from it; see facemae probe list."),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Target of the benchmark; default its first.")] = None,
    label: Annotated[str | None, typer.Option(help="Label column.")] = None,
    labels_like: Annotated[
        str | None, typer.Option(help="Several binary columns: a pattern such as 'AU*', or a comma-separated list.")
    ] = None,
    task: Annotated[str, typer.Option(help="auto, classes, multilabel, distribution or regression.")] = "auto",
    protocol: Annotated[
        str | None,
        typer.Option(
            help="official, kfold:K, folds:COLUMN, loso, few-shot:N, few-shot:P%, or paper:SYSTEM, a published way "
            "that chooses on test and is marked so. Default: the benchmark's, else official."
        ),
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Draws of a few-shot protocol.")] = 10,
    test_data: Annotated[
        Path | None, typer.Option(help="Another shard set to be tested on: learn from --data, predict this one.")
    ] = None,
    test_label: Annotated[str | None, typer.Option(help="Its label column; default that of --data.")] = None,
    mapping: Annotated[
        list[str] | None, typer.Option("--map", help="THEIRS=OURS: a label of --test-data. Repeatable.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="What settings are chosen by; default accuracy, macro-F1, or CCC by kind.")
    ] = None,
    probe: Annotated[str, typer.Option(help="Comma-separated: linear, knn, attentive.")] = "linear,knn,attentive",
    layers: Annotated[str, typer.Option(help="`all`, or block numbers such as 5,11 or -1.")] = "all",
    pooling: Annotated[str, typer.Option(help="Comma-separated: mean, cls, cls+mean, gridK.")] = "mean,cls,grid2,grid4",
    where: Annotated[list[str] | None, typer.Option(help="COLUMN=VALUE; only such samples. Repeatable.")] = None,
    slices: Annotated[
        list[str] | None, typer.Option("--slice", help="COLUMN=VALUE; report this part of test too. Repeatable.")
    ] = None,
    group_by: Annotated[
        list[str] | None, typer.Option(help="COLUMN: numbers for each of its values, and the largest gap. Repeatable.")
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Column of independent units, or `sample`; default subject.")] = None,
    split: Annotated[
        str, typer.Option(help="Column of the parts train, valid and test; samples without a value are left out.")
    ] = "split",
    random_init: Annotated[
        int | None, typer.Option(help="Seed; keep the architecture of MODEL, with random weights.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of features; default OUT/features.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything drawn.")] = 0,
    json_output: Annotated[bool, typer.Option("--json", help="Print result.json instead of a table.")] = False,
) -> None:
    """Probe frozen features: linear, kNN and attentive; any layer and pooling.

    Settings are chosen on training samples only: on the validation split, on units set aside from train where there is
    none, or anew in every fold. Test samples are predicted once.

    Example: facemae probe run raf-db --data shards/raf-db --model runs/first --out results/first

    Example: facemae probe run --data shards/own --model runs/first --label emotion --protocol loso --out results/loso
    """
    question = _question(benchmark, target, data, label, labels_like, task, unit, slices or ())
    from facemae_probes.plan import ProbePlan
    from facemae_probes.pool import TestSet
    from facemae_probes.protocols.registry import parse_protocol
    from facemae_probes.report import results_table
    from facemae_probes.runner import run_probe

    if test_data is None and (test_label is not None or mapping):
        raise UsageError("--test-label or --map without --test-data", expected="another shard set to be tested on")
    if test_data is not None and protocol is not None:
        raise UsageError(f"--protocol {protocol} with --test-data", expected="one of them")
    plan = ProbePlan(
        probes=tuple(parse_names(probe)),  # type: ignore[arg-type]
        layers=parse_layers(layers),
        poolings=tuple(parse_names(pooling)),
        metric=metric,
        seed=seed,
    )
    other = None
    if test_data is not None:
        other = TestSet(test_data, test_label, dict(_pair(text, "--map", "THEIRS=OURS") for text in mapping or ()))
    result = run_probe(
        data,
        model_source(model, data, random_init),
        question.label,
        plan=plan,
        kind=question.kind,
        protocol=parse_protocol(protocol or question.protocol, draws=draws),
        test_set=other,
        where=dict(_pair(text, "--where", "COLUMN=VALUE") for text in where or ()),
        slices=question.slices,
        groups=tuple(group_by or ()),
        unit=question.unit,
        classes=question.classes,
        benchmark=question.about,
        split=split,
        out=out,
        cache=cache,
        say=lambda text: typer.echo(text, err=True),
    )
    _show(result.data, json_output, results_table, out)


@app.command("compare")
def compare(
    first: Annotated[Path, typer.Argument(help="Folder of one result.")],
    second: Annotated[Path, typer.Argument(help="Folder of another on the same test samples.")],
    probe: Annotated[str | None, typer.Option(help="Probe kind; default each result's chosen one.")] = None,
    metric: Annotated[str | None, typer.Option(help="Name of a metric; default accuracy, macro-F1 or CCC.")] = None,
    part: Annotated[str | None, typer.Option("--slice", help="Only this reported slice, COLUMN=VALUE.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare two results on the same test samples by a paired bootstrap and a randomisation test.

    Example: facemae probe compare results/first results/random --probe linear
    """
    import json

    from facemae_probes.report import marked, require_result
    from facemae_probes.results import compare_results, significance

    one, other = require_result(first), require_result(second)
    probes = (probe, probe) if probe else None
    found = compare_results(one, other, probes=probes, metric=metric, part=part)
    test = significance(one, other, probes=probes, metric=metric, part=part)
    if json_output:
        typer.echo(json.dumps({**found.to_json(), "test": test.to_json()}))
        return

    def signed(value: float | None) -> str:
        return "-" if value is None else f"{value:+.4f}"

    typer.echo(
        f"{found.metric}: {first.name}{marked(one.data)} - {second.name}{marked(other.data)} = {signed(found.value)} "
        f"[{signed(found.low)}, {signed(found.high)}] (95 % paired bootstrap over {found.units} {found.unit}s; "
        f"p = {test.p:.2g}, randomisation test)"
    )


@app.command("report")
def show(
    folder: Annotated[Path, typer.Argument(help="Folder of a result.")],
    json_output: Annotated[bool, typer.Option("--json", help="Print result.json.")] = False,
) -> None:
    """Print a finished result again.

    Example: facemae probe report results/first
    """
    from facemae_probes.report import require_result, results_table

    _show(require_result(folder).data, json_output, results_table, folder)


def _question(
    benchmark: str | None,
    target: str | None,
    data: Path,
    label: str | None,
    labels_like: str | None,
    task: str,
    unit: str | None,
    slices: Sequence[str],
) -> "Question":
    """What is asked, of a benchmark by name or of columns that are named."""
    from facemae_probes.benchmarks.ask import Question, ask_benchmark
    from facemae_probes.benchmarks.registry import benchmark as find

    if benchmark is not None:
        if label is not None or labels_like is not None or task != "auto":
            raise UsageError(
                f"--label, --labels-like or --task beside the benchmark {benchmark}",
                expected="a benchmark, which has its own labels, or columns",
                fix="--target chooses among the benchmark's; leave the name out to choose columns",
            )
        return ask_benchmark(find(benchmark), data, target=target, unit=unit, slices=slices)
    if target is not None:
        raise UsageError(
            f"--target {target} without a benchmark", fix="name the benchmark first; see facemae probe list"
        )
    if (label is None) == (labels_like is None):
        raise UsageError(
            "give a benchmark, or either --label or --labels-like",
            fix="raf-db, or --label emotion, or --labels-like 'AU*'",
        )
    if task not in ("auto", *KINDS):
        raise UsageError(f"--task {task}", expected=f"auto, {', '.join(KINDS)}")
    kind = "multilabel" if labels_like and task == "auto" else task
    return Question(str(label or labels_like), kind=kind, unit=unit, slices=tuple(slices))  # type: ignore[arg-type]


def _show(data: dict[str, Any], json_output: bool, table: Any, folder: Path) -> None:
    import json

    if json_output:
        typer.echo(json.dumps(data))
        return
    from rich.console import Console

    for text in data["warnings"]:
        typer.echo(f"warning: {text}", err=True)
    Console().print(table(data))
    typer.echo(f"result: {folder / 'result.json'}")


def model_source(model: str, data: Path, random_init: int | None = None) -> Any:
    """What `--model` names: a baseline, a run, a checkpoint or an exported encoder."""
    from facemae_probes.sources import EncoderSource, HogSource, PixelSource, pixel_input

    if model in ("pixels", "hog"):
        return (PixelSource if model == "pixels" else HogSource)(pixel_input(data))
    from facemae.features.extractor import load

    name = Path(model).name + ("" if random_init is None else f" (random weights, seed {random_init})")
    return EncoderSource(load(model, random_init=random_init), name=name)


def parse_names(text: str) -> list[str]:
    """Parts of a comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_layers(text: str) -> tuple[int, ...] | None:
    """Layer numbers; None for `all`."""
    if text.strip() == "all":
        return None
    try:
        return tuple(int(part) for part in parse_names(text))
    except ValueError:
        raise UsageError(f"--layers {text}", expected="`all`, or numbers such as 5,11 or -1") from None


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{option} {text}", expected=form)
    return name, value


register_grid(app)
register_benchmarks(app)
register_contamination(app)
