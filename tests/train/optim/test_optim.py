"""Groups by name, state by name, skipped updates, the average."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from facemae.config import OptimConfig, Recipe
from facemae.errors import CheckpointError
from facemae.objectives.pretraining import build_pretrain_model
from facemae.train.optim.adamw import Average, group_names
from facemae.train.strategy import SingleProcess, Update


def test_groups_of_the_whole_model_by_name(tiny: Callable[..., Recipe]) -> None:
    model = build_pretrain_model(tiny("encoder.position=learned", "encoder.registers=2"))
    groups = group_names(model.named_parameters())
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert set(groups.decayed) | set(groups.undecayed) == trainable
    assert all(name.endswith("weight") and "norm" not in name for name in groups.decayed)
    assert "encoder.vit.patch_embed.proj.weight" in groups.decayed
    assert "encoder.vit.blocks.0.attn.qkv.weight" in groups.decayed
    free = set(groups.undecayed)
    assert {"encoder.vit.pos_embed", "encoder.vit.cls_token", "encoder.vit.reg_token"} <= free
    assert "objectives.0.decoder.mask_token" in free
    assert all(name in free for name in trainable if name.endswith("bias") or "norm" in name)


def linear(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1))


def step(strategy: SingleProcess, model: nn.Module, value: float = 1.0, clip: float | None = None) -> Update:
    strategy.clear()
    loss = (model(torch.arange(6.0).view(2, 3)) * value).square().mean()
    strategy.backward(loss)
    return strategy.update(loss.detach(), 0.1, clip)


def test_a_skipped_update_leaves_weights_and_moments_alone() -> None:
    model, strategy = linear(), SingleProcess()
    strategy.prepare(model, OptimConfig())
    assert step(strategy, model).bad == 0
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state = {name: value.clone() for name, value in strategy.optimizer_state().items()}
    for poison in (torch.nan, torch.inf):
        update = step(strategy, model, poison, clip=1.0)
        assert update.bad == 1
        assert update.broken.any()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, state[name]) for name, value in strategy.optimizer_state().items())
    assert step(strategy, model).bad == 0
    assert not torch.equal(model.state_dict()["0.weight"], weights["0.weight"])


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_the_gradient_to_blame_is_told_from_the_others(clip: float | None, value: float) -> None:
    model, strategy = linear(), SingleProcess()
    strategy.prepare(model, OptimConfig())
    dict(model.named_parameters())["1.bias"].register_hook(lambda gradient: gradient + value)  # type: ignore[no-untyped-call]
    update = step(strategy, model, clip=clip)
    assert update.bad == 1
    broken = dict(zip(update.names, update.broken.tolist(), strict=True))
    assert set(broken) == {name for name, _ in model.named_parameters()}
    assert [name for name, flag in broken.items() if flag] == ["1.bias"]


def test_the_norm_is_the_library_s() -> None:
    model, strategy = linear(), SingleProcess()
    strategy.prepare(model, OptimConfig())
    update = step(strategy, model)
    gradients = [value.grad for value in model.parameters() if value.grad is not None]
    assert torch.equal(update.norm, torch.nn.utils.get_total_norm(gradients))


def test_decay_applies_to_its_group_only() -> None:
    model, strategy = linear(), SingleProcess()
    strategy.prepare(model, OptimConfig(weight_decay=0.5))
    before = {name: value.clone() for name, value in model.named_parameters()}
    strategy.clear()
    loss = torch.stack([value.sum() for value in model.parameters()]).sum() * 0.0
    strategy.backward(loss)
    strategy.update(loss.detach(), 0.1, None)
    for name, value in model.named_parameters():
        decayed = name in {"0.weight", "2.weight"}
        assert torch.allclose(value, before[name] * (0.95 if decayed else 1.0)), name


def test_clipping_bounds_the_update_and_reports_the_norm_before_it() -> None:
    model, strategy = linear(), SingleProcess()
    strategy.prepare(model, OptimConfig())
    loss = model(torch.full((1, 3), 1000.0)).square().mean()
    strategy.backward(loss)
    update = strategy.update(loss.detach(), 0.1, 0.01)
    clipped = torch.nn.utils.get_total_norm([value.grad for value in model.parameters() if value.grad is not None])
    assert update.norm > 0.02
    assert clipped == pytest.approx(0.01, rel=1e-3)


def test_optimiser_state_goes_by_name() -> None:
    model, strategy = linear(), SingleProcess()
    strategy.prepare(model, OptimConfig())
    step(strategy, model)
    saved = {name: value.clone() for name, value in strategy.optimizer_state().items()}
    assert "exp_avg/0.weight" in saved
    copy, other = linear(1), SingleProcess()
    copy.load_state_dict(model.state_dict())
    other.prepare(copy, OptimConfig())
    other.load_optimizer_state(saved)
    step(strategy, model)
    step(other, copy)
    assert all(torch.equal(value, copy.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(CheckpointError, match=r"exp_avg/elsewhere does not belong(.|\n)*--init-from"):
        other.load_optimizer_state({"exp_avg/elsewhere": torch.zeros(1)})


def test_the_average_follows_trainable_weights_only() -> None:
    model = linear()
    weights = dict(model.named_parameters())
    weights["1.weight"].requires_grad_(False)
    average = Average(model)
    start = weights["0.weight"].detach().clone()
    with torch.no_grad():
        weights["0.weight"].add_(4.0)
        weights["1.weight"].add_(4.0)
    average.update(0.25)
    tensors = average.tensors()
    assert torch.allclose(tensors["0.weight"], start + 1.0)
    assert torch.equal(tensors["1.weight"], weights["1.weight"])
    assert set(tensors) == set(model.state_dict())
    other = Average(linear(1))
    other.load(tensors)
    assert torch.equal(other.tensors()["0.weight"], tensors["0.weight"])
