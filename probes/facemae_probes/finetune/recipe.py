"""From a plan and a fold to the recipe of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae.objectives.labels import LabelReader
from facemae_probes.finetune.plan import FinetuneOption, FinetunePlan
from facemae_probes.tasks.targets import MISSING, Targets

if TYPE_CHECKING:
    from facemae.config import Recipe
    from facemae.features.weights import LoadedEncoder

LANES = 8
FEW = 1024
"""Folds with fewer samples are read in one lane: of several, each would leave a remainder out of an epoch."""


def fold_recipe(
    loaded: "LoadedEncoder",
    plan: FinetunePlan,
    option: FinetuneOption,
    objective: Mapping[str, Any],
    *,
    shards: Path,
    keys: Path,
    count: int,
    efficiency: Mapping[str, Any],
) -> "Recipe":
    """The recipe of a run.

    Args:
        loaded: The encoder.
        plan: How it is fine-tuned.
        option: The candidate.
        objective: What `label_block` gives.
        shards: The shard set.
        keys: File with the keys of the samples it learns from.
        count: How many these are.
        efficiency: The recipe's block of that name; changes no result beyond rounding.
    """
    from facemae.recipe import parse_recipe

    lanes = LANES if count >= FEW else 1
    unit = lanes if lanes % 2 == 0 else 2
    batch = max(unit, min(plan.batch_size, count) // unit * unit)
    tree = {
        "schema": 1,
        "name": "finetune",
        "seed": plan.seed,
        "data": {"lanes": lanes, "streams": [{"name": "faces", "shards": str(shards), "keys": str(keys)}]},
        "views": {"main": _view(loaded, plan)},
        "encoder": {**loaded.config.model_dump(), "drop_path": plan.drop_path},
        "objectives": [{"kind": "supervised", "pool": plan.pool, "dropout": plan.dropout, **objective}],
        "optim": {
            "batch_size": batch,
            "total": max(round(plan.epochs * count), plan.least_steps * batch),
            "warmup": f"{plan.warmup} percent",
            "base_lr": option.base_lr,
            "layer_decay": plan.layer_decay,
            "betas": [0.9, 0.999],
            "weight_decay": plan.weight_decay,
            "clip": plan.clip,
            "ema": None if plan.ema is None else f"{plan.ema} percent",
        },
        "checkpoint": {"every": "10 percent"},
        "efficiency": dict(efficiency),
        "log": {"every_steps": 50, "loggers": []},
    }
    return parse_recipe(tree, origin="of a fine-tuning probe")


def _view(loaded: "LoadedEncoder", plan: FinetunePlan) -> dict[str, Any]:
    change, pixels = plan.augmentation, loaded.input
    colour = {"probability": change.colour, "brightness": change.brightness, "contrast": change.contrast}
    return {
        "crop": {
            "kind": "random_resized",
            "scale": change.scale,
            "ratio": change.ratio,
            "interpolation": pixels.interpolation,
            "part": pixels.part,
        },
        "flip": change.flip,
        "colour": colour if change.colour and (change.brightness or change.contrast) else None,
        "normalise": {"mean": pixels.mean, "std": pixels.std},
        "mixup": None if plan.mixup is None else {"alpha": plan.mixup},
        "mask": None,
    }


def label_block(
    values: Mapping[str, Sequence[Any]], targets: Targets, columns: Sequence[str], smoothing: float
) -> dict[str, Any]:
    """The labels' part of the objective, checked: what the run will read from the metadata is what the targets say.

    Args:
        values: By column, the metadata of the N rows it learns from.
        targets: [N] their labels.
        columns: The label columns: one for classes, else one for each of the targets' names.
        smoothing: Label smoothing, for classes.

    Raises:
        ProbeError: The columns say something else than the targets.
    """
    texts = {name: values[name] for name in columns}
    if targets.kind == "classes":
        reader = LabelReader("classes", tuple(columns))
        rename = _names_of(reader, texts[columns[0]], targets, columns[0])
        classes = list(targets.names)
        block = {"task": "classes", "labels": list(columns), "classes": classes, "rename": rename}
        return {**block, "smoothing": smoothing}
    reader = LabelReader(targets.kind, tuple(columns))
    read = [reader.row({"labels": dict(zip(columns, row, strict=True))}) for row in zip(*texts.values(), strict=True)]
    found = np.array([[np.nan if value is None else value for value in row] for row in read], dtype=np.float64)
    wanted = targets.values.astype(np.float64)
    if targets.kind == "multilabel":
        wanted = np.where(targets.values == MISSING, np.nan, wanted)
    if found.shape != wanted.shape or not np.allclose(found, wanted, atol=1e-6, equal_nan=True):
        raise _other(columns)
    return {"task": targets.kind, "labels": list(columns)}


def _names_of(reader: LabelReader, values: Sequence[Any], targets: Targets, column: str) -> dict[str, str]:
    """What each text of a column is called as a class, where it is not its own name."""
    numbers: NDArray[np.int64] = targets.values
    names: dict[str, str] = {}
    for value, number in zip(values, numbers.tolist(), strict=True):
        text, name = reader.text(value), targets.names[number]
        if text is None or names.setdefault(text, name) != name:
            raise _other([column])
    return {text: name for text, name in names.items() if text != name}


def _other(columns: Sequence[str]) -> ProbeError:
    return ProbeError(
        f"the labels of the task are not what columns {', '.join(columns)} of the shard set say",
        expected="labels that can be read from the metadata: fine-tuning reads them sample by sample",
        fix="pack the shard set with the labels of the task",
    )
