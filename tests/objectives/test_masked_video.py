"""The masked-video objective against VideoMAE in loops over tubelets: no code of facemae in the reference."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from facemae.config import Recipe
from facemae.data.schema import Batch, ViewBatch
from facemae.errors import ConfigError
from facemae.objectives.masked_video import MaskedVideo
from facemae.objectives.pretraining import PretrainModel, build_pretrain_model
from tests.objectives.test_masked_image import reference_block, reference_norm

SIZE, PATCH, FRAMES, TUBELET, HEADS = 12, 6, 4, 2, 4
SIDE = SIZE // PATCH
STEPS = FRAMES // TUBELET
TOKENS = STEPS * SIDE**2
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def recipe(
    objective: dict[str, Any] | None = None,
    *,
    encoder: dict[str, Any] | None = None,
    view: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
) -> Recipe:
    settings = {"kind": "joint", "width": 32, "depth": 1, "heads": HEADS, "embed_bias": False, **(decoder or {})}
    return Recipe.model_validate(
        {
            "name": "test",
            "views": {
                "main": {
                    "normalise": {"mean": MEAN, "std": STD},
                    "clip": {"frames": FRAMES},
                    "mask": {"kind": "tube", "ratio": 0.5},
                    **(view or {}),
                }
            },
            "encoder": {
                "name": "test_vit",
                "image_size": SIZE,
                "patch_size": PATCH,
                "tubelet": TUBELET,
                "frames": FRAMES,
                "class_token": False,
                "position": "sequence",
                **(encoder or {}),
            },
            "objectives": [{"kind": "masked_video", "decoder": settings, **(objective or {})}],
        }
    )


def images(samples: int = 3, frames: int | None = FRAMES) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    shape = (samples, 3, SIZE, SIZE) if frames is None else (samples, frames, 3, SIZE, SIZE)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def batch(pixels: torch.Tensor, visible: list[int] | None = None) -> Batch:
    samples = len(pixels)
    seen = torch.tensor([[0, 3, 4, 7]] * samples if visible is None else [visible] * samples)
    names = tuple(f"sample{i}" for i in range(samples))
    return Batch(0, 0, names, ("clips",) * samples, {"main": ViewBatch(pixels, seen)}, ({},) * samples)


def reference_tubelets(pixels: torch.Tensor) -> torch.Tensor:
    """[B, TOKENS, t, p, p, C] in [0, 1], cut by plain loops."""
    levels = pixels.float() / 255
    cut = []
    for step in range(STEPS):
        for row in range(SIDE):
            for column in range(SIDE):
                part = levels[
                    :,
                    step * TUBELET : (step + 1) * TUBELET,
                    :,
                    row * PATCH : (row + 1) * PATCH,
                    column * PATCH : (column + 1) * PATCH,
                ]
                cut.append(part.permute(0, 1, 3, 4, 2))
    return torch.stack(cut, dim=1)


def reference_target(tubelet: torch.Tensor, target: str, *, difference: bool) -> torch.Tensor:
    """One tubelet [t, p, p, C] in [0, 1] as it is to be predicted, one number after another."""
    given = (tubelet - torch.tensor(MEAN)) / torch.tensor(STD)
    if target == "norm_pix":
        made = torch.empty_like(tubelet)
        for channel in range(tubelet.shape[-1]):
            values = tubelet[..., channel]
            mean = values.sum() / values.numel()
            variance = ((values - mean) ** 2).sum() / (values.numel() - 1)
            made[..., channel] = (values - mean) / (variance.sqrt() + 1e-6)
    elif target == "joint":
        mean = given.sum() / given.numel()
        variance = ((given - mean) ** 2).sum() / (given.numel() - 1)
        made = (given - mean) / (variance + 1e-6).sqrt()
    else:
        made = given
    if difference:
        made = torch.stack([made[0], made[1] - made[0]])
    return made.flatten()


def sequence_table(tokens: int, width: int) -> torch.Tensor:
    """VideoMAE's table, one number after another."""
    table = torch.empty(tokens, width)
    for token in range(tokens):
        for feature in range(width):
            angle = token / 10000 ** (2 * (feature // 2) / width)
            table[token, feature] = math.cos(angle) if feature % 2 else math.sin(angle)
    return table


def reference_loss(
    weights: dict[str, torch.Tensor], given: Batch, target: str = "norm_pix", *, difference: bool = False
) -> torch.Tensor:
    """The mean squared error over all hidden tubelets."""
    made, wanted = reference_patches(weights, given, target, difference=difference)
    return torch.stack([((one - other) ** 2).mean() for one, other in zip(made, wanted, strict=True)]).mean()


def reference_patches(
    weights: dict[str, torch.Tensor], given: Batch, target: str, *, difference: bool = False
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Encode what is visible, append mask tokens with the positions of what is hidden, decode; and what is wanted."""
    view = given.views["main"]
    tubelets = reference_tubelets(view.image)
    seen = tubelets.sub(torch.tensor(MEAN)).div(torch.tensor(STD)).permute(0, 1, 5, 2, 3, 4)
    kernel = weights["encoder.vit.patch_embed.proj.weight"]
    width = kernel.shape[0]
    made, wanted, decoder = [], [], "objectives.0.decoder"
    depth = sum("encoder" in name and name.endswith("norm1.weight") for name in weights)
    assert view.visible is not None
    for sample, visible in enumerate(view.visible.tolist()):
        hidden = [token for token in range(TOKENS) if token not in visible]
        x = torch.stack([F.conv3d(seen[sample, token], kernel).flatten() for token in visible])
        x = (x + weights["encoder.vit.patch_embed.proj.bias"] + sequence_table(TOKENS, width)[visible]).unsqueeze(0)
        for block in range(depth):
            x = reference_block(x, weights, f"encoder.vit.blocks.{block}", heads=width // 32)
        x = F.linear(reference_norm(x, weights, "encoder.vit.norm"), weights[f"{decoder}.embed.weight"])
        table = sequence_table(TOKENS, x.shape[-1])
        y = torch.cat([x + table[visible], weights[f"{decoder}.mask_token"] + table[hidden]], dim=1)
        y = reference_block(y, weights, f"{decoder}.blocks.0", heads=HEADS)
        y = reference_norm(y[:, len(visible) :], weights, f"{decoder}.norm")
        y = F.linear(y, weights[f"{decoder}.pred.weight"], weights[f"{decoder}.pred.bias"])[0]
        for place, token in enumerate(hidden):
            made.append(y[place])
            wanted.append(reference_target(tubelets[sample, token], target, difference=difference))
    return made, wanted


def built(given: Recipe) -> tuple[PretrainModel, MaskedVideo]:
    model = build_pretrain_model(given)
    (objective,) = model.objectives
    assert isinstance(objective, MaskedVideo)
    return model, objective


@pytest.mark.parametrize("difference", [False, True])
@pytest.mark.parametrize("target", ["norm_pix", "joint", "pixels"])
def test_loss_and_gradients_equal_videomae(target: str, difference: bool) -> None:
    model, _ = built(recipe({"target": target, "difference": difference}))
    given = batch(images())
    loss, metrics = model(given, 0, model.counts(given))
    loss.backward()
    weights = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    expected = reference_loss(weights, given, target, difference=difference)
    expected.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    assert metrics["loss/masked_video"] == loss
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, weights[name].grad, atol=1e-5, rtol=1e-4, msg=name)


def test_no_class_token_and_no_bias_between_encoder_and_decoder() -> None:
    names = dict(built(recipe())[0].named_parameters())
    assert not [name for name in names if "cls_token" in name or "decoder.embed.bias" in name]
    assert "objectives.0.decoder.embed.bias" in dict(built(recipe(decoder={"embed_bias": True}))[0].named_parameters())


@pytest.mark.parametrize("kind", ["joint", "cross"])
def test_a_still_is_learned_as_a_clip_of_one_step(kind: str) -> None:
    view = {"clip": None, "mask": {"kind": "random", "ratio": 0.5}}
    decoder = {"kind": kind, "embed_bias": True}
    still, objective = built(recipe(view=view, decoder=decoder))
    moving, _ = built(recipe(view={"clip": {"frames": 2}}, decoder=decoder))
    picture = images(frames=None)
    alone, clip = batch(picture, [0, 3]), batch(picture.unsqueeze(1).repeat(1, 2, 1, 1, 1), [0, 3])
    loss, _ = still(alone, 0, (3,))
    assert torch.equal(loss, moving(clip, 0, (3,))[0])
    with torch.no_grad():
        pixels, encodings = still.encode(alone)
        made = objective.reconstruct(encodings, pixels)
    assert made.pixels.shape == (3, 3, SIZE, SIZE)


@pytest.mark.parametrize("difference", [False, True])
@pytest.mark.parametrize("target", ["norm_pix", "joint", "pixels"])
def test_targets_are_restored_to_pixels(target: str, difference: bool) -> None:
    _, objective = built(recipe({"target": target, "difference": difference}))
    pixels = torch.randn(2, FRAMES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    patches = objective.cut(pixels)
    restored = objective.restore(objective.targets(patches), patches)
    torch.testing.assert_close(objective.put_together(restored, (STEPS, SIDE, SIDE)), pixels, atol=1e-4, rtol=1e-4)


def test_a_reconstruction_keeps_what_is_visible() -> None:
    model, objective = built(recipe())
    given = batch(images())
    with torch.no_grad():
        pixels, encodings = model.encode(given)
        made = objective.reconstruct(encodings, pixels).pixels
    same = (objective.cut(made) == objective.cut(pixels["main"])).all(dim=-1)
    assert torch.equal(same, torch.tensor([[True, False, False, True] * 2] * 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"encoder": {"tubelet": None, "frames": None, "position": "sincos"}, "view": {"clip": None, "mask": {}}},
            "predicts tubelets and the encoder is one of stills",
        ),
        (
            {"objective": {"difference": True}, "encoder": {"tubelet": 4}},
            "difference takes the two frames of a tubelet and encoder.tubelet is 4",
        ),
        (
            {"objective": {"difference": True}, "view": {"clip": None, "mask": {}}},
            "view 'main' has stills, in which nothing changes",
        ),
        ({"objective": {"kind": "masked_image"}}, "predicts patches of pictures and the encoder is one of clips"),
        ({"view": {"mask": None}}, "objective 'masked_video' predicts hidden patches and view 'main' hides none"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build_pretrain_model(recipe(**changes))
    assert message in str(error.value)


def test_a_cross_decoder_has_no_map_to_take_the_bias_of() -> None:
    with pytest.raises(ValueError, match=r"decoder\.embed_bias=false needs decoder\.kind=joint"):
        recipe(decoder={"kind": "cross"})
