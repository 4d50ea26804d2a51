"""Running probes: choose in every fold on training rows, predict its test rows once, then look at test labels.

`selection.choose` is given the labels of training rows only. Test labels enter after every choice is made, so permuting
them changes no choice.
"""

import contextlib
import hashlib
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError, UsageError
from facemae_probes.choosing.folds import all_folds, best_judged, mean_judgement
from facemae_probes.choosing.outcome import Outcome
from facemae_probes.choosing.plan import FROZEN, TUNED, ProbePlan, Say
from facemae_probes.features.overlap import refuse_shared
from facemae_probes.features.pool import Pool, TestSet, joined
from facemae_probes.features.sources import EncoderSource, FeatureSource, Setting
from facemae_probes.features.table import ClipFeatures, FeatureTable, StillFeatures
from facemae_probes.finetune.contest import Finetuner
from facemae_probes.finetune.fold import tuning_code
from facemae_probes.metrics import find_metric, primary
from facemae_probes.protocols.base import Protocol
from facemae_probes.protocols.cross import Cross
from facemae_probes.results import report
from facemae_probes.results.caveats import crop_warnings, knn_warnings, linear_warnings
from facemae_probes.results.identity import versions as installed
from facemae_probes.results.pretraining import pretraining_warnings
from facemae_probes.results.request import describe_protocol, describe_task, request
from facemae_probes.results.result import ProbeResult
from facemae_probes.results.scoring import score_constant, score_outcome
from facemae_probes.tasks.clips import ClipColumns, as_clips
from facemae_probes.tasks.columns import Columns, label_columns, read_columns
from facemae_probes.tasks.targets import Kind
from facemae_probes.tasks.task import Task, make_task

if TYPE_CHECKING:
    from facemae.features.extractor import FeatureExtractor


def run_probe(
    shards: Path | str,
    model: "FeatureSource | FeatureExtractor | Path | str",
    label: str,
    *,
    plan: ProbePlan | None = None,
    kind: Literal["auto"] | Kind = "auto",
    protocol: Protocol | None = None,
    test_set: TestSet | None = None,
    clips: ClipColumns | None = None,
    where: Mapping[str, str] | None = None,
    slices: Sequence[str] = (),
    groups: Sequence[str] = (),
    unit: str | None = None,
    split: str = "split",
    out: Path | None = None,
    cache: Path | None = None,
    also: Sequence[Setting] = (),
    classes: Sequence[str] = (),
    benchmark: dict[str, Any] | None = None,
    say: Say = lambda _: None,
) -> ProbeResult:
    """Probe frozen features on a labelled shard set.

    Args:
        shards: Indexed shard set.
        model: A run, checkpoint or exported encoder, an extractor, or any other source of features.
        label: Label column; a pattern or comma-separated list for several columns.
        plan: Probes and settings to try.
        kind: What the labels are.
        protocol: How training and test samples are told apart; None takes the official split.
        test_set: Another shard set, to be tested on in place of this one's test part.
        clips: Which samples are frames of one clip; None takes each sample for itself.
        where: Only samples with these values; of two sets, of the one that is learnt from (`TestSet.where`).
        slices: Test parts that are reported too, each `column=value`.
        groups: Columns by whose values the test part is cut, with the largest gap between two of them.
        unit: Column whose values are independent; None takes subject, else source, else cluster, else sample.
        split: Column of the official parts; samples without a value are left out.
        out: Folder for result.json, predictions and pictures. A finished result of the same request is read back.
        cache: Folder of features; None takes `out/features`, or a temporary folder without `out`.
        also: Further settings whose features are computed in the same pass, for later calls with the same cache.
        classes: Names of the classes in their order; empty takes them from the labels.
        benchmark: What the result says of the benchmark that asks; its `warnings` join the result's.
        say: Told how it goes.

    Raises:
        ProbeError: Labels, splits or units are missing, do not suit the protocol, or what is tested on another set is
            learnt from too.
        UsageError: Probe, layer, pooling or metric do not exist, or both a protocol and a test set are given.
    """
    if test_set is not None and protocol is not None:
        raise UsageError(f"protocol {protocol.name} with a test_set", expected="one of them")
    plan = plan or ProbePlan()
    source = as_feature_source(model)
    pool = Pool.of(Path(shards), *([test_set.shards] if test_set is not None else []))
    read = _read(pool, label, kind, test_set, clips, where, split, unit)
    task = make_task(
        read.columns,
        label,
        kind=kind,
        protocol=read.protocol or protocol,
        unit=unit,
        slices=slices,
        groups=groups,
        seed=plan.seed,
        # Of two sets, `joined` writes there what a sample serves, by whatever column the first one's parts are in.
        split=split if test_set is None else "split",
        classes=classes,
        begins=pool.offsets,
    )
    asked = _asked(pool, source, task, plan, read, test_set, where, benchmark)
    if out is not None and (done := report.read_result(out, asked)) is not None:
        say(f"{out}: this probe is done, its result is read")
        return done
    started = time.monotonic()
    folder = cache or (out / "features" if out is not None else None)
    with _features(pool, source, task, plan, read.frames, folder, say) as table:
        tuner = _tuner(pool, source, task, plan, read.frames is not None, out, say)
        table.compute(plan, also)
        result = _run(pool, source, task, plan, table, tuner, say)
    result.data["warnings"] += [*read.warnings, *_filters(pool, where, test_set)]
    if benchmark is not None:
        result.data["benchmark"] = benchmark
        result.data["warnings"] += benchmark["warnings"]
    result.data["request"] = asked
    result.data["duration_s"] = round(time.monotonic() - started, 2)
    if out is not None:
        report.write_result(out, result)
    return result


def as_feature_source(model: "FeatureSource | FeatureExtractor | Path | str") -> FeatureSource:
    """Wrap a path or extractor as a source of features."""
    from facemae.features.extractor import FeatureExtractor, load

    if isinstance(model, str | Path):
        return EncoderSource(load(model), name=Path(model).name, path=Path(model))
    return EncoderSource(model) if isinstance(model, FeatureExtractor) else model


@dataclass(frozen=True)
class _Read:
    """Metadata of what is probed.

    Attributes:
        columns: A row a sample, or a clip.
        frames: Frames of each clip; None for stills.
        clips: What makes a clip, for the request.
        protocol: That of two sets; None leaves it to the caller.
        warnings: What a reader has to know.
    """

    columns: Columns
    frames: dict[int, NDArray[np.int64]] | None
    clips: dict[str, Any] | None
    protocol: Protocol | None
    warnings: list[str]


def _read(
    pool: Pool,
    label: str,
    kind: str,
    test_set: TestSet | None,
    clips: ClipColumns | None,
    where: Mapping[str, str] | None,
    split: str,
    unit: str | None,
) -> _Read:
    protocol: Protocol | None = None
    warnings: list[str] = []
    if test_set is None:
        columns = read_columns(pool.shards[0], dict(where or {}))
    else:
        apart = (unit, None if clips is None else clips.clip)
        columns, warnings = joined(pool, label, test_set, where, kind=kind, split=split, apart=apart)
        warnings += refuse_shared(pool, columns.samples)
        protocol = Cross(pool.names[0], pool.names[1], pool.offsets[1])
    if clips is None:
        return _Read(columns, None, None, protocol, warnings)
    columns, frames = as_clips(columns, clips, label_columns(columns, label))
    hasher = hashlib.sha256()
    for first, run in frames.items():
        hasher.update(f"{first}:".encode() + np.ascontiguousarray(run, dtype="<i8").tobytes())
    about = {"clip": clips.clip, "frame": clips.frame, "frames": hasher.hexdigest()}
    return _Read(columns, frames, about, protocol, warnings)


def _asked(
    pool: Pool,
    source: FeatureSource,
    task: Task,
    plan: ProbePlan,
    read: _Read,
    test_set: TestSet | None,
    where: Mapping[str, str] | None,
    benchmark: dict[str, Any] | None,
) -> dict[str, Any]:
    """What the result is an answer to; an unknown metric is refused before any work."""
    if plan.metric is not None and find_metric(plan.metric, task.targets.kind, task.targets.names).metric.fitted:
        raise UsageError(
            f"--metric {plan.metric}: its thresholds are fitted on what choosing judges",
            expected="a metric that needs no thresholds of its own, such as macro_f1 or auc",
        )
    return request(
        source,
        task,
        plan,
        pool.facts(),
        where=dict(where or {}),
        mapping=dict(test_set.mapping) if test_set is not None else {},
        clips=read.clips,
        benchmark=benchmark,
        **({"finetune_code": tuning_code()} if set(TUNED) & set(plan.probes) else {}),
    )


def _tuner(
    pool: Pool, source: FeatureSource, task: Task, plan: ProbePlan, clips: bool, out: Path | None, say: Say
) -> Finetuner | None:
    """What fine-tunes, where that is asked for.

    Raises:
        ProbeError: There are no weights to start from, no folder for the runs, or the samples are clips.
    """
    asked = [kind for kind in plan.probes if kind in TUNED]
    if not asked:
        return None
    path = source.path if isinstance(source, EncoderSource) else None
    if path is None:
        raise ProbeError(f"--probe {asked[0]} of {source.name}", expected="a run, checkpoint or exported encoder")
    if clips:
        raise ProbeError(f"--probe {asked[0]} on clips of stills", expected="stills, or a frozen probe of clips")
    if out is None:
        raise ProbeError(f"--probe {asked[0]} without a folder", fix="give out=, where its runs are kept")
    return Finetuner(pool, task, path, plan.finetune, out / "finetune", say)


@contextlib.contextmanager
def _features(
    pool: Pool,
    source: FeatureSource,
    task: Task,
    plan: ProbePlan,
    frames: dict[int, NDArray[np.int64]] | None,
    folder: Path | None,
    say: Say,
) -> Iterator[StillFeatures | ClipFeatures]:
    """The features of a task, in a folder that is gone afterwards where none is given."""
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="facemae-features-")))
        if frames is None:
            yield StillFeatures(pool, source, task, plan, folder, say)
        else:
            yield ClipFeatures(pool, source, task, frames, plan, folder, say)


def _run(
    pool: Pool,
    source: FeatureSource,
    task: Task,
    plan: ProbePlan,
    features: FeatureTable,
    tuner: Finetuner | None,
    say: Say,
) -> ProbeResult:
    facts = pool.facts()
    metric = plan.metric or primary(task.targets.kind)
    outcomes, tables = all_folds(features, tuner, task, plan, metric, say)
    winner = best_judged(outcomes)
    data = {
        "schema": report.SCHEMA,
        "model": source.describe(),
        "data": facts[0],
        **({"test_data": facts[1]} if len(facts) > 1 else {}),
        "task": describe_task(task),
        "protocol": describe_protocol(task),
        "seed": plan.seed,
        "selection": {"metric": metric, "on": task.splits.chosen_on, "table": tables},
        "chosen": {"probe": winner, "valid": mean_judgement(outcomes[winner])},
        "results": {
            name: {"settings": outcome.settings, **score_outcome(outcome, task, plan)}
            for name, outcome in outcomes.items()
        },
        "constant": score_constant(task),
        "warnings": [
            *task.warnings,
            *(text for each in facts for text in crop_warnings(source, each)),
            *pretraining_warnings(source, pool, facts, task),
            *_path_warnings(outcomes, tables),
            *_left_out(plan, outcomes),
        ],
        "versions": versions(),
    }
    test = task.splits.tested
    return ProbeResult(
        data,
        {name: outcome.scores for name, outcome in outcomes.items()},
        task.tested,
        tuple(task.keys[row] for row in test),
        task.units[test],
        {name: np.isin(test, rows) for name, rows in task.slices.items()},
        {name: outcome.thresholds for name, outcome in outcomes.items() if outcome.thresholds is not None},
    )


def _filters(pool: Pool, where: Mapping[str, str] | None, test_set: TestSet | None) -> list[str]:
    """What a reader has to know of samples that were left out by `where`."""
    if test_set is None:
        return [f"only samples with {_listed(where)}"] if where else []
    filtered = ((pool.names[0], "learnt", where), (pool.names[1], "tested", test_set.where))
    return [f"only samples of the {part} set {name} with {_listed(given)}" for name, part, given in filtered if given]


def _left_out(plan: ProbePlan, outcomes: Mapping[str, Outcome]) -> list[str]:
    """Probes that were asked for by name and that these features or samples do not have."""
    if set(FROZEN) <= set(plan.probes):
        return []
    reasons = {"attentive": "the tokens of stills by an encoder", "temporal": "the frames of clips"}
    return [
        f"probe {kind} is left out: it reads {reasons[kind]}, which are not here"
        for kind in plan.probes
        if kind not in outcomes
    ]


def _listed(where: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in where.items())


def _path_warnings(outcomes: Mapping[str, Outcome], table: list[dict[str, Any]]) -> list[str]:
    known = {"linear": linear_warnings, "knn": knn_warnings}
    return [text for name, warn in known.items() if name in outcomes for text in warn(outcomes[name].settings, table)]


def versions() -> dict[str, str]:
    """Versions of what the numbers were computed with."""
    return {"python": platform.python_version(), **installed(("facemae", "numpy", "torch", "timm", "scikit-learn"))}
