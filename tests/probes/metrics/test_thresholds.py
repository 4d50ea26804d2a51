"""Decisions, and thresholds against a search of all of them."""

import numpy as np
import pytest
from sklearn import metrics as sk

from facemae.errors import ProbeError
from facemae_probes.metrics import decide, fit_thresholds
from facemae_probes.tasks.targets import MISSING, Targets
from tests.probes.metrics.cases import case


def test_decisions() -> None:
    scores = np.array([[0.2, 0.5], [0.6, 0.1], [0.3, 0.3]])
    assert decide(scores, "classes").tolist() == [1, 0, 0]
    assert decide(scores, "multilabel").tolist() == [[0, 1], [1, 0], [0, 0]]
    assert decide(scores, "multilabel", np.array([0.2, 0.6])).tolist() == [[1, 0], [1, 0], [1, 0]]
    with pytest.raises(ProbeError, match="predicted numbers need no decision"):
        decide(scores, "regression")


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_gives_a_larger_f1(seed: int) -> None:
    targets, scores, _ = case("multilabel", seed, count=40)
    limits = fit_thresholds(targets, scores)
    for c in range(3):
        known = targets.values[:, c] != MISSING
        truth, column = targets.values[known, c], scores[known, c].astype(np.float64)
        best = max(sk.f1_score(truth, column >= level) for level in column)
        assert sk.f1_score(truth, column >= limits[c]) == pytest.approx(best)
        assert best >= sk.f1_score(truth, column >= 0.5)
        assert column.min() <= limits[c] <= column.max()


def test_a_threshold_is_halfway_and_without_a_positive_it_stays_at_one_half() -> None:
    values = np.array([[1, 0, MISSING, 1], [0, 0, MISSING, 0], [MISSING, 0, MISSING, 1]])
    scores = np.array([[0.9, 0.9, 0.9, 0.2], [0.3, 0.9, 0.9, 0.2], [0.8, 0.9, 0.9, 0.2]])
    found = fit_thresholds(Targets("multilabel", ("a", "none", "unknown", "tied"), values), scores)
    assert found.tolist() == pytest.approx([0.6, 0.5, 0.5, 0.2])


def test_of_equally_good_thresholds_the_one_nearest_to_one_half() -> None:
    # Three of four decided positive give the largest F1, 4/5; halfway between 0.7 and 0.1.
    values = np.array([[1], [0], [1], [0]])
    found = fit_thresholds(Targets("multilabel", ("a",), values), np.array([[0.9], [0.8], [0.7], [0.1]]))
    assert found[0] == pytest.approx(0.4)
    even = Targets("multilabel", ("a",), np.array([[1], [0], [0], [1]]))
    # For the first alone F1 is 2/3, for all four too.
    assert fit_thresholds(even, np.array([[0.9], [0.5], [0.4], [0.3]]))[0] == pytest.approx(0.7)


def test_only_binary_columns_have_thresholds() -> None:
    targets, scores, _ = case("classes", 0)
    with pytest.raises(ProbeError, match="thresholds of labels of kind classes"):
        fit_thresholds(targets, scores)
