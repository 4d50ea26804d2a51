"""Clustering against SwAV's text: its matrix form of Sinkhorn-Knopp, and its swapped loss as a sum over pairs."""

import math
from typing import Any

import pytest
import torch

from facemae.errors import ConfigError
from facemae.objectives.base import Objective
from facemae.objectives.clustering import Clustering, sinkhorn
from tests.objectives.tokens import check_groups, check_processes, objective, part, term, tokens

HEAD = {"depth": 1, "out": 8}
CLUSTERS = 5
COPIES = {"main": 2, "small": 2}
VIEWS = ("main/0", "main/1", "small/0", "small/1")


def settings(**more: Any) -> dict[str, Any]:
    return {"kind": "clustering", "local_views": ["small"], "prototypes": CLUSTERS, "head": HEAD, **more}


def reference_codes(scores: torch.Tensor, epsilon: float, rounds: int) -> torch.Tensor:
    """Q = Diag(u) exp(C'Z / epsilon) Diag(v), scaled to marginals 1/K and 1/B in turn; [K, B] as in the paper."""
    q = torch.exp(scores.double().T / epsilon)
    clusters, samples = q.shape
    q = q / q.sum()
    for _ in range(rounds):
        for k in range(clusters):
            q[k] = q[k] / q[k].sum() / clusters
        for b in range(samples):
            q[:, b] = q[:, b] / q[:, b].sum() / samples
    return (q * samples).float()


def reference_loss(built: Objective, given: dict[str, torch.Tensor], *, assigned: int = 2) -> torch.Tensor:
    """The mean over assigned views of the mean over the other views of the cross-entropy with the codes."""
    weights = dict(built.named_parameters())
    scores = []
    for value in given.values():
        z = value[:, 0] @ weights["head.layers.0.weight"].T + weights["head.layers.0.bias"]
        z = z / z.norm(dim=1, keepdim=True)
        prototypes = weights["prototypes.weight"]
        scores.append(z @ (prototypes / prototypes.norm(dim=1, keepdim=True)).T)
    total = torch.zeros(())
    for target in range(assigned):
        codes = reference_codes(scores[target].detach(), 0.05, 3)
        others = [place for place in range(len(scores)) if place != target]
        for other in others:
            predicted = torch.exp(scores[other] / 0.1) / torch.exp(scores[other] / 0.1).sum(dim=1, keepdim=True)
            for sample in range(len(predicted)):
                entropy = -(codes[:, sample] * predicted[sample].log()).sum()
                total = total + entropy / len(predicted) / len(others) / assigned
    return total


def test_codes_are_those_of_the_matrix_form() -> None:
    scores = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)) * 0.3
    for rounds in (1, 3, 20):
        found = sinkhorn(scores, 0.05, rounds)
        torch.testing.assert_close(found, reference_codes(scores, 0.05, rounds).T, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.sum(dim=1), torch.ones(7))
    torch.testing.assert_close(sinkhorn(scores, 0.05, 200).sum(dim=0), torch.full((4,), 7 / 4), atol=1e-3, rtol=0)
    # exp(1 / 0.001) is no number; its logarithm is.
    assert bool(sinkhorn(scores, 0.001, 3).isfinite().all())


def test_loss_and_gradients_are_swavs() -> None:
    given = tokens(6, VIEWS)
    built = objective(settings(), COPIES, batch_size=6)
    found = term(built, given)
    expected = reference_loss(built, given)
    torch.testing.assert_close(found.sum / 6, expected, atol=1e-5, rtol=1e-5)
    inputs = [*given.values(), *built.parameters()]
    for mine, theirs in zip(
        torch.autograd.grad(found.sum / 6, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
        assert float(mine.abs().max()) > 1e-5


def test_groups_are_runs_of_their_own() -> None:
    whole = check_groups(settings(), COPIES)
    together = term(objective(settings(), COPIES, batch_size=8), tokens(8, VIEWS))
    assert abs(together.sum.item() - whole.sum.item()) > 1e-3


@pytest.mark.parametrize("group", [None, 6, 3, 2])
@pytest.mark.parametrize("world", [2, 4])
def test_processes_together_give_what_one_gives(group: int | None, world: int) -> None:
    check_processes(settings(group=group), COPIES, world)


def test_prototypes_have_no_gradient_for_the_first_samples() -> None:
    given = tokens(6, VIEWS)
    built = objective(settings(freeze_prototypes=18), COPIES, batch_size=6)
    assert isinstance(built, Clustering)
    found = []
    for step in range(5):
        total = term(built, given, step=step).sum
        found.append(
            torch.autograd.grad(total, [built.prototypes.weight], allow_unused=True, materialize_grads=False)[0]
        )
    assert found[:3] == [None, None, None]
    assert all(gradient is not None and float(gradient.abs().max()) > 1e-3 for gradient in found[3:])


def test_the_length_of_a_prototype_does_not_matter() -> None:
    given = tokens(6, VIEWS)
    built = objective(settings(), COPIES, batch_size=6)
    assert isinstance(built, Clustering)
    before = term(built, given).sum
    with torch.no_grad():
        built.prototypes.weight.mul_(7)
    torch.testing.assert_close(term(built, given).sum, before)


def test_metrics_tell_collapse() -> None:
    given = tokens(6, VIEWS)
    built = objective(settings(), COPIES, batch_size=6)
    assert isinstance(built, Clustering)
    metrics = term(built, given).metrics
    assert 0.2 < float(metrics["cluster_entropy"]) / 6 <= 1
    assert 2 / CLUSTERS - 1e-5 < float(metrics["clusters_used"]) / 6 < 1 + 1e-5
    one_place = {view: value[:1].expand(6, -1, -1) for view, value in given.items()}
    same = dict.fromkeys(one_place, one_place["main/0"])
    with torch.no_grad():
        built.prototypes.weight[0] = built.head(given["main/0"][:1, 0])[0]
        built.prototypes.weight[1:] = -built.prototypes.weight[0]
    collapsed = term(built, same).metrics
    torch.testing.assert_close(collapsed["clusters_used"], torch.tensor(6 / CLUSTERS))
    far = math.exp(-20)  # similarities 1 and -1 at temperature 0.1
    share = 1 / (1 + (CLUSTERS - 1) * far)
    entropy = -share * math.log(share) + (CLUSTERS - 1) * far * 20
    assert collapsed["cluster_entropy"].item() == pytest.approx(6 * entropy / math.log(CLUSTERS), abs=1e-5)


def test_autocast_computes_codes_and_loss_in_fp32() -> None:
    given = tokens(6, VIEWS)
    built = objective(settings(), COPIES, batch_size=6)
    with torch.autocast("cpu", torch.bfloat16):
        rough = term(built, given).sum
    exact = term(built, given).sum
    assert rough.dtype == torch.float32
    assert rough.item() != exact.item()
    torch.testing.assert_close(rough, exact, atol=0, rtol=5e-2)


def test_a_single_view_is_refused() -> None:
    with pytest.raises(ConfigError, match="compares views with each other and has only 'main'"):
        objective(settings(local_views=[]), {"main": 1}, batch_size=6)
    built = objective(settings(local_views=[]), {"main": 2}, batch_size=6)
    assert built.config.group_size(6) == 6
    assert (built.count(part(3, 0)), [need.view for need in built.needs()]) == (3, list(VIEWS[:2]))
