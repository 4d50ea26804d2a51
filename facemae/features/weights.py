"""An encoder and what must be known to use it rightly, read from a run, a checkpoint or an export."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from facemae.checkpoint import MANIFEST, Checkpoint, Manifest, check_names, find_checkpoint
from facemae.config import EncoderConfig, SoundEncoderConfig
from facemae.data.schema import CropRecipe, DatasetCard, ModelInput
from facemae.errors import CheckpointError
from facemae.features.clip_input import ClipInput, SoundInput, clip_input, sound_input
from facemae.models.encoder import MaskedEncoder, build_encoder, build_sound_encoder
from facemae.models.init import initialise

PREFIX = "encoder.vit."
"""What the encoder's names start with in a run's checkpoint; behind it they are timm's."""
SOUND_PREFIX = "sound_encoder.vit."
"""Likewise of the encoder of sound."""
SOUND_PART = "sound_encoder"
"""Name of the tensors of an export that are the encoder's of sound."""
DETAILS = "encoder"
"""Name of the document of an export that says how timm builds the encoder and what it must answer."""

_PICKLES = (".pth", ".pt", ".ckpt", ".bin", ".pkl", ".pickle")


@dataclass(frozen=True)
class LoadedSound:
    """An encoder of sound with its papers.

    Attributes:
        encoder: The module, in evaluation mode; it takes [B, 1, frames, mels].
        config: How it is built.
        input: The spectrogram that it expects.
        digest: SHA-256 over names, shapes and values of the weights.
    """

    encoder: MaskedEncoder
    config: SoundEncoderConfig
    input: SoundInput
    digest: str = ""


@dataclass(frozen=True)
class LoadedEncoder:
    """An encoder with its papers.

    Attributes:
        encoder: The module, in evaluation mode.
        config: How it is built.
        input: What it expects of its pixels.
        crop: How the faces it was trained on were cut.
        cards: Cards of the data it was trained on, by stream.
        streams: By stream, which data that was: see `training_streams`; empty for random weights.
        digest: SHA-256 over names, shapes and values of the weights; the same for a run and its export.
        about: Where it comes from: `recipe`, `step`, `samples`, `weights`, `random_init`.
        manifest: Manifest of the checkpoint that was read; None for an encoder in memory.
        clip: Frames and rate of the clips it was trained on; None where it saw none.
        sound: The encoder of sound beside it; None where there is none.
        saw_pictures: Whether it was trained on pictures; False of clips alone.
    """

    encoder: MaskedEncoder
    config: EncoderConfig
    input: ModelInput
    crop: CropRecipe = field(default_factory=CropRecipe)
    cards: Mapping[str, DatasetCard] = field(default_factory=dict)
    streams: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    digest: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    manifest: Manifest | None = None
    clip: ClipInput | None = None
    sound: LoadedSound | None = None
    saw_pictures: bool = True


def load_encoder(path: Path | str, *, weights: str = "auto", random_init: int | None = None) -> LoadedEncoder:
    """Read an encoder.

    Args:
        path: A run folder (its newest intact checkpoint is taken), a checkpoint folder, or an exported encoder.
        weights: `ema` the averaged weights, `model` the last ones, `auto` the averaged ones where the run keeps them.
        random_init: Keep the architecture but fill it with the random weights that a run with this seed starts from.

    Raises:
        CheckpointError: The path holds none of these, is damaged, or its weights do not fit its own description.
    """
    checkpoint = _find(Path(path))
    manifest = checkpoint.manifest
    try:
        config = EncoderConfig.model_validate(manifest.recipe["encoder"])
    except (KeyError, ValidationError) as error:
        raise CheckpointError(
            f"{checkpoint.folder / MANIFEST} describes no encoder: {error}", expected="a recipe with a block `encoder`"
        ) from error
    encoder = build_encoder(config)
    about: dict[str, Any] = {"recipe": manifest.recipe.get("name", "unknown")}
    if random_init is None:
        part, state = _read_state(checkpoint, weights)
        check_names(state, encoder.vit.state_dict(), str(checkpoint.folder))
        encoder.vit.load_state_dict(state, strict=True)
        about |= {"step": manifest.step, "samples": manifest.samples, "weights": part}
    else:
        initialise(encoder, random_init, prefix="encoder.")
        about |= {"step": 0, "samples": 0, "weights": "random", "random_init": random_init}
    return LoadedEncoder(
        encoder=encoder.eval(),
        config=config,
        input=manifest.input,
        crop=merge_crops(card.crop for card in manifest.cards.values()),
        cards=manifest.cards,
        streams=training_streams(checkpoint) if random_init is None else {},
        digest=weights_digest(encoder.vit.state_dict()),
        about=about,
        manifest=manifest,
        clip=clip_input(manifest.recipe),
        sound=_load_sound(checkpoint, weights, random_init, encoder),
        saw_pictures=config.tubelet is None or _saw_pictures(manifest.recipe),
    )


def _load_sound(
    checkpoint: Checkpoint, weights: str, random_init: int | None, lender: MaskedEncoder
) -> LoadedSound | None:
    """The encoder of sound; one that shares the blocks of the encoder of views, `lender`, gets a copy of them."""
    recipe = checkpoint.manifest.recipe
    heard = sound_input(recipe)
    if heard is None:
        return None
    config = SoundEncoderConfig.model_validate(recipe["sound_encoder"])
    encoder = build_sound_encoder(config)
    lent: dict[str, torch.Tensor] = {}
    if config.blocks == "shared":
        own = lender.vit.state_dict()
        lent = {name: value for name, value in own.items() if name.startswith(("blocks.", "norm."))}
    if random_init is None:
        _, state = _read_state(checkpoint, weights, prefix=SOUND_PREFIX, exported=SOUND_PART)
        state = {**lent, **state}
        check_names(state, encoder.vit.state_dict(), str(checkpoint.folder))
        encoder.vit.load_state_dict(state, strict=True)
    else:
        initialise(encoder, random_init, prefix="sound_encoder.")
        encoder.vit.load_state_dict({**encoder.vit.state_dict(), **lent})
    return LoadedSound(encoder.eval(), config, heard, weights_digest(encoder.vit.state_dict()))


def _saw_pictures(recipe: Mapping[str, Any]) -> bool:
    """Whether a view of a recipe is of pictures; True where it names no views."""
    views = list(recipe.get("views", {}).values())
    return not views or any(view.get("clip") is None for view in views)


def training_streams(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """Which data a run was trained on, by stream: `where`, `keys`, and the recorded pins.

    Pins are the number of leading `shards` with their `digest`, and the `selection` of their samples.
    """
    manifest = checkpoint.manifest
    pinned: Mapping[str, Any] = {}
    if "data.json" in manifest.files:
        pinned = checkpoint.document("data").get("streams", {})
    elif f"{DETAILS}.json" in manifest.files:
        pinned = checkpoint.document(DETAILS).get("streams", {})
    named = {stream["name"]: stream for stream in manifest.recipe.get("data", {}).get("streams", [])}
    return {
        name: {
            "where": dict(named.get(name, {}).get("where") or {}),
            **({"keys": keys} if (keys := named.get(name, {}).get("keys")) else {}),
            **{key: value for key, value in pinned.get(name, {}).items() if key in ("shards", "digest", "selection")},
        }
        for name in (named or pinned)
    }


def _find(path: Path) -> Checkpoint:
    expected = "a run folder, a checkpoint folder or an exported encoder"
    if path.is_dir():
        return find_checkpoint(path)
    if not path.exists():
        raise CheckpointError(f"there is no model at {path}", expected=expected)
    if path.suffix in _PICKLES:
        raise CheckpointError(
            f"{path} is a {path.suffix} file; such files are pickles, which run code when they are read",
            expected=f"{expected}, whose weights are safetensors",
            fix="ask for the weights as safetensors, or train with `facemae pretrain`",
        )
    raise CheckpointError(
        f"{path} is a file", expected=expected, fix=f"give the folder {path.parent}" if _beside_manifest(path) else None
    )


def _beside_manifest(path: Path) -> bool:
    return (path.parent / MANIFEST).is_file()


def _read_state(
    checkpoint: Checkpoint, weights: str, *, prefix: str = PREFIX, exported: str = DETAILS
) -> tuple[str, dict[str, torch.Tensor]]:
    """The weights asked for, by timm's names, and what they are called."""
    if weights not in ("auto", "ema", "model"):
        raise CheckpointError(f"weights {weights!r}", expected="auto, ema or model")
    if checkpoint.manifest.kind == "encoder":
        part = str(checkpoint.document(DETAILS)["weights"])
        if weights not in ("auto", part):
            raise CheckpointError(
                f"{checkpoint.folder} was exported from the {part} weights, not from {weights!r}",
                fix=f"weights='{part}', or load the run itself",
            )
        if not checkpoint.has(exported):
            raise CheckpointError(
                f"{checkpoint.folder} was exported without its {exported}",
                expected=f"{exported}.safetensors, as its recipe says",
                fix="export it anew from the run",
            )
        return part, checkpoint.tensors(exported)
    part = weights
    if weights == "auto":
        part = "ema" if checkpoint.has("ema") else "model"
    if not checkpoint.has(part):
        raise CheckpointError(
            f"{checkpoint.folder} keeps no averaged weights" if part == "ema" else f"{checkpoint.folder} has no {part}",
            expected="a run with optim.ema" if part == "ema" else "model.safetensors",
            fix="weights='model' takes the last ones" if part == "ema" else None,
        )
    state = checkpoint.tensors(part, prefix=prefix)
    if not state:
        raise CheckpointError(
            f"{checkpoint.folder}/{part}.safetensors has no tensor whose name starts with {prefix!r}",
            expected="the weights of a facemae pretraining run",
        )
    return part, state


def weights_digest(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and values in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def merge_crops(crops: Iterable[CropRecipe]) -> CropRecipe:
    """One crop recipe for several data sets; where they differ, texts name them all and the rest is unknown."""
    rows = [crop.model_dump() for crop in crops]
    merged: dict[str, Any] = {}
    for name in CropRecipe.model_fields if rows else ():
        values = list(dict.fromkeys(row[name] for row in rows))
        if len(values) == 1:
            merged[name] = values[0]
        elif name != "colour" and all(isinstance(value, str) for value in values):
            merged[name] = " | ".join(sorted(values))
    return CropRecipe(**merged)
