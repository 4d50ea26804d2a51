"""What the encoders of a recipe expect of clips and of the sound beneath them, read from its views and sounds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from facemae.config import ClipConfig, MelSettings, SoundConfig, SoundEncoderConfig, ViewConfig, sound_frames
from facemae.data.schema import ModelInput
from facemae.errors import CheckpointError
from facemae.sound.mel import nominal_seconds


@dataclass(frozen=True)
class ClipInput:
    """What an encoder of clips was trained on.

    Attributes:
        frames: Frames of a clip.
        fps: Frames a second.
        view: The view of the recipe that says so.
        normalise: Mean and deviation by which that view's pixels are normalised; None where the recipe is silent.
        encoded: Whether the encoder saw such clips in training; else they were predicted, and it saw stills alone.
    """

    frames: int
    fps: float
    view: str = "main"
    normalise: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    encoded: bool = True

    @property
    def seconds(self) -> float:
        """How long a clip is: each frame stands for all that passes until the next."""
        return self.frames / self.fps


@dataclass(frozen=True)
class SoundInput:
    """What an encoder of sound was trained on.

    Attributes:
        frames: Frames of the spectrogram.
        mel: Everything else that determines it, its normalisation among it.
        patch: Frames, and bands, of a patch.
    """

    frames: int
    mel: MelSettings
    patch: int

    @property
    def seconds(self) -> float:
        """How much sound that is."""
        return nominal_seconds(self.frames, self.mel)

    def describe(self) -> dict[str, Any]:
        """For metadata."""
        return {"frames": self.frames, "patch_size": self.patch, "mel": self.mel.model_dump(mode="json")}


_PREDICTED = (("audio_to_face", "view"),)
"""Kinds of objectives, and which of their keys names a view of which only the pixels are wanted."""


def clip_input(recipe: Mapping[str, Any]) -> ClipInput | None:
    """What the recipe's first view of clips gives the encoder, an encoded one before others; None where it has none."""
    predicted = {
        objective.get(key)
        for objective in recipe.get("objectives", ())
        for kind, key in _PREDICTED
        if objective.get("kind") == kind
    }
    views = {name: view for name, view in recipe.get("views", {}).items() if view.get("clip") is not None}
    for name in sorted(views, key=lambda name: name in predicted):
        clip, pixels = ClipConfig.model_validate(views[name]["clip"]), views[name].get("normalise")
        normalise = None if pixels is None else (tuple(pixels["mean"]), tuple(pixels["std"]))
        return ClipInput(clip.frames, clip.fps, name, normalise, name not in predicted)
    return None


def check_normalisation(clip: ClipInput | None, model_input: ModelInput) -> None:
    """Raise `CheckpointError` where clips were normalised otherwise than pixels are for the encoder."""
    wanted = (model_input.mean, model_input.std)
    if clip is not None and clip.normalise is not None and clip.normalise != wanted:
        raise CheckpointError(
            f"view {clip.view!r} of clips is normalised by {clip.normalise}, the encoder's pictures by {wanted}",
            expected="one normalisation for one encoder",
            fix="train with equal views.*.normalise; features of pictures are not concerned",
        )


def sound_input(recipe: Mapping[str, Any]) -> SoundInput | None:
    """The spectrogram that the recipe's sound encoder was trained on; None where the recipe has no such encoder.

    Raises:
        CheckpointError: There is no sound for it, or several that differ.
    """
    tree = recipe.get("sound_encoder")
    if tree is None:
        return None
    config = SoundEncoderConfig.model_validate(tree)
    views = {name: ViewConfig.model_validate(view) for name, view in recipe.get("views", {}).items()}
    found: dict[str, MelSettings] = {}
    for name, entry in recipe.get("sounds", {}).items():
        sound = SoundConfig.model_validate(entry)
        if sound.beneath in views and sound_frames(sound, views[sound.beneath]) == config.frames:
            found[name] = sound.mel
    if not found:
        raise CheckpointError("the recipe has a sound_encoder and no sound that fits it", expected="a block `sounds`")
    first, *others = found
    for other in others:
        if found[other] != found[first]:
            different = ", ".join(
                key for key in MelSettings.model_fields if getattr(found[first], key) != getattr(found[other], key)
            )
            raise CheckpointError(
                f"sounds {first!r} and {other!r} of the recipe differ in {different}",
                expected="one kind of spectrogram for one sound encoder",
            )
    return SoundInput(config.frames, found[first], config.patch_size)
