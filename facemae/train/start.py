"""Where a run begins: fresh, from given weights, or from its newest intact checkpoint."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from facemae.checkpoint import (
    Checkpoint,
    InitialWeights,
    Tensors,
    check_names,
    file_digest,
    find_checkpoint,
    newest_valid,
    read_tensors,
)
from facemae.checkpoint_folders import remove_unfinished, set_aside, step_folders
from facemae.config import Recipe
from facemae.data.schema import DatasetCard
from facemae.errors import CheckpointError, ResumeError
from facemae.files import storage_errors
from facemae.recipe import FREE_BLOCKS, FREE_KEYS, difference, recipe_tree
from facemae.train.optim.schedule import Lengths, learning_rate
from facemae.train.saving.folder import RunFolder
from facemae.train.saving.rewind import Rewind, check_rewinds, read_rewinds, remove_abandoned
from facemae.train.saving.terms import Terms, read_terms

ENCODER = "encoder.vit."
"""Where an exported encoder's weights belong in the model."""
CHANGES_SHOWN = 12
"""Differences of two recipes that are listed; more are those of another recipe, and its name says more."""


@dataclass(frozen=True)
class Start:
    """The point a run goes on from.

    Attributes:
        checkpoint: What it continues from; None for a fresh run.
        state: The checkpoint's `trainer.json`.
        pinned: The data the run is pinned to, by stream; None takes what is there.
        notes: Sentences for the log: damaged checkpoints, remains of killed saves.
        rewinds: The times the run has gone back.
        terms: What was granted behind the checkpoint; None where nothing was.
    """

    checkpoint: Checkpoint | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    pinned: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    rewinds: tuple[Rewind, ...] = ()
    terms: Terms | None = None

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return int(self.state.get("step", 0))

    @property
    def went_back(self) -> bool:
        """Whether the run went back to here."""
        return bool(self.rewinds) and self.rewinds[-1].step == self.step

    @property
    def changed_at(self) -> int | None:
        """`Promise.changed_at` of what the run goes on from."""
        if any(not rewind.undisturbed and rewind.step == self.step for rewind in self.rewinds):
            return self.step
        # Runs of early releases do not know.
        found: int | None = self.state.get("changed_at")
        return found


def find_start(run: Path, recipe: Recipe, *, extend: bool, adopt_data: bool) -> Start:
    """Find where to go on, and tidy up after a killed save. Only for the holder of the run's lease.

    Args:
        run: The run folder.
        recipe: The recipe that was asked for.
        extend: `optim.total` may differ.
        adopt_data: Shards that were added since the start may enter.

    Raises:
        ResumeError: The recipe differs from the one the run was started with, the record of the samples it passed over
            is not that of its checkpoint, or that of its terms is damaged.
        CheckpointError: There are checkpoints, but none is intact.
        StorageError: What lies there cannot be read, or remains cannot be removed or set aside.
    """
    notes = [f"removed {name}, the remains of a save or a removal that was killed" for name in remove_unfinished(run)]
    if not step_folders(run):
        notes += _remove_records(RunFolder(run))
    rewinds = read_rewinds(RunFolder(run).rewinds)
    notes += [f"removed {name}, of a stretch the run went back from" for name in remove_abandoned(run, rewinds)]
    checkpoint, damaged = newest_valid(run)
    if checkpoint is None:
        return Start(notes=tuple(notes))
    notes += [f"{sentence}; using the checkpoint before it" for sentence in damaged]
    step = checkpoint.manifest.step
    granted = read_terms(RunFolder(run).terms, step)
    terms = granted or Terms.of(checkpoint)
    saved = checkpoint.manifest.recipe
    check_recipe({**saved, "optim": {**saved["optim"], "total": terms.total}}, recipe, extend=extend)
    notes += set_aside(run, newer_than=step)
    pinned = None if adopt_data else terms.streams
    state = checkpoint.document("trainer")
    check_rewinds(rewinds, step, int(state.get("position", step)))
    start = Start(checkpoint, state, pinned, tuple(notes), rewinds, granted)
    if not start.went_back:
        return start
    back = f"back at step {step} because of step {rewinds[-1].spike + 1}: passing over the samples up to its own"
    return replace(start, notes=(*start.notes, back))


def _remove_records(folder: RunFolder) -> list[str]:
    """Remove what only checkpoints that are gone have to do with: the next ones would be taken for theirs."""
    stale = [path for path in (folder.rewinds, folder.terms) if path.exists()]
    for path in stale:
        with storage_errors(path, "removing"):
            path.unlink()
    return [f"removed {path.name}, of a run whose checkpoints are gone" for path in stale]


def check_recipe(saved: Mapping[str, Any], recipe: Recipe, *, extend: bool) -> None:
    """Compare a run's recipe with the one asked for.

    Where shards and lists of keys lie does not count: their content is pinned by digest.

    Raises:
        ResumeError: Listing what changed of what may change results, see `facemae.recipe.difference`.
    """
    changed = difference(_without_paths(saved), _without_paths(recipe_tree(recipe)))
    longer = [line for line in changed if line.startswith("optim.total.")]
    if extend:
        changed = [line for line in changed if line not in longer]
    if not changed:
        return
    fix = "undo the change, or choose another --out for a new run"
    if changed == longer:
        fix = "add --extend to lengthen the run, or undo the change"
    elif any(line.startswith("checkpoint.every") for line in changed):
        fix += "; where optim.spike.action is rewind, checkpoint.every says how far back a run goes"
    shown = sorted(changed, key=lambda line: not line.startswith("name:"))[:CHANGES_SHOWN]
    if len(changed) > len(shown):
        shown.append(f"and {len(changed) - len(shown)} more")
    raise ResumeError(
        "the recipe is not the one this run was started with:\n" + "\n".join(f"    {line}" for line in shown),
        expected=f"no change outside {', '.join(FREE_BLOCKS + FREE_KEYS)}",
        fix=fix,
    )


def resolve_lengths(recipe: Recipe, start: Start, epoch_samples: int) -> Lengths:
    """The lengths of the run; epochs, warm-up and the stages of views keep what they were when it was started.

    A warm-up that grew with the run would begin a second time in a run that is extended, and a stage would end again.

    Args:
        recipe: The recipe.
        start: Where the run goes on from.
        epoch_samples: Samples in an epoch of the streams as they are now.

    Raises:
        ResumeError: The run would become shorter than it was.
        ConfigError: Stages of a view that do not fit into the run.
    """
    if not start.state:
        return Lengths.resolve(recipe, epoch_samples)
    # Runs of early releases have no stages.
    stages = {view: tuple(map(int, begins)) for view, begins in start.state.get("stage_samples", {}).items()}
    lengths = Lengths.resolve(recipe, int(start.state["epoch_samples"]), stages)
    before = int(start.state["total_samples"])
    if lengths.total < before:
        raise ResumeError(
            f"optim.total is now {lengths.total} samples; the run was started with {before}",
            expected="a longer run: --extend allows nothing else",
            fix="choose another --out for a shorter run",
        )
    # Early releases did not save the warm-up.
    warmup = start.state.get("warmup_samples", recipe.optim.warmup.samples(epoch=lengths.epoch, total=before))
    return replace(lengths, warmup=int(warmup))


def describe_extension(recipe: Recipe, start: Start, lengths: Lengths) -> str | None:
    """What a longer `optim.total` means at this point of the run; None where it is as long as before."""
    before = int(start.state.get("total_samples", lengths.total))
    if before == lengths.total:
        return None
    samples = start.step * lengths.batch
    old, new = (
        learning_rate(recipe.optim, replace(lengths, total=total), samples) for total in (before, lengths.total)
    )
    ema = recipe.optim.ema
    average = "" if ema is None or ema.unit != "percent" else f"; half-life of averaged weights {lengths.ema} samples"
    return (
        f"extended from {before} to {lengths.total} samples: lr {old:.2e} -> {new:.2e}, on the longer cosine{average}"
    )


def load_initial(model: nn.Module, path: Path, recipe: Recipe) -> tuple[InitialWeights, str]:
    """Put given weights into a fresh model: all of them, or the encoder's where they are of a run on other objectives.

    Args:
        model: The model of the recipe.
        path: A run or checkpoint folder (its averaged weights where it has them), an exported encoder, or a
            safetensors file with the names of either.
        recipe: The recipe.

    Returns:
        Their record for the manifest, and a sentence for the log.

    Raises:
        CheckpointError: There are none, or they do not fit, naming the differences.
        StorageError: They cannot be read.
    """
    initial = _read_initial(path)
    found, wanted = initial.tensors, model.state_dict()
    encoder = {name[len(ENCODER) :]: value for name, value in wanted.items() if name.startswith(ENCODER)}
    whole = any(name.startswith(ENCODER) for name in found)
    ours, why = tuple(objective.kind for objective in recipe.objectives), ""
    if whole and initial.objectives is not None and initial.objectives != ours:
        # As when a pretrained encoder is fine-tuned: what the other objectives learned has no place here.
        found = {name[len(ENCODER) :]: value for name, value in found.items() if name.startswith(ENCODER)}
        whole, why = False, f", trained on {', '.join(initial.objectives)}; {', '.join(ours)} starts anew"
    check_names(found, wanted if whole else encoder, str(initial.source))
    model.load_state_dict(found if whole else {ENCODER + name: value for name, value in found.items()}, strict=whole)
    return initial.record, f"initial weights of the {'whole model' if whole else 'encoder'} from {initial.source}{why}"


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's own weights into the model of its run.

    Raises:
        CheckpointError: They do not fit, naming the differences.
        StorageError: They cannot be read.
    """
    found = checkpoint.tensors("model")
    check_names(found, model.state_dict(), str(checkpoint.folder))
    model.load_state_dict(found)


@dataclass(frozen=True)
class _Initial:
    """Given weights, the file they are from, its record, and the kinds of objectives they were trained on, if known."""

    tensors: Tensors
    source: Path
    record: InitialWeights
    objectives: tuple[str, ...] | None = None


def _read_initial(path: Path) -> _Initial:
    if path.is_file():
        tensors = read_tensors(path)
        with storage_errors(path, "reading"):
            digest = file_digest(path)
        # The file says nothing about its data, and silence must not pass for permission.
        return _Initial(tensors, path, InitialWeights(digest=digest, cards={"unknown": DatasetCard(name="unknown")}))
    if not path.exists():
        raise CheckpointError(
            f"--init-from {path} does not exist", expected="a run, checkpoint, export or weights file"
        )
    checkpoint = find_checkpoint(path)
    part = next(part for part in ("encoder", "ema", "model") if checkpoint.has(part))
    manifest = checkpoint.manifest
    record = InitialWeights(
        digest=manifest.files[f"{part}.safetensors"].sha256,
        recipe=str(manifest.recipe.get("name", "unknown")),
        cards=manifest.cards,
    )
    kinds = tuple(str(objective.get("kind")) for objective in manifest.recipe.get("objectives", []))
    return _Initial(checkpoint.tensors(part), checkpoint.folder / f"{part}.safetensors", record, kinds)


def _without_paths(tree: Mapping[str, Any]) -> dict[str, Any]:
    plain = copy.deepcopy(dict(tree))
    for stream in plain.get("data", {}).get("streams", []):
        stream.pop("shards", None)
        if stream.get("keys"):
            stream["keys"] = "a file"
    return plain
