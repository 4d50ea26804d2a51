"""Every objective: value and gradients are the same in 1, 2 and 4 processes, with and without accumulation."""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from facemae.data.schema import Batch
from facemae.errors import ConfigError
from facemae.objectives.pretraining import PretrainModel, build_pretrain_model, compared_groups
from facemae.objectives.registry import OBJECTIVES
from facemae.train.processes.groups import check_groups
from facemae.train.processes.process_group import ProcessGroup
from facemae.train.strategy import Ddp, Exact, SingleProcess, Strategy
from tests.objectives.examples import BATCH, EXAMPLES, MASKED, example_recipe, global_batch
from tests.spawn import run_in_processes

WORLDS = (1, 2, 4)
ACCUMULATION = (1, 2)

TOLERANCE = 1e-6
"""Length of the difference of two gradients of a tensor, over the length of one. Not number by number: each is a sum
over all samples, and where its terms nearly cancel it has no digit that the order of adding leaves alone."""

LABELS: dict[str, tuple[int, ...]] = {
    "all in one process": (0, 1, 2),
    "none in some processes": (0, 1, 2, 17),
    "one": (29,),
    "everywhere, unevenly": (0, 1, 2, 3, 4, 9, 13, 16, 21, 31),
    "nowhere": (),
}
"""Slots of 32 whose samples have a label."""


@dataclass(frozen=True)
class Step:
    """What all processes together made of a step.

    Attributes:
        loss: Summed over processes.
        metrics: Likewise.
        gradients: As the update uses them, None where there is none; empty but in the first process.
        digest: Of the gradients.
    """

    loss: float
    metrics: dict[str, float]
    gradients: dict[str, torch.Tensor | None]
    digest: str


Steps = dict[tuple[str, int], Step]
"""By strategy and accumulation."""


def take_step(
    group: ProcessGroup, strategy: Strategy, model: PretrainModel, forward: torch.nn.Module, batch: Batch, parts: int
) -> Step:
    """One step as the trainer takes it, on this process's slots of a global batch."""
    micro = batch.split(group.world)[group.rank].split(parts)
    counts = group.all_reduce_sum(torch.tensor([model.counts(part) for part in micro]).sum(dim=0)).tolist()
    strategy.clear()
    sums: dict[str, torch.Tensor] = {}
    for number, part in enumerate(micro, start=1):
        with strategy.accumulate(last=number == parts):
            loss, metrics = forward(part, batch.step, counts)
            strategy.backward(loss)
        for name, value in {"loss": loss.detach(), **metrics}.items():
            sums[name] = sums.get(name, torch.zeros(())) + value
    strategy.update(sums["loss"], 1e-3, None)
    everywhere = group.gather_objects({name: float(value) for name, value in sums.items()})
    totals = {name: sum(known.get(name, 0.0) for known in everywhere) for known in everywhere for name in known}
    gradients = {name: value.grad for name, value in model.named_parameters()}
    digest = hashlib.sha256()
    for name, gradient in gradients.items():
        digest.update(name.encode() + (b"" if gradient is None else gradient.numpy().tobytes()))
    copies = {name: None if gradient is None else gradient.clone() for name, gradient in gradients.items()}
    return Step(totals.pop("loss"), totals, copies if group.rank == 0 else {}, digest.hexdigest())


def take_steps(group: ProcessGroup, blocks: Mapping[str, Any], labels: tuple[int, ...] = ()) -> Steps:
    """A step of an example in every way in which its groups stay whole."""
    recipe = example_recipe(blocks)
    batch = global_batch(recipe, labels=labels)
    share, found = BATCH // group.world, {}
    strategies: list[Strategy] = [Ddp(group), Exact(group)]
    if group.world == 1:
        strategies.append(SingleProcess())
    for strategy in strategies:
        for parts in ACCUMULATION:
            model = build_pretrain_model(recipe, group)
            try:
                check_groups(
                    compared_groups(recipe), share=share, micro=share // parts, world=group.world, lanes=group.world
                )
            except ConfigError:
                assert parts > 1, "without accumulation every group is whole"
                continue
            forward = strategy.prepare(model, recipe.optim)
            found[strategy.name, parts] = take_step(group, strategy, model, forward, batch, parts)
    return found


def take_steps_of(group: ProcessGroup, kind: str) -> dict[str, Steps]:
    return {name: take_steps(group, blocks) for name, blocks in EXAMPLES[kind].items()}


def take_labelled_steps(group: ProcessGroup) -> dict[str, Steps]:
    OBJECTIVES["labelled"] = "tests.objectives.labelled:Labelled"
    masked = EXAMPLES["masked_image"]["joint"]["objectives"]
    labelled = [{"kind": "labelled"}]
    found = {}
    for where, labels in LABELS.items():
        blocks = {"views": {"main": MASKED}, "objectives": [*masked, *labelled]}
        found[f"beside another, labels {where}"] = take_steps(group, blocks, labels)
    for where in ("all in one process", "nowhere"):
        blocks = {"views": {"main": MASKED}, "objectives": labelled}
        found[f"alone, labels {where}"] = take_steps(group, blocks, LABELS[where])
    return found


@functools.cache
def steps_of(kind: str, world: int) -> list[dict[str, Steps]]:
    """By rank and example."""
    if kind == "labelled":
        return run_in_processes(take_labelled_steps, world)
    return run_in_processes(take_steps_of, world, kind)


def assert_equal(found: Step, expected: Step, where: str) -> None:
    """Loss, metrics and gradients are equal but for rounding."""
    assert found.loss == pytest.approx(expected.loss, rel=TOLERANCE), where
    assert found.metrics == pytest.approx(expected.metrics, rel=1e-5, abs=1e-7), where
    assert found.gradients.keys() == expected.gradients.keys()
    for name, gradient in expected.gradients.items():
        mine = found.gradients[name]
        if gradient is None or mine is None:
            assert gradient is mine, f"{where}: {name} has a gradient in one of the two"
            continue
        assert (mine - gradient).norm() <= TOLERANCE * gradient.norm(), f"{where}: {name}"


def assert_all_equal(kind: str, world: int) -> None:
    """All processes and ways give what one process gives that takes a step at once."""
    ranks = steps_of(kind, world)
    for name, alone in steps_of(kind, 1)[0].items():
        for way, step in ranks[0][name].items():
            where = f"{kind}, {name}; {way[0]}, {way[1]} micro-batches, {world} processes"
            assert_equal(step, alone["single", 1], where)
            for other in ranks[1:]:
                assert other[name][way] == replace(step, gradients={}), f"{where}: processes differ"


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("kind", sorted(OBJECTIVES))
def test_processes_and_accumulation_change_nothing(kind: str, world: int) -> None:
    if kind not in EXAMPLES:
        pytest.fail(
            f"objective {kind!r} has no example: add tiny recipes of it to EXAMPLES in {example_recipe.__module__}"
        )
    assert_all_equal(kind, world)
    ways = [set(steps) for steps in steps_of(kind, world)[0].values()]
    assert any({(name, 2) for name in ("ddp", "exact")} <= found for found in ways), "no example accumulates"


ALL_OBJECTIVES = {
    "views": {"masked": MASKED, "main": {"copies": 2, "mask": None}},
    "objectives": [
        {**EXAMPLES["masked_image"]["joint"]["objectives"][0], "view": "masked"},
        EXAMPLES["contrastive_image"]["groups of a micro-batch"]["objectives"][0],
        {**EXAMPLES["clustering"]["groups of a micro-batch, small views"]["objectives"][0], "local_views": []},
    ],
}


def take_updates(group: ProcessGroup, name: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """How three updates move the weights, with accumulation and clipping, and the optimiser's state after them."""
    recipe = example_recipe(ALL_OBJECTIVES)
    model = build_pretrain_model(recipe, group)
    strategy: Strategy = SingleProcess() if name == "single" else Ddp(group) if name == "ddp" else Exact(group)
    forward = strategy.prepare(model, recipe.optim)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for step in range(3):
        take_step(group, strategy, model, forward, global_batch(recipe, step), 2)
    moved = {name: value.detach() - before[name] for name, value in model.named_parameters()}
    return moved, {name: value.clone() for name, value in strategy.optimizer_state().items()}


def without_keys(name: str, value: torch.Tensor) -> torch.Tensor:
    """Softmax cancels the bias of attention's keys: its gradient is rounding, which Adam makes a full step."""
    if not name.endswith("qkv.bias") or not value.ndim:
        return value
    query, _, values = value.chunk(3)
    return torch.cat([query, values])


@pytest.mark.parametrize("name", ["ddp", "exact"])
def test_three_updates_move_weights_and_state_alike(name: str) -> None:
    (expected,) = run_in_processes(take_updates, 1, "single")
    first, *others = run_in_processes(take_updates, 4, name)
    for mine, theirs in zip(first, expected, strict=True):
        assert mine.keys() == theirs.keys()
        for key, value in theirs.items():
            # Adam divides small gradients by small ones: rounding grows from step to step.
            difference = without_keys(key, mine[key] - value).norm()
            assert difference <= 2e-3 * without_keys(key, value).norm(), key
    for other in others:
        for mine, theirs in zip(first, other, strict=True):
            assert all(torch.equal(value, theirs[key]) for key, value in mine.items()), "processes differ"


def test_examples_have_something_to_compare() -> None:
    for kind, examples in EXAMPLES.items():
        for name in examples:
            step = steps_of(kind, 1)[0][name]["single", 1]
            gradients = [value for value in step.gradients.values() if value is not None]
            assert step.loss > 0
            assert all(value.norm() > 0 for value in gradients), f"{kind}, {name}"


@pytest.mark.parametrize("world", WORLDS)
def test_missing_labels_may_lie_anywhere(world: int) -> None:
    assert_all_equal("labelled", world)


def test_where_nothing_counts_nothing_has_a_gradient() -> None:
    alone = steps_of("labelled", 4)[0]["alone, labels nowhere"]
    beside = steps_of("labelled", 4)[0]["beside another, labels nowhere"]
    for way in alone:
        assert not any(value is not None for value in alone[way].gradients.values())
        without = {name for name, value in beside[way].gradients.items() if value is None}
        assert {"objectives.1.head.weight", "objectives.1.head.bias"} <= without
        assert len(without) < len(beside[way].gradients) / 2
