"""A run's two encoders and what its contrast compares of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F

from facemae.checkpoint import check_names, find_checkpoint
from facemae.config import Recipe
from facemae.data.preprocess import normalise
from facemae.data.schema import SoundSpec, ViewSpec
from facemae.errors import UsageError
from facemae.features.weights import weights_digest
from facemae.models.encoding import Encoding
from facemae.objectives.contrastive import Contrastive, ContrastiveConfig, Level
from facemae.objectives.pretraining import PretrainModel, build_pretrain_model
from facemae.recipe_specs import sound_specs, view_specs

Compared = Literal["heads", "means"]
BATCH = 32


@dataclass(frozen=True)
class Pair:
    """What a recipe's contrast compares.

    Attributes:
        number: Of the objective among the recipe's.
        view: The view of clips.
        sound: The sound beneath it.
    """

    number: int
    view: ViewSpec
    sound: SoundSpec


def pair_of(recipe: Recipe) -> Pair:
    """The first contrast of a recipe between a view of clips and the sound beneath it.

    Raises:
        UsageError: The recipe has none.
    """
    views = {spec.name: spec for spec in view_specs(recipe) if spec.clip is not None}
    sounds = {spec.name: spec for spec in sound_specs(recipe)}
    for number, objective in enumerate(recipe.objectives):
        if isinstance(objective, ContrastiveConfig):
            view, sound = objective.between
            if view in views and sound in sounds and sounds[sound].beneath == view:
                return Pair(number, views[view], sounds[sound])
    raise UsageError(
        f"recipe {recipe.name} contrasts no clip with the sound beneath it",
        expected="an objective `contrastive` between a view of clips and a sound beneath it, in this order",
    )


@dataclass(frozen=True)
class Embedder:
    """The encoders of a run, frozen, and its contrast.

    Attributes:
        model: The model.
        recipe: Its recipe.
        pair: What is compared.
        digest: sha256 of the weights.
    """

    model: PretrainModel
    recipe: Recipe
    pair: Pair
    digest: str

    @torch.no_grad()
    def video(self, pixels: torch.Tensor, compared: Compared = "heads") -> torch.Tensor:
        """Vectors of clips, uint8 [W, T, C, S, S]: fp32 [W, levels, D], each of length one."""
        settings = self.model.normalisation[self.pair.view.name]
        encodings = (
            self.model.encoder(normalise(part, settings.mean, settings.std), None, self._blocks(0))
            for part in torch.split(pixels, BATCH)
        )
        return torch.cat([self._vectors(encoding, 0, compared) for encoding in encodings])

    @torch.no_grad()
    def sound(self, mels: torch.Tensor, compared: Compared = "heads") -> torch.Tensor:
        """Vectors of spectrograms, float32 [W, frames, mels]; as `video`."""
        encoder = self.model.sound_encoder
        assert encoder is not None, "checked with the recipe"
        encodings = (encoder(part.unsqueeze(1), None, self._blocks(1)) for part in torch.split(mels, BATCH))
        return torch.cat([self._vectors(encoding, 1, compared) for encoding in encodings])

    @property
    def levels(self) -> list[Level]:
        """The contrast's levels."""
        objective = self.model.objectives[self.pair.number]
        assert isinstance(objective, Contrastive), "chosen as such"
        return [level for level in objective.levels if isinstance(level, Level)]

    def _blocks(self, side: int) -> list[int]:
        return sorted({level.blocks[side] for level in self.levels if level.blocks is not None})

    def _vectors(self, encoding: Encoding, side: int, compared: Compared) -> torch.Tensor:
        if compared == "means":
            return F.normalize(encoding.patches.mean(dim=1), dim=-1).unsqueeze(1)
        # A level compares two sides; each side's vectors are those it gives whatever the other is.
        return torch.stack([level.vector(encoding, side) for level in self.levels], dim=1)


def similarity(video: torch.Tensor, sound: torch.Tensor) -> torch.Tensor:
    """Cosines [W, V] of W clips and V sounds, the mean over levels."""
    return torch.einsum("wld,vld->wv", video.double(), sound.double()) / video.shape[1]


def load_embedder(run: Path) -> Embedder:
    """The encoders of a run as it stands, its averaged weights where it keeps them.

    Raises:
        CheckpointError: There is no intact checkpoint, or its weights do not fit its recipe.
        UsageError: It contrasts no clip with the sound beneath it.
    """
    checkpoint = find_checkpoint(run)
    recipe = Recipe.model_validate(checkpoint.manifest.recipe)
    model = build_pretrain_model(recipe)
    state = checkpoint.tensors("model")
    if checkpoint.has("ema"):
        state |= checkpoint.tensors("ema")
    check_names(state, model.state_dict(), str(checkpoint.folder))
    model.load_state_dict(state)
    return _embedder(model, recipe)


def untrained_embedder(recipe: Recipe) -> Embedder:
    """The encoders a run of the recipe starts with."""
    return _embedder(build_pretrain_model(recipe), recipe)


def _embedder(model: PretrainModel, recipe: Recipe) -> Embedder:
    return Embedder(model.eval(), recipe, pair_of(recipe), weights_digest(model.state_dict()))
