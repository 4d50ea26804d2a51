"""The bootstrap against a plain loop with the same draws, and against what it promises."""

import json
from dataclasses import replace

import numpy as np
import pytest

from facemae.errors import ProbeError, UsageError
from facemae.rng import generator
from facemae_probes.metrics import METRICS, evaluate, interval, intervals
from facemae_probes.metrics import draws as draws_file
from facemae_probes.metrics.base import Units, as_predicted
from facemae_probes.metrics.draws import bootstrap, replicate_values
from facemae_probes.metrics.registry import measure_of
from facemae_probes.tasks.targets import Kind, Targets
from tests.probes.metrics.cases import PAIRS, case, mean, reference


def _binary(right: np.ndarray) -> tuple[Targets, np.ndarray]:
    """Samples of one class, decided rightly or not."""
    scores = np.stack([1 - right.astype(np.float32), right.astype(np.float32)], axis=1)
    return Targets("classes", ("no", "yes"), np.ones(len(right), dtype=np.int64)), scores


def _units(seed: int, count: int = 60) -> np.ndarray:
    """About 20 units with gaps between their numbers."""
    return np.asarray(generator(seed, "units").integers(20, size=count) * 3 + 100)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_replicates_equal_a_loop_that_draws_units_and_computes_the_metric(name: str, kind: Kind) -> None:
    targets, scores, thresholds = case(kind, 5)
    numbers = _units(5)
    units = Units.of(numbers)
    measure = measure_of(name, targets)
    repeats = as_predicted(targets, scores, thresholds)
    drawn = bootstrap(units.count, 12, 7, samples=60)
    (found,) = replicate_values([measure.statistic(repeats, units)], drawn)
    rows_of = [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
    for replicate in range(12):
        chosen = generator(7, "bootstrap", replicate).integers(units.count, size=units.count, dtype=np.uint32)
        rows = np.concatenate([rows_of[unit] for unit in chosen])
        wanted = mean(reference(name, targets.take(rows), scores[rows], thresholds))
        assert found[replicate] == pytest.approx(wanted, nan_ok=True, abs=1e-10)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_the_interval_is_around_the_metric(name: str, kind: Kind) -> None:
    targets, scores, thresholds = case(kind, 6)
    found = interval(targets, scores, _units(6), name, unit="subject", thresholds=thresholds, replicates=200)
    assert found.value == pytest.approx(mean(reference(name, targets, scores, thresholds)), abs=1e-12)
    everything = evaluate(targets, scores, thresholds=thresholds)
    assert found.value == everything.get(name, found.value)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.high
    assert (found.metric, found.unit, found.units, found.replicates) == (name, "subject", len(set(_units(6))), 200)
    json.dumps(found.to_json(), allow_nan=False)


def test_one_class_has_an_interval() -> None:
    targets, scores, _ = case("classes", 6)
    found = interval(targets, scores, _units(6), "recall:b", unit="subject", replicates=200)
    assert found.value == evaluate(targets, scores)["recall"]["b"]


def test_about_95_of_100_intervals_cover_the_true_value() -> None:
    covered = {"accuracy": 0, "auc": 0}
    trials = 100
    for trial in range(trials):
        rng = generator(trial, "coverage")
        hits, scores = _binary(rng.random(150) < 0.7)
        right = interval(hits, scores, np.arange(150), "accuracy", unit="sample", replicates=150, seed=trial)
        # Two normal variables one apart: the area under the curve is Phi(1 / sqrt 2) = 0.7602.
        truth = rng.integers(2, size=(150, 1))
        chance = 1 / (1 + np.exp(-(rng.normal(size=(150, 1)) + truth)))
        ranked = Targets("multilabel", ("x",), truth)
        area = interval(ranked, chance, np.arange(150), "auc", unit="sample", replicates=150, seed=trial)
        for name, found, true in (("accuracy", right, 0.7), ("auc", area, 0.7602)):
            assert found.low is not None
            assert found.high is not None
            covered[name] += found.low <= true <= found.high
    assert 0.87 * trials <= covered["accuracy"] <= trials
    assert 0.87 * trials <= covered["auc"] <= trials


def test_dependent_samples_widen_the_interval() -> None:
    subjects = np.repeat(np.arange(20), 10)
    targets, scores = _binary(np.repeat(generator(5, "subjects").random(20) < 0.6, 10))

    def width(units: np.ndarray) -> float:
        found = interval(targets, scores, units, "accuracy", unit="subject")
        assert found.low is not None
        assert found.high is not None
        return found.high - found.low

    assert width(subjects) > 2 * width(np.arange(200))


def test_repeats_share_their_draws_and_their_spread_is_told() -> None:
    targets, first, _ = case("classes", 8)
    second = np.roll(first, 1, axis=0)
    units = _units(8)
    each = [evaluate(targets, scores)["macro_f1"] for scores in (first, second)]
    both = interval(targets, np.stack([first, second]), units, "macro_f1", unit="subject", replicates=50)
    assert both.value == pytest.approx(np.mean(each))
    assert both.repeats == 2
    assert both.deviation == pytest.approx(np.std(each, ddof=1))
    drawn = Units.of(units)
    measure = measure_of("macro_f1", targets)
    parts = [as_predicted(targets, scores) for scores in (first, second)]
    lists = [*parts, parts[0] + parts[1]]
    one, other, joined = replicate_values(
        [measure.statistic(part, drawn) for part in lists], bootstrap(drawn.count, 50, 0, samples=60)
    )
    assert joined == pytest.approx((one + other) / 2)
    alike = interval(targets, np.stack([first, first]), units, "macro_f1", unit="subject", replicates=50)
    assert alike.deviation == 0


def test_neither_blocks_nor_the_number_of_replicates_change_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    few = np.concatenate(list(bootstrap(20, 10, 3, samples=20)), axis=1)
    monkeypatch.setattr(draws_file, "BLOCK", 60)
    blocks = list(bootstrap(20, 13, 3, samples=20))
    assert [block.shape for block in blocks] == [(20, 3)] * 4 + [(20, 1)]
    assert np.array_equal(np.concatenate(blocks, axis=1)[:, :10], few)
    assert np.all(few.sum(axis=0) == 20)
    assert len(list(bootstrap(20, 2, 3, samples=1000))) == 2


def test_replicates_without_a_value_are_left_out_and_counted() -> None:
    # One positive: a draw lacks it with probability (1 - 1/30)^30 = 0.36, and then there is no order.
    values = np.zeros((30, 1), dtype=np.int64)
    values[0] = 1
    scores = np.linspace(0.1, 0.9, 30)[:, None]
    found = interval(Targets("multilabel", ("x",), values), scores, np.arange(30), "auc", unit="sample", replicates=500)
    assert 100 < found.undefined < 260
    assert found.value == found.low == 0
    targets = Targets("multilabel", ("x",), np.zeros((30, 1), dtype=np.int64))
    never = interval(targets, scores, np.arange(30), "auc", unit="sample", replicates=20)
    assert (never.value, never.low, never.high, never.undefined) == (None, None, None, 20)


def test_a_class_that_a_draw_lacks_has_no_value_in_it() -> None:
    targets = Targets("classes", ("a", "b"), np.array([0] * 29 + [1]))
    scores = np.eye(2, dtype=np.float32)[targets.values]
    found = interval(targets, scores, np.arange(30), "uar", unit="sample", replicates=500)
    assert (found.value, found.low, found.high, found.undefined) == (1, 1, 1, 0)
    # A class that the whole test part lacks is another matter: the model could only get it wrong.
    lacking = replace(targets, names=("a", "b", "c"))
    found = interval(
        lacking, np.eye(3, dtype=np.float32)[targets.values], np.arange(30), "uar", unit="sample", replicates=500
    )
    assert found.value == pytest.approx(2 / 3)
    # Draws without b are over a and c, the others over all three.
    assert found.low == pytest.approx(1 / 2)
    assert found.high == pytest.approx(2 / 3)


def test_one_unit_gives_no_ends() -> None:
    targets, scores, _ = case("classes", 1)
    found = interval(targets, scores, np.zeros(60, dtype=np.int64), "accuracy", unit="subject", replicates=20)
    assert found.value == evaluate(targets, scores)["accuracy"]
    assert (found.low, found.high, found.units) == (None, None, 1)


def test_what_cannot_be_measured_is_refused() -> None:
    targets, scores, _ = case("multilabel", 1)
    units = np.arange(60)
    with pytest.raises(ProbeError, match="no test sample"):
        interval(targets.take(np.arange(0)), scores[:0], units[:0], "macro_f1", unit="sample")
    with pytest.raises(ProbeError, match=r"unit numbers of shape \(59,\) for 60 samples"):
        interval(targets, scores, units[:-1], "macro_f1", unit="sample")
    with pytest.raises(ProbeError, match="no thresholds"):
        interval(targets, scores, units, "macro_f1_fitted", unit="sample")
    with pytest.raises(ProbeError, match=r"level 95 with 2000 replicates"):
        interval(targets, scores, units, "macro_f1", unit="sample", level=95)
    with pytest.raises(UsageError, match="no metric 'f2'"):
        intervals(targets, scores, units, ["macro_f1", "f2"], unit="sample")


def test_several_metrics_are_the_same_as_one_by_one() -> None:
    targets, scores, _ = case("classes", 2)
    together = intervals(targets, scores, np.arange(60), ["war", "auc", "ece"], unit="sample", replicates=50)
    assert list(together) == ["war", "auc", "ece"]
    for name, found in together.items():
        assert found == interval(targets, scores, np.arange(60), name, unit="sample", replicates=50)
    assert intervals(targets, scores, np.arange(60), [], unit="sample") == {}


def test_all_metrics_are_covered_here() -> None:
    assert {name for name, _ in PAIRS} == set(METRICS)
