"""Metrics by name, and what an unknown name is told."""

from dataclasses import replace

import pytest

from facemae.errors import UsageError
from facemae_probes.metrics import METRICS, find_metric, legal_names, primary, register
from facemae_probes.tasks.targets import KINDS


def test_the_fields_names_mean_the_same_and_are_shown() -> None:
    for alias, name, title in (("war", "accuracy", "WAR"), ("uar", "mean_recall", "UAR"), ("uf1", "macro_f1", "UF1")):
        found = find_metric(alias, "classes")
        assert (found.metric.name, found.title, found.name) == (name, title, alias)
    assert find_metric("accuracy", "classes").title == "accuracy"


def test_one_class_of_a_metric() -> None:
    found = find_metric("recall:happy", "classes", ("sad", "happy"))
    assert (found.metric.name, found.place, found.title) == ("mean_recall", 1, "recall of happy")
    with pytest.raises(
        UsageError, match=r"no class or column 'hapy' for metric 'recall:hapy'(.|\n)*did you mean happy"
    ):
        find_metric("recall:hapy", "classes", ("sad", "happy"))


def test_an_unknown_name_is_told_the_nearest_and_all() -> None:
    with pytest.raises(UsageError) as raised:
        find_metric("macro_f2", "multilabel", ("AU1",))
    assert "no metric 'macro_f2' for labels of kind multilabel" in str(raised.value)
    assert "did you mean macro_f1" in str(raised.value)
    assert all(name in str(raised.value) for name in legal_names("multilabel"))
    with pytest.raises(UsageError, match="no metric 'ccc' for labels of kind classes"):
        find_metric("ccc", "classes")
    with pytest.raises(UsageError, match="no metric 'accuracy:a'"):
        find_metric("accuracy:a", "classes", ("a",))
    assert find_metric("accuracy:a", "multilabel", ("a",)).place == 0


def test_two_metrics_of_one_name_are_refused() -> None:
    assert set(register(METRICS.values(), {})) == set(METRICS)
    for name in ("accuracy", "war", "recall"):
        other = replace(METRICS["kl"], name=name)
        with pytest.raises(UsageError, match=f"wants the name '{name}'"):
            register([other], dict(METRICS))


def test_the_primary_metric_of_each_kind_exists_and_higher_is_better() -> None:
    for kind in KINDS:
        assert find_metric(primary(kind), kind).metric.higher
