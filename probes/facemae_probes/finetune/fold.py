"""Fine-tuning on the rows of a fold: a run folder named by all that determines it."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae.files import atomic_write, write_text
from facemae_probes.finetune.plan import FinetuneOption, FinetunePlan
from facemae_probes.finetune.recipe import fold_recipe, label_block
from facemae_probes.results.identity import FEATURE_LIBRARIES, code_digest, modules_of, versions
from facemae_probes.tasks.targets import Scores, Targets

Rows = NDArray[np.int64]

PACKAGES = (
    "facemae.models",
    "facemae.objectives",
    "facemae.train.optim",
    "facemae.train.strategy",
    "facemae_probes.finetune",
)
MODULES = (
    "facemae.checkpoint",
    "facemae.config",
    "facemae.config.base",
    "facemae.config.beneath",
    "facemae.config.by_stream",
    "facemae.config.data",
    "facemae.config.fusion",
    "facemae.config.model",
    "facemae.config.recipe",
    "facemae.config.run",
    "facemae.config.sounds",
    "facemae.config.views",
    "facemae.data.augment",
    "facemae.data.blank",
    "facemae.data.decode",
    "facemae.data.index",
    "facemae.data.loader",
    "facemae.data.made",
    "facemae.data.masks",
    "facemae.data.material",
    "facemae.data.metadata",
    "facemae.data.order",
    "facemae.data.photometric",
    "facemae.data.plan",
    "facemae.data.preprocess",
    "facemae.data.reader",
    "facemae.data.regions",
    "facemae.data.schema",
    "facemae.data.select",
    "facemae.data.selection",
    "facemae.data.sound_masks",
    "facemae.features.clip_input",
    "facemae.features.pixels",
    "facemae.features.sources",
    "facemae.features.stream",
    "facemae.features.weights",
    "facemae.prediction",
    "facemae.recipe",
    "facemae.recipe_specs",
    "facemae.rng",
    "facemae.sound.align",
    "facemae.sound.level",
    "facemae.sound.mel",
    "facemae.sound.resample",
    "facemae.sound.store",
    "facemae.sound.wave",
    "facemae.train.hardware.blocks",
    "facemae.train.hardware.numerics",
    "facemae.train.loop",
    "facemae.train.processes.process_group",
    "facemae.train.saving.rewind",
    "facemae.train.session",
    "facemae.train.start",
    "facemae.train.trainer",
    "facemae.video.decoding",
    "facemae.video.library",
    "facemae.video.picture",
    "facemae.video.read",
    "facemae.video.sampling",
    "facemae_probes.tasks.targets",
)
"""What, beside these packages, decides what a run computes: not what it shows, records or checks."""

KEYS, IDENTITY, TRAINING, FINAL = "keys.txt", "identity.json", "training", "final"
PROCESSES: Mapping[str, Any] = MappingProxyType({"processes": 1})


def finetune_identity(
    shards: Path, samples: Rows, targets: Targets, columns: Sequence[str], rows: Rows, model: Path | str,
    plan: FinetunePlan, option: FinetuneOption,
) -> dict[str, Any]:  # fmt: skip
    """Everything that determines a fine-tuned net, as plain values: weights, data, labels, settings, code, versions.

    Arguments as for `finetune_fold`.
    """
    from facemae.data.index import ShardIndex
    from facemae.features.weights import load_encoder

    loaded, rows = load_encoder(model), np.sort(rows)
    chosen = targets.take(rows)
    return {
        "encoder": loaded.config.model_dump(mode="json"),
        "weights": "random" if plan.from_scratch else loaded.digest,
        "input": loaded.input.model_dump(mode="json"),
        "data": ShardIndex.open(shards).digest,
        "samples": _digest(samples[rows].astype("<i8")),
        "columns": list(columns),
        "kind": targets.kind,
        "names": list(targets.names),
        "labels": _digest(chosen.values.astype("<f8")),
        "plan": plan.facts(),
        "option": {"base_lr": option.base_lr},
        "code": tuning_code(),
    }


def finetune_fold(
    shards: Path | str,
    samples: Rows,
    targets: Targets,
    columns: Sequence[str],
    rows: Rows,
    model: Path | str,
    plan: FinetunePlan,
    option: FinetuneOption,
    out: Path,
    *,
    efficiency: Mapping[str, Any] = PROCESSES,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Fine-tune an encoder on some rows of a task.

    A run that was stopped is continued, and one that is finished is found again by its identity.

    Args:
        shards: The shard set.
        samples: [N] positions of the task's samples in it.
        targets: [N] their labels.
        columns: The label columns: one for classes, else one for each of the targets' names.
        rows: The rows of the task it learns from.
        model: A run (averaged weights where it keeps them), checkpoint or exported encoder; for random weights it says
            what the net is.
        plan: How it is fine-tuned.
        option: The candidate.
        out: Folder of the runs: this one is `out/runs/…`.
        efficiency: The recipe's block of that name: device, processes, precision.
        say: Told how it goes.

    Returns:
        The folder `out/runs/…`: `training` in it is the trainer's, `final` the checkpoint at its end with the weights
        that predict.

    Raises:
        ProbeError: Labels cannot be read from the metadata, there are too few rows, or the run was stopped by a signal.
        FacemaeError: As `facemae.train.trainer.pretrain`.
    """
    from facemae.data.index import ShardIndex
    from facemae.data.select import metadata
    from facemae.features.weights import load_encoder
    from facemae.train.trainer import pretrain

    shards, rows = Path(shards), np.sort(np.asarray(rows, dtype=np.int64))
    if len(rows) < 2:
        raise ProbeError(f"fine-tuning on {len(rows)} samples", expected="two or more")
    identity = finetune_identity(shards, samples, targets, columns, rows, model, plan, option)
    run = out / "runs" / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    if is_finished(run):
        say(f"{run.name}: fine-tuned already")
        return run
    index = ShardIndex.open(shards)
    table = metadata(index, list(dict.fromkeys(["key", *columns]))).take(samples[rows])
    values = {name: table.column(name).to_pylist() for name in table.column_names}
    objective = label_block(values, targets.take(rows), columns, plan.smoothing)
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / KEYS, "".join(f"{key}\n" for key in values["key"]))
    write_text(run / IDENTITY, json.dumps(identity, indent=1, sort_keys=True) + "\n")
    recipe = fold_recipe(
        load_encoder(model), plan, option, objective,
        shards=shards.absolute(), keys=(run / KEYS).absolute(), count=len(rows), efficiency=efficiency,
    )  # fmt: skip
    say(f"{run.name}: fine-tuning on {len(rows)} samples, base_lr {option.base_lr:g}")
    result = pretrain(recipe, run / TRAINING, init_from=None if plan.from_scratch else model)
    if result.stopped != "finished":
        raise ProbeError(
            f"fine-tuning was stopped by {result.stopped} after {result.samples} samples",
            fix="the same command goes on from there",
        )
    _keep_weights(run)
    return run


def is_finished(run: Path) -> bool:
    """Whether a run has been trained to its end."""
    from facemae.checkpoint import MANIFEST

    return (run / FINAL / MANIFEST).is_file()


def _keep_weights(run: Path) -> None:
    """Keep of a finished run what predicts: a grid of folds and options would fill a disk with moments."""
    from facemae.checkpoint import find_checkpoint, write_checkpoint
    from facemae.checkpoint_folders import FOLDER

    checkpoint = find_checkpoint(run / TRAINING)
    part = "ema" if checkpoint.has("ema") else "model"
    documents = {name: checkpoint.document(name) for name in ("trainer", "data")}
    write_checkpoint(run / FINAL, checkpoint.manifest, tensors={part: checkpoint.tensors(part)}, documents=documents)
    shutil.rmtree(run / TRAINING / FOLDER, ignore_errors=True)


def predict_rows(run: Path, shards: Path | str, samples: Rows, rows: Rows, *, device: str = "auto") -> Scores:
    """Scores of rows of a task by a finished run, kept in its folder.

    Args:
        run: What `finetune_fold` gave.
        shards: The shard set.
        samples: [N] positions of the task's samples in it.
        rows: [M] rows to predict.
        device: `auto`, or a torch device.

    Returns:
        float32 [M, C], in the order of the rows: probabilities of classes or binary columns, or numbers.

    Raises:
        ProbeError: The run is not finished.
        FacemaeError: As `facemae.prediction.predict`.
    """
    from facemae.data.index import ShardIndex
    from facemae.prediction import predict

    if not is_finished(run):
        raise ProbeError(f"{run} is not finished", fix="call finetune_fold again, which continues it")
    chosen = samples[rows]
    facts = hashlib.sha256(f"{ShardIndex.open(Path(shards)).digest}:{_digest(chosen.astype('<i8'))}".encode())
    path = run / "predictions" / f"{facts.hexdigest()[:16]}.npy"
    if path.exists():
        found: Scores = np.load(path)
        return found
    scores = predict(run / FINAL, shards, chosen, device=device)
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path) as handle:
        np.save(handle, scores)
    return scores


def tuning_code() -> dict[str, str]:
    """Digest of the code that fine-tunes, and the versions of its libraries."""
    return {"source": code_digest(tuning_modules()), **versions(FEATURE_LIBRARIES)}


def tuning_modules() -> list[str]:
    """`MODULES`, and the modules of `PACKAGES`."""
    return [*MODULES, *(name for package in PACKAGES for name in modules_of(package))]


def _digest(values: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
