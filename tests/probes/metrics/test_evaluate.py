"""What a result prints, and what choosing goes by."""

import json

import numpy as np
import pytest
from sklearn import metrics as sk

from facemae.errors import ProbeError, UsageError
from facemae_probes.metrics import decide, evaluate, judge
from facemae_probes.tasks.targets import KINDS, Kind
from tests.probes.metrics.cases import case, mean, reference


def test_the_keys_of_classes() -> None:
    targets, scores, _ = case("classes", 1)
    found = evaluate(targets, scores)
    keys = {"count", "accuracy", "macro_f1", "mean_recall", "recall", "f1", "support", "confusion", "auc", "ece"}
    assert keys <= set(found)
    guess = decide(scores, "classes")
    assert found["confusion"] == sk.confusion_matrix(targets.values, guess, labels=range(4)).tolist()
    assert found["recall"]["b"] == sk.recall_score(targets.values, guess, labels=[1], average=None)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_json_without_nan(kind: Kind) -> None:
    targets, scores, thresholds = case(kind, 1)
    for rows in (60, 1, 0):
        found = evaluate(targets.take(np.arange(rows)), scores[:rows], thresholds=thresholds)
        assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_fitted_thresholds_are_a_line_of_their_own() -> None:
    targets, scores, thresholds = case("multilabel", 1)
    plain, fitted = evaluate(targets, scores), evaluate(targets, scores, thresholds=thresholds)
    assert set(fitted) - set(plain) == {"macro_f1_fitted", "f1_fitted"}
    assert {key: fitted[key] for key in plain} == plain
    # Folds have thresholds of their own: one a sample is the same as one for all where they agree.
    assert evaluate(targets, scores, thresholds=np.tile(thresholds, (60, 1))) == fitted


def test_repeats_are_averaged() -> None:
    targets, first, _ = case("classes", 1)
    second = first[::-1].copy()
    each = [evaluate(targets, scores) for scores in (first, second)]
    found = evaluate(targets, np.stack([first, second]))
    assert found["repeats"] == 2
    assert found["count"] == 60
    for name in ("accuracy", "macro_f1", "auc", "ece"):
        assert found[name] == pytest.approx((each[0][name] + each[1][name]) / 2)
        assert found["deviation"][name] == pytest.approx(np.std([one[name] for one in each], ddof=1))
    assert found["recall"]["a"] == pytest.approx((each[0]["recall"]["a"] + each[1]["recall"]["a"]) / 2)
    assert np.array_equal(found["confusion"], np.add(each[0]["confusion"], each[1]["confusion"]))
    assert json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("kind", "metric", "sign"),
    [("classes", "war", 1), ("distribution", "kl", -1), ("regression", "rmse", -1), ("multilabel", "f1:b", 1)],
)
def test_judging_turns_losses_around(kind: Kind, metric: str, sign: int) -> None:
    targets, scores, thresholds = case(kind, 3)
    names = {"war": "accuracy", "f1:b": "macro_f1"}
    values = reference(names.get(metric, metric), targets, scores, thresholds)
    wanted = values[1] if ":" in metric else mean(values)
    assert judge(targets, scores, metric) == pytest.approx(sign * wanted)


def test_what_has_no_value_is_never_chosen_and_what_is_not_there_is_refused() -> None:
    targets, scores, _ = case("multilabel", 3)
    assert judge(targets, scores, "auc:d") == float("-inf")
    with pytest.raises(ProbeError, match="no sample to judge by"):
        judge(targets.take(np.arange(0)), scores[:0], "macro_f1")
    with pytest.raises(ProbeError, match="no thresholds to decide at"):
        judge(targets, scores, "macro_f1_fitted")
    with pytest.raises(UsageError, match="no metric 'rmse'"):
        judge(targets, scores, "rmse")
