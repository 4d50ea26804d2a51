"""A tiny recipe of every objective, and batches for it without a shard set.

A new objective adds an entry to `EXAMPLES`, with every way of its own in which samples may depend on each other, on the
step or on their slot; `test_every_world.py` then shows that no number of processes and no accumulation changes it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from facemae.config import Recipe
from facemae.data.masks import draw_mask
from facemae.data.schema import Batch, SoundBatch, SoundSpec, ViewBatch, ViewSpec
from facemae.data.sound_masks import draw_sound_mask
from facemae.recipe_specs import sound_specs, view_specs
from facemae.rng import generator

BATCH = 32
STREAMS = ("laboratory", "wild")

ENCODER = {"name": "test_vit", "image_size": 24, "patch_size": 8, "channels": 1}
CLIP_ENCODER = {**ENCODER, "tubelet": 2, "frames": 4, "class_token": False}
CLIP = {"frames": 4, "fps": 6.25}
MASKED = {"mask": {"ratio": 0.5}}
TWO = {"copies": 2, "mask": None}
HEAD = {"depth": 2, "hidden": 24, "out": 12}
DECODER = {"width": 24, "depth": 1, "heads": 2}

MIXED = {"mask": None, "mixup": {"alpha": 0.8}}
SKIPPING = {**DECODER, "depth": 3, "skips": [5, 2]}
UNITS = ["AU1", "AU2", "AU4"]
VOTES = ["votes_calm", "votes_glad", "votes_cross"]

HEARS = {"name": "test_vit", "frames": 24, "mels": 16, "patch_size": 8}
VOICE = {"frames": 24, "mel": {"mels": 16}, "mask": {"ratio": 0.5}}
LEVELS = [{"blocks": [2, 1], "head": HEAD}, {"blocks": [3, 4]}, {}]

EXAMPLES: dict[str, dict[str, dict[str, Any]]] = {
    "masked_image": {
        "joint": {"views": {"main": MASKED}, "objectives": [{"kind": "masked_image", "decoder": DECODER}]},
        "cross, a part decoded": {
            "views": {"main": MASKED},
            "objectives": [{"kind": "masked_image", "decoder": {**DECODER, "kind": "cross", "fraction": 0.5}}],
        },
        "several masks, a mix of layers": {
            "views": {"main": {"mask": {"ratio": 0.5, "copies": 2}}},
            "objectives": [
                {
                    "kind": "masked_image",
                    "decoder": {**DECODER, "kind": "cross", "fraction": 0.5, "mix_layers": [0, 2, 5]},
                }
            ],
        },
    },
    "masked_video": {
        "tube, VideoMAE's": {
            "encoder": {**CLIP_ENCODER, "position": "sequence"},
            "views": {"main": {"clip": CLIP, "mask": {"kind": "tube", "ratio": 0.5}}},
            "objectives": [{"kind": "masked_video", "decoder": {**DECODER, "embed_bias": False}}],
        },
        "cross, a part of the differences, several masks drawn anew in each frame": {
            "encoder": {**CLIP_ENCODER, "drop_path": 0.2},
            "views": {"main": {"clip": CLIP, "mask": {"kind": "frame", "ratio": 0.5, "copies": 2}}},
            "objectives": [
                {
                    "kind": "masked_video",
                    "decoder": {**DECODER, "kind": "cross", "fraction": 0.5},
                    "difference": True,
                }
            ],
        },
        "blocks of the decoder look at those of the encoder, several masks": {
            "encoder": CLIP_ENCODER,
            "views": {"main": {"clip": CLIP, "mask": {"kind": "tube", "ratio": 0.5, "copies": 2}}},
            "objectives": [{"kind": "masked_video", "decoder": SKIPPING}],
        },
        "by region, with a critic, of several copies of some streams": {
            "encoder": CLIP_ENCODER,
            "views": {
                "main": {"clip": CLIP, "copies": 2, "streams": ["wild"], "mask": {"kind": "region", "ratio": 0.5}},
                "other": {"streams": ["laboratory"], "mask": {"ratio": 0.5}},
            },
            "objectives": [
                {"kind": "masked_video", "decoder": DECODER, "target": "pixels", "critic": {"weight": 0.3}},
                {"kind": "masked_video", "view": "other", "decoder": DECODER},
            ],
        },
        "clips and stills": {
            "encoder": CLIP_ENCODER,
            "views": {
                "clips": {"clip": CLIP, "mask": {"ratio": 0.75}},
                "stills": {"mask": {"ratio": 0.5}},
            },
            "objectives": [
                {"kind": "masked_video", "view": "clips", "decoder": DECODER, "target": "joint"},
                {"kind": "masked_video", "view": "stills", "decoder": DECODER, "target": "pixels"},
            ],
        },
        "clips and stills by stream, a part decoded, copies, drop path": {
            "encoder": {**CLIP_ENCODER, "drop_path": 0.3},
            "views": {
                "clips": {"streams": ["wild"], "clip": CLIP, "copies": 2, "mask": {"ratio": 0.75, "copies": 2}},
                "stills": {"streams": ["laboratory"], "mask": {"ratio": 0.5}},
            },
            "objectives": [
                {"kind": "masked_video", "view": "clips", "decoder": {**DECODER, "kind": "cross", "fraction": 0.5}},
                {"kind": "masked_video", "view": "stills", "weight": 0.5, "decoder": DECODER},
            ],
        },
    },
    "contrastive_image": {
        "groups of a micro-batch": {
            "views": {"main": TWO},
            "objectives": [{"kind": "contrastive_image", "group": 4, "head": HEAD}],
        },
        "groups of two processes": {
            "views": {"main": TWO},
            "objectives": [{"kind": "contrastive_image", "group": 16, "head": HEAD}],
        },
        "whole batch, sigmoid": {
            "views": {"main": TWO},
            "objectives": [{"kind": "contrastive_image", "loss": "sigmoid", "head": HEAD}],
        },
    },
    "contrastive": {
        "a picture and its sound at several levels": {
            "views": {"main": MASKED},
            "sounds": {"voice": VOICE},
            "sound_encoder": HEARS,
            "objectives": [{"kind": "contrastive", "group": 4, "levels": LEVELS}],
        },
        "groups of two processes, one direction, excluded pairs, drop path": {
            "views": {"main": MASKED},
            "sounds": {"voice": VOICE},
            "sound_encoder": {**HEARS, "drop_path": 0.3},
            "objectives": [
                {"kind": "contrastive", "group": 16, "direction": "forward", "exclude": ["source", "subject"]}
            ],
        },
        "whole batch, sigmoid": {
            "views": {"main": MASKED},
            "sounds": {"voice": VOICE},
            "sound_encoder": HEARS,
            "objectives": [{"kind": "contrastive", "loss": "sigmoid", "levels": LEVELS[:1], "exclude": ["subject"]}],
        },
        "a picture and its sound of some streams": {
            "views": {"main": {**MASKED, "streams": ["wild"]}, "whole": MASKED},
            "sounds": {"voice": VOICE},
            "sound_encoder": {**HEARS, "drop_path": 0.3},
            "objectives": [
                {"kind": "contrastive", "group": 16, "levels": LEVELS, "exclude": ["source"]},
                {"kind": "contrastive", "between": ["whole", "main"]},
            ],
        },
        "stretches of time, some of which a mask leaves empty, of some streams": {
            "encoder": CLIP_ENCODER,
            "views": {"main": {"clip": CLIP, "mask": {"ratio": 0.9}, "streams": ["wild"]}, "all": MASKED},
            "sounds": {"voice": {**VOICE, "frames": 32}},
            "sound_encoder": {**HEARS, "frames": 32},
            "objectives": [
                {"kind": "contrastive", "group": 16, "levels": [{"steps": 2, "head": HEAD}, {}]},
                {"kind": "masked_video", "view": "all", "decoder": DECODER},
            ],
        },
        "two views": {
            "views": {"main": MASKED, "other": {"mask": None}},
            "objectives": [{"kind": "contrastive", "between": ["main", "other"], "levels": LEVELS[1:]}],
        },
    },
    "audio_to_face": {
        "a picture from the sound around it": {
            "views": {"main": {"mask": None}},
            "sounds": {"voice": {**VOICE, "mask": None}},
            "sound_encoder": {**HEARS, "drop_path": 0.3},
            "objectives": [
                {"kind": "audio_to_face", "still": None, "loss": "l2", "decoder": {**DECODER, "kind": "cross"}}
            ],
        },
        "a part of a clip from visible patches and a still, of some streams": {
            "encoder": {**CLIP_ENCODER, "drop_path": 0.3},
            "views": {
                "main": {"clip": CLIP, "mask": None, "streams": ["wild"]},
                "still": {**MASKED, "streams": ["wild"]},
                "whole": MASKED,
            },
            "sounds": {"voice": VOICE},
            "sound_encoder": HEARS,
            "objectives": [
                {"kind": "audio_to_face", "decoder": {**DECODER, "kind": "cross", "fraction": 0.5}},
                {"kind": "masked_video", "view": "whole", "decoder": DECODER},
            ],
        },
    },
    "masked_audio": {
        "joint, beside pictures": {
            "views": {"main": MASKED},
            "sounds": {"voice": VOICE},
            "sound_encoder": HEARS,
            "objectives": [
                {"kind": "masked_image", "decoder": DECODER},
                {"kind": "masked_audio", "decoder": DECODER},
            ],
        },
        "beneath a view of some streams": {
            "views": {"main": {**MASKED, "streams": ["wild"]}, "whole": MASKED},
            "sounds": {"voice": VOICE},
            "sound_encoder": HEARS,
            "objectives": [
                {"kind": "masked_image", "view": "whole", "decoder": DECODER},
                {"kind": "masked_audio", "decoder": {**DECODER, "kind": "cross", "fraction": 0.5}},
            ],
        },
        "joint, with a critic": {
            "views": {"main": MASKED},
            "sounds": {"voice": VOICE},
            "sound_encoder": HEARS,
            "objectives": [{"kind": "masked_audio", "decoder": DECODER, "critic": {"weight": 0.3, "hidden": 16}}],
        },
        "cross, a part decoded, values, of two copies": {
            "views": {"main": {**MASKED, "copies": 2}},
            "sounds": {"voice": {**VOICE, "mask": {"kind": "time_frequency", "ratio": 0.6}}},
            "sound_encoder": {**HEARS, "drop_path": 0.3},
            "objectives": [
                {
                    "kind": "masked_audio",
                    "target": "values",
                    "decoder": {**DECODER, "kind": "cross", "fraction": 0.5, "mix_layers": [0, 5]},
                }
            ],
        },
        "after fusion with a clip, all that HiCMAE learns from, drop path": {
            "encoder": {**CLIP_ENCODER, "drop_path": 0.2},
            "views": {"main": {"clip": CLIP, "mask": {"kind": "tube", "ratio": 0.5}}},
            "sounds": {"voice": VOICE},
            "sound_encoder": {**HEARS, "position": "sequence", "class_token": False},
            "fusion": {"heads": 2, "drop_path": 0.3},
            "objectives": [
                {"kind": "masked_video", "fused": True, "difference": True, "decoder": SKIPPING},
                {"kind": "masked_audio", "fused": True, "target": "norm_pix", "decoder": SKIPPING},
                {"kind": "contrastive", "weight": 0.0025, "group": 4, "levels": LEVELS[1:]},
            ],
        },
        "one transformer for frames and sound, alone for the contrast and together for the rest": {
            "encoder": {**CLIP_ENCODER, "drop_path": 0.2},
            "views": {
                "main": {"clip": CLIP, "mask": {"kind": "tube", "ratio": 0.5}, "streams": ["wild"]},
                "all": MASKED,
            },
            "sounds": {"voice": VOICE},
            "sound_encoder": {**HEARS, "class_token": False, "blocks": "shared", "drop_path": 0.2},
            "fusion": {"kind": "joint"},
            "objectives": [
                {"kind": "masked_video", "fused": True, "decoder": DECODER},
                {"kind": "masked_audio", "fused": True, "decoder": DECODER},
                {"kind": "contrastive", "weight": 0.1, "group": 4, "levels": LEVELS[1:]},
                {"kind": "masked_video", "view": "all", "decoder": DECODER},
            ],
        },
        "after fusion with a picture, of two copies, of one stream": {
            "views": {"main": {**MASKED, "copies": 2, "streams": ["wild"]}, "other": MASKED},
            "sounds": {"voice": VOICE},
            "sound_encoder": HEARS,
            "fusion": {"heads": 2, "depth": 1},
            "objectives": [
                {"kind": "masked_image", "fused": True, "decoder": DECODER},
                {"kind": "masked_image", "view": "other", "decoder": DECODER},
                {"kind": "masked_audio", "fused": True, "decoder": {**DECODER, "kind": "cross", "mix_layers": [0, 5]}},
            ],
        },
    },
    "clustering": {
        "groups of a micro-batch, small views": {
            "views": {"main": TWO, "small": {"image_size": 16, "mask": None}},
            "objectives": [
                {"kind": "clustering", "group": 4, "prototypes": 6, "head": HEAD, "local_views": ["small"]},
            ],
        },
        "whole batch": {
            "views": {"main": TWO},
            "objectives": [{"kind": "clustering", "prototypes": 6, "head": HEAD, "pool": "mean"}],
        },
    },
    "supervised": {
        "classes with gaps, dropout": {
            "views": {"main": {"mask": None}},
            "objectives": [
                {
                    "kind": "supervised",
                    "labels": "expression",
                    "classes": ["calm", "glad", "cross"],
                    "smoothing": 0.1,
                    "dropout": 0.2,
                }
            ],
        },
        "classes of some streams, dropout, drop path": {
            "encoder": {**ENCODER, "drop_path": 0.3},
            "views": {"main": {"mask": None, "streams": ["wild"]}, "whole": MASKED},
            "objectives": [
                {"kind": "masked_image", "view": "whole", "decoder": DECODER},
                {"kind": "supervised", "labels": "expression", "classes": ["calm", "glad", "cross"], "dropout": 0.2},
            ],
        },
        "binary columns with unknowns, mixup, drop path": {
            "views": {"main": MIXED},
            "encoder": {**ENCODER, "drop_path": 0.3},
            "objectives": [{"kind": "supervised", "task": "multilabel", "labels": UNITS, "pool": "cls+mean"}],
        },
        "votes of some streams": {
            "views": {"main": {"mask": None, "streams": ["wild"]}, "whole": MASKED},
            "objectives": [
                {"kind": "masked_image", "view": "whole", "decoder": DECODER},
                {"kind": "supervised", "task": "distribution", "labels": VOTES},
            ],
        },
        "numbers with gaps": {
            "views": {"main": {"mask": None}},
            "objectives": [
                {"kind": "supervised", "task": "regression", "labels": ["valence"], "centre": [0.5], "scale": [2.0]}
            ],
        },
    },
}
"""By kind: what a recipe says beside encoder and data, by what is special about it."""


def example_recipe(blocks: Mapping[str, Any]) -> Recipe:
    """The recipe of an example: the smallest encoder, two streams."""
    views = {
        name: {"normalise": {"mean": [0.5], "std": [0.25]}, **view} for name, view in blocks.get("views", {}).items()
    }
    return Recipe.model_validate(
        {
            "name": "example",
            "seed": 5,
            "data": {"lanes": 4, "streams": [{"name": name, "shards": "none"} for name in STREAMS]},
            "encoder": ENCODER,
            "optim": {"batch_size": BATCH},
            **blocks,
            "views": views,
        }
    )


def global_batch(recipe: Recipe, step: int = 0, labels: tuple[int, ...] = ()) -> Batch:
    """The batch of a step as the loader would give it to a single process.

    Args:
        recipe: The recipe.
        step: Its number.
        labels: Slots whose samples have a label in their metadata.
    """
    rng = generator(recipe.seed, "example", step)
    streams = [STREAMS[slot * 3 // BATCH % 2] for slot in range(BATCH)]
    views, rows = {}, {}
    for spec in view_specs(recipe):
        image = _images(rng, spec.channels, spec.image_size)
        if spec.clip is not None:
            later = [_images(rng, spec.channels, spec.image_size) for _ in range(1, spec.clip.frames)]
            image = torch.stack([image, *later], dim=1)
        visible = None
        if spec.mask is not None:
            regions = [_regions(rng, spec) for _ in range(BATCH)]
            drawn = [[draw_mask(spec.mask, rng, regions[n]) for _ in range(spec.mask.copies)] for n in range(BATCH)]
            visible = torch.from_numpy(np.array(drawn))
            visible = visible[:, 0] if spec.mask.copies == 1 else visible
        views[spec.name] = ViewBatch(image, visible)
        if spec.streams is not None:
            rows[spec.name] = torch.tensor([slot for slot, name in enumerate(streams) if name in spec.streams])
            views[spec.name] = replace(views[spec.name].of(rows[spec.name].tolist()), rows=rows[spec.name])
    sounds = {spec.name: _sound(rng, spec) for spec in sound_specs(recipe)}
    for sound in sound_specs(recipe):
        if sound.beneath in rows:
            kept = rows[sound.beneath]
            sounds[sound.name] = replace(sounds[sound.name].of(kept.tolist()), rows=kept)
    return Batch(
        step,
        0,
        tuple(f"{step}-{slot}" for slot in range(BATCH)),
        tuple(streams),
        views,
        tuple(_metadata(slot) | ({"label": slot % 3} if slot in labels else {}) for slot in range(BATCH)),
        sounds=sounds,
    )


def _metadata(slot: int) -> dict[str, Any]:
    """Labels of all tasks, with gaps: in the first quarter of the batch one sample has any."""
    if slot < BATCH // 4 and slot != 5:
        return {}
    labels: dict[str, Any] = {}
    if slot % 3:
        labels["expression"] = ("calm", "glad", "cross")[slot % 7 % 3]
    labels |= {name: (slot >> place) % 2 for place, name in enumerate(UNITS) if (slot + place) % 4}
    if slot % 4:
        labels |= {name: (slot >> place) % 4 for place, name in enumerate(VOTES)} | {"valence": slot / 8 - 1}
    found = {"labels": labels, "path": f"take{slot // 3}.mp4"}
    return {**found, "subject": f"person{slot % 5}"} if slot % 2 else found


def _regions(rng: np.random.Generator, spec: ViewSpec) -> np.ndarray | None:
    """Where the mask needs it, a map of large squares for each step."""
    if spec.mask is None or spec.mask.kind != "region":
        return None
    squares = rng.integers(0, 17, (spec.mask.steps, 2, 2)).astype(np.uint8)
    return np.asarray(squares.repeat(spec.image_size // 2, 1).repeat(spec.image_size // 2, 2), np.uint8)


def _sound(rng: np.random.Generator, spec: SoundSpec) -> SoundBatch:
    """Sounds of some samples: of the first quarter of the batch, one."""
    present = torch.tensor([slot % 3 > 0 if slot >= BATCH // 4 else slot == 5 for slot in range(BATCH)])
    mel = _images(rng, 1, spec.frames)[:, 0, :, : spec.mel.mels].float() / 128 - 1
    visible = None
    if spec.mask is not None:
        visible = torch.from_numpy(np.array([draw_sound_mask(spec.mask, rng) for _ in range(BATCH)]))
    return SoundBatch(torch.where(present[:, None, None], mel, 0.0), present, visible)


def _images(rng: np.random.Generator, channels: int, size: int) -> torch.Tensor:
    """Light and shade with noise: of pure noise all samples' features are alike, and their gradients cancel."""
    shades = torch.from_numpy(rng.integers(0, 256, (BATCH, channels, 2, 2)).astype(np.float32))
    noise = torch.from_numpy(rng.integers(0, 256, (BATCH, channels, size, size)).astype(np.float32))
    return (0.8 * F.interpolate(shades, size=(size, size), mode="bilinear") + 0.2 * noise).to(torch.uint8)
