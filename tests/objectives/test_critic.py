"""MARLIN's critic: one backward pass gives what two steps give, of critic and generator from equal weights."""

import pytest
import torch
import torch.nn.functional as F

from facemae.config import OptimConfig
from facemae.models.reversal import reverse_gradient
from facemae.objectives.pretraining import build_pretrain_model
from facemae.train.strategy import SingleProcess
from tests.objectives.test_masked_video import batch, images, recipe, reference_patches

WEIGHT, HIDDEN = 0.3, 20
ADVERSARY = "objectives.0.adversary.layers"


def test_reversal_is_the_identity_and_turns_gradients_round() -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = reverse_gradient(x, 0.25)
    assert torch.equal(x, y)
    (gradient,) = torch.autograd.grad((y * torch.tensor([3.0, 5.0])).sum(), [x])
    assert gradient.tolist() == [-0.75, -1.25]


def reference_scores(patches: list[torch.Tensor], weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """The mean score: an MLP written down."""
    scores = []
    for patch in patches:
        inner = weights[f"{ADVERSARY}.0.weight"] @ patch + weights[f"{ADVERSARY}.0.bias"]
        inner = torch.where(inner > 0, inner, 0.01 * inner)
        scores.append(weights[f"{ADVERSARY}.2.weight"] @ inner)
    return torch.stack(scores).mean()


def test_one_backward_equals_a_step_of_the_critic_and_one_of_the_generator() -> None:
    model = build_pretrain_model(recipe({"target": "pixels", "critic": {"weight": WEIGHT, "hidden": HIDDEN}}))
    given = batch(images())
    loss, metrics = model(given, 0, model.counts(given))
    loss.backward()
    weights = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    made, wanted = reference_patches(weights, given, "pixels")
    error = torch.stack([F.mse_loss(one, other) for one, other in zip(made, wanted, strict=True)]).mean()
    critics = [name for name in weights if name.startswith(ADVERSARY)]
    others = [name for name, value in model.named_parameters() if value.requires_grad and name not in critics]
    # The critic's step sees the reconstruction as it is; the generator's sees the critic as it is.
    fake, real = (reference_scores([one.detach() for one in found], weights) for found in (made, wanted))
    of_critic = torch.autograd.grad(fake - real, [weights[name] for name in critics])
    generator = error - WEIGHT * reference_scores(made, weights)
    of_others = torch.autograd.grad(generator, [weights[name] for name in others])
    assert len(critics) == 3
    for name, gradient in zip([*critics, *others], [*of_critic, *of_others], strict=True):
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, atol=1e-5, rtol=1e-4, msg=name)
    torch.testing.assert_close(loss, error + fake - real, atol=1e-5, rtol=1e-5)
    named = {"reconstruction": error, "critic_fake": fake, "critic_real": real}
    for name, value in named.items():
        torch.testing.assert_close(metrics[f"{name}/masked_video"], value.detach(), atol=1e-5, rtol=1e-5)


def test_the_shape_is_marlins() -> None:
    model = build_pretrain_model(recipe({"critic": {}}, decoder={"width": 32}))
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters() if name.startswith(ADVERSARY)}
    assert shapes == {
        f"{ADVERSARY}.0.weight": (128, 2 * 6 * 6 * 3), f"{ADVERSARY}.0.bias": (128,),
        f"{ADVERSARY}.2.weight": (1, 128),
    }  # fmt: skip


def test_without_a_critic_nothing_is_new() -> None:
    model = build_pretrain_model(recipe())
    given = batch(images())
    _, metrics = model(given, 0, model.counts(given))
    assert set(metrics) == {"loss/masked_video"}
    assert not [name for name, _ in model.named_parameters() if "adversary" in name]


@pytest.mark.parametrize("blown", ["adversary", "others"])
def test_gradients_of_an_adversary_are_clipped_apart(blown: str) -> None:
    def gradients(factor: float) -> tuple[dict[str, torch.Tensor], float, float]:
        model = build_pretrain_model(recipe({"target": "pixels", "critic": {"weight": WEIGHT}}))
        strategy = SingleProcess()
        strategy.prepare(model, OptimConfig())
        given = batch(images())
        loss, _ = model(given, 0, model.counts(given))
        strategy.backward(loss)
        for name, value in model.named_parameters():
            if value.grad is not None and (".adversary." in name) == (blown == "adversary"):
                value.grad *= factor
        update = strategy.update(loss.detach(), 1e-3, 0.01)
        assert update.adversary is not None
        kept = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        return kept, float(update.norm), float(update.adversary)

    plain, norm, adversary = gradients(1.0)
    large, norm_then, adversary_then = gradients(1000.0)
    assert (norm_then == norm) == (blown == "adversary")
    assert (adversary_then == adversary) == (blown == "others")
    for name, gradient in plain.items():
        # Both are clipped to the same length, and neither by the other's.
        torch.testing.assert_close(large[name], gradient, rtol=1e-3, atol=1e-9)
    for group in (True, False):
        total = torch.stack([value.norm() for name, value in plain.items() if (".adversary." in name) == group]).norm()
        assert total == pytest.approx(0.01, rel=1e-3)


def test_an_adversary_that_is_not_finite_skips_the_update() -> None:
    model = build_pretrain_model(recipe({"target": "pixels", "critic": {"weight": WEIGHT}}))
    strategy = SingleProcess()
    strategy.prepare(model, OptimConfig())
    given = batch(images())
    loss, _ = model(given, 0, model.counts(given))
    strategy.backward(loss)
    model.get_parameter(f"{ADVERSARY}.0.weight").grad.fill_(torch.nan)  # type: ignore[union-attr]
    update = strategy.update(loss.detach(), 1e-3, 0.01)
    assert update.bad == 1
    assert [name for name, bad in zip(update.names, update.broken, strict=True) if bad] == [f"{ADVERSARY}.0.weight"]
