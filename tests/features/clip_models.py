"""Tiny models that see clips, hear sound or both, and videos of a drawn face with sound."""

from pathlib import Path
from typing import Any

import numpy as np

from facemae.checkpoint import Manifest, write_checkpoint
from facemae.config import EncoderConfig, MelSettings, SoundEncoderConfig
from facemae.data.clips.settings import ClipSettings
from facemae.data.schema import CropRecipe, DatasetCard, ModelInput
from facemae.faces.registry import open_detector
from facemae.models.encoder import build_encoder, build_sound_encoder
from facemae.models.init import initialise

SIDE = 32
FPS = 12.5
FRAMES = 8
SECONDS = FRAMES / FPS
"""0.64, which are 64 frames of sound."""
MEL = MelSettings(mels=32)
RATE = MEL.rate


def crop_recipe(**changes: Any) -> CropRecipe:
    """How packing cuts for these models: 48 pixels, 25 frames and 16000 samples a second."""
    settings = ClipSettings(**{"size": 48, "detections": 5, **changes})
    return settings.crop_recipe(open_detector().name)


def save(
    folder: Path,
    *,
    clips: bool = True,
    sound: bool = True,
    channels: int = 3,
    crop: CropRecipe | None = None,
    mel: MelSettings = MEL,
    changes: dict[str, Any] | None = None,
) -> Path:
    """Write a run with one checkpoint of random weights; returns the run folder.

    Args:
        folder: The run.
        clips: An encoder of clips, else one of stills.
        sound: An encoder of sound beside it.
        channels: Of pictures.
        crop: How its faces were cut; None: as `crop_recipe`.
        mel: Its spectrogram.
        changes: Blocks of the recipe to replace.
    """
    mean, std = ((0.5,) * channels, (0.25,) * channels)
    config = EncoderConfig(
        name="vit_tiny_patch16_224",
        image_size=SIDE,
        patch_size=16,
        channels=channels,
        **({"tubelet": 2, "frames": FRAMES, "class_token": False} if clips else {}),
    )
    view: dict[str, Any] = {"normalise": {"mean": mean, "std": std}}
    if clips:
        view["clip"] = {"frames": FRAMES, "fps": FPS}
    recipe: dict[str, Any] = {"name": "toy", "encoder": config.model_dump(mode="json"), "views": {"main": view}}
    encoder = build_encoder(config)
    initialise(encoder, 1, prefix="encoder.")
    tensors = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    if sound:
        heard = SoundEncoderConfig(name="vit_tiny_patch16_224", frames=64, mels=32, patch_size=16)
        hearing = build_sound_encoder(heard)
        initialise(hearing, 2, prefix="sound_encoder.")
        tensors |= {f"sound_encoder.{name}": value for name, value in hearing.state_dict().items()}
        recipe["sound_encoder"] = heard.model_dump(mode="json")
        recipe["sounds"] = {"voice": {"beneath": "main", "frames": 64, "mel": mel.model_dump(mode="json")}}
    manifest = Manifest(
        step=3,
        samples=24,
        recipe={**recipe, **(changes or {})},
        input=ModelInput(image_size=SIDE, channels=channels, mean=mean, std=std),
        cards={"clips": DatasetCard(name="toy", licence="CC0-1.0", crop=crop or crop_recipe())},
    )
    target = folder / "checkpoints" / "step-00000003"
    write_checkpoint(target, manifest, tensors={"model": tensors}, documents={"trainer": {}, "data": {"streams": {}}})
    return folder


def voice(seconds: float, rate: int = RATE) -> np.ndarray:
    """A tone that rises, float32 [N] of 16 bits: each window of it sounds different."""
    times = np.arange(round(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * (300 * times + 150 * times**2))
    return (np.rint(wave * 32768) / 32768).astype(np.float32)
