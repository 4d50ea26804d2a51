"""The masked-image objective on several masks, several copies and other image sizes: means of what it is on one."""

from typing import Any

import pytest
import torch

from facemae.config import EncoderConfig, NormaliseConfig, Recipe
from facemae.data.schema import Batch, ViewBatch
from facemae.errors import ConfigError
from facemae.models.positions import sincos_positions
from facemae.objectives.masked_image import MaskedImage
from facemae.objectives.masked_patches import draw_subset
from facemae.objectives.pretraining import PretrainModel, build_pretrain_model

SAMPLES = 6
GREY = NormaliseConfig(mean=(0.5,), std=(0.25,))


def recipe(views: dict[str, Any] | None = None, *, size: int = 24, **objective: Any) -> Recipe:
    decoder = {"width": 16, "depth": 1, "heads": 2, **objective.pop("decoder", {})}
    return Recipe.model_validate(
        {
            "name": "test",
            "views": {name: {"normalise": GREY, **view} for name, view in (views or {"main": {}}).items()},
            "encoder": EncoderConfig(name="test_vit", image_size=size, patch_size=6, channels=1),
            "objectives": [{"kind": "masked_image", "decoder": decoder, **objective}],
        }
    )


def view(seed: int = 0, *, size: int = 24, masks: int | None = None) -> ViewBatch:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (SAMPLES, 1, size, size), dtype=torch.uint8, generator=generator)
    noise = torch.rand(SAMPLES, *([masks] if masks else []), (size // 6) ** 2, generator=generator)
    return ViewBatch(image, noise.argsort(dim=-1)[..., :4].sort(dim=-1).values)


def batch(**views: ViewBatch) -> Batch:
    names = tuple(map(str, range(SAMPLES)))
    return Batch(0, 0, names, ("faces",) * SAMPLES, {k.replace("_", "/"): v for k, v in views.items()}, ({},) * SAMPLES)


def loss_and_gradients(model: PretrainModel, given: Batch, parts: int = 1) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    total = 0.0
    for part in given.split(parts):
        loss, _ = model(part, 3, (SAMPLES,))
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(found: tuple[float, dict[str, torch.Tensor]], expected: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def mean(results: list[tuple[float, dict[str, torch.Tensor]]]) -> tuple[float, dict[str, torch.Tensor]]:
    losses, gradients = zip(*results, strict=True)
    return sum(losses) / len(losses), {
        name: torch.stack([one[name] for one in gradients]).mean(dim=0) for name in gradients[0]
    }


@pytest.mark.parametrize("kind", ["joint", "cross"])
@pytest.mark.parametrize("masks", [2, 5])
def test_several_masks_are_the_mean_of_each_by_itself(kind: str, masks: int) -> None:
    model = build_pretrain_model(recipe({"main": {"mask": {"copies": masks}}}, decoder={"kind": kind}))
    given = view(masks=masks)
    assert given.visible is not None
    single = [
        loss_and_gradients(model, batch(main=ViewBatch(given.image, given.visible[:, mask]))) for mask in range(masks)
    ]
    assert_equal(loss_and_gradients(model, batch(main=given)), mean(single))


def test_each_sample_says_its_mean_over_masks() -> None:
    model = build_pretrain_model(recipe({"main": {"mask": {"copies": 2}}}))
    given = batch(main=view(masks=2))
    pixels, encodings = model.encode(given)
    objective = model.objectives[0]
    assert isinstance(objective, MaskedImage)
    term = objective.term(encodings, pixels, given, 0)
    assert term.samples is not None
    assert term.samples.shape == (SAMPLES,)
    torch.testing.assert_close(term.samples.sum(), term.sum.detach())


@pytest.mark.parametrize("decoder", [{}, {"kind": "cross", "fraction": 0.5}])
def test_micro_batches_of_several_masks_add_up(decoder: dict[str, Any]) -> None:
    model = build_pretrain_model(recipe({"main": {"mask": {"copies": 2}}}, decoder=decoder))
    given = batch(main=view(masks=2))
    assert_equal(loss_and_gradients(model, given, parts=3), loss_and_gradients(model, given))


def test_copies_are_the_mean_of_each_by_itself() -> None:
    model = build_pretrain_model(recipe({"main": {"copies": 2}}))
    alone = build_pretrain_model(recipe())
    first, second = view(0), view(1)
    assert [need.view for need in model.objectives[0].needs()] == ["main/0", "main/1"]  # type: ignore[operator]
    single = [loss_and_gradients(alone, batch(main=one)) for one in (first, second)]
    assert_equal(loss_and_gradients(model, batch(main_0=first, main_1=second)), mean(single))


def test_copies_decode_other_patches() -> None:
    first, second = (draw_subset((8, 12), 0.5, seed=1, step=2, first_slot=0, copy=copy) for copy in range(2))
    assert torch.equal(first, draw_subset((8, 12), 0.5, seed=1, step=2, first_slot=0))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("kind", ["joint", "cross"])
def test_another_size_equals_a_model_built_for_it_with_the_same_places(kind: str) -> None:
    model = build_pretrain_model(recipe({"main": {"image_size": 36}}, decoder={"kind": kind}))
    larger = build_pretrain_model(recipe(size=36, decoder={"kind": kind}))
    larger.encoder.vit.pos_embed.data = sincos_positions((6, 6), larger.encoder.width, 1, native=(4, 4))
    objective = larger.objectives[0]
    assert isinstance(objective, MaskedImage)
    objective.decoder.positions.copy_(sincos_positions((6, 6), 16, native=(4, 4))[0])
    given = batch(main=view(size=36))
    assert_equal(loss_and_gradients(model, given), loss_and_gradients(larger, given))


def test_a_picture_is_of_the_first_mask_at_the_views_size() -> None:
    views = {"main": {"image_size": 36, "mask": {"copies": 2}}}
    model = build_pretrain_model(recipe(views, decoder={"kind": "cross"}))
    given = view(size=36, masks=2)
    assert given.visible is not None
    objective = model.objectives[0]
    assert isinstance(objective, MaskedImage)
    with torch.no_grad():
        pixels, encodings = model.encode(batch(main=given))
        made = objective.reconstruct(encodings, pixels)
    assert made.pixels.shape == (SAMPLES, 1, 36, 36)
    same = (made.pixels == pixels["main"]).view(SAMPLES, 6, 6, 6, 6).all(dim=(2, 4)).flatten(1)
    expected = torch.zeros(SAMPLES, 36, dtype=torch.bool).scatter_(1, given.visible[:, 0], True)
    assert torch.equal(same, expected)


def test_an_objective_of_one_mask_refuses_several() -> None:
    views = {"main": {"copies": 2, "mask": {"copies": 2}}}
    wrong = recipe(views).model_dump(by_alias=True) | {"objectives": [{"kind": "clustering"}]}
    with pytest.raises(ConfigError, match=r"views\.main\.mask\.copies is 2 and objective 'clustering' takes one mask"):
        build_pretrain_model(Recipe.model_validate(wrong))
