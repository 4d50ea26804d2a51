"""Metrics at fitted thresholds are compared with the thresholds of both results."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from facemae.errors import ProbeError
from facemae_probes.commands import app
from facemae_probes.metrics import evaluate
from facemae_probes.results.report import write_result
from facemae_probes.results.result import compare_results, significance
from tests.probes.results.made import made_result


def test_the_difference_is_that_of_the_metric_of_each(tmp_path: Path) -> None:
    one, other = made_result("multilabel"), made_result("multilabel", seed=1)
    # Other thresholds: with those of the first, or with 0.5, the difference would be another.
    other = replace(other, thresholds={"linear": other.thresholds["linear"] + 0.1})
    each = [
        evaluate(result.targets, result.scores["linear"], thresholds=result.thresholds["linear"])["macro_f1_fitted"]
        for result in (one, other)
    ]
    found = compare_results(one, other, metric="macro_f1_fitted", replicates=100)
    assert found.value == pytest.approx(each[0] - each[1])
    assert found.value != pytest.approx(compare_results(one, other, metric="macro_f1", replicates=100).value)
    test = significance(one, other, metric="macro_f1_fitted", replicates=99)
    assert test.difference == pytest.approx(found.value)
    write_result(tmp_path / "a", one)
    write_result(tmp_path / "b", other)
    cli = CliRunner()
    for part in ([], ["--slice", "odd=1"]):
        arguments = ["compare", str(tmp_path / "a"), str(tmp_path / "b"), *part, "--metric", "f1_fitted:happy"]
        done = cli.invoke(app, [*arguments, "--json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["metric"] == "f1_fitted:happy"


def test_the_metric_of_both_choices_is_compared_unless_they_differ() -> None:
    one, other = made_result("classes"), made_result("classes", seed=1)
    assert compare_results(one, other, replicates=10).metric == "accuracy"
    chosen = {"metric": "uar", "on": "valid", "table": []}
    one = replace(one, data={**one.data, "selection": chosen})
    assert compare_results(one, other, replicates=10).metric == "accuracy"
    other = replace(other, data={**other.data, "selection": chosen})
    assert compare_results(one, other, replicates=10).metric == "uar"
    assert significance(one, other, replicates=9).metric == "uar"
    assert compare_results(one, other, metric="macro_f1", replicates=10).metric == "macro_f1"


def test_results_of_other_units_are_not_compared() -> None:
    one = made_result("classes")
    other = replace(one, data={**one.data, "task": {**one.data["task"], "unit": "sample"}})
    with pytest.raises(ProbeError, match="different units of independence, subject and sample"):
        compare_results(one, other, replicates=10)


def test_without_thresholds_the_metric_is_refused() -> None:
    one = made_result("multilabel")
    with pytest.raises(ProbeError, match="threshold"):
        compare_results(one, replace(one, thresholds={}), metric="macro_f1_fitted", replicates=10)
