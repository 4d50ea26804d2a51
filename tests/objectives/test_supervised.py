"""Learning from labels: losses as written out, what is unknown, mixing, and what is refused."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from facemae.config import Recipe
from facemae.data.schema import Batch
from facemae.errors import ConfigError, DataError, UsageError
from facemae.models.encoding import Encoding
from facemae.objectives.base import Term
from facemae.objectives.mixup import draw_shares, mix, partners
from facemae.objectives.pretraining import PretrainModel, build_pretrain_model
from facemae.objectives.supervised import Supervised, SupervisedConfig
from tests.objectives.examples import BATCH, example_recipe, global_batch

WHOLE = {"main": {"mask": None}}
CLASSES = {"kind": "supervised", "labels": "mood", "classes": ["calm", "glad", "cross"]}
COLUMNS = {
    "multilabel": {"kind": "supervised", "task": "multilabel", "labels": ["AU1", "AU2", "AU4"]},
    "distribution": {"kind": "supervised", "task": "distribution", "labels": ["a", "b", "c"]},
    "regression": {"kind": "supervised", "task": "regression", "labels": ["valence", "arousal"]},
}


def recipe_of(objective: Mapping[str, Any], views: Mapping[str, Any] = WHOLE) -> Recipe:
    return example_recipe({"views": views, "objectives": [objective]})


def built(recipe: Recipe) -> tuple[PretrainModel, Supervised]:
    model = build_pretrain_model(recipe)
    head = model.objectives[0]
    assert isinstance(head, Supervised)
    with torch.no_grad():  # predictions that differ
        head.head.linear.weight.mul_(1000)
    return model, head


def with_labels(recipe: Recipe, labels: Mapping[int, Mapping[str, Any]]) -> Batch:
    """The example's batch with labels in some slots."""
    meta = tuple({"labels": dict(labels[slot])} if slot in labels else {} for slot in range(BATCH))
    return replace(global_batch(recipe), meta=meta)


def outputs(model: PretrainModel, head: Supervised, batch: Batch, step: int | None = None) -> torch.Tensor:
    _, encodings = model.encode(batch, step)
    out: torch.Tensor = head.head(head.head.pooled(encodings["main"]))
    return out


def term_of(model: PretrainModel, head: Supervised, batch: Batch, step: int = 0) -> Term:
    pixels, encodings = model.encode(batch, step)
    return head.term(encodings, pixels, batch, step)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_classes_give_torchs_cross_entropy_of_the_labelled(smoothing: float) -> None:
    recipe = recipe_of({**CLASSES, "smoothing": smoothing})
    model, head = built(recipe)
    batch = with_labels(recipe, {0: {"mood": "cross"}, 5: {"mood": "calm"}, 9: {"mood": ""}, 30: {"mood": "cross"}})
    term = term_of(model, head, batch)
    out, wanted = outputs(model, head, batch)[[0, 5, 30]], torch.tensor([2, 0, 2])
    expected = F.cross_entropy(out, wanted, reduction="none", label_smoothing=smoothing)
    assert head.count(batch) == 3
    torch.testing.assert_close(term.sum, expected.sum())
    assert term.samples is not None
    torch.testing.assert_close(term.samples[[0, 5, 30]], expected.detach())
    assert torch.count_nonzero(term.samples) == 3
    assert term.metrics["accuracy"] == (out.argmax(1) == wanted).sum()


def test_what_was_not_coded_takes_no_part_in_binary_columns() -> None:
    recipe = recipe_of({**COLUMNS["multilabel"], "unknown": [9]})
    model, head = built(recipe)
    batch = with_labels(
        recipe, {1: {"AU1": 1, "AU2": 0, "AU4": True}, 2: {"AU1": 9, "AU4": "0"}, 3: {"AU2": None}, 7: {"AU2": 1.0}}
    )
    known = {(1, 0): 1.0, (1, 1): 0.0, (1, 2): 1.0, (2, 2): 0.0, (7, 1): 1.0}
    term, out = term_of(model, head, batch), outputs(model, head, batch)
    expected = sum(F.binary_cross_entropy_with_logits(out[at], torch.tensor(value)) for at, value in known.items())
    assert head.count(batch) == len(known)
    torch.testing.assert_close(term.sum, torch.as_tensor(expected))
    assert term.metrics["accuracy"] == sum((out[at] > 0) == (value > 0.5) for at, value in known.items())


def test_votes_are_shares_and_count_where_all_are_there() -> None:
    recipe = recipe_of(COLUMNS["distribution"])
    model, head = built(recipe)
    none, part = {"a": 0, "b": 0, "c": 0}, {"a": 1, "b": 2}
    batch = with_labels(recipe, {4: {"a": 1, "b": 0, "c": 3}, 6: none, 8: part, 9: {"a": 0.5, "b": 0.5, "c": 0}})
    shares = torch.tensor([[0.25, 0, 0.75], [0.5, 0.5, 0]])
    expected = F.cross_entropy(outputs(model, head, batch)[[4, 9]], shares, reduction="sum")
    assert head.count(batch) == 2
    torch.testing.assert_close(term_of(model, head, batch).sum, expected)


def test_numbers_give_squared_errors_of_the_known() -> None:
    recipe = recipe_of(COLUMNS["regression"])
    model, head = built(recipe)
    batch = with_labels(recipe, {0: {"valence": -0.5, "arousal": 1}, 31: {"valence": float("nan"), "arousal": "0.25"}})
    out = outputs(model, head, batch)
    expected = (out[0] - torch.tensor([-0.5, 1.0])).square().sum() + (out[31, 1] - 0.25).square()
    term = term_of(model, head, batch)
    assert head.count(batch) == 3
    torch.testing.assert_close(term.sum, expected)
    assert not term.metrics


def test_numbers_are_learnt_in_units_of_their_spread_and_predicted_in_their_own() -> None:
    recipe = recipe_of({**COLUMNS["regression"], "centre": [40, -1], "scale": [10, 0.5]})
    model, head = built(recipe)
    batch = with_labels(recipe, {0: {"valence": 55, "arousal": -2}, 1: {"arousal": -1}})
    out = outputs(model, head, batch)
    expected = (out[0] - torch.tensor([1.5, -2.0])).square().sum() + out[1, 1].square()
    torch.testing.assert_close(term_of(model, head, batch).sum, expected)
    _, encodings = model.encode(batch, None)
    torch.testing.assert_close(
        head.scores(encodings["main"]), out * torch.tensor([10, 0.5]) + torch.tensor([40.0, -1.0])
    )


def test_the_spread_is_that_of_the_samples_where_none_is_named() -> None:
    config = recipe_of(COLUMNS["regression"]).objectives[0]
    found: dict[str, dict[str, dict[Any, int]]] = {
        "a": {"valence": {"1": 2, 4.0: 1, None: 7}, "arousal": {3: 5}},
        "b": {"valence": {"-2": 1}},
    }
    completed = config.completed(lambda: found, None)
    assert isinstance(completed, SupervisedConfig)
    assert completed.centre == (1.0, 3.0)
    assert completed.scale == pytest.approx((4.5**0.5, 1.0))
    again = config.completed(dict, completed)
    assert again == completed, "a run that goes on keeps what it was started with"


def test_losses_of_a_pair_are_mixed_as_its_pixels() -> None:
    recipe = recipe_of(CLASSES, {"main": {"mask": None, "mixup": {"alpha": 0.5}}})
    model, head = built(recipe)
    batch = with_labels(recipe, {2: {"mood": "glad"}, 3: {"mood": "cross"}, 8: {"mood": "calm"}})
    share = draw_shares(0.5, seed=recipe.seed, step=4, view="main", batch=batch)
    logs = outputs(model, head, batch, 4).log_softmax(dim=1)
    expected = {
        2: -share[2] * logs[2, 1] - (1 - share[2]) * logs[2, 2],
        3: -share[3] * logs[3, 2] - (1 - share[3]) * logs[3, 1],
        # The other of the pair has no label; what is shown of slot 8 counts, wherever it is shown.
        8: -share[8] * logs[8, 0],
        9: -(1 - share[9]) * logs[9, 0],
    }
    term = term_of(model, head, batch, 4)
    torch.testing.assert_close(term.sum, torch.stack(list(expected.values())).sum())
    assert head.count(batch) == 3
    assert term.samples is not None
    assert set(term.samples.nonzero().flatten().tolist()) == set(expected)


def test_shares_are_those_of_the_pair_however_the_batch_is_cut() -> None:
    recipe = recipe_of(CLASSES)
    batch = global_batch(recipe)
    whole = draw_shares(0.8, seed=1, step=7, view="main", batch=batch)
    assert torch.equal(whole, partners(whole))
    assert len(set(whole.tolist())) == BATCH // 2
    assert torch.equal(
        whole, torch.cat([draw_shares(0.8, seed=1, step=7, view="main", batch=part) for part in batch.split(8)])
    )
    for other in ({"step": 8, "view": "main"}, {"step": 7, "view": "other"}):
        assert not torch.equal(whole, draw_shares(0.8, seed=1, batch=batch, **other))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="slots 0 to 0 tear a pair apart"):
        draw_shares(0.8, seed=1, step=7, view="main", batch=batch.split(32)[0])


def test_pixels_are_mixed_within_pairs_and_only_in_training() -> None:
    pixels, shares = torch.arange(4.0).view(4, 1, 1, 1), torch.tensor([0.25, 0.25, 1.0, 1.0])
    assert mix(pixels, shares).flatten().tolist() == [0.75, 0.25, 2.0, 3.0]
    recipe = recipe_of(CLASSES, {"main": {"mask": None, "mixup": {}}})
    model, _ = built(recipe)
    batch, plain = global_batch(recipe), build_pretrain_model(recipe_of(CLASSES))
    as_it_is = plain.encode(batch, 3)[0]["main"]
    assert torch.equal(model.encode(batch)[0]["main"], as_it_is)
    drawn = draw_shares(0.8, seed=recipe.seed, step=3, view="main", batch=batch)
    assert torch.equal(model.encode(batch, 3)[0]["main"], mix(as_it_is, drawn))


def test_dropout_is_drawn_by_slot_and_step_and_keeps_the_mean() -> None:
    recipe = recipe_of({**CLASSES, "dropout": 0.25})
    _, head = built(recipe)
    batch, ones = global_batch(recipe), torch.ones(BATCH, 64)
    whole = head._thinned(ones, "main", batch, 2)
    assert sorted(set(whole.flatten().tolist())) == pytest.approx([0.0, 4 / 3])
    assert whole.mean() == pytest.approx(1, abs=0.1)
    parts = [head._thinned(torch.ones(8, 64), "main", part, 2) for part in batch.split(4)]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, head._thinned(ones, "main", batch, 3))


@pytest.mark.parametrize("pool", ["mean", "cls", "cls+mean"])
def test_what_the_head_sees(pool: str) -> None:
    _, head = built(recipe_of({**CLASSES, "pool": pool}))
    tokens = torch.randn(2, 10, 64, generator=torch.Generator().manual_seed(0))
    cls, mean = tokens[:, 0], F.layer_norm(tokens[:, 1:].mean(dim=1), (64,), eps=1e-6)
    expected = {"cls": cls, "mean": mean, "cls+mean": torch.cat([cls, mean], dim=1)}[pool]
    torch.testing.assert_close(head.head.pooled(Encoding(tokens, 1)), expected)


def test_scores_are_probabilities_or_numbers() -> None:
    tokens = torch.randn(2, 10, 64, generator=torch.Generator().manual_seed(0))
    for objective in (CLASSES, COLUMNS["distribution"]):
        scores = built(recipe_of(objective))[1].scores(Encoding(tokens, 1))
        torch.testing.assert_close(scores.sum(dim=1), torch.ones(2))
    _, head = built(recipe_of(COLUMNS["multilabel"]))
    logits = head.head(head.head.pooled(Encoding(tokens, 1)))
    torch.testing.assert_close(head.scores(Encoding(tokens, 1)), logits.sigmoid())
    _, head = built(recipe_of(COLUMNS["regression"]))
    assert head.scores(Encoding(tokens, 1)).shape == (2, 2)


def test_where_nothing_counts_no_parameter_is_involved() -> None:
    recipe = recipe_of(CLASSES)
    model, head = built(recipe)
    term = term_of(model, head, with_labels(recipe, {}))
    assert term.sum == 0
    assert not term.sum.requires_grad
    # Processes add up what the log says by these names.
    assert term.metrics == {"accuracy": 0}
    assert term.samples is not None
    assert not term.samples.any()


@pytest.mark.parametrize(
    ("objective", "labels", "message"),
    [
        (CLASSES, {"mood": "gladd"}, "label 'gladd' in column 'mood'.*the nearest is glad.*in `rename`"),
        (COLUMNS["multilabel"], {"AU1": 2}, "label '2' in column 'AU1'.*0, 1, or empty"),
        (COLUMNS["distribution"], {"a": -1, "b": 1, "c": 1}, "label '-1' in column 'a'.*0 or greater"),
        (COLUMNS["regression"], {"valence": "much"}, "label 'much' in column 'valence'.*a number"),
    ],
)
def test_labels_that_mean_nothing_are_refused(
    objective: Mapping[str, Any], labels: Mapping[str, Any], message: str
) -> None:
    _, head = built(recipe_of(objective))
    columns = head.settings.labels
    found = {"wild": {column: {labels.get(column, 0): 3, None: 1} for column in columns}}
    with pytest.raises(DataError, match=f"(?s){message}"):
        head.check_labels(found)


def test_labels_are_counted_and_missing_ones_refused_before_the_start() -> None:
    _, head = built(recipe_of({**CLASSES, "rename": {"happy": "glad"}, "unknown": ["?"]}))
    found: dict[str, dict[str, dict[Any, int]]] = {
        "wild": {"mood": {"calm": 1000, "happy": 200, "?": 5, "": 7, None: 9}},
        "laboratory": {},
    }
    assert head.check_labels(found) == "1,200 labels in mood, of 3 classes"
    with pytest.raises(ConfigError, match="no stream has a metadata column 'mood'"):
        head.check_labels({"wild": {}})
    with pytest.raises(ConfigError, match="no sample of the streams that its view is made of has a label in mood"):
        head.check_labels({"wild": {"mood": {None: 4, "?": 2}}})


def test_classes_are_those_of_the_samples_where_none_are_named() -> None:
    config = recipe_of({"kind": "supervised", "labels": "mood", "unknown": "x", "rename": {"two": 2}}).objectives[0]
    found: dict[str, dict[str, dict[Any, int]]] = {
        "a": {"mood": {"10": 1, "b": 1, 9: 2, None: 1}},
        "b": {"mood": {"x": 1, "two": 4}},
        "c": {},
    }
    completed = config.completed(lambda: found, None)
    assert getattr(completed, "classes") == ("2", "9", "10", "b")  # noqa: B009 (of its own class)
    assert config.completed(dict, completed) == completed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["a", "b"]}, "task classes reads one column and labels names 2"),
        ({"task": "regression"}, "classes and smoothing are for task classes; the task is regression"),
        ({"classes": ["calm", "calm"]}, "classes has a name twice: calm, calm"),
        ({"task": "regression", "classes": [], "centre": [1]}, "centre and scale have one number for each"),
        ({"centre": [1], "scale": [1]}, "centre and scale are for task regression; the task is classes"),
        ({"task": "regression", "classes": [], "centre": [1], "scale": [0]}, "numbers above 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe_of({**CLASSES, **changes})


def test_what_has_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(ConfigError, match="names no metadata column in `labels`"):
        build_pretrain_model(recipe_of({"kind": "supervised"}))
    with pytest.raises(ConfigError, match="names no two or more `classes`"):
        build_pretrain_model(recipe_of({"kind": "supervised", "labels": "mood", "classes": "calm"}))
    with pytest.raises(ConfigError, match=r"views\.main\.mixup mixes samples, and objective 'masked_image' has no lab"):
        build_pretrain_model(recipe_of({"kind": "masked_image"}, {"main": {"mixup": {"alpha": 1.0}}}))
