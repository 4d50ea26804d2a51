"""HiCMAE's whole loss, written in loops over samples, tokens and pairs: no code of facemae in the reference."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from facemae.config import Recipe
from facemae.data.schema import Batch, SoundBatch, ViewBatch
from facemae.objectives.pretraining import PretrainModel, build_pretrain_model
from tests.objectives.test_masked_image import reference_block, reference_norm
from tests.objectives.test_masked_video import (
    FRAMES,
    MEAN,
    STD,
    TOKENS,
    images,
    reference_target,
    reference_tubelets,
    sequence_table,
)
from tests.objectives.test_masked_video import recipe as video_recipe

HEADS, WIDTH, DEPTH = 2, 32, 3
SKIPS, LEVELS = (2, 0), (0, 2)
MOMENTS, BANDS, SOUND_PATCH = 3, 2, 8
PRESENT = (True, False, True, True)
VISIBLE = ([0, 3, 4, 7], [1, 2, 5, 6], [0, 1, 4, 5], [2, 3, 6, 7])
HEARD = ([0, 5], [1, 2], [3, 4], [2, 5])
Weights = dict[str, torch.Tensor]


def recipe(weight: float) -> Recipe:
    size = {"width": WIDTH, "depth": DEPTH, "heads": HEADS}
    decoder = {"kind": "joint", "width": 24, "depth": 3, "heads": HEADS, "embed_bias": False, "skips": SKIPS}
    sound = {"name": "test_vit", "frames": 24, "mels": 16, "patch_size": SOUND_PATCH, "class_token": False}
    objectives: list[dict[str, Any]] = [
        {"kind": "masked_video", "fused": True, "difference": True, "decoder": decoder},
        {"kind": "masked_audio", "fused": True, "target": "norm_pix", "decoder": decoder},
        {"kind": "contrastive", "weight": weight, "levels": [{"blocks": [level, level]} for level in LEVELS]},
    ]
    tree = video_recipe(encoder=size).model_dump(mode="json", by_alias=True)
    return Recipe.model_validate(
        {
            **tree,
            "sounds": {"voice": {"frames": 24, "mel": {"mels": 16}, "mask": {"ratio": 2 / 3}}},
            "sound_encoder": {**sound, **size, "position": "sequence"},
            "fusion": {"depth": 2, "heads": HEADS},
            "objectives": objectives,
            "data": {"lanes": 1},
            "optim": {"batch_size": len(PRESENT)},
        }
    )


def batch() -> Batch:
    generator = torch.Generator().manual_seed(4)
    mel = torch.randn(len(PRESENT), 24, 16, generator=generator)
    present = torch.tensor(PRESENT)
    sound = SoundBatch(torch.where(present[:, None, None], mel, 0.0), present, torch.tensor(HEARD))
    view = ViewBatch(images(len(PRESENT)), torch.tensor(VISIBLE))
    names = tuple(f"sample{i}" for i in range(len(PRESENT)))
    return Batch(0, 0, names, ("clips",) * len(names), {"main": view}, ({},) * len(names), sounds={"voice": sound})


def built(weight: float) -> PretrainModel:
    """The model with weights that are no special ones: initial biases and norms hide mistakes."""
    model, generator = build_pretrain_model(recipe(weight)), torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert "pos_embed" not in name
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def linear(x: torch.Tensor, weights: Weights, name: str) -> torch.Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def looked(x: torch.Tensor, context: torch.Tensor, weights: Weights, name: str) -> torch.Tensor:
    """What the tokens [M, D] take from a context [K, C], a query at a time."""
    width = x.shape[1] // HEADS
    queries = linear(reference_norm(x, weights, f"{name}.cross_norm"), weights, f"{name}.cross.q")
    keys, values = linear(reference_norm(context, weights, f"{name}.context_norm"), weights, f"{name}.cross.kv").chunk(
        2, dim=1
    )
    rows = []
    for query in queries:
        parts = []
        for head in range(HEADS):
            own = slice(head * width, (head + 1) * width)
            share = torch.softmax(keys[:, own] @ query[own] / width**0.5, dim=0)
            parts.append(share @ values[:, own])
        rows.append(torch.cat(parts))
    return linear(torch.stack(rows), weights, f"{name}.cross.proj")


def block(x: torch.Tensor, weights: Weights, name: str) -> torch.Tensor:
    return reference_block(x.unsqueeze(0), weights, name, heads=HEADS)[0]


def encoded(patches: list[torch.Tensor], visible: list[int], count: int, weights: Weights, name: str) -> Any:
    """The encoder's tokens of a sample and, by block, what they were on the way, all after its final norm."""
    kernel, bias = weights[f"{name}.patch_embed.proj.weight"], weights[f"{name}.patch_embed.proj.bias"]
    x = torch.stack([kernel.flatten(1) @ patch.flatten() + bias for patch in patches])
    x = x + sequence_table(count, WIDTH)[visible]
    levels = []
    for number in range(DEPTH):
        x = block(x, weights, f"{name}.blocks.{number}")
        levels.append(reference_norm(x, weights, f"{name}.norm"))
    return levels[-1], levels


def fused(x: torch.Tensor, y: torch.Tensor, weights: Weights, *, present: bool) -> tuple[torch.Tensor, torch.Tensor]:
    for number in range(2):
        one, other = f"fusion.view_blocks.{number}", f"fusion.sound_blocks.{number}"
        a, b = x, y
        if present:
            a, b = x + looked(x, y, weights, one), y + looked(y, x, weights, other)
        x, y = block(a, weights, one), block(b, weights, other)
    return reference_norm(x, weights, "fusion.view_norm"), reference_norm(y, weights, "fusion.sound_norm")


def decoded(
    x: torch.Tensor, levels: list[torch.Tensor], visible: list[int], count: int, weights: Weights, name: str
) -> torch.Tensor:
    """Predictions of the hidden patches, in the order of the grid."""
    hidden = [token for token in range(count) if token not in visible]
    embed = weights[f"{name}.embed.weight"]
    table = sequence_table(count, len(embed))
    y = torch.cat([F.linear(x, embed) + table[visible], weights[f"{name}.mask_token"][0] + table[hidden]])
    y = block(y, weights, f"{name}.blocks.0")
    for number, level in enumerate(SKIPS, start=1):
        context = F.linear(levels[level], embed) + table[visible]
        y = y + looked(y, context, weights, f"{name}.blocks.{number}")
        y = block(y, weights, f"{name}.blocks.{number}")
    return linear(reference_norm(y[len(visible) :], weights, f"{name}.norm"), weights, f"{name}.pred")


def spectrogram_patches(mel: torch.Tensor) -> list[torch.Tensor]:
    size = SOUND_PATCH
    return [
        mel[moment * size : (moment + 1) * size, band * size : (band + 1) * size]
        for moment in range(MOMENTS)
        for band in range(BANDS)
    ]


def normed(patch: torch.Tensor) -> torch.Tensor:
    values = patch.flatten()
    mean = values.sum() / values.numel()
    variance = ((values - mean) ** 2).sum() / (values.numel() - 1)
    return (values - mean) / (variance.sqrt() + 1e-6)


def contrast(videos: list[torch.Tensor], sounds: list[torch.Tensor]) -> torch.Tensor:
    """Half the mean over samples of both directions' cross-entropies, of means of tokens."""
    total = torch.zeros(())
    rows = [[tokens.mean(dim=0) / tokens.mean(dim=0).norm() for tokens in side] for side in (videos, sounds)]
    for anchors, others in (rows, rows[::-1]):
        for place, anchor in enumerate(anchors):
            scores = torch.stack([torch.exp(anchor @ other / 0.07) for other in others])
            total = total - torch.log(scores[place] / scores.sum()) / len(anchors)
    return total / 2


def reference_loss(weights: Weights, given: Batch, weight: float) -> torch.Tensor:
    """MSE of video, MSE of audio, and the weighted sum over levels of the contrast; absent sounds count nowhere."""
    tubelets = reference_tubelets(given.views["main"].image)
    seen = tubelets.sub(torch.tensor(MEAN)).div(torch.tensor(STD)).permute(0, 1, 5, 2, 3, 4)
    video: list[torch.Tensor] = []
    audio: list[torch.Tensor] = []
    levels: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = [([], []) for _ in LEVELS]
    for sample, present in enumerate(PRESENT):
        visible, heard = VISIBLE[sample], HEARD[sample]
        patches = spectrogram_patches(given.sounds["voice"].mel[sample])
        x, views = encoded([seen[sample, token] for token in visible], visible, TOKENS, weights, "encoder.vit")
        y, sounds = encoded([patches[p] for p in heard], heard, len(patches), weights, "sound_encoder.vit")
        x, y = fused(x, y, weights, present=present)
        made = decoded(x, views, visible, TOKENS, weights, "objectives.0.decoder")
        wanted = [
            reference_target(tubelets[sample, token], "norm_pix", difference=True)
            for token in range(TOKENS)
            if token not in visible
        ]
        video.append(((made - torch.stack(wanted)) ** 2).mean())
        if not present:
            continue
        made = decoded(y, sounds, heard, len(patches), weights, "objectives.1.decoder")
        wanted = [normed(patch) for place, patch in enumerate(patches) if place not in heard]
        audio.append(((made - torch.stack(wanted)) ** 2).mean())
        for level, sides in zip(LEVELS, levels, strict=True):
            sides[0].append(views[level])
            sides[1].append(sounds[level])
    contrasts = torch.stack([contrast(*sides) for sides in levels]).sum()
    return torch.stack(video).mean() + torch.stack(audio).mean() + weight * contrasts


@pytest.mark.parametrize("weight", [0.0025, 1.0])
def test_loss_and_gradients_equal_hicmaes(weight: float) -> None:
    model, given = built(weight), batch()
    assert given.views["main"].image.shape[1] == FRAMES
    loss, metrics = model(given, 0, model.counts(given))
    loss.backward()
    weights = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    expected = reference_loss(weights, given, weight)
    expected.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    assert model.counts(given)[:3] == (4, 3, 3)
    assert float(metrics["loss/contrastive"]) > 0.5
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            wanted = weights[name].grad
            assert wanted is not None, name
            assert parameter.grad is not None, name
            assert bool(wanted.any()), name
            torch.testing.assert_close(parameter.grad, wanted, atol=2e-5, rtol=1e-3, msg=name)


def test_a_missing_sound_changes_nothing_of_its_video_and_of_no_other_sample() -> None:
    model, given = built(1.0), batch()
    sound = given.sounds["voice"]
    found = []
    for silence in (0.0, 3.0):
        mel = torch.where(sound.present[:, None, None], sound.mel, silence)
        changed = Batch(**{**vars(given), "sounds": {"voice": SoundBatch(mel, sound.present, sound.visible)}})
        model.zero_grad()
        loss, _ = model(changed, 0, model.counts(changed))
        loss.backward()
        found.append([loss.detach(), *(value.grad for value in model.parameters() if value.grad is not None)])
    assert all(torch.equal(quiet, loud) for quiet, loud in zip(*found, strict=True))
