"""Everything a result depends on, as plain values: a finished result is read back only when this is the same."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from facemae_probes.choosing.plan import ProbePlan
from facemae_probes.features.sources import FeatureSource
from facemae_probes.results.identity import feature_code, probe_code
from facemae_probes.tasks.task import Task


def request(
    source: FeatureSource, task: Task, plan: ProbePlan, data: Sequence[Mapping[str, Any]], **more: Any
) -> dict[str, Any]:
    """What a result is an answer to.

    Args:
        source: Where features come from.
        task: Labels and folds.
        plan: What is tried.
        data: Facts of the shard sets.
        more: What else was asked, such as filters.
    """
    found = {
        "source": source.identity(),
        "input": source.input.model_dump(mode="json"),
        # What a result says of model and data is part of it, and so are warnings that follow from how faces were cut.
        "model": source.describe(),
        "data": [facts["digest"] for facts in data],
        "sets": [facts["shards"] for facts in data],
        "cards": [facts["card"] for facts in data],
        "labels": labels_digest(task),
        "protocol": task.splits.protocol,
        "unit": task.unit,
        "slices": {name: _digest(rows) for name, rows in sorted(task.slices.items())},
        "groups": sorted(task.groups),
        "plan": asdict(plan),
        "features_code": feature_code(),
        "probes_code": probe_code(),
        **more,
    }
    return dict(json.loads(json.dumps(found)))


def _digest(rows: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows, dtype="<i8").tobytes()).hexdigest()


def labels_digest(task: Task) -> str:
    """sha256 over classes, keys, labels and folds of a task."""
    hasher = hashlib.sha256(json.dumps([task.targets.kind, task.targets.names, task.keys]).encode())
    values = task.targets.values
    hasher.update(np.ascontiguousarray(values, dtype="<i8" if values.dtype.kind == "i" else "<f8").tobytes())
    for repeat in task.splits.repeats:
        for fold in repeat:
            parts = [fold.train, fold.test, *(rows for inner in fold.inner for rows in (inner.fit, inner.judge))]
            hasher.update(f"{fold.name}:{[len(rows) for rows in parts]}".encode())
            for rows in parts:
                hasher.update(np.ascontiguousarray(rows, dtype="<i8").tobytes())
    return hasher.hexdigest()


def describe_task(task: Task) -> dict[str, Any]:
    """The result's `task` block."""
    return {
        "label": task.label,
        "kind": task.targets.kind,
        "classes": list(task.targets.names),
        **({} if task.tested.meant is None else {"classes_tested": [task.targets.names[n] for n in task.tested.meant]}),
        "unit": task.unit,
        "units": {part: len(np.unique(task.units[rows])) for part, rows in task.parts().items()},
        "counts": task.counts(),
        "labels_digest": labels_digest(task),
    }


def describe_protocol(task: Task) -> dict[str, Any]:
    """The result's `protocol` block."""
    splits = task.splits
    return {
        "name": splits.protocol,
        "about": splits.about,
        "chosen_on": splits.chosen_on,
        "on_test": splits.on_test,
        "repeats": len(splits.repeats),
        "folds": [{"name": fold.name, "train": len(fold.train), "test": len(fold.test)} for fold in splits.repeats[0]],
    }
