"""Strategies: every process decides alike, unused parameters do no harm, `exact` repeats bitwise."""

import gc
import weakref
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from facemae.config import EfficiencyConfig, OptimConfig
from facemae.errors import ConfigError
from facemae.rng import generator
from facemae.train.processes.process_group import OneProcess, ProcessGroup
from facemae.train.strategy import Ddp, Exact, SingleProcess, Strategy, choose_strategy
from tests.spawn import run_in_processes

STRATEGIES = ("ddp", "exact")
SAMPLES = 8


class Toy(nn.Module):
    """Two parts and a third that nothing uses; as a pretraining model, it gives its loss and its metrics.

    Args:
        width: Of the hidden layer.
    """

    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.offset: torch.Tensor
        self.register_buffer("offset", torch.zeros(1))
        self.body = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        self.head = nn.Linear(width, 1)
        self.unused = nn.Linear(2, 2)
        self.fixed = nn.Linear(2, 2).requires_grad_(False)
        rng = generator(0, "toy")
        with torch.no_grad():
            for value in self.parameters():
                value.copy_(torch.from_numpy(rng.standard_normal(tuple(value.shape))))

    def forward(self, rows: torch.Tensor, use: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of rows [B, 3] that uses `all`, the `body` alone, or `nothing`."""
        if use == "nothing":
            return torch.zeros(()), {}
        hidden = self.body(rows + self.offset)
        return (self.head(hidden) if use == "all" else hidden).square().sum(), {}


def make(name: str, group: ProcessGroup) -> Strategy:
    return Ddp(group) if name == "ddp" else Exact(group) if name == "exact" else SingleProcess()


def rows_of(group: ProcessGroup, step: int) -> torch.Tensor:
    """This process's share of a step's rows."""
    rows = torch.from_numpy(generator(0, "rows", step).standard_normal((SAMPLES, 3))).float()
    return rows.chunk(group.world)[group.rank]


Gradients = dict[str, torch.Tensor | None]


def gradients(group: ProcessGroup, name: str, uses: Sequence[Sequence[str]]) -> Gradients:
    """Gradients after a step whose micro-batches use, by process, what is given."""
    model, strategy = Toy(), make(name, group)
    forward = strategy.prepare(model, OptimConfig())
    mine = uses[group.rank]
    # A second step finds the strategy as the first one leaves it.
    for step in range(2):
        strategy.clear()
        for number, (rows, use) in enumerate(zip(rows_of(group, step).chunk(len(mine)), mine, strict=True), start=1):
            with strategy.accumulate(last=number == len(mine)):
                strategy.backward(forward(rows, use)[0])
        update = strategy.update(torch.zeros(()), 0.0, None)
        assert set(update.names) == {key for key, value in model.named_parameters() if value.grad is not None}
        assert not model.offset.any()
    return {key: None if value.grad is None else value.grad.clone() for key, value in model.named_parameters()}


def expected_gradients(uses: Sequence[Sequence[str]]) -> Gradients:
    """What autograd gives for all processes' and micro-batches' losses added up."""
    model = Toy()
    rows = torch.from_numpy(generator(0, "rows", 1).standard_normal((SAMPLES, 3))).float()
    micro = [(part, use) for share, own in zip(rows.chunk(len(uses)), uses, strict=True)
             for part, use in zip(share.chunk(len(own)), own, strict=True)]  # fmt: skip
    loss = torch.stack([model(part, use)[0] for part, use in micro]).sum()
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    return {key: value.grad for key, value in model.named_parameters()}


@pytest.mark.parametrize(
    "uses",
    [
        [["all"], ["all"]],
        [["all", "all"], ["all", "all"]],
        [["all"], ["nothing"]],
        [["nothing"], ["body"]],
        [["nothing", "all"], ["body", "nothing"]],
        [["all", "nothing"], ["nothing", "nothing"]],
        [["nothing"], ["nothing"]],
        [["body"], ["nothing"], ["all"], ["nothing"]],
    ],
    ids=lambda uses: " | ".join(" ".join(own) for own in uses),
)
@pytest.mark.parametrize("name", STRATEGIES)
def test_gradients_are_sums_whatever_a_process_uses(name: str, uses: list[list[str]]) -> None:
    expected = expected_gradients(uses)
    for found in run_in_processes(gradients, len(uses), name, uses):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            mine = found[key]
            assert (mine is None) == (value is None), key
            if mine is not None and value is not None:
                torch.testing.assert_close(mine, value, rtol=1e-5, atol=1e-6, msg=key)


def poison(group: ProcessGroup, name: str, where: str) -> tuple[list[float], list[bool], list[list[str]], bool]:
    """Four updates, the second and third of them with a value in the last process that is not finite."""
    model, strategy = Toy(), make(name, group)
    forward = strategy.prepare(model, OptimConfig())
    flags, moved, blamed, last = [], [], [], group.rank == group.world - 1
    poisoned = False

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * torch.nan if poisoned and where == "gradient" else gradient

    model.head.bias.register_hook(spoil)  # type: ignore[no-untyped-call]
    for step in range(4):
        before = {key: value.clone() for key, value in {**model.state_dict(), **strategy.optimizer_state()}.items()}
        poisoned = last and step in (1, 2)
        strategy.clear()
        with strategy.accumulate(last=True):
            loss = forward(rows_of(group, step), "all")[0]
            strategy.backward(loss)
        loss = loss.detach() + (torch.inf if poisoned and where == "loss" else 0.0)
        update = strategy.update(loss, 0.1, 1.0)
        after = {**model.state_dict(), **strategy.optimizer_state()}
        flags.append(update.bad.item())
        moved.append(any(not torch.equal(value, after[key]) for key, value in before.items()))
        blamed.append([key for key, flag in zip(update.names, update.broken.tolist(), strict=True) if flag])
    weights = torch.cat([value.flatten() for value in model.state_dict().values()])
    return flags, moved, blamed, bool(torch.isfinite(weights).all())


@pytest.mark.parametrize("where", ["gradient", "loss"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_what_is_not_finite_in_one_process_skips_the_update_in_all(name: str, where: str) -> None:
    blame = ["head.bias"] if where == "gradient" else []
    expected = ([0.0, 1.0, 1.0, 0.0], [True, False, False, True], [[], blame, blame, []], True)
    assert run_in_processes(poison, 2, name, where) == [expected] * 2


def disagree(group: ProcessGroup, name: str, error: float) -> tuple[list[list[float]], dict[str, torch.Tensor]]:
    """Flags and norms of three updates, and the weights, where the last process has other norms of gradients."""
    model, strategy = Toy(), make(name, group)
    forward = strategy.prepare(model, OptimConfig())
    exact_norms, found, ceiling = torch._foreach_norm, [], None

    def rounded_otherwise(gradients: list[torch.Tensor]) -> list[torch.Tensor]:
        return [value * error for value in exact_norms(gradients)]

    with pytest.MonkeyPatch.context() as patch:
        if group.rank == group.world - 1:
            patch.setattr(torch, "_foreach_norm", rounded_otherwise)
        for step in range(3):
            strategy.clear()
            with strategy.accumulate(last=True):
                loss = forward(rows_of(group, 0), "all")[0]
                strategy.backward(loss)
            # The third gradient is just where the second was: the first process's value must decide for all.
            rate = 0.0 if step else 0.01
            update = strategy.update(loss.detach(), rate, 0.1, ceiling if step == 2 else None)
            ceiling = update.norm.clone()
            found.append([value.item() for value in (update.bad, update.spike, update.norm)])
    return found, {key: value.clone() for key, value in {**model.state_dict(), **strategy.optimizer_state()}.items()}


@pytest.mark.parametrize("error", [1.001, float("inf")])
@pytest.mark.parametrize("name", STRATEGIES)
def test_processes_that_round_norms_otherwise_decide_alike(name: str, error: float) -> None:
    (first, weights), *others = run_in_processes(disagree, 2, name, error)
    assert [bad for bad, _, _ in first] == [0.0, 0.0, 0.0]
    for found, state in others:
        assert found == first
        assert all(torch.equal(value, state[key]) for key, value in weights.items())


class Counting(OneProcess):
    """Remembers the sums over processes it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.sums = 0

    def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """See `Processes`."""
        self.sums += 1
        return super().all_reduce_sum(tensor)


def test_loss_norm_and_missing_gradients_travel_in_one_message() -> None:
    strategy, model = SingleProcess(), Toy()
    strategy.processes = processes = Counting()
    forward = strategy.prepare(model, OptimConfig())
    strategy.backward(forward(torch.ones(2, 3), "body")[0])
    update = strategy.update(torch.tensor(3.0), 0.1, None)
    assert processes.sums == 1
    assert {name.partition(".")[0] for name in update.names} == {"body"}


def train(group: ProcessGroup, name: str, steps: int, resume_at: int | None = None) -> dict[str, torch.Tensor]:
    """Weights and state after some updates, with clipping; perhaps taken into a new model and strategy on the way."""
    model, strategy = Toy(width=96), make(name, group)
    forward = strategy.prepare(model, OptimConfig())
    for step in range(steps):
        if step == resume_at:
            weights, state = model.state_dict(), {k: v.clone() for k, v in strategy.optimizer_state().items()}
            model, strategy = Toy(width=96), make(name, group)
            model.load_state_dict(weights)
            forward = strategy.prepare(model, OptimConfig())
            strategy.load_optimizer_state(state)
        strategy.clear()
        with strategy.accumulate(last=True):
            loss = forward(rows_of(group, step), "all")[0]
            strategy.backward(loss)
        strategy.update(loss.detach(), 0.01, 0.1)
    return {key: value.clone() for key, value in {**model.state_dict(), **strategy.optimizer_state()}.items()}


def test_the_exact_strategy_repeats_and_resumes_bitwise() -> None:
    first, *others = run_in_processes(train, 4, "exact", 4)
    resumed = run_in_processes(train, 4, "exact", 4, 2)
    for other in [*others, *run_in_processes(train, 4, "exact", 4), *resumed]:
        assert other.keys() == first.keys()
        assert all(torch.equal(value, other[key]) for key, value in first.items())
    # With four addends the order matters: what is tested is not for free.
    (alone,) = run_in_processes(train, 1, "exact", 4)
    assert any(not torch.equal(value, alone[key]) for key, value in first.items())


def test_the_order_of_the_buffer_is_that_of_names() -> None:
    (ordered,) = run_in_processes(places, 1)
    assert ordered == sorted(ordered)


def places(group: ProcessGroup) -> list[str]:
    strategy = Exact(group)
    strategy.prepare(Toy(), OptimConfig())
    return sorted(strategy._places, key=lambda name: strategy._places[name].storage_offset())


def choose(group: ProcessGroup, wanted: str, device: str) -> str:
    try:
        config = EfficiencyConfig.model_validate({"strategy": wanted})
        return choose_strategy(config, group, torch.device(device)).name
    except ConfigError as error:
        return str(error)


def choose_all(group: ProcessGroup) -> list[str]:
    asked = [("auto", "cpu"), ("auto", "cuda"), ("ddp", "cpu"), ("exact", "cuda"), ("single", "cpu")]
    exchanging = choose_strategy(EfficiencyConfig(), group, torch.device("cuda"), exchanges=True)
    assert exchanging.name == "exact", "gradients and rows must not travel by NCCL at the same time"
    with pytest.raises(ConfigError, match="an objective compares samples of all processes, on GPUs"):
        choose_strategy(EfficiencyConfig(strategy="ddp"), group, torch.device("cuda"), exchanges=True)
    assert choose_strategy(EfficiencyConfig(strategy="ddp"), group, torch.device("cpu"), exchanges=True).name == "ddp"
    return [choose(group, *each) for each in asked]


def test_the_strategy_suits_device_and_processes() -> None:
    for *chosen, message in run_in_processes(choose_all, 2):
        assert chosen == ["exact", "ddp", "ddp", "exact"]
        assert "efficiency.strategy is 'single' and the run has 2 processes" in message
        assert "expected: auto, ddp or exact" in message
    for wanted in ("auto", "single", "ddp", "exact"):
        config = EfficiencyConfig.model_validate({"strategy": wanted})
        assert choose_strategy(config, OneProcess(), torch.device("cpu")).name == "single"


def forget(group: ProcessGroup, name: str) -> list[bool]:
    """Whether models and channels of a run that starts again are new, when the old ones are let go."""
    left = []
    for _ in range(2):
        model, strategy = Toy(), make(name, group)
        forward = strategy.prepare(model, OptimConfig())
        strategy.clear()
        strategy.backward(forward(rows_of(group, 0), "body")[0])
        strategy.update(torch.zeros(()), 0.0, None)
        gone, channel = weakref.ref(model), group.channel()
        del model, strategy, forward
        gc.collect()
        left += [gone() is None, channel is group.channel()]
    return left


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_model_that_is_let_go_is_not_kept(name: str) -> None:
    assert run_in_processes(forget, 2, name) == [[True] * 4] * 2
