"""Running probes: choose on the validation part, touch the test part once.

`selection.choose` is given training and validation labels only. Test labels enter after every choice is made, so
permuting them changes no choice.
"""

import hashlib
import json
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from facemae_probes import report
from facemae_probes.bootstrap import METRICS, interval
from facemae_probes.cache import FeatureCache
from facemae_probes.caveats import crop_warnings, linear_warnings, pretraining_warnings
from facemae_probes.identity import feature_code, probe_code
from facemae_probes.identity import versions as installed
from facemae_probes.metrics import decide, evaluate, primary_metric
from facemae_probes.results import ProbeResult
from facemae_probes.selection import Features, ProbePlan, Say, Seen, choose
from facemae_probes.sources import EncoderSource, FeatureSource, Setting
from facemae_probes.task import Task, make_task, read_columns

if TYPE_CHECKING:
    from facemae.features.extractor import FeatureExtractor


def run_probe(
    shards: Path | str,
    model: "FeatureSource | FeatureExtractor | Path | str",
    label: str,
    *,
    plan: ProbePlan | None = None,
    kind: Literal["auto", "classes", "multilabel"] = "auto",
    where: dict[str, str] | None = None,
    slices: Sequence[str] = (),
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
        shards: Indexed shard set with splits `train` and `test`, and preferably `valid`.
        model: A run, checkpoint or exported encoder, an extractor, or any other source of features.
        label: Label column; a pattern or comma-separated list for several binary columns.
        plan: Probes and settings to try.
        kind: What the labels are.
        where: Only samples with these values.
        slices: Test parts that are reported too, each `column=value`.
        unit: Column whose values are independent; None takes subject, else source, else sample.
        split: Column that says which part a sample belongs to; samples without a value are left out.
        out: Folder for result.json, predictions and pictures. A finished result of the same request is read back.
        cache: Folder of features; None takes `out/features`, or a temporary folder without `out`.
        also: Further settings whose features are computed in the same pass, for later calls with the same cache.
        classes: Names of the classes in their order; empty takes them from the labels.
        benchmark: What the result says of the benchmark that asks; its `warnings` join the result's.
        say: Told how it goes.

    Raises:
        ProbeError: Labels, splits or units are missing.
        UsageError: Probe, layer or pooling do not exist.
    """
    plan = plan or ProbePlan()
    shards = Path(shards)
    source = as_feature_source(model)
    columns = read_columns(shards, where)
    task = make_task(columns, label, kind=kind, unit=unit, slices=slices, seed=plan.seed, split=split, classes=classes)
    facts = _data_facts(shards)
    request = _request(source, task, plan, facts["digest"], where)
    if benchmark is not None:
        request["benchmark"] = benchmark
    if out is not None and (done := report.read_result(out, request)) is not None:
        say(f"{out}: this probe is done, its result is read")
        return done
    started = time.monotonic()
    if out is None and cache is None:
        with tempfile.TemporaryDirectory(prefix="facemae-features-") as folder:
            result = _run(shards, source, task, plan, Path(folder), facts, also, say)
    else:
        result = _run(shards, source, task, plan, cache or Path(str(out)) / "features", facts, also, say)
    if benchmark is not None:
        result.data["benchmark"] = benchmark
        result.data["warnings"] += benchmark["warnings"]
    result.data["request"] = request
    result.data["duration_s"] = round(time.monotonic() - started, 2)
    if out is not None:
        report.write_result(out, result)
    return result


def as_feature_source(model: "FeatureSource | FeatureExtractor | Path | str") -> FeatureSource:
    """Wrap a path or extractor as a source of features."""
    from facemae.features.extractor import FeatureExtractor, load

    if isinstance(model, str | Path):
        return EncoderSource(load(model), name=Path(model).name)
    return EncoderSource(model) if isinstance(model, FeatureExtractor) else model


def _run(
    shards: Path,
    source: FeatureSource,
    task: Task,
    plan: ProbePlan,
    folder: Path,
    facts: dict[str, Any],
    also: Sequence[Setting],
    say: Say,
) -> ProbeResult:
    store = FeatureCache(folder)
    code = feature_code()

    def load(settings: Sequence[Setting]) -> dict[Setting, Features]:
        return store.features(
            source,
            settings,
            lambda: _blocks(shards, source, task.samples, say),
            data_digest=facts["digest"],
            samples=task.samples,
            code=code,
        )

    settings = source.settings(plan.layers, plan.poolings)
    tokens = source.settings(plan.layers, ("tokens",)) if isinstance(source, EncoderSource) else []
    load(_at_once(plan, settings, tokens, also))
    best, table = choose(load, settings, tokens, Seen.of(task), plan, say)
    winner = max(best.values(), key=lambda candidate: candidate.valid)
    predictions = {}
    for name, candidate in best.items():
        features = load([candidate.setting])[candidate.setting]
        predictions[str(name)] = decide(candidate.predict(features, task.parts["test"]), task.kind)
    data = {
        "schema": 1,
        "model": source.describe(),
        "data": facts,
        "task": _describe_task(task),
        "seed": plan.seed,
        "selection": {"metric": primary_metric(task.kind), "on": task.valid_from, "table": table},
        "chosen": winner.row(),
        "results": {
            str(name): {"setting": best[name].row(), **_test(task, predictions[str(name)], plan)} for name in best
        },
        "warnings": [
            *task.warnings,
            *crop_warnings(source, facts),
            *pretraining_warnings(source, shards, facts, task),
            *(linear_warnings(best["linear"].row(), table) if "linear" in best else []),
        ],
        "versions": versions(),
    }
    test = task.parts["test"]
    return ProbeResult(
        data,
        predictions,
        task.labels[test],
        tuple(task.keys[i] for i in test),
        task.units[test],
        {name: np.isin(test, rows) for name, rows in task.slices.items()},
    )


def _at_once(
    plan: ProbePlan, settings: Sequence[Setting], tokens: Sequence[Setting], also: Sequence[Setting]
) -> list[Setting]:
    """Settings to compute in the first pass over the images.

    Tokens of layers that turn out not to be promising waste disk, but a second pass of the encoder costs more than one
    layer's tokens do.
    """
    pooled = settings if {"linear", "knn"} & set(plan.probes) else ()
    eager = tokens if "attentive" in plan.probes and len(tokens) <= plan.attentive_layers + 1 else ()
    return list(dict.fromkeys([*pooled, *eager, *also]))


def _test(task: Task, predicted: NDArray[np.int64], plan: ProbePlan) -> dict[str, Any]:
    """Metrics of the test part and its slices, with intervals."""
    test = task.parts["test"]

    def measure(chosen: NDArray[np.int64]) -> dict[str, Any]:
        truth, guess, units = task.labels[test][chosen], predicted[chosen], task.units[test][chosen]
        intervals = {
            metric: interval(
                truth,
                guess,
                units,
                classes=len(task.names),
                kind=task.kind,
                unit=task.unit,
                metric=metric,
                replicates=plan.replicates,
                seed=plan.seed,
            ).to_json()
            for metric in METRICS
        }
        return {**evaluate(truth, guess, task.names, task.kind), "intervals": intervals}

    everything = np.arange(len(test))
    return {
        "test": measure(everything),
        "slices": {name: measure(everything[np.isin(test, rows)]) for name, rows in task.slices.items()},
    }


def _blocks(
    shards: Path, source: FeatureSource, samples: NDArray[np.int64], say: Say, size: int = 128
) -> Iterator[NDArray[np.uint8]]:
    from facemae.features.sources import ShardSource
    from facemae.features.stream import stream_batches

    stream = ShardSource(shards, samples=samples)
    done = 0
    for batch in stream_batches(stream, source.input, batch_size=size, workers=2):
        yield batch.images.numpy()
        before, done = done, done + len(batch.keys)
        if before * 10 // len(samples) != done * 10 // len(samples):
            say(f"features of {source.name}: {done} of {len(samples)} images")


def _data_facts(shards: Path) -> dict[str, Any]:
    from facemae.data.card import read_card
    from facemae.data.index import ShardIndex

    index = ShardIndex.open(shards)
    card = read_card(shards)
    return {
        "shards": shards.name,
        "digest": index.digest,
        "samples": len(index),
        "card": card.model_dump(mode="json"),
        "crop": card.crop.model_dump(mode="json"),
    }


def _describe_task(task: Task) -> dict[str, Any]:
    return {
        "label": task.label,
        "kind": task.kind,
        "classes": list(task.names),
        "unit": task.unit,
        "units": {part: len(np.unique(task.units[rows])) for part, rows in task.parts.items()},
        "counts": task.counts(),
        "labels_digest": _digest(task),
    }


def _digest(task: Task) -> str:
    hasher = hashlib.sha256(json.dumps([task.names, task.keys]).encode())
    hasher.update(np.ascontiguousarray(task.labels, dtype="<i8").tobytes())
    for part, rows in sorted(task.parts.items()):
        hasher.update(part.encode() + np.ascontiguousarray(rows, dtype="<i8").tobytes())
    return hasher.hexdigest()


def _request(
    source: FeatureSource, task: Task, plan: ProbePlan, data_digest: str, where: dict[str, str] | None
) -> dict[str, Any]:
    """Everything a result depends on; a finished result is read back only when this is the same."""
    request = {
        "source": source.identity(),
        "input": source.input.model_dump(mode="json"),
        "data": data_digest,
        "labels": _digest(task),
        "unit": task.unit,
        "where": where or {},
        "slices": sorted(task.slices),
        "plan": asdict(plan),
        "features_code": feature_code(),
        "probes_code": probe_code(),
    }
    return dict(json.loads(json.dumps(request)))


def versions() -> dict[str, str]:
    """Versions of what the numbers were computed with."""
    return {"python": platform.python_version(), **installed(("facemae", "numpy", "torch", "timm", "scikit-learn"))}
