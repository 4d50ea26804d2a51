"""Schedules: pure functions of samples, with the values of MAE's."""

import math
from collections.abc import Callable

import pytest

from facemae.config import Recipe
from facemae.train.optim.schedule import Lengths, averaging_rate, due, learning_rate


@pytest.fixture
def lengths(tiny: Callable[..., Recipe]) -> Lengths:
    return Lengths.resolve(tiny("optim.total=10 epochs", "optim.warmup=10 percent"), epoch=36)


def test_lengths_count_samples(lengths: Lengths) -> None:
    assert lengths == Lengths(epoch=36, batch=8, total=360, warmup=36, ema=16, save=16, pictures=32)
    assert lengths.steps == 45


def test_a_run_is_whole_steps_and_at_least_one(tiny: Callable[..., Recipe]) -> None:
    assert Lengths.resolve(tiny("optim.total=9 samples"), epoch=36).total == 16
    assert Lengths.resolve(tiny("optim.total=0 samples"), epoch=36).total == 8


def test_learning_rate(tiny: Callable[..., Recipe], lengths: Lengths) -> None:
    optim = tiny("optim.base_lr=0.32", "optim.min_lr=0.001").optim
    peak = 0.32 * 8 / 256
    assert learning_rate(optim, lengths, 0) == 0
    assert learning_rate(optim, lengths, 18) == pytest.approx(peak / 2)
    assert learning_rate(optim, lengths, 36) == pytest.approx(peak)
    assert learning_rate(optim, lengths, 198) == pytest.approx(0.001 + (peak - 0.001) / 2)
    assert learning_rate(optim, lengths, 117) == pytest.approx(
        0.001 + (peak - 0.001) * 0.5 * (1 + math.cos(math.pi / 4))
    )
    assert learning_rate(optim, lengths, 360) == pytest.approx(0.001)


def test_averaging_halves_over_its_half_life_whatever_the_batch() -> None:
    for batch in (8, 32):
        kept = math.prod(1 - averaging_rate(320, 10**6, batch) for _ in range(320 // batch))
        assert kept == pytest.approx(0.5)


def test_the_average_forgets_the_start() -> None:
    # The half-life grows with the run: what was there at sample 0 is gone after a few steps.
    assert averaging_rate(10**9, 8, 8) == pytest.approx(1 - 0.5**20)


def test_due_once_for_every_multiple() -> None:
    assert [samples for samples in range(8, 81, 8) if due(20, samples, 8)] == [24, 40, 64, 80]
    assert all(due(3, samples, 8) for samples in range(8, 81, 8))
