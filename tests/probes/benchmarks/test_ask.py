"""A question by a benchmark's name and one by columns take one path; contradictions are named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from facemae.data.pack import pack_folder
from facemae.errors import FacemaeError, ProbeError, UsageError
from facemae_probes.benchmarks.ask import ask_benchmark
from facemae_probes.benchmarks.base import Benchmark
from facemae_probes.benchmarks.packing import pack_benchmark
from facemae_probes.benchmarks.registry import benchmark
from facemae_probes.commands import app
from facemae_probes.tasks.columns import read_columns
from facemae_probes.tasks.task import make_task
from tests.probes.benchmarks.conftest import MADE, make_raf

Know = Callable[..., Benchmark]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A made RAF-DB without clusters; its counts are those of no known version."""
    make_raf(tmp_path / "raf")
    pack_benchmark(benchmark("raf-db"), tmp_path / "raf", tmp_path / "shards", clusters=False)
    return tmp_path / "shards"


def test_without_clusters_samples_are_units_and_the_result_says_so(shards: Path) -> None:
    question = ask_benchmark(benchmark("raf-db"), shards)
    assert (question.label, question.unit, question.slices) == ("expression", "sample", ())
    assert question.about is not None
    assert question.about["version"] is None
    said = "\n".join(question.about["warnings"])
    assert "every image counts as independent" in said
    assert "the counts are those of no known version of RAF-DB (basic); train: 28 samples, expected 12,271" in said


def test_the_unit_and_further_slices_may_be_chosen(tmp_path: Path) -> None:
    make_raf(tmp_path / "raf")
    pack_benchmark(benchmark("raf-db"), tmp_path / "raf", tmp_path / "shards")
    known = benchmark("raf-db")
    assert ask_benchmark(known, tmp_path / "shards").unit == "cluster"
    question = ask_benchmark(known, tmp_path / "shards", unit="sample", slices=["crosses_splits=0", "width=48"])
    assert (question.unit, question.slices) == ("sample", ("crosses_splits=0", "width=48"))


def test_slices_that_another_tested_set_lacks_are_left_out_and_that_is_said(tmp_path: Path, shards: Path) -> None:
    pack_benchmark(benchmark("raf-db"), tmp_path / "raf", tmp_path / "whole")
    question = ask_benchmark(benchmark("raf-db"), tmp_path / "whole", tested=shards)
    assert question.slices == ()
    assert question.about is not None
    assert "shards has no sample of crosses_splits=0: this slice is not reported" in question.about["warnings"]
    assert ask_benchmark(benchmark("raf-db"), tmp_path / "whole", tested=tmp_path / "whole").slices
    arguments = ["run", "raf-db", "--data", str(tmp_path / "whole"), "--model", "pixels", "--probe", "knn"]
    done = CliRunner().invoke(
        app, [*arguments, "--test-data", str(shards), "--out", str(tmp_path / "out")], catch_exceptions=False
    )
    assert done.exit_code == 0
    data = json.loads((tmp_path / "out" / "result.json").read_text())
    assert data["results"]["knn"]["slices"] == {}


def test_both_ways_give_the_same_numbers(shards: Path, tmp_path: Path) -> None:
    results = []
    for name, asked in (("named", ["raf-db"]), ("columns", ["--label", "expression"])):
        arguments = ["run", *asked, "--data", str(shards), "--model", "pixels", "--probe", "knn"]
        done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / name)], catch_exceptions=False)
        assert done.exit_code == 0
        results.append(json.loads((tmp_path / name / "result.json").read_text()))
    named, columns = results
    assert named["results"]["knn"]["test"]["accuracy"] == columns["results"]["knn"]["test"]["accuracy"]
    assert named["results"]["knn"]["test"]["recall"] == columns["results"]["knn"]["test"]["recall"]
    assert named["task"]["classes"][0] == "surprise"
    assert columns["task"]["classes"][0] == "anger"
    assert "benchmark" not in columns


def test_a_class_without_samples_keeps_its_place_and_is_told(shards: Path) -> None:
    given = ("boredom", *benchmark("raf-db").headline.classes)
    task = make_task(read_columns(shards), "expression", unit="sample", classes=given)
    assert task.targets.names == given
    assert task.targets.values.min() == 1
    assert "class 'boredom' is not in the training split" in task.warnings
    with pytest.raises(ProbeError, match="labels surprise"):
        make_task(read_columns(shards), "expression", unit="sample", classes=given[2:])


def test_shards_that_were_packed_otherwise(tmp_path: Path) -> None:
    make_raf(tmp_path / "raf")
    pack_folder(tmp_path / "raf/basic/Image", tmp_path / "plain")
    with pytest.raises(ProbeError, match="has no column expression") as caught:
        ask_benchmark(benchmark("raf-db"), tmp_path / "plain")
    assert "facemae probe pack raf-db" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("name", "target", "kind", "metrics"),
    [
        ("affectnet8", "valence-arousal", "regression", ("ccc", "rmse")),
        ("ferplus", "distribution", "distribution", ("cross_entropy", "accuracy")),
    ],
)
def test_shares_and_numbers_are_probed(
    name: str, target: str, kind: str, metrics: tuple[str, ...], tmp_path: Path
) -> None:
    case = {"affectnet8": "affectnet8 lists", "ferplus": "ferplus copy"}[name]
    MADE[case].make(tmp_path / "data")
    pack_benchmark(benchmark(name), tmp_path / "data", tmp_path / "shards", clusters=False)
    arguments = ["run", name, "--target", target, "--data", str(tmp_path / "shards"), "--model", "pixels"]
    done = CliRunner().invoke(
        app, [*arguments, "--probe", "linear,knn", "--out", str(tmp_path / "out")], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    data = json.loads((tmp_path / "out" / "result.json").read_text())
    assert data["task"]["kind"] == kind
    for probe in ("linear", "knn"):
        entry = data["results"][probe]
        assert set(metrics) <= set(entry["test"]["intervals"])
        assert (tmp_path / "out" / entry["picture"]).exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["raf-db", "--label", "expression"], "beside the benchmark raf-db"),
        (["raf-db", "--task", "classes"], "beside the benchmark raf-db"),
        (["--label", "expression", "--target", "majority"], "--target majority without a benchmark"),
        ([], "give a benchmark, or either --label or --labels-like"),
        (["raf-bd"], "there is no benchmark 'raf-bd'"),
        (["--label", "a", "--task", "sorts"], "--task sorts"),
    ],
)
def test_contradictions_are_named(arguments: list[str], text: str, tmp_path: Path) -> None:
    whole = ["run", *arguments, "--data", str(tmp_path), "--model", "pixels", "--out", str(tmp_path / "out")]
    with pytest.raises(UsageError) as caught:
        CliRunner().invoke(app, whole, catch_exceptions=False)
    assert text in str(caught.value)
    assert isinstance(caught.value, FacemaeError)


def test_the_list_shows_every_benchmark() -> None:
    shown = CliRunner().invoke(app, ["list"]).output
    assert "25060/3199/3153" in shown
    assert "raf-db: RAF-DB (basic); licence: non-commercial research only" in shown
    entries = json.loads(CliRunner().invoke(app, ["list", "--json"]).output)
    assert {entry["name"] for entry in entries} >= {"raf-db", "ferplus"}
    assert all(entry["layouts"][0]["needs"] and entry["citation"] for entry in entries)
