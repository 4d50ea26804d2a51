"""Protocols end to end: folds, few shots, two sets, published ways, groups, a grid."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from facemae.data.pack import PackItem, pack_samples
from facemae.data.schema import CropRecipe, DatasetCard, ModelInput
from facemae.errors import ProbeError, UsageError
from facemae.features.extractor import FeatureExtractor
from facemae_probes.choosing.plan import ProbePlan
from facemae_probes.commands import app
from facemae_probes.features.pool import TestSet
from facemae_probes.features.sources import PixelSource
from facemae_probes.heads.attentive import AttentiveSetting
from facemae_probes.protocols.few_shot import FewShot
from facemae_probes.protocols.folds import KFold, LeaveOneOut
from facemae_probes.protocols.paper import Paper
from facemae_probes.results import report
from facemae_probes.results.grid_table import grid_table
from facemae_probes.results.pictures import draw_predictions
from facemae_probes.results.report import read_result
from facemae_probes.results.words import MARK
from facemae_probes.runner import run_probe
from tests.probes.conftest import make_items

PIXELS = PixelSource(ModelInput(image_size=16, channels=1, mean=(0.5,), std=(0.5,)))
HEAD = {"model": "m", "task": "t", "shards": "s", "protocol": "kfold:2", "folder": "f"}
PLAN = ProbePlan(probes=("linear", "knn"), strengths=(0.1, 0.01), neighbours=(1, 5), replicates=200)


@pytest.fixture(scope="module")
def few_subjects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 images of 16 subjects."""
    out = tmp_path_factory.mktemp("few") / "shards"
    card = DatasetCard(name="few", crop=CropRecipe(detector="none", size=16, colour="grey"))
    pack_samples(make_items(48), out, card=card, shard_size=48)
    return out


def test_leaving_one_subject_out_predicts_all_once_and_pools(few_subjects: Path, tmp_path: Path) -> None:
    result = run_probe(few_subjects, PIXELS, "emotion", plan=PLAN, protocol=LeaveOneOut(), out=tmp_path)
    data = result.data
    assert data["protocol"]["name"] == "loso"
    assert len(data["protocol"]["folds"]) == 16
    assert data["task"]["unit"] == "subject"
    assert not data["protocol"]["on_test"]
    entry = data["results"]["linear"]
    assert entry["test"]["count"] == 48
    assert np.sum(entry["test"]["confusion"]) == 48
    assert len(entry["settings"]) == 16
    assert {row["fold"] for row in entry["settings"]} == {f"s{n}" for n in range(16)}
    # The pooled accuracy is the mean over folds weighted by their size: they all have three samples.
    each = [row["accuracy"] for row in entry["folds"]["each"]]
    assert np.mean(each) == pytest.approx(entry["test"]["accuracy"])
    assert entry["folds"]["summary"]["accuracy"]["mean"] == pytest.approx(np.mean(each))
    assert entry["test"]["accuracy"] > 0.6
    shown = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert "loso" in shown.stdout
    assert MARK not in shown.stdout


def test_the_probe_too_is_chosen_in_each_fold_by_itself(few_subjects: Path, tmp_path: Path) -> None:
    plan = replace(PLAN, strengths=(10.0, 0.1), neighbours=(1, 9))
    result = run_probe(few_subjects, PIXELS, "emotion", plan=plan, protocol=KFold(4), out=tmp_path)
    found = result.data["results"]
    assert set(found) == {"linear", "knn", "choice"}
    assert result.chosen == "choice"
    assert result.data["chosen"]["valid"] == pytest.approx(
        np.mean([row["valid"] for row in found["choice"]["settings"]])
    )
    taken = []
    for row in found["choice"]["settings"]:
        rivals = [each for kind in ("linear", "knn") for each in found[kind]["settings"] if each["fold"] == row["fold"]]
        assert row["valid"] == max(each["valid"] for each in rivals)
        assert row in rivals
        taken.append(row["probe"])
    # A sample's scores are those of the probe that its fold chose, so no mean over folds is behind them.
    scores = result.scores["choice"]
    of = {kind: (scores == result.scores[kind]).all(axis=-1) for kind in ("linear", "knn")}
    assert (of["linear"] | of["knn"]).all()
    for kind in ("linear", "knn"):
        assert of[kind].any() == (kind in taken)
    assert set(run_probe(few_subjects, PIXELS, "emotion", plan=plan).scores) == {"linear", "knn"}


def test_probes_that_are_named_and_not_there_are_said(few_subjects: Path) -> None:
    named = replace(PLAN, probes=("knn", "temporal"))
    (text,) = [
        text for text in run_probe(few_subjects, PIXELS, "emotion", plan=named).data["warnings"] if "left out" in text
    ]
    assert text == "probe temporal is left out: it reads the frames of clips, which are not here"
    every = replace(PLAN, probes=("linear", "knn", "attentive", "temporal"))
    assert not any(
        "left out" in text for text in run_probe(few_subjects, PIXELS, "emotion", plan=every).data["warnings"]
    )


def test_a_protocol_beside_a_test_set_is_refused(few_subjects: Path) -> None:
    with pytest.raises(UsageError, match="protocol kfold:2 with a test_set"):
        run_probe(few_subjects, PIXELS, "emotion", plan=PLAN, protocol=KFold(2), test_set=TestSet(few_subjects))


def test_a_share_of_the_training_units_may_be_drawn_for_any_labels(few_subjects: Path) -> None:
    result = run_probe(few_subjects, PIXELS, "AU*", plan=PLAN, protocol=FewShot(0.4, draws=2))
    assert result.scores["linear"].shape[0] == 2
    with pytest.raises(ProbeError, match="few-shot:3 of labels of kind multilabel"):
        run_probe(few_subjects, PIXELS, "AU*", plan=PLAN, protocol=FewShot(3, draws=2))


def test_binary_columns_get_thresholds_of_their_own_fold(few_subjects: Path, tmp_path: Path) -> None:
    result = run_probe(few_subjects, PIXELS, "AU*", plan=PLAN, protocol=KFold(4), out=tmp_path)
    thresholds = result.thresholds["linear"]
    assert thresholds.shape == (1, 48, 2)
    assert 1 < len(np.unique(thresholds[0, :, 0])) <= 4
    assert result.data["results"]["linear"]["test"]["macro_f1_fitted"] > 0.5
    read = read_result(tmp_path)
    assert read is not None
    np.testing.assert_array_equal(read.thresholds["linear"], thresholds)


def test_without_anything_to_fit_thresholds_on_there_is_no_metric_at_them(few_subjects: Path, tmp_path: Path) -> None:
    plan = replace(PLAN, probes=("linear",))
    result = run_probe(
        few_subjects, PIXELS, "AU*", plan=plan, protocol=KFold(2), unit="odd", slices=["odd=1"], out=tmp_path
    )
    assert result.data["results"]["linear"]["settings"][0]["valid"] is None
    test = result.data["results"]["linear"]["test"]
    assert "macro_f1" in test["intervals"]
    assert "macro_f1_fitted" not in test
    assert "macro_f1_fitted" not in test["intervals"]
    assert result.thresholds == {}
    shown = CliRunner().invoke(app, ["report", str(tmp_path)], catch_exceptions=False)
    assert shown.exit_code == 0
    row = grid_table([HEAD], [(HEAD, result.data)], [])["rows"][0]
    assert row["metrics"]["macro_f1_fitted"]["value"] is None


@pytest.mark.parametrize("shots", [1, 4])
def test_few_shots_are_averaged_over_draws(
    shots: int, labelled_shards: Path, tiny_extractor: FeatureExtractor, tmp_path: Path
) -> None:
    plan = replace(
        PLAN,
        probes=("linear", "knn", "attentive"),
        layers=(0, -1),
        poolings=("mean", "grid2"),
        attentive=(AttentiveSetting(epochs=2, queries=2, batch_size=8),),
        attentive_layers=1,
    )
    result = run_probe(
        labelled_shards, tiny_extractor, "emotion", plan=plan, protocol=FewShot(shots, draws=3), cache=tmp_path
    )
    assert set(result.scores) == {"linear", "knn", "attentive"}
    for probe, scores in result.scores.items():
        assert scores.shape == (3, 45, 3)
        assert np.isfinite(scores).all(), probe
        accuracy = [float(np.mean(draw.argmax(axis=1) == result.targets.values)) for draw in scores]
        test = result.data["results"][probe]["test"]
        assert test["accuracy"] == pytest.approx(np.mean(accuracy))
        assert test["intervals"]["accuracy"]["deviation"] == pytest.approx(np.std(accuracy, ddof=1))
    rows = result.data["results"]["linear"]["settings"]
    if shots == 1:
        assert all(row["valid"] is None for row in rows)
        assert {(row["layer"], row["pooling"]) for row in rows} == {(11, "mean")}
        assert "nothing" in result.data["protocol"]["chosen_on"]
    else:
        assert all(row["valid"] is not None for row in rows)


def test_a_published_way_that_chooses_on_test_is_marked_wherever_it_is_shown(
    labelled_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headings: list[str] = []

    def draw(path: Path, *shown: Any) -> None:
        headings.append(shown[-1])
        draw_predictions(path, *shown)

    monkeypatch.setattr(report, "draw_predictions", draw)
    honest = run_probe(labelled_shards, PIXELS, "emotion", plan=PLAN, out=tmp_path / "honest")
    assert len(headings) == 2
    assert not any(MARK in text for text in headings)
    paper = run_probe(labelled_shards, PIXELS, "emotion", plan=PLAN, protocol=Paper("hicmae"), out=tmp_path / "paper")
    assert len(headings) == 4
    assert all(text.endswith(f"({MARK}: paper:hicmae)") for text in headings[2:])
    assert paper.data["protocol"]["on_test"]
    assert paper.data["chosen"]["valid"] == max(
        entry["test"]["accuracy"] for entry in paper.data["results"].values()
    ), "what it is chosen by is the test accuracy itself"
    assert any("not a result" in text for text in paper.data["warnings"])
    assert not honest.data["protocol"]["on_test"]
    for name, marked in (("honest", False), ("paper", True)):
        with np.load(tmp_path / name / "predictions-linear.npz") as stored:
            assert bool(stored["on_test"]) is marked
            assert str(stored["protocol"]) == ("paper:hicmae" if marked else "official")
    cli = CliRunner()
    assert MARK in " ".join(cli.invoke(app, ["report", str(tmp_path / "paper")]).stdout.split())
    both = [str(tmp_path / "paper"), str(tmp_path / "honest")]
    assert MARK in cli.invoke(app, ["compare", *both]).stdout
    compared = json.loads(cli.invoke(app, ["compare", *both, "--json"]).stdout)
    assert compared["protocols"] == ["paper:hicmae", "official"]
    assert compared["on_test"] == [True, False]
    assert compared["mark"] == f"{MARK}: paper:hicmae"
    clean = json.loads(cli.invoke(app, ["compare", both[1], both[1], "--json"]).stdout)
    assert clean["mark"] == ""


def test_numbers_by_group_name_the_largest_gap(labelled_shards: Path, tmp_path: Path) -> None:
    result = run_probe(labelled_shards, PIXELS, "emotion", plan=PLAN, groups=["odd"], unit="sample", cache=tmp_path)
    groups = result.data["results"]["linear"]["groups"]["odd"]
    assert [group["value"] for group in groups["groups"]] == ["0", "1"]
    assert sum(group["count"] for group in groups["groups"]) == 45
    assert {groups["gap"]["first"], groups["gap"]["second"]} == {"0", "1"}
    with pytest.raises(ProbeError, match="no column 'gender' to cut the test part by"):
        run_probe(labelled_shards, PIXELS, "emotion", plan=PLAN, groups=["gender"], cache=tmp_path)


RENAMED = {"happy": "joy", "sad": "sorrow", "neutral": "plain"}


@pytest.fixture(scope="module")
def other_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same kind of images with other label names, one label that the first set lacks, and other subjects."""
    out = tmp_path_factory.mktemp("other") / "other-set"
    items = []
    for number, item in enumerate(make_items(60, splits=("train", "test"))):
        meta = dict(item.meta)
        emotion = RENAMED[meta["labels"]["emotion"]] if number % 10 else "boredom"
        meta["labels"] = {"feeling": emotion, "site": str(number % 2)}
        items.append(PackItem(f"g{number:04d}", item.image, item.extension, meta))
    card = DatasetCard(name="other", crop=CropRecipe(detector="none", size=16, colour="grey"))
    pack_samples(items, out, card=card, shard_size=30)
    return out


def test_another_set_is_tested_with_its_labels_mapped(labelled_shards: Path, other_set: Path, tmp_path: Path) -> None:
    mapping = {theirs: ours for ours, theirs in RENAMED.items()}
    result = run_probe(
        labelled_shards,
        PIXELS,
        "emotion",
        plan=PLAN,
        test_set=TestSet(other_set, "feeling", mapping),
        slices=["site=1"],
        out=tmp_path,
    )
    assert result.data["protocol"]["name"] == "cross:shards>other-set"
    assert result.data["protocol"]["chosen_on"] == "shards: official valid split"
    assert result.data["test_data"]["card"]["name"] == "other"
    assert len(result.keys) == 28
    assert all(key.startswith("g") for key in result.keys)
    assert result.data["task"]["counts"]["train"]["samples"] == 90
    assert result.data["results"]["linear"]["test"]["accuracy"] > 0.8
    assert result.data["results"]["linear"]["slices"]["site=1"]["count"] > 0
    assert any("labels boredom are left out" in text for text in result.data["warnings"])


def test_sets_that_do_not_fit_together_are_explained(labelled_shards: Path, other_set: Path, tmp_path: Path) -> None:
    def run(test: TestSet) -> None:
        run_probe(labelled_shards, PIXELS, "emotion", plan=PLAN, test_set=test, cache=tmp_path)

    with pytest.raises(ProbeError, match="no label of other-set") as caught:
        run(TestSet(other_set, "feeling"))
    assert "--map THEIRS=OURS" in str(caught.value)
    with pytest.raises(ProbeError, match="--map names glee"):
        run(TestSet(other_set, "feeling", {"glee": "happy"}))
    with pytest.raises(ProbeError, match="no column 'emotion' of labels in other-set"):
        run(TestSet(other_set))


def test_a_grid_goes_on_after_a_failure_and_reads_finished_cells(labelled_shards: Path, tmp_path: Path) -> None:
    cli = CliRunner()
    arguments = ["grid", "--out", str(tmp_path), "--model", "raw=pixels", "--model", "hog", "--probe", "knn"]
    tasks = ["--task", f"emotion={labelled_shards}", "--task", f"valence={labelled_shards}"]
    done = cli.invoke(app, [*arguments, *tasks, "--protocol", "official", "--protocol", "paper:hicmae"])
    assert done.exit_code == 1
    assert "no label column 'valence'" in done.output
    text = (tmp_path / "table.md").read_text()
    assert "## emotion, official\n" in text
    assert f"## emotion, paper:hicmae ({MARK})" in text
    assert "| hog | failed: no label column 'valence'" in text
    table = json.loads((tmp_path / "table.json").read_text())
    pairs = {(model, protocol) for model in ("raw", "hog") for protocol in ("official", "paper:hicmae")}
    assert {(row["model"], row["protocol"]) for row in table["rows"]} == pairs
    assert {(row["protocol"], row["mark"]) for row in table["rows"]} == {
        ("official", ""),
        ("paper:hicmae", f"{MARK}: paper:hicmae"),
    }
    assert {(row["model"], row["protocol"], row["task"]) for row in table["failed"]} == {
        (*pair, "valence") for pair in pairs
    }
    again = cli.invoke(app, [*arguments, *tasks[:2], "--protocol", "official"])
    assert again.exit_code == 0
    assert again.output.count("this probe is done") == 2
    with pytest.raises(UsageError, match="two models of one name"):
        cli.invoke(app, [*arguments, "--model", "pixels", "--model", "pixels", *tasks], catch_exceptions=False)


def test_a_grid_goes_on_where_the_shards_of_a_benchmark_are_missing(labelled_shards: Path, tmp_path: Path) -> None:
    cells = ["--task", f"raf-db={tmp_path / 'nowhere'}", "--task", f"fer2013={labelled_shards}"]
    arguments = ["grid", "--out", str(tmp_path), "--model", "pixels", "--probe", "knn", *cells]
    done = CliRunner().invoke(app, [*arguments, "--task", f"emotion={labelled_shards}"])
    assert done.exit_code == 1
    table = json.loads((tmp_path / "table.json").read_text())
    assert [row["task"] for row in table["rows"]] == ["emotion"]
    failed = {row["task"]: row["error"] for row in table["failed"]}
    assert "nowhere" in failed["raf-db"]
    assert "has no column expression" in failed["fer2013"]
    with pytest.raises(UsageError, match="raf-db has no target 'shares'"):
        CliRunner().invoke(app, [*arguments, "--task", f"raf-db:shares={labelled_shards}"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol", "kfold"], "kfold:K"),
        (["--map", "a=b"], "without --test-data"),
        (["--test-data", "x", "--protocol", "loso"], "with --test-data"),
        (["--metric", "acuracy"], "accuracy"),
    ],
)
def test_wrong_protocols_are_explained(
    labelled_shards: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    start = ["run", "--data", str(labelled_shards), "--model", "pixels", "--label", "emotion", "--out", str(tmp_path)]
    failed = CliRunner().invoke(app, [*start, *arguments])
    assert failed.exit_code != 0
    assert message in str(failed.exception)
