"""Metrics against scikit-learn, and the bootstrap against what it promises."""

import numpy as np
import pytest
from sklearn import metrics as sk

from facemae.errors import ProbeError
from facemae.rng import generator
from facemae_probes.bootstrap import interval, paired_difference
from facemae_probes.metrics import MISSING, decide, evaluate, score

NAMES = ("a", "b", "c", "never")


def _labels(count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = generator(0, "metrics")
    truth = rng.integers(3, size=count)
    return truth, np.where(rng.random(count) < 0.6, truth, rng.integers(3, size=count))


def test_class_metrics_equal_scikit_learns_and_keep_absent_classes() -> None:
    truth, guess = _labels()
    found = evaluate(truth, guess, NAMES, "classes")
    assert found["accuracy"] == sk.accuracy_score(truth, guess)
    assert found["macro_f1"] == sk.f1_score(truth, guess, labels=range(4), average="macro", zero_division=0)
    assert found["recall"]["b"] == sk.recall_score(truth, guess, labels=[1], average=None)[0]
    assert found["recall"]["never"] == 0
    assert found["support"]["never"] == 0
    assert found["confusion"] == sk.confusion_matrix(truth, guess, labels=range(4)).tolist()
    assert score(truth, guess, 4, "classes") == found["accuracy"]


def test_column_metrics_leave_out_what_was_not_coded() -> None:
    truth = np.array([[1, 0], [1, MISSING], [0, 1], [0, 1]])
    guess = np.array([[1, 1], [0, 0], [0, 1], [1, 1]])
    found = evaluate(truth, guess, ("AU1", "AU2"), "multilabel")
    assert found["f1"] == {"AU1": pytest.approx(0.5), "AU2": pytest.approx(0.8)}
    assert found["macro_f1"] == pytest.approx(0.65)
    assert found["recall"] == {"AU1": 0.5, "AU2": 1.0}
    assert found["support"] == {"AU1": 2, "AU2": 2}
    assert score(truth, guess, 2, "multilabel") == found["macro_f1"]


def test_decisions() -> None:
    scores = np.array([[0.2, 0.5], [0.6, 0.1]])
    assert decide(scores, "classes").tolist() == [1, 0]
    assert decide(scores, "multilabel").tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_the_interval_is_around_the_value_that_evaluate_gives(metric: str) -> None:
    truth, guess = _labels()
    found = interval(truth, guess, np.arange(200), classes=4, kind="classes", unit="sample", metric=metric)
    assert found.value == pytest.approx(evaluate(truth, guess, NAMES, "classes")[metric])
    assert found.low < found.value < found.high
    assert (found.unit, found.units, found.replicates) == ("sample", 200, 2000)


def test_column_interval_agrees_with_evaluate() -> None:
    truth = np.array([[1, 0], [1, MISSING], [0, 1], [0, 1]] * 10)
    guess = np.array([[1, 1], [0, 0], [0, 1], [1, 1]] * 10)
    for metric in ("accuracy", "macro_f1"):
        found = interval(truth, guess, np.arange(40), classes=2, kind="multilabel", unit="sample", metric=metric)
        assert found.value == pytest.approx(evaluate(truth, guess, ("x", "y"), "multilabel")[metric])


def test_about_95_of_100_intervals_cover_the_true_accuracy() -> None:
    covered = 0
    for trial in range(100):
        right = generator(trial, "coverage").random(150) < 0.7
        truth = np.ones(150, dtype=np.int64)
        found = interval(
            truth, right.astype(np.int64), np.arange(150), classes=2, kind="classes", unit="sample", replicates=400
        )
        covered += found.low <= 0.7 <= found.high
    assert 88 <= covered <= 100


def test_dependent_samples_widen_the_interval() -> None:
    subjects = np.repeat(np.arange(20), 10)
    right = np.repeat(generator(5, "subjects").random(20) < 0.6, 10).astype(np.int64)
    truth = np.ones(200, dtype=np.int64)

    def width(units: np.ndarray) -> float:
        found = interval(truth, right, units, classes=2, kind="classes", unit="subject")
        return found.high - found.low

    assert width(subjects) > 2 * width(np.arange(200))


def test_pairing_makes_a_small_steady_gain_visible() -> None:
    rng = generator(2, "paired")
    truth = rng.integers(3, size=400)
    worse = np.where(rng.random(400) < 0.6, truth, (truth + 1) % 3)
    better = worse.copy()
    better[np.flatnonzero(worse != truth)[:16]] = truth[np.flatnonzero(worse != truth)[:16]]
    found = paired_difference(truth, better, worse, np.arange(400), classes=3, kind="classes", unit="sample")
    assert found.value == pytest.approx(0.04)
    assert 0 < found.low < 0.04 < found.high
    mirrored = paired_difference(truth, worse, better, np.arange(400), classes=3, kind="classes", unit="sample")
    assert mirrored.high == pytest.approx(-found.low)


def test_what_cannot_be_measured_is_refused() -> None:
    empty = np.empty(0, dtype=np.int64)
    with pytest.raises(ProbeError, match="no test sample"):
        interval(empty, empty, empty, classes=2, kind="classes", unit="sample")
    some = np.zeros(3, dtype=np.int64)
    with pytest.raises(ProbeError, match="same test samples"):
        paired_difference(some, some, some[:2], some, classes=2, kind="classes", unit="sample")
