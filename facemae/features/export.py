"""An encoder on its own: weights under timm's names, with its papers and a proof that it answers as it should."""

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facemae.checkpoint import Manifest, open_checkpoint, write_checkpoint
from facemae.data.schema import ModelInput
from facemae.errors import CheckpointError, UsageError
from facemae.features.clip_input import SoundInput
from facemae.features.extractor import FeatureExtractor
from facemae.features.weights import DETAILS, SOUND_PART, LoadedEncoder, load_encoder
from facemae.models.encoder import timm_arguments

TOLERANCE = 1e-4
"""Largest difference from the recorded features that `verify_export` accepts."""


def export_encoder(model: Path | str, out: Path | str, *, weights: str = "auto") -> Path:
    """Write the encoder of a run or checkpoint as a folder that needs nothing else.

    `encoder.safetensors` loads into plain timm::

        details = json.load(open("OUT/encoder.json"))
        vit = timm.create_model(details["timm"]["name"], **details["timm"]["arguments"])
        vit.load_state_dict(safetensors.torch.load_file("OUT/encoder.safetensors"))

    An encoder of clips is none that plain timm knows: `timm` is null there, and facemae loads it. The encoder of sound,
    where the run has one, is `sound_encoder.safetensors`, and `sound` of `encoder.json` says what it expects.

    `encoder.json` holds that name and those arguments, the licences of the training data, whether every card says that
    weights may be passed on, and the features that a fixed image must give. `manifest.json` holds recipe, model input,
    cards with crop recipes, sizes and sha256.

    Args:
        model: Run folder or checkpoint folder.
        out: Folder to make.
        weights: `ema`, `model` or `auto`, as for `FeatureExtractor`.

    Returns:
        The folder.

    Raises:
        CheckpointError: The model is damaged or no facemae model.
        UsageError: The folder exists.
    """
    out = Path(out)
    if out.exists():
        raise UsageError(f"{out} exists", expected="a new folder", fix="choose another name or remove it")
    loaded = load_encoder(model, weights=weights)
    # The manifest of the very checkpoint that was read: a run that goes on has saved another one meanwhile.
    source = loaded.manifest
    if source is None:
        raise AssertionError("an encoder read from a path has a manifest")
    manifest = Manifest(
        kind="encoder",
        step=source.step,
        samples=source.samples,
        recipe=source.recipe,
        input=source.input,
        cards=source.cards,
        versions={**source.versions, "facemae": importlib.metadata.version("facemae")},
    )
    write_checkpoint(
        out,
        manifest,
        tensors=_tensors(loaded),
        documents={DETAILS: _details(loaded)},
    )
    return out


def verify_export(folder: Path | str) -> float:
    """Check an export: checksums, and the features of the fixed image.

    Returns:
        The largest absolute difference from the recorded features.

    Raises:
        CheckpointError: A file is damaged, or the features differ by more than `TOLERANCE`.
    """
    checkpoint = open_checkpoint(Path(folder))
    if checkpoint.manifest.kind != "encoder":
        raise CheckpointError(f"{folder} is a run's checkpoint", expected="an export", fix="export it first")
    details, loaded = checkpoint.document(DETAILS), load_encoder(folder)
    pairs = [(expected_features(loaded), details["expected"])]
    if loaded.sound is not None:
        _check_spectrogram(loaded.sound.input, details["sound"], folder)
        pairs.append((expected_sound_features(loaded), details["sound"]["expected"]))
    recorded = [(found, np.asarray(expected["features"], dtype=np.float32)) for found, expected in pairs]
    difference = max(float(np.abs(found - wanted).max()) for found, wanted in recorded)
    if not difference <= TOLERANCE:
        raise CheckpointError(
            f"{folder} gives features that differ by {difference:.2g} from the recorded ones",
            expected=f"at most {TOLERANCE}",
            fix="check the versions of torch and timm against the manifest",
        )
    return difference


def _check_spectrogram(heard: SoundInput, recorded: Any, folder: Path | str) -> None:
    if recorded is None or recorded["input"] != heard.describe():
        raise CheckpointError(
            f"{folder}: the spectrogram of its recipe is not the one that was exported",
            expected=str(None if recorded is None else recorded["input"]),
            fix="export it anew from the run",
        )


def probe_image(model_input: ModelInput) -> torch.Tensor:
    """The fixed image, uint8 [1, C, S, S]: integer arithmetic only, so it is the same everywhere."""
    side = torch.arange(model_input.image_size, dtype=torch.int64)
    row, column = side[:, None], side[None, :]
    planes = [(row * (7 + c) + column * (11 - c) + row * column // 5) % 256 for c in range(model_input.channels)]
    return torch.stack(planes).to(torch.uint8)[None]


def expected_features(loaded: LoadedEncoder) -> np.ndarray:
    """Mean of the normed patch tokens of the fixed image, float32 [D], computed on the CPU in fp32."""
    rows = FeatureExtractor(loaded, device="cpu").features(probe_image(loaded.input))
    return rows.reshape(-1)


def probe_spectrogram(heard: SoundInput) -> torch.Tensor:
    """The fixed spectrogram, float32 [1, frames, mels]: eighths between -1 and 1, the same everywhere."""
    moment, band = torch.arange(heard.frames)[:, None], torch.arange(heard.mel.mels)[None, :]
    return (((moment * 7 + band * 11 + moment * band // 5) % 17 - 8).float() / 8)[None]


def expected_sound_features(loaded: LoadedEncoder) -> np.ndarray:
    """Mean of the normed patch tokens of the fixed spectrogram, float32 [D], computed on the CPU in fp32."""
    assert loaded.sound is not None
    extractor = FeatureExtractor(loaded, device="cpu")
    tokens = extractor.encode_sound(probe_spectrogram(loaded.sound.input))[-1]
    found: np.ndarray = tokens[:, loaded.sound.encoder.prefix :].mean(dim=1).reshape(-1).numpy()
    return found


def _tensors(loaded: LoadedEncoder) -> dict[str, dict[str, torch.Tensor]]:
    parts = {DETAILS: loaded.encoder.vit.state_dict()}
    return parts if loaded.sound is None else {**parts, SOUND_PART: loaded.sound.encoder.vit.state_dict()}


def _sound_details(loaded: LoadedEncoder) -> dict[str, Any] | None:
    """What the encoder of sound is; None where there is none."""
    if loaded.sound is None:
        return None
    return {
        "digest": loaded.sound.digest,
        "input": loaded.sound.input.describe(),
        "encoder": loaded.sound.config.model_dump(mode="json"),
        "expected": {
            "spectrogram": "facemae.features.export.probe_spectrogram",
            "features": [float(value) for value in expected_sound_features(loaded)],
        },
    }


def _details(loaded: LoadedEncoder) -> dict[str, Any]:
    clips = loaded.config.tubelet is not None
    licences = sorted({card.licence for card in loaded.cards.values()}) or ["unknown"]
    return {
        "timm": None if clips else {"name": loaded.config.name, "arguments": timm_arguments(loaded.config)},
        "weights": loaded.about["weights"],
        "digest": loaded.digest,
        "crop": loaded.crop.model_dump(mode="json"),
        "clip": None if loaded.clip is None else {"frames": loaded.clip.frames, "fps": loaded.clip.fps},
        "sound": _sound_details(loaded),
        "data_licences": licences,
        "streams": {name: dict(stream) for name, stream in loaded.streams.items()},
        # Somebody has to have said so for every data set: no wording of a licence is read as a permission.
        "redistributable": bool(loaded.cards) and all(card.redistributable for card in loaded.cards.values()),
        "expected": {
            "image": "facemae.features.export.probe_image",
            "layer": -1,
            "pooling": "mean",
            "tolerance": TOLERANCE,
            "features": [float(value) for value in expected_features(loaded)],
        },
    }
