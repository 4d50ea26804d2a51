"""Every metric against scikit-learn or its definition, on random cases and at the edges."""

import numpy as np
import pytest
from sklearn import metrics as sk

from facemae.errors import ProbeError
from facemae_probes.metrics import METRICS, evaluate, intervals
from facemae_probes.metrics.base import as_predicted
from facemae_probes.tasks.targets import MISSING, Kind, Targets
from tests.probes.metrics.cases import PAIRS, case, mean, reference


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_a_metric_equals_its_reference(name: str, kind: Kind, seed: int) -> None:
    targets, scores, thresholds = case(kind, seed, count=(60, 7, 1, 300)[seed])
    found = METRICS[name].values(as_predicted(targets, scores, thresholds)[0])
    assert found == pytest.approx(reference(name, targets, scores, thresholds), nan_ok=True, abs=1e-12)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_evaluate_gives_the_mean_of_what_is_defined(name: str, kind: Kind) -> None:
    targets, scores, thresholds = case(kind, 9)
    found = evaluate(targets, scores, thresholds=thresholds)
    values = reference(name, targets, scores, thresholds)
    if name not in found:
        assert (name, kind) in {
            ("cross_entropy", "classes"),
            ("mean_average_precision", "classes"),
            ("mean_average_precision", "distribution"),
        }
        return
    assert found[name] == pytest.approx(mean(values), abs=1e-12)


def test_an_absent_class_stays_in_the_means() -> None:
    targets = Targets("classes", ("a", "b", "never"), np.array([0, 0, 1, 1]))
    perfect = np.eye(3, dtype=np.float32)[targets.values]
    found = evaluate(targets, perfect)
    assert found["accuracy"] == 1
    assert found["mean_recall"] == found["macro_f1"] == pytest.approx(2 / 3)
    assert found["recall"] == {"a": 1, "b": 1, "never": 0}
    assert found["support"] == {"a": 2, "b": 2, "never": 0}
    # An order needs positives and negatives, so the class that has none has no area.
    assert found["auc_by_name"] == {"a": 1, "b": 1, "never": None}
    assert found["auc"] == 1


def test_a_class_that_the_tested_set_never_had_is_in_no_mean() -> None:
    truth = np.array([0, 0, 0, 1, 1, 1])
    targets = Targets("classes", ("a", "b", "never"), truth, meant=(0, 1))
    guess = np.array([0, 0, 2, 1, 1, 0])
    found = evaluate(targets, np.eye(3, dtype=np.float32)[guess])
    for name, score in (("mean_recall", sk.recall_score), ("macro_f1", sk.f1_score)):
        assert found[name] == pytest.approx(score(truth, guess, labels=[0, 1], average="macro"))
    assert found["recall"]["never"] is None
    part = targets.take(truth == 0)
    scores = np.eye(3, dtype=np.float32)[guess[:3]]
    assert evaluate(part, scores)["mean_recall"] == pytest.approx((2 / 3 + 0) / 2), (
        "a part keeps the classes of the whole"
    )
    bounds = intervals(targets, np.eye(3, dtype=np.float32)[truth], np.arange(6), ["mean_recall"], unit="sample")
    assert bounds["mean_recall"].value == bounds["mean_recall"].high == 1


def test_a_column_without_a_coded_label_has_no_value_and_one_without_a_positive_has_f1_zero() -> None:
    targets = Targets("multilabel", ("AU1", "AU2", "AU4"), np.array([[1, 0, MISSING], [0, 0, MISSING]]))
    found = evaluate(targets, np.array([[0.9, 0.1, 0.9], [0.1, 0.1, 0.9]], dtype=np.float32))
    assert found["f1"] == {"AU1": 1, "AU2": 0, "AU4": None}
    assert found["macro_f1"] == 0.5
    assert found["accuracy_by_name"] == {"AU1": 1, "AU2": 1, "AU4": None}
    assert found["confusion"]["AU4"] == [[0, 0], [0, 0]]


def test_tied_scores_are_half_a_pair() -> None:
    targets = Targets("multilabel", ("x",), np.array([[1], [0], [1], [0]]))
    found = evaluate(targets, np.full((4, 1), 0.5, dtype=np.float32))
    assert found["auc"] == 0.5
    assert found["mean_average_precision"] == 0.5


def test_cross_entropy_of_classes_is_scikit_learns_log_loss_also_where_a_class_got_nothing() -> None:
    targets, scores, _ = case("classes", 2)
    scores[:5] = np.eye(4, dtype=np.float32)[[3, 3, 0, 1, 2]]
    found = METRICS["cross_entropy"].values(as_predicted(targets, scores)[0])[0]
    assert found == pytest.approx(sk.log_loss(targets.values, scores, labels=range(4)), rel=1e-6)


def test_concordance_of_numbers_that_do_not_vary() -> None:
    def ccc(truth: list[float], guess: list[float]) -> float:
        targets = Targets("regression", ("v",), np.array(truth)[:, None])
        return float(METRICS["ccc"].values(as_predicted(targets, np.array(guess)[:, None])[0])[0])

    assert ccc([1e6, 1e6 + 1, 1e6 + 2], [1e6, 1e6 + 1, 1e6 + 2]) == pytest.approx(1)
    assert ccc([0.1, 0.2, 0.3], [0.7, 0.7, 0.7]) == 0
    assert ccc([0.1, 0.1, 0.1], [0.7, 0.7, 0.7]) == 0
    assert np.isnan(ccc([0.1, 0.1, 0.1], [0.1, 0.1, 0.1]))
    # Half the size and moved by one: 2 * cov / (var + var + shift^2), written out.
    assert ccc([0.0, 2.0], [1.0, 2.0]) == pytest.approx(2 * 0.5 / (1 + 0.25 + 0.25))


@pytest.mark.parametrize("kind", ["classes", "multilabel", "distribution", "regression"])
def test_no_sample_at_all_gives_counts_of_zero_and_no_values(kind: Kind) -> None:
    targets, scores, thresholds = case(kind, 0)
    found = evaluate(targets.take(np.arange(0)), scores[:0], thresholds=thresholds)
    assert found.pop("count") == 0
    assert set(found.pop("support").values()) == {0}
    assert not np.any([cell for row in found.pop("confusion", {}) or [] for cell in row if not isinstance(cell, str)])
    for name, value in found.items():
        assert value is None or set(value.values()) == {None}, name


def test_scores_that_do_not_fit_are_refused() -> None:
    targets, scores, thresholds = case("multilabel", 0)
    with pytest.raises(ProbeError, match=r"shape \(60, 3\) for 60 samples with 4 classes or columns"):
        evaluate(targets, scores[:, :3])
    with pytest.raises(ProbeError, match=r"from -5 to .* for labels of kind multilabel"):
        evaluate(targets, np.where(scores > 0.5, scores, -5))
    with pytest.raises(ProbeError, match="not finite"):
        evaluate(targets, np.where(scores > 0.5, scores, np.nan))
    with pytest.raises(ProbeError, match=r"thresholds of shape \(3,\)"):
        evaluate(targets, scores, thresholds=thresholds[:3])
    with pytest.raises(ProbeError, match=r"shape \(0, 60, 4\)"):
        evaluate(targets, np.empty((0, 60, 4)))
    votes, shares, _ = case("distribution", 0)
    with pytest.raises(ProbeError, match=r"sum differs from 1 by 0\.5"):
        evaluate(votes, shares / 2)
