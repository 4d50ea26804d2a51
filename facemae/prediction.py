"""What a run that learned from labels predicts for given samples.

Above the rooms: it reads images as feature extraction does and builds the model as training does, neither of which may
know the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from facemae.checkpoint import Checkpoint, check_names, find_checkpoint
from facemae.config import Recipe
from facemae.data.preprocess import normalise
from facemae.data.schema import ModelInput
from facemae.errors import CheckpointError, UsageError
from facemae.features.sources import ShardSource
from facemae.features.stream import stream_batches
from facemae.objectives.pretraining import PretrainModel, build_pretrain_model
from facemae.objectives.supervised import Supervised
from facemae.parallel import usable_cores


@dataclass(frozen=True)
class Predictor:
    """An encoder with a head, in evaluation: whole images, nothing drawn.

    Attributes:
        model: The run's model.
        head: The objective whose labels are predicted.
        input: What the encoder expects of its pixels.
        names: Names of the C scores: classes or columns.
        weights: `ema` or `model`.
        step: Optimiser steps done.
    """

    model: PretrainModel
    head: Supervised
    input: ModelInput
    names: tuple[str, ...]
    weights: str
    step: int

    @torch.no_grad()
    def scores(self, images: torch.Tensor, *, precision: str = "fp32") -> NDArray[np.float32]:
        """Scores of model-ready images.

        Args:
            images: uint8 [B, C, S, S].
            precision: `fp32`, or `bf16` for autocast.

        Returns:
            float32 [B, C]: probabilities of classes or of binary columns, or numbers.
        """
        device = next(self.model.parameters()).device
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            pixels = normalise(images.to(device), self.input.mean, self.input.std)
            scores = self.head.scores(self.model.encoder(pixels))
        found: NDArray[np.float32] = scores.float().cpu().numpy()
        return found


def load_predictor(run: str | Path, *, weights: str = "auto", objective: str | None = None) -> Predictor:
    """Read the newest intact checkpoint of a run.

    Args:
        run: A run folder or a checkpoint folder.
        weights: `ema` averaged, `model` last, `auto` averaged where the run keeps them.
        objective: Which one predicts, by its name in the log, where several learn from labels.

    Raises:
        CheckpointError: There is no intact checkpoint, or it has no such weights.
        UsageError: The run learned from no labels, or which objective is meant is not said.
    """
    checkpoint = find_checkpoint(Path(run))
    recipe = _recipe(checkpoint)
    part = weights if weights != "auto" else "ema" if checkpoint.has("ema") else "model"
    model = build_pretrain_model(recipe)
    state = checkpoint.tensors(part)
    check_names(state, model.state_dict(), str(checkpoint.folder))
    model.load_state_dict(state)
    learned = {name: head for name, head in zip(model.names, model.objectives, strict=True) if _learned(head)}
    head = _choose(learned, objective, run)
    reader = head.reader
    names = reader.classes if reader.task == "classes" else reader.columns
    return Predictor(model.eval(), head, _input(recipe, head), names, part, checkpoint.manifest.step)


def predict(
    run: str | Path,
    shards: str | Path,
    samples: Sequence[int] | NDArray[np.int64],
    *,
    weights: str = "auto",
    objective: str | None = None,
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "fp32",
    workers: int | None = None,
) -> NDArray[np.float32]:
    """Scores of samples of a shard set: each whole image scaled to the encoder's square, as in feature extraction.

    Args:
        run: A run folder or a checkpoint folder.
        shards: The shard set.
        samples: Their positions in its index, [N].
        weights: As for `load_predictor`.
        objective: As for `load_predictor`.
        batch_size: Images a forward pass. Changes no score beyond rounding.
        device: `auto`, or a torch device.
        precision: `fp32`, or `bf16` for autocast.
        workers: Decoding threads; None chooses from the cores.

    Returns:
        float32 [N, C], in the order of the samples: probabilities of classes or binary columns, or numbers.

    Raises:
        CheckpointError: As `load_predictor`.
        UsageError: As `load_predictor`, or a sample was erased.
        DecodeError: An image does not decode.
    """
    predictor = load_predictor(run, weights=weights, objective=objective)
    predictor.model.to(_device(device))
    chosen = np.asarray(samples, dtype=np.int64)
    source = ShardSource(Path(shards), samples=chosen)
    if source.count() < len(chosen):
        raise UsageError(
            f"{len(chosen) - source.count()} of {len(chosen)} samples were erased from {shards}",
            expected="samples that are there",
            fix="facemae.data.select.select(…, dropped=False) leaves erased ones out",
        )
    workers = workers or min(4, usable_cores())
    batches = stream_batches(source, predictor.input, batch_size=batch_size, workers=workers)
    rows = [predictor.scores(batch.images, precision=precision) for batch in batches]
    return np.concatenate(rows) if rows else np.empty((0, len(predictor.names)), dtype=np.float32)


def _recipe(checkpoint: Checkpoint) -> Recipe:
    try:
        return Recipe.model_validate(checkpoint.manifest.recipe)
    except ValidationError as error:
        raise CheckpointError(
            f"the recipe in {checkpoint.folder} does not fit this release: {error.errors()[0]['msg']}",
            expected="a run of this release",
        ) from error


def _learned(objective: object) -> bool:
    return isinstance(objective, Supervised)


def _choose(learned: dict[str, torch.nn.Module], wanted: str | None, run: str | Path) -> Supervised:
    if wanted is None and len(learned) == 1:
        wanted = next(iter(learned))
    found = learned.get(wanted or "")
    if not isinstance(found, Supervised):
        raise UsageError(
            f"{run} has {len(learned)} objectives that learn from labels"
            + (f", none of them called {wanted!r}" if wanted else ""),
            expected=f"objective={' or '.join(map(repr, learned))}" if learned else "a run with objective 'supervised'",
        )
    return found


def _input(recipe: Recipe, head: Supervised) -> ModelInput:
    """What the head's view is without anything random: its size at the end of the run."""
    view = recipe.views[head.settings.view]
    if view.clip is not None:
        raise UsageError(
            f"view {head.settings.view!r} of {recipe.name} is of clips of {view.clip.frames} frames",
            expected="a run that learned from pictures: clips cannot be predicted on yet",
        )
    sizes = [view.image_size, *(stage.image_size for stage in view.stages)]
    return ModelInput(
        image_size=[recipe.encoder.image_size, *filter(None, sizes)][-1],
        channels=recipe.encoder.channels,
        mean=view.normalise.mean,
        std=view.normalise.std,
        interpolation=view.crop.interpolation,
        part=view.crop.part,
    )


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
