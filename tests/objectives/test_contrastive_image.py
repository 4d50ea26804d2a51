"""Contrast against SimCLR's and SigLIP's formulas written as loops over pairs."""

import math
from typing import Any

import pytest
import torch

from facemae.config import NormaliseConfig, Recipe, ViewConfig
from facemae.errors import ConfigError, UsageError
from facemae.objectives.base import Objective
from facemae.objectives.contrastive_image import ContrastiveImage
from facemae.objectives.pretraining import build_pretrain_model
from tests.objectives.tokens import check_groups, check_processes, gradients, objective, part, term, tokens

HEAD = {"depth": 2, "hidden": 16, "out": 8}
VIEWS = ("main/0", "main/1")


def settings(**more: Any) -> dict[str, Any]:
    return {"kind": "contrastive_image", "temperature": 0.2, "head": HEAD, **more}


def project(built: Objective, given: torch.Tensor, pool: str = "cls") -> torch.Tensor:
    """The projection head written out."""
    weights = {name.removeprefix("head.layers."): value for name, value in built.named_parameters()}
    x = given[:, 0] if pool == "cls" else given[:, 1:].sum(dim=1) / (given.shape[1] - 1)
    x = x @ weights["0.weight"].T + weights["0.bias"]
    mean, variance = x.mean(dim=1, keepdim=True), x.var(dim=1, keepdim=True, unbiased=False)
    x = (x - mean) / (variance + 1e-6).sqrt() * weights["1.weight"] + weights["1.bias"]
    x = x.clamp(min=0) @ weights["3.weight"].T + weights["3.bias"]
    return x / (x * x).sum(dim=1, keepdim=True).sqrt()


def reference_nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """Equation 1 of SimCLR: z holds the two views of a sample beside each other; the mean over 2N anchors."""
    z = torch.stack([first, second], dim=1).flatten(0, 1)
    losses = []
    for i in range(len(z)):
        j = i + 1 if i % 2 == 0 else i - 1
        over = [torch.exp(z[i] @ z[k] / temperature) for k in range(len(z)) if k != i]
        losses.append(-torch.log(torch.exp(z[i] @ z[j] / temperature) / torch.stack(over).sum()))
    return torch.stack(losses).mean()


def reference_sigmoid(
    first: torch.Tensor, second: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """Equation 1 of SigLIP, with t = scale and b = bias."""
    total = torch.zeros(())
    for i in range(len(first)):
        for j in range(len(second)):
            label = 1 if i == j else -1
            total = total - torch.log(1 / (1 + torch.exp(label * (-scale * (first[i] @ second[j]) - bias))))
    return total / len(first)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_infonce_is_simclrs(pool: str) -> None:
    given = tokens(6, VIEWS)
    built = objective(settings(pool=pool), {"main": 2}, batch_size=6)
    found = term(built, given)
    first, second = (project(built, given[view], pool) for view in VIEWS)
    expected = reference_nt_xent(first, second, temperature=0.2)
    torch.testing.assert_close(found.sum / 6, expected, atol=1e-5, rtol=1e-5)
    mine, theirs = (gradients(loss, given) for loss in (found.sum / 6, expected))
    for view in VIEWS:
        torch.testing.assert_close(mine[view], theirs[view], atol=1e-6, rtol=1e-5)
        assert float(mine[view].abs().max()) > 1e-4


def test_sigmoid_is_siglips_with_a_learned_temperature_and_bias() -> None:
    given = tokens(5, VIEWS)
    built = objective(settings(loss="sigmoid", temperature=0.1), {"main": 2}, batch_size=5)
    assert isinstance(built, ContrastiveImage)
    assert built.log_scale is not None
    assert built.bias is not None
    log_scale, bias = (torch.tensor(start, requires_grad=True) for start in (math.log(10), -10.0))
    found = term(built, given).sum / 5
    first, second = (project(built, given[view]) for view in VIEWS)
    expected = reference_sigmoid(first, second, log_scale.exp(), bias)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    mine = torch.autograd.grad(found, [*given.values(), built.log_scale.value, built.bias.value])
    theirs = torch.autograd.grad(expected, [*given.values(), log_scale, bias])
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.view_as(other), other, atol=1e-5, rtol=1e-5)
        assert float(one.abs().max()) > 1e-4


def test_a_learned_temperature_starts_where_the_fixed_one_is() -> None:
    given = tokens(4, VIEWS)
    fixed, learned = (objective(settings(learn_temperature=learn), {"main": 2}, batch_size=4) for learn in (None, True))
    torch.testing.assert_close(term(learned, given).sum, term(fixed, given).sum)
    assert {name for name, _ in learned.named_parameters()} - {name for name, _ in fixed.named_parameters()} == {
        "log_scale.value"
    }


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
def test_groups_are_runs_of_their_own(loss: str) -> None:
    whole = check_groups(settings(loss=loss), {"main": 2})
    assert whole.samples is not None
    torch.testing.assert_close(whole.samples.sum(), whole.sum)


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
@pytest.mark.parametrize("group", [None, 6, 3, 2])
@pytest.mark.parametrize("world", [2, 4])
def test_processes_together_give_what_one_gives(loss: str, group: int | None, world: int) -> None:
    check_processes(settings(loss=loss, group=group), {"main": 2}, world)


def test_more_views_are_the_mean_over_their_pairs() -> None:
    views = ("main/0", "main/1", "near")
    given = tokens(4, views)
    for loss in ("infonce", "sigmoid"):
        three = term(
            objective(settings(loss=loss, views=["main", "near"]), {"main": 2, "near": 1}, batch_size=4), given
        )
        two = objective(settings(loss=loss), {"main": 2}, batch_size=4)
        pairs = [
            term(two, dict(zip(VIEWS, (given[first], given[second]), strict=True))).sum
            for first, second in (views[:2], views[1:], (views[0], views[2]))
        ]
        torch.testing.assert_close(three.sum, torch.stack(pairs).mean())


def test_metrics_tell_agreement_from_chance() -> None:
    given = tokens(6, VIEWS)
    built = objective(settings(), {"main": 2}, batch_size=6)
    same = term(built, dict.fromkeys(VIEWS, given["main/0"])).metrics
    assert same["positive_top1"] == 6
    torch.testing.assert_close(same["positive_similarity"], torch.tensor(6.0))
    turned = term(built, {"main/0": given["main/0"], "main/1": given["main/0"].roll(1, dims=0)}).metrics
    assert turned["positive_top1"] == 0
    z = [project(built, given[view]) for view in VIEWS]
    similarity = z[0] @ z[1].T
    metrics = term(built, given).metrics
    torch.testing.assert_close(metrics["positive_similarity"], similarity.diag().sum())
    others = (similarity.sum() - similarity.diag().sum()) / 5
    torch.testing.assert_close(metrics["negative_similarity"], others)


def test_autocast_computes_the_loss_in_fp32() -> None:
    given = tokens(6, VIEWS)
    built = objective(settings(), {"main": 2}, batch_size=6)
    with torch.autocast("cpu", torch.bfloat16):
        rough = term(built, given).sum
    exact = term(built, given).sum
    assert rough.dtype == torch.float32
    assert rough.item() != exact.item()
    torch.testing.assert_close(rough, exact, atol=0, rtol=5e-2)


@pytest.mark.parametrize(
    ("changes", "views", "message"),
    [
        ({}, {"main": 1}, r"has only 'main'\n.*two or more\n.*views\.main\.copies=2"),
        ({"views": ["main", "main"]}, {"main": 2}, "names a view twice: main, main"),
        ({"group": 4}, {"main": 2}, r"groups of 4 samples and optim\.batch_size is 6\n.*a group of 2, 3, 6"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes: dict[str, Any], views: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        objective(settings(**changes), views, batch_size=6)


def test_a_class_token_is_asked_of_an_encoder_that_has_one() -> None:
    plain = {"main": ViewConfig(normalise=NormaliseConfig(mean=(0.5,), std=(0.25,)), mask=None, copies=2)}
    tree = {
        "name": "test",
        "views": plain,
        "encoder": {"name": "vit_base_patch16_gap_224", "image_size": 16, "patch_size": 8, "channels": 1},
        "objectives": [settings()],
    }
    with pytest.raises(
        ConfigError, match=r"pools the class token and encoder.name 'vit_base_patch16_gap_224' has none"
    ):
        build_pretrain_model(Recipe.model_validate(tree))


def test_a_group_beyond_the_micro_step_is_refused() -> None:
    built = objective(settings(), {"main": 2}, batch_size=8)
    given = tokens(8, VIEWS)
    with pytest.raises(UsageError, match=r"groups of 8 samples do not lie within a micro-step: positions 4 to 7"):
        term(built, given, slice(4, 8))
    assert built.config.group_size(8) == 8
    assert built.count(part(4, 0)) == 4
