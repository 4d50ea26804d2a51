"""Contrast between two encodings against formulas written as loops over pairs."""

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from facemae.config import Recipe
from facemae.data.schema import Batch
from facemae.errors import ConfigError
from facemae.models.encoding import Encoding
from facemae.objectives.base import Term
from facemae.objectives.contrastive import Contrastive
from facemae.objectives.pretraining import PretrainModel, build_pretrain_model
from tests.objectives.examples import BATCH, HEAD, HEARS, MASKED, VOICE, example_recipe, global_batch

THREE = [{"blocks": [3, 3]}, {"blocks": [1, 4]}, {}]


def recipe(**settings: Any) -> Recipe:
    blocks = {
        "views": {"main": MASKED, "twice": {"copies": 2}},
        "sounds": {"voice": VOICE, "talk": {**VOICE, "beneath": "twice"}},
        "sound_encoder": HEARS,
        "objectives": [{"kind": "contrastive", **settings}],
    }
    return example_recipe(blocks)


def built(**settings: Any) -> tuple[PretrainModel, Contrastive, Batch]:
    asked = recipe(**settings)
    model = build_pretrain_model(asked)
    objective = model.objectives[0]
    assert isinstance(objective, Contrastive)
    return model, objective, global_batch(asked)


def term(model: PretrainModel, objective: Contrastive, batch: Batch) -> tuple[Term, dict[str, Encoding]]:
    pixels, encodings = model.encode(batch)
    return objective.term(encodings, pixels, batch, 0), encodings


def mean_of(encoding: Encoding, encoder: Any, block: int | None) -> torch.Tensor:
    """Means of visible tokens after the final norm, of length one."""
    x = encoding.tokens
    if block is not None:
        x = encoding.layers[block]
        mean, variance = x.mean(dim=-1, keepdim=True), x.var(dim=-1, keepdim=True, unbiased=False)
        x = (x - mean) / (variance + 1e-6).sqrt() * encoder.vit.norm.weight + encoder.vit.norm.bias
    rows = x[:, 1:].sum(dim=1) / (x.shape[1] - 1)
    return rows / (rows * rows).sum(dim=1, keepdim=True).sqrt()


def levels_of(model: PretrainModel, encodings: dict[str, Encoding], levels: Any) -> list[list[torch.Tensor]]:
    return [
        [
            mean_of(encodings[name], encoder, (level.get("blocks") or [None, None])[side])
            for side, (name, encoder) in enumerate((("main", model.encoder), ("voice", model.sound_encoder)))
        ]
        for level in levels
    ]


def same(batch: Batch, one: int, other: int, names: tuple[str, ...]) -> bool:
    """Whether two samples share a video or a person."""
    if batch.streams[one] != batch.streams[other]:
        return False
    values = [{"source": meta.get("path"), "subject": meta.get("subject")} for meta in batch.meta]
    return any(values[one][name] is not None and values[one][name] == values[other][name] for name in names)


def reference_infonce(
    a: torch.Tensor, b: torch.Tensor, here: list[int], batch: Batch, temperature: float, exclude: tuple[str, ...] = ()
) -> torch.Tensor:
    """The sum over anchors of side a; candidates of side b."""
    total = torch.zeros(())
    for i in here:
        over = [torch.exp(a[i] @ b[j] / temperature) for j in here if j == i or not same(batch, i, j, exclude)]
        total = total - torch.log(torch.exp(a[i] @ b[i] / temperature) / torch.stack(over).sum())
    return total


def assert_alike(found: torch.Tensor, expected: torch.Tensor, model: PretrainModel) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert model.sound_encoder is not None
    places = [model.encoder.vit.blocks[1].mlp.fc1.weight, model.sound_encoder.vit.blocks[1].mlp.fc1.weight]
    mine, theirs = (torch.autograd.grad(loss, places, retain_graph=True) for loss in (found, expected))
    for one, other in zip(mine, theirs, strict=True):
        assert float(other.norm()) > 1e-3
        assert (one - other).norm() < 1e-4 * other.norm()


def present(batch: Batch, group: slice = slice(0, BATCH)) -> list[int]:
    return [i for i in range(BATCH)[group] if batch.sounds["voice"].present[i]]


def test_infonce_at_three_levels_is_hicmaes() -> None:
    model, objective, batch = built(levels=THREE)
    found, encodings = term(model, objective, batch)
    here, expected = present(batch), torch.zeros(())
    assert 0 < len(here) < BATCH
    for a, b in levels_of(model, encodings, THREE):
        pair = (reference_infonce(x, y, here, batch, 0.07) for x, y in ((a, b), (b, a)))
        expected = expected + sum(pair, torch.zeros(())) / 2
    assert_alike(found.sum, expected, model)
    assert objective.count(batch) == len(here)
    assert not list(objective.parameters())


@pytest.mark.parametrize("exclude", [("source",), ("subject",), ("source", "subject")])
def test_one_direction_with_excluded_pairs(exclude: tuple[str, ...]) -> None:
    model, objective, batch = built(direction="forward", temperature=0.05, exclude=exclude)
    found, encodings = term(model, objective, batch)
    ((a, b),) = levels_of(model, encodings, [{}])
    here = present(batch)
    assert any(same(batch, i, j, exclude) for i in here for j in here if i != j)
    assert_alike(found.sum, reference_infonce(a, b, here, batch, 0.05, exclude), model)


def test_sigmoid_is_siglips_with_a_learned_scale_and_bias() -> None:
    model, objective, batch = built(loss="sigmoid", temperature=0.1, exclude=["source"])
    assert {name for name, _ in objective.named_parameters()} == {"levels.0.log_scale.value", "levels.0.bias.value"}
    found, encodings = term(model, objective, batch)
    ((a, b),) = levels_of(model, encodings, [{}])
    scale, bias = (torch.tensor(start, requires_grad=True) for start in (10.0, -10.0))
    expected, here = torch.zeros(()), present(batch)
    for i in here:
        for j in here:
            if i == j or not same(batch, i, j, ("source",)):
                sign = 1 if i == j else -1
                expected = expected - torch.log(1 / (1 + torch.exp(-sign * (scale * (a[i] @ b[j]) + bias))))
    assert_alike(found.sum, expected, model)
    mine = torch.autograd.grad(found.sum, list(objective.parameters()))
    theirs = torch.autograd.grad(expected, [scale, bias])
    torch.testing.assert_close(mine[0][0], theirs[0] * 10, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mine[1][0], theirs[1], rtol=1e-4, atol=1e-4)


def test_groups_are_runs_of_their_own() -> None:
    model, objective, batch = built(group=8, levels=[{}, {"blocks": [0, 5]}])
    found, encodings = term(model, objective, batch)
    expected = torch.zeros(())
    for a, b in levels_of(model, encodings, [{}, {"blocks": [0, 5]}]):
        for first in range(0, BATCH, 8):
            here = present(batch, slice(first, first + 8))
            pair = (reference_infonce(x, y, here, batch, 0.07) for x, y in ((a, b), (b, a)))
            expected = expected + sum(pair, torch.zeros(())) / 2
    assert_alike(found.sum, expected, model)
    assert found.samples is not None
    torch.testing.assert_close(found.samples.sum(), found.sum)
    # One of the first eight has sound: nothing tells it from others, and it adds nothing.
    assert present(batch, slice(0, 8)) == [5]
    assert float(found.samples[:8].abs().max()) < 1e-6


def test_heads_project_each_side_by_its_own_weights() -> None:
    model, objective, batch = built(levels=[{"head": HEAD}])
    found, encodings = term(model, objective, batch)
    names = {name for name, _ in objective.named_parameters()}
    assert {"levels.0.heads.0.layers.0.weight", "levels.0.heads.1.layers.0.weight"} <= names
    heads: Any = objective.levels[0]
    sides = zip(heads.heads, ("main", "voice"), strict=True)
    a, b = (head(encodings[name].tokens[:, 1:].mean(dim=1)) for head, name in sides)
    pair = (reference_infonce(x, y, present(batch), batch, 0.07) for x, y in ((a, b), (b, a)))
    assert_alike(found.sum, sum(pair, torch.zeros(())) / 2, model)


def test_metrics_are_sums_over_samples_with_both_sides() -> None:
    model, objective, batch = built()
    found, encodings = term(model, objective, batch)
    ((a, b),) = levels_of(model, encodings, [{}])
    here = present(batch)
    cosines = (a @ b.T)[here][:, here]
    own = cosines.diag()
    torch.testing.assert_close(found.metrics["positive_similarity"], own.sum())
    torch.testing.assert_close(
        found.metrics["positive_top1"], (cosines.argmax(1) == torch.arange(len(here))).sum() * 1.0
    )
    others = (cosines.sum() - own.sum()) / (len(here) - 1)
    torch.testing.assert_close(found.metrics["negative_similarity"], others, rtol=1e-4, atol=1e-4)
    assert set(term(*built(levels=THREE))[0].metrics) == {f"{name}_{n}" for name in found.metrics for n in range(3)}


def test_a_value_in_another_stream_is_another() -> None:
    model, objective, batch = built(exclude=["subject"])
    everybody = replace(batch, meta=tuple({"subject": "one"} for _ in range(BATCH)))
    found, encodings = term(model, objective, everybody)
    ((a, b),) = levels_of(model, encodings, [{}])
    pair = (reference_infonce(x, y, present(batch), everybody, 0.07, ("subject",)) for x, y in ((a, b), (b, a)))
    assert_alike(found.sum, sum(pair, torch.zeros(())) / 2, model)
    assert len(set(batch.streams)) == 2


def test_who_is_compared_with_nothing_is_said_and_never_right() -> None:
    model, objective, batch = built(exclude=["source"])
    one = replace(batch, streams=("wild",) * BATCH, meta=tuple({"source": "voxceleb2"} for _ in range(BATCH)))
    with pytest.warns(UserWarning, match=f"all {BATCH} samples share their source"):
        found, _ = term(model, objective, one)
    assert found.sum == 0
    assert found.metrics["positive_top1"] == 0
    assert found.metrics["positive_similarity"] != 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        term(model, objective, replace(one, meta=({"source": "other"}, *one.meta[1:])))
        term(model, objective, replace(one, meta=({},) * BATCH))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"between": ["main", "talk"]}, r"views.twice.copies is 2\n.*one copy"),
        ({"levels": [{"blocks": [6, 0]}]}, r"block 6 of 'main'\n.*0 to 5"),
        ({"levels": [{"blocks": [0, -1]}]}, "block -1 of 'voice'"),
        ({"group": 5}, "groups of 5 samples"),
    ],
)
def test_what_cannot_be_compared_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(**settings)


def test_encoders_of_two_widths_need_heads() -> None:
    wide = recipe().model_copy(
        update={"sound_encoder": recipe().sound_encoder.model_copy(update={"name": "vit_tiny_patch16_224"})}  # type: ignore[union-attr]
    )
    with pytest.raises(ConfigError, match=r"64 numbers of 'main' with 192 of 'voice'\n.*give each level a head"):
        build_pretrain_model(wide)


def test_a_thing_is_not_compared_with_itself() -> None:
    with pytest.raises(ValueError, match="between names 'main' twice"):
        recipe(between=["main", "main"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bias": -5.0}, "bias is of the sigmoid loss, and the loss is infonce"),
        ({"loss": "sigmoid", "direction": "forward"}, "direction is of the infonce loss"),
    ],
)
def test_settings_of_the_other_loss_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        recipe(**settings)
