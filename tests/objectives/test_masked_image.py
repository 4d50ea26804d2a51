"""The masked-image objective against MAE written out in a few lines: no code of facemae computes the reference."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from facemae.config import EncoderConfig, NormaliseConfig, Recipe, ViewConfig
from facemae.data.schema import Batch, ViewBatch
from facemae.errors import ConfigError
from facemae.objectives.masked_image import MaskedImage
from facemae.objectives.masked_patches import draw_subset
from facemae.objectives.pretraining import PretrainModel, build_pretrain_model

SIZE, PATCH, HEADS = 24, 6, 4
PATCHES = (SIZE // PATCH) ** 2
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def recipe(*, channels: int = 3, target: str = "norm_pix", view: str = "main", **decoder: Any) -> Recipe:
    normalisation = NormaliseConfig(mean=MEAN[:channels], std=STD[:channels])
    settings = {"kind": "joint", "width": 32, "depth": 2, "heads": HEADS, **decoder}
    return Recipe.model_validate(
        {
            "name": "test",
            "views": {"main": ViewConfig(normalise=normalisation)},
            "encoder": EncoderConfig(name="test_vit", image_size=SIZE, patch_size=PATCH, channels=channels),
            "objectives": [{"kind": "masked_image", "decoder": settings, "target": target, "view": view}],
        }
    )


def batch(samples: int = 6, *, channels: int = 3, first_slot: int = 0, hidden: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (samples, channels, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    noise = torch.rand(samples, PATCHES, generator=generator)
    visible = noise.argsort(dim=1)[:, : PATCHES - hidden].sort(dim=1).values
    names = tuple(f"sample{i}" for i in range(samples))
    return Batch(0, first_slot, names, ("faces",) * samples, {"main": ViewBatch(images, visible)}, ({},) * samples)


def reference_block(x: torch.Tensor, weights: dict[str, torch.Tensor], name: str, heads: int) -> torch.Tensor:
    def layer(x: torch.Tensor, part: str) -> torch.Tensor:
        return F.linear(x, weights[f"{name}.{part}.weight"], weights[f"{name}.{part}.bias"])

    def norm(x: torch.Tensor, part: str) -> torch.Tensor:
        scale, shift = weights[f"{name}.{part}.weight"], weights[f"{name}.{part}.bias"]
        mean = x.mean(-1, keepdim=True)
        return (x - mean) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt() * scale + shift

    samples, tokens, width = x.shape
    qkv = layer(norm(x, "norm1"), "attn.qkv").view(samples, tokens, 3, heads, width // heads)
    q, k, v = (qkv[:, :, part].transpose(1, 2) for part in range(3))
    attended = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1) @ v
    x = x + layer(attended.transpose(1, 2).flatten(2), "attn.proj")
    return x + layer(F.gelu(layer(norm(x, "norm2"), "mlp.fc1")), "mlp.fc2")


def reference_norm(x: torch.Tensor, weights: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)


def sincos(width: int) -> torch.Tensor:
    """[1 + PATCHES, width]: zero for the class token; then column sines, column cosines, row sines, row cosines."""
    side = SIZE // PATCH
    table = torch.zeros(1 + PATCHES, width)
    for patch in range(PATCHES):
        for half, place in enumerate((patch % side, patch // side)):
            for i in range(width // 4):
                angle = place / 10000 ** (i / (width // 4))
                table[1 + patch, half * width // 2 + i] = math.sin(angle)
                table[1 + patch, half * width // 2 + width // 4 + i] = math.cos(angle)
    return table


def reference_targets(images: torch.Tensor) -> torch.Tensor:
    """norm-pix patches [B, PATCHES, values], cut by plain loops, normalised over all channels jointly."""
    channels = images.shape[1]
    std = torch.tensor(STD[:channels]).view(1, -1, 1, 1)
    pixels = (images.float() / 255 - torch.tensor(MEAN[:channels]).view(1, -1, 1, 1)) / std
    cut = [
        pixels[:, :, y : y + PATCH, x : x + PATCH].permute(0, 2, 3, 1).flatten(1)
        for y in range(0, SIZE, PATCH)
        for x in range(0, SIZE, PATCH)
    ]
    return torch.stack(cut, dim=1)


def normalised(patches: torch.Tensor) -> torch.Tensor:
    return (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6) ** 0.5


def reference_loss(
    weights: dict[str, torch.Tensor], images: torch.Tensor, visible: torch.Tensor, *, norm_pix: bool
) -> torch.Tensor:
    """MAE as its paper and code have it: shuffle, encode the visible part, unshuffle, decode all, mean over hidden."""
    patches = reference_targets(images)
    samples = len(images)
    width = weights["encoder.vit.cls_token"].shape[-1]
    kernel = weights["encoder.vit.patch_embed.proj.weight"].permute(0, 2, 3, 1).flatten(1)
    x = patches @ kernel.T + weights["encoder.vit.patch_embed.proj.bias"] + sincos(width)[1:]
    x = torch.stack([x[i, visible[i]] for i in range(samples)])
    x = torch.cat([weights["encoder.vit.cls_token"].expand(samples, 1, width), x], dim=1)
    depth = sum(name.endswith("norm1.weight") and "encoder" in name for name in weights)
    for block in range(depth):
        x = reference_block(x, weights, f"encoder.vit.blocks.{block}", heads=width // 32)
    x = reference_norm(x, weights, "encoder.vit.norm")
    decoder = "objectives.0.decoder"
    x = F.linear(x, weights[f"{decoder}.embed.weight"], weights[f"{decoder}.embed.bias"])
    rows = []
    for i in range(samples):
        row = list(weights[f"{decoder}.mask_token"][0].expand(PATCHES, -1))
        for place, token in zip(visible[i].tolist(), x[i, 1:], strict=True):
            row[place] = token
        rows.append(torch.stack([x[i, 0], *row]))
    y = torch.stack(rows) + sincos(x.shape[-1])
    for block in range(2):
        y = reference_block(y, weights, f"{decoder}.blocks.{block}", heads=HEADS)
    y = F.linear(
        reference_norm(y, weights, f"{decoder}.norm")[:, 1:],
        weights[f"{decoder}.pred.weight"],
        weights[f"{decoder}.pred.bias"],
    )
    mask = torch.ones(samples, PATCHES)
    for i in range(samples):
        mask[i, visible[i]] = 0
    target = normalised(patches) if norm_pix else patches
    per_patch = ((y - target) ** 2).mean(dim=-1)
    return (per_patch * mask).sum() / mask.sum()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("target", ["norm_pix", "pixels"])
def test_loss_and_gradients_equal_mae(channels: int, target: str) -> None:
    model = build_pretrain_model(recipe(channels=channels, target=target))
    given = batch(channels=channels)
    loss, metrics = model(given, 0, model.counts(given))
    loss.backward()
    weights = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    view = given.views["main"]
    assert view.visible is not None
    expected = reference_loss(weights, view.image, view.visible, norm_pix=target == "norm_pix")
    expected.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    assert metrics["loss/masked_image"] == loss
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, weights[name].grad, atol=1e-5, rtol=1e-5, msg=name)


def test_a_mix_of_layers_trains_them_all_and_ends_with_the_last() -> None:
    model = build_pretrain_model(recipe(**MIX))
    given = batch()
    loss, _ = model(given, 0, model.counts(given))
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert model.objectives[0].needs()[0].layers == (0, 2)  # type: ignore[operator]
    with pytest.raises(ConfigError, match=r"ends with block 2 of an encoder with 6 blocks\n.*5 as the last one"):
        build_pretrain_model(recipe(**{**MIX, "mix_layers": [0, 2]}))


def test_targets_equal_the_reference() -> None:
    model = build_pretrain_model(recipe())
    given = batch()
    seen: list[torch.Tensor] = []
    objective = model.objectives[0]
    assert isinstance(objective, MaskedImage)
    # A decoder that predicts zero turns the loss into the mean square of the targets.
    objective.decoder.pred.weight.data.zero_()
    objective.decoder.pred.bias.register_hook(seen.append)  # type: ignore[no-untyped-call]
    loss, _ = model(given, 0, (len(given),))
    loss.backward()
    view = given.views["main"]
    assert view.visible is not None
    hidden = torch.ones(len(given), PATCHES, dtype=torch.bool).scatter_(1, view.visible, False)
    target = normalised(reference_targets(view.image))[hidden]
    torch.testing.assert_close(loss, target.square().mean(), atol=1e-5, rtol=1e-5)
    # The gradient of the bias is -2 / values * the mean target: it fixes the order of the values in a patch.
    expected = -2 * target.mean(dim=0) / target.shape[-1]
    torch.testing.assert_close(seen[0], expected, atol=1e-5, rtol=1e-5)


MIX: dict[str, Any] = {"kind": "cross", "fraction": 0.5, "mix_layers": [0, 2, 5]}


@pytest.mark.parametrize("decoder", [{}, {"kind": "cross"}, {"kind": "cross", "fraction": 0.5}, MIX])
def test_micro_batches_add_up_to_the_global_batch(decoder: dict[str, Any]) -> None:
    model = build_pretrain_model(recipe(**decoder))
    given = batch(6)
    whole, _ = model(given, 4, (6,))
    whole.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    total = 0.0
    for part in given.split(3):
        assert model.counts(part) == (2,)
        loss, _ = model(part, 4, (6,))
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(whole.item(), abs=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_a_fraction_decodes_that_many_and_others_at_each_step() -> None:
    model = build_pretrain_model(recipe(kind="cross", fraction=0.25))
    objective = model.objectives[0]
    assert isinstance(objective, MaskedImage)
    shapes: list[tuple[int, ...]] = []
    objective.decoder.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape)))
    given = batch(6)
    losses = [model(given, step, (6,))[0].item() for step in (0, 1, 0)]
    assert shapes == [(6, 3, PATCH * PATCH * 3)] * 3
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.parametrize("hidden", [12, 13, 3])
def test_the_subset_is_a_function_of_seed_step_and_slot(hidden: int) -> None:
    whole = draw_subset((8, hidden), 0.5, seed=1, step=2, first_slot=0)
    for first in (1, 4, 7):
        assert torch.equal(draw_subset((1, hidden), 0.5, seed=1, step=2, first_slot=first)[0], whole[first])
    assert not torch.equal(draw_subset((8, hidden), 0.5, seed=2, step=2, first_slot=0), whole)
    assert not torch.equal(draw_subset((8, hidden), 0.5, seed=1, step=3, first_slot=0), whole)
    assert bool((whole.diff(dim=1) > 0).all())
    assert 0 <= int(whole.min()) <= int(whole.max()) < hidden


def test_every_hidden_patch_is_equally_likely() -> None:
    drawn = draw_subset((4000, 6), 0.5, seed=0, step=0, first_slot=0)
    share = torch.bincount(drawn.flatten(), minlength=6) / 4000
    assert bool(((share - 0.5).abs() < 0.04).all())


def test_at_least_one_patch_is_decoded() -> None:
    assert draw_subset((2, 5), 0.01, seed=0, step=0, first_slot=0).shape == (2, 1)


def test_a_view_without_a_mask_is_refused() -> None:
    plain = recipe()
    open_view = {"main": plain.views["main"].model_copy(update={"mask": None})}
    with pytest.raises(ConfigError, match="hides none"):
        build_pretrain_model(plain.model_copy(update={"views": open_view}))


def test_bf16_autocast_stays_close_and_computes_the_loss_in_fp32() -> None:
    model = build_pretrain_model(recipe())
    given = batch()
    exact, _ = model(given, 0, (6,))
    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = model(given, 0, (6,))
    assert rough.dtype == torch.float32
    assert rough.item() != exact.item()
    torch.testing.assert_close(rough, exact, atol=0, rtol=2e-2)
    rough.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("target", ["norm_pix", "pixels"])
def test_reconstruction_keeps_what_was_visible_and_decodes_all_that_was_hidden(target: str) -> None:
    model: PretrainModel = build_pretrain_model(recipe(kind="cross", fraction=0.25, target=target))
    given = batch()
    objective = model.objectives[0]
    assert isinstance(objective, MaskedImage)
    with torch.no_grad():
        pixels, encodings = model.encode(given)
        made = objective.reconstruct(encodings, pixels).pixels
    view = given.views["main"]
    assert view.visible is not None
    side = SIZE // PATCH
    seen = torch.zeros(6, PATCHES, dtype=torch.bool).scatter_(1, view.visible, True)
    mask = seen.view(6, 1, side, side).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3).expand_as(made)
    torch.testing.assert_close(made[mask], pixels["main"][mask])
    assert bool((made[~mask] != pixels["main"][~mask]).float().mean() > 0.99)


def test_a_perfect_prediction_is_shown_as_the_original() -> None:
    model = build_pretrain_model(recipe(kind="cross"))
    given = batch()
    objective = model.objectives[0]
    assert isinstance(objective, MaskedImage)
    view = given.views["main"]
    assert view.visible is not None
    hidden = torch.ones(6, PATCHES, dtype=torch.bool).scatter_(1, view.visible, False)
    perfect = normalised(reference_targets(view.image))[hidden].view(6, 12, -1)
    objective.decoder.register_forward_hook(lambda *_: perfect)
    with torch.no_grad():
        pixels, encodings = model.encode(given)
        made = objective.reconstruct(encodings, pixels).pixels
    torch.testing.assert_close(made, pixels["main"], atol=1e-5, rtol=1e-5)
