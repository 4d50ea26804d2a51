"""`facemae probe run`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facemae.errors import UsageError
from facemae_probes.commands import options
from facemae_probes.commands.results import show

if TYPE_CHECKING:
    from facemae_probes.benchmarks.ask import Question
    from facemae_probes.features.pool import TestSet
    from facemae_probes.tasks.clips import ClipColumns


def register(app: typer.Typer) -> None:
    """Add the command to `facemae probe`."""
    app.command("run")(run)


def run(
    data: Annotated[Path, typer.Option(help="Indexed shard set with labels and splits.")],
    model: options.Model,
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
    protocol: options.Protocol = None,
    draws: options.Draws = 10,
    test_data: options.TestData = None,
    test_label: options.TestLabel = None,
    test_where: options.TestWhere = None,
    mapping: options.Mapping = None,
    clip: options.Clip = None,
    frame: options.Frame = None,
    metric: options.Metric = None,
    probe: options.Probes = options.ALL_PROBES,
    finetune: options.Finetune = None,
    layers: options.Layers = "all",
    pooling: options.Poolings = options.ALL,
    where: options.Where = None,
    slices: options.Slices = None,
    group_by: options.GroupBy = None,
    unit: options.Unit = None,
    split: options.Split = "split",
    random_init: options.RandomInit = None,
    cache: options.Cache = None,
    seed: options.Seed = 0,
    json_output: options.AsJson = False,
) -> None:
    """Probe frozen features: linear, kNN and attentive; any layer and pooling.

    Settings are chosen on training samples only: on the validation split, on units set aside from train where there is
    none, or anew in every fold. Test samples are predicted once.

    Example: facemae probe run raf-db --data shards/raf-db --model runs/first --out results/first

    Example: facemae probe run --data shards/own --model runs/first --label emotion --protocol loso --out results/loso
    """
    question = _question(benchmark, target, data, label, labels_like, task, unit, slices or (), test_data)
    from facemae_probes.protocols.registry import parse_protocol
    from facemae_probes.runner import run_probe

    result = run_probe(
        data,
        options.model_source(model, data, random_init),
        question.label,
        plan=options.read_plan(probe, layers, pooling, seed, metric or question.metric, finetune),
        kind=question.kind,
        # Another set to be tested on says by itself how samples are told apart.
        protocol=None if test_data is not None else parse_protocol(protocol or question.protocol, draws=draws),
        test_set=_test_set(test_data, test_label, mapping, test_where, protocol),
        clips=_clips(clip, frame),
        where=options.parse_pairs(where, "--where", "COLUMN=VALUE"),
        slices=question.slices,
        groups=tuple(group_by or ()),
        unit=question.unit,
        classes=question.classes,
        benchmark=question.about,
        split=split,
        out=out,
        cache=cache,
        say=options.say,
    )
    show(result.data, json_output, out)


def _question(
    benchmark: str | None,
    target: str | None,
    data: Path,
    label: str | None,
    labels_like: str | None,
    task: str,
    unit: str | None,
    slices: Sequence[str],
    tested: Path | None,
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
        return ask_benchmark(find(benchmark), data, target=target, unit=unit, slices=slices, tested=tested)
    if target is not None:
        raise UsageError(
            f"--target {target} without a benchmark", fix="name the benchmark first; see facemae probe list"
        )
    if (label is None) == (labels_like is None):
        raise UsageError(
            "give a benchmark, or either --label or --labels-like",
            fix="raf-db, or --label emotion, or --labels-like 'AU*'",
        )
    from facemae_probes.tasks.targets import KINDS

    if task not in ("auto", *KINDS):
        raise UsageError(f"--task {task}", expected=f"auto, {', '.join(KINDS)}")
    kind = "multilabel" if labels_like and task == "auto" else task
    return Question(str(label or labels_like), kind=kind, unit=unit, slices=tuple(slices))  # type: ignore[arg-type]


def _clips(clip: str | None, frame: str | None) -> "ClipColumns | None":
    from facemae_probes.tasks.clips import ClipColumns

    if clip is None and frame is not None:
        raise UsageError(f"--frame {frame} without --clip", expected="--clip COLUMN, whose frames it orders")
    return None if clip is None else ClipColumns(clip, frame)


def _test_set(
    data: Path | None, label: str | None, mapping: list[str] | None, where: list[str] | None, protocol: str | None
) -> "TestSet | None":
    from facemae_probes.features.pool import TestSet

    if data is None:
        if label is not None or mapping or where:
            raise UsageError(
                "--test-label, --test-where or --map without --test-data", expected="another shard set to be tested on"
            )
        return None
    if protocol is not None:
        raise UsageError(f"--protocol {protocol} with --test-data", expected="one of them")
    return TestSet(
        data,
        label,
        options.parse_pairs(mapping, "--map", "THEIRS=OURS"),
        options.parse_pairs(where, "--test-where", "COLUMN=VALUE"),
    )
