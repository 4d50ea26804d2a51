"""Two models on the same samples: the interval of their difference, and the randomisation test."""

import numpy as np
import pytest
from sklearn import metrics as sk

from facemae.errors import ProbeError
from facemae.rng import generator
from facemae_probes.metrics import evaluate, paired_difference, paired_test
from facemae_probes.tasks.targets import Kind, Targets
from tests.probes.metrics.cases import PAIRS, case


def _one_hot(guess: np.ndarray, width: int = 3) -> np.ndarray:
    return np.asarray(np.eye(width, dtype=np.float32)[guess])


def _steady_gain() -> tuple[Targets, np.ndarray, np.ndarray]:
    """400 samples; one model is right on 16 more than the other and equal elsewhere."""
    rng = generator(2, "paired")
    truth = rng.integers(3, size=400)
    worse = np.where(rng.random(400) < 0.6, truth, (truth + 1) % 3)
    better = worse.copy()
    better[np.flatnonzero(worse != truth)[:16]] = truth[np.flatnonzero(worse != truth)[:16]]
    return Targets("classes", ("a", "b", "c"), truth), _one_hot(better), _one_hot(worse)


def test_pairing_makes_a_small_steady_gain_visible() -> None:
    targets, better, worse = _steady_gain()
    found = paired_difference(targets, better, worse, np.arange(400), "accuracy", unit="sample")
    assert found.value == pytest.approx(0.04)
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < 0.04 < found.high
    mirrored = paired_difference(targets, worse, better, np.arange(400), "accuracy", unit="sample")
    assert mirrored.high == pytest.approx(-found.low)
    assert paired_test(targets, better, worse, np.arange(400), "accuracy", unit="sample", replicates=2000).p < 0.005


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_the_difference_is_that_of_the_metrics_and_a_model_equals_itself(name: str, kind: Kind) -> None:
    targets, first, thresholds = case(kind, 3)
    second = first[::-1].copy()
    limits = (thresholds, thresholds)
    units = np.arange(60) // 3
    found = paired_difference(targets, first, second, units, name, unit="subject", thresholds=limits, replicates=50)
    tested = paired_test(targets, first, second, units, name, unit="subject", thresholds=limits, replicates=50)
    each = [evaluate(targets, scores, thresholds=thresholds) for scores in (first, second)]
    if name in each[0]:
        assert found.value == pytest.approx(each[0][name] - each[1][name])
    assert tested.difference == pytest.approx(found.value)
    assert 1 / 51 <= tested.p <= 1
    same = paired_test(targets, first, first, units, name, unit="subject", thresholds=limits, replicates=20)
    assert (same.difference, same.p) == (0, 1)


def test_the_p_value_equals_a_loop_that_swaps_predictions() -> None:
    targets, first, _ = case("classes", 4)
    second = first[::-1].copy()
    units = np.arange(60) // 4
    found = paired_test(targets, first, second, units, "macro_f1", unit="subject", replicates=40, seed=5)

    def score(scores: np.ndarray) -> float:
        guess = scores.argmax(axis=1)
        return float(sk.f1_score(targets.values, guess, labels=range(4), average="macro", zero_division=0))

    reached = 0
    for replicate in range(40):
        swapped = generator(5, "swap", replicate).integers(2, size=15, dtype=np.uint8)[units][:, None] == 1
        one, other = np.where(swapped, second, first), np.where(swapped, first, second)
        reached += abs(score(one) - score(other)) >= abs(score(first) - score(second)) - 1e-12
    assert found.p == (1 + reached) / 41


@pytest.mark.parametrize(("name", "kind"), [("accuracy", "classes"), ("auc", "multilabel"), ("ccc", "regression")])
def test_without_a_difference_p_is_about_uniform(name: str, kind: Kind) -> None:
    values = []
    for trial in range(60):
        targets, first, _ = case(kind, trial, count=80)
        # As good as the first, with noise of its own.
        noise = generator(trial, "null").normal(0, 0.2, size=(2, *first.shape))
        pair = np.clip(first + noise, 0, 1) if kind != "regression" else first + 3 * noise
        tested = paired_test(targets, pair[0], pair[1], np.arange(80), name, unit="sample", replicates=99, seed=trial)
        values.append(tested.p)
    # Of 60 uniform values 3 are expected below 0.05 and 30 below 0.5; these bounds are more than three sigma away.
    assert np.sum(np.array(values) <= 0.05) <= 9
    assert 18 <= np.sum(np.array(values) <= 0.5) <= 44


def test_a_model_on_another_scale_has_the_same_order() -> None:
    rng = generator(1, "scale")
    targets = Targets("multilabel", ("x",), rng.integers(2, size=(200, 1)))
    first = 1 / (1 + np.exp(-(rng.normal(size=(200, 1)) + targets.values)))
    noisy = 1 / (1 + np.exp(-(rng.normal(size=(200, 1)) * 3 + targets.values)))
    plain = paired_test(targets, first, noisy, np.arange(200), "auc", unit="sample", replicates=300)
    moved = paired_test(targets, first, 0.1 * noisy**2, np.arange(200), "auc", unit="sample", replicates=300)
    assert moved.p == plain.p < 0.1


def test_repeats_are_swapped_together() -> None:
    targets, better, worse = _steady_gain()
    one = paired_test(targets, better, worse, np.arange(400), "uar", unit="sample", replicates=200)
    first, second = np.stack([better, better]), np.stack([worse, worse])
    both = paired_test(targets, first, second, np.arange(400), "uar", unit="sample", replicates=200)
    assert both.p == one.p
    assert both.difference == pytest.approx(one.difference)


def test_what_cannot_be_compared_is_refused() -> None:
    targets, first, _ = case("multilabel", 1)
    with pytest.raises(ProbeError, match="same test samples"):
        paired_difference(targets, first, first[:-1], np.arange(60), "macro_f1", unit="sample")
    with pytest.raises(ProbeError, match="as many repeats"):
        paired_test(targets, first[None], np.stack([first, first]), np.arange(60), "macro_f1", unit="sample")
    with pytest.raises(ProbeError, match="auc:d is undefined on these samples"):
        paired_test(targets, first, first, np.arange(60), "auc:d", unit="sample")
