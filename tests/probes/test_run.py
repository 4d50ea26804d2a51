"""Probes end to end on a tiny shard set."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from facemae.checkpoint import Manifest
from facemae.config import StreamConfig
from facemae.data.index import ShardIndex
from facemae.data.schema import DatasetCard, ModelInput
from facemae.data.select import metadata
from facemae.data.selection import choose_samples
from facemae.errors import MissingExtraError, ProbeError
from facemae.features.extractor import FeatureExtractor
from facemae_probes import runner
from facemae_probes.choosing.plan import ProbePlan
from facemae_probes.commands import app
from facemae_probes.features.sources import HogSource, PixelSource
from facemae_probes.heads.attentive import AttentiveSetting
from facemae_probes.results.report import read_result
from facemae_probes.results.result import compare_results
from facemae_probes.tasks.columns import Columns
from facemae_probes.tasks.targets import Targets
from facemae_probes.tasks.task import Task, make_task

PLAN = ProbePlan(
    layers=(0, -1),
    poolings=("mean", "grid2"),
    strengths=(0.1, 0.01),
    neighbours=(1, 5),
    attentive=(AttentiveSetting(epochs=4, queries=4, batch_size=16, lr=1e-2),),
    attentive_layers=1,
    replicates=200,
)
PIXELS = PixelSource(ModelInput(image_size=16, channels=1, mean=(0.5,), std=(0.5,)))


def test_every_probe_runs_and_the_result_tells_its_origin(
    labelled_shards: Path, tiny_extractor: FeatureExtractor, tmp_path: Path
) -> None:
    result = runner.run_probe(
        labelled_shards, tiny_extractor, "emotion", plan=PLAN, slices=["odd=0"], out=tmp_path / "out"
    )

    data = json.loads((tmp_path / "out" / "result.json").read_text())
    assert set(data["results"]) == {"linear", "knn", "attentive"}
    assert data["model"]["digest"] == tiny_extractor.digest
    assert data["model"]["input"]["image_size"] == 16
    assert data["model"]["crop"]["detector"] == "none"
    assert data["task"]["unit"] == "subject"
    counts = data["task"]["counts"]
    assert counts["test"]["samples"] == 45
    commonest = max(data["task"]["classes"], key=lambda name: int(counts["train"][name]))
    assert data["constant"]["accuracy"] == pytest.approx(counts["test"][commonest] / 45)
    assert len(data["data"]["digest"]) == 64
    for probe, entry in data["results"].items():
        test = entry["test"]
        assert test["intervals"]["accuracy"]["low"] <= test["accuracy"] <= test["intervals"]["accuracy"]["high"]
        assert entry["slices"]["odd=0"]["count"] < test["count"]
        assert (tmp_path / "out" / entry["picture"]).read_bytes().startswith(b"\x89PNG")
        stored = np.load(tmp_path / "out" / entry["predictions"])
        assert np.mean(stored["truth"] == stored["scores"][0].argmax(axis=1)) == pytest.approx(test["accuracy"]), probe
    table = data["selection"]["table"]
    assert {(row["layer"], row["pooling"]) for row in table if row["probe"] == "linear"} == {
        (layer, pooling) for layer in (0, 11) for pooling in ("mean", "grid2")
    }
    assert max(row["valid"] for row in table) == data["chosen"]["valid"]
    assert result.data["results"]["linear"]["test"]["accuracy"] > 0.8


def test_a_finished_result_is_read_back_and_another_request_is_not(labelled_shards: Path, tmp_path: Path) -> None:
    said: list[str] = []
    first = runner.run_probe(labelled_shards, PIXELS, "emotion", plan=PLAN, out=tmp_path, say=said.append)
    again = runner.run_probe(labelled_shards, PIXELS, "emotion", plan=PLAN, out=tmp_path, say=said.append)
    assert "done" in said[-1]
    assert again.data == json.loads(json.dumps(first.data))
    np.testing.assert_array_equal(again.scores["knn"], first.scores["knn"])
    np.testing.assert_array_equal(again.targets.values, first.targets.values)
    assert again.keys == first.keys

    other = runner.run_probe(labelled_shards, PIXELS, "emotion", plan=replace(PLAN, seed=1), out=tmp_path)
    assert other.data["seed"] == 1


def test_the_same_request_gives_the_same_numbers(
    labelled_shards: Path, tiny_extractor: FeatureExtractor, tmp_path: Path
) -> None:
    runs = [
        runner.run_probe(labelled_shards, tiny_extractor, "emotion", plan=PLAN, out=tmp_path / name)
        for name in ("a", "b")
    ]
    assert runs[0].data["selection"] == runs[1].data["selection"]
    for probe, scores in runs[0].scores.items():
        np.testing.assert_array_equal(scores, runs[1].scores[probe])


def test_choices_do_not_depend_on_test_labels(
    labelled_shards: Path, tiny_extractor: FeatureExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = runner.run_probe(labelled_shards, tiny_extractor, "emotion", plan=PLAN, cache=tmp_path)

    def permuted(columns: Columns, label: str, **options: object) -> Task:
        task = make_task(columns, label, **options)  # type: ignore[arg-type]
        values = task.targets.values.copy()
        values[task.splits.tested] = np.roll(values[task.splits.tested], 5)
        return replace(task, targets=Targets("classes", task.targets.names, values))

    monkeypatch.setattr(runner, "make_task", permuted)
    blind = runner.run_probe(labelled_shards, tiny_extractor, "emotion", plan=PLAN, cache=tmp_path)
    assert blind.data["chosen"] == honest.data["chosen"]
    assert blind.data["selection"] == honest.data["selection"]
    for probe, scores in honest.scores.items():
        np.testing.assert_array_equal(scores, blind.scores[probe])
    assert blind.data["results"]["linear"]["test"] != honest.data["results"]["linear"]["test"]


def test_action_units_by_pattern(labelled_shards: Path, tiny_extractor: FeatureExtractor, tmp_path: Path) -> None:
    result = runner.run_probe(labelled_shards, tiny_extractor, "AU*", plan=PLAN, out=tmp_path)
    assert result.data["task"]["kind"] == "multilabel"
    assert result.data["task"]["classes"] == ["AU1", "AU2"]
    assert result.data["selection"]["metric"] == "macro_f1"
    assert set(result.data["results"]["linear"]["test"]["f1"]) == {"AU1", "AU2"}
    assert result.data["results"]["linear"]["test"]["macro_f1"] > 0.8
    assert result.data["results"]["attentive"]["test"]["macro_f1"] > 0.5
    assert result.scores["linear"].shape == (1, 45, 2)
    fitted = result.data["results"]["linear"]["test"]["macro_f1_fitted"]
    assert fitted > 0.8
    assert (result.thresholds["linear"] != 0.5).any()


def test_a_different_crop_is_a_warning_in_the_result(
    labelled_shards: Path, tiny_extractor: FeatureExtractor, tmp_path: Path
) -> None:
    loaded = tiny_extractor.loaded
    other = FeatureExtractor(replace(loaded, crop=loaded.crop.model_copy(update={"detector": "retinaface"})))
    plan = replace(PLAN, probes=("knn",), layers=(-1,), poolings=("mean",))
    result = runner.run_probe(labelled_shards, other, "emotion", plan=plan, cache=tmp_path)
    assert any("retinaface" in text for text in result.data["warnings"])


def _trained_on(extractor: FeatureExtractor, name: str, **stream: Any) -> FeatureExtractor:
    cards = {"faces": DatasetCard(name=name)}
    return FeatureExtractor(replace(extractor.loaded, cards=cards, streams={"faces": stream}), device="cpu")


def test_test_images_that_pretraining_saw_are_a_warning(
    labelled_shards: Path, tiny_extractor: FeatureExtractor, tmp_path: Path
) -> None:
    index = ShardIndex.open(labelled_shards)
    plan = replace(PLAN, probes=("knn",), layers=(-1,), poolings=("mean",))

    def said(name: str = "other", **stream: Any) -> list[str]:
        model = _trained_on(tiny_extractor, name, **stream)
        warnings = runner.run_probe(labelled_shards, model, "emotion", plan=plan, cache=tmp_path).data["warnings"]
        return [text for text in warnings if "pretraining" in text]

    whole: dict[str, Any] = {"shards": len(index.shards), "digest": index.digest}
    first: dict[str, Any] = {"shards": 1, "digest": index.prefix(1).digest}
    assert "saw 45 of the 45 test images, without labels" in said(**whole, where={})[0]
    assert said(**whole, where={"split": "train"}) == []
    assert "saw 45" in said(**whole, where={"split": "test"})[0]
    early = metadata(index.prefix(1), ["split"])["split"].to_pylist().count("test")
    assert 0 < early < 45
    assert f"saw {early} of the 45" in said(**first, where={})[0]
    assert said(shards=2, digest="0" * 64, where={}) == []
    assert "may have seen 45" in said("tiny", shards=2, digest="0" * 64, where={})[0]
    assert said("tiny", where={"split": "train"}) == []
    assert said("tiny", where={"quality": "good"})[0].startswith("the encoder may have seen 45")


def test_a_stream_of_listed_keys_saw_what_is_listed(
    labelled_shards: Path, tiny_extractor: FeatureExtractor, tmp_path: Path
) -> None:
    index = ShardIndex.open(labelled_shards)
    plan = replace(PLAN, probes=("knn",), layers=(-1,), poolings=("mean",))
    table = metadata(index, ["key", "split"]).to_pylist()
    tested = [row["key"] for row in table if row["split"] == "test"]
    listed = tmp_path / "keys.txt"
    listed.write_text("\n".join([*tested[:7], next(row["key"] for row in table if row["split"] == "train")]) + "\n")
    _, pins = choose_samples(index, StreamConfig(keys=str(listed)))

    def said() -> str:
        stream = {"shards": len(index.shards), "digest": index.digest, "keys": str(listed), "selection": pins}
        model = _trained_on(tiny_extractor, "other", **stream)
        warnings = runner.run_probe(labelled_shards, model, "emotion", plan=plan, cache=tmp_path).data["warnings"]
        return "; ".join(text for text in warnings if "pretraining" in text)

    assert "the encoder saw 7 of the 45 test images, without labels" in said()
    assert "no filter, keys of keys.txt" in said()
    listed.write_text("\n".join(tested[:9]) + "\n")
    assert "may have seen 45 of the 45" in said(), "the list is another one than the run was pinned to"
    listed.unlink()
    assert "may have seen 45 of the 45" in said()


def test_what_initial_weights_saw_and_labels_that_were_learnt_from_are_told(
    labelled_shards: Path, tiny_extractor: FeatureExtractor, tmp_path: Path
) -> None:
    index = ShardIndex.open(labelled_shards)
    plan = replace(PLAN, probes=("knn",), layers=(-1,), poolings=("mean",))

    def said(**changes: Any) -> list[str]:
        model = FeatureExtractor(replace(tiny_extractor.loaded, **changes), device="cpu")
        warnings = runner.run_probe(labelled_shards, model, "emotion", plan=plan, cache=tmp_path).data["warnings"]
        return [text for text in warnings if "pretraining" in text]

    other = {"faces": DatasetCard(name="other")}
    for name in ("init/faces", "init/init/old"):
        found = said(cards={**other, name: DatasetCard(name="tiny")})
        assert len(found) == 1
        assert "may have seen 45 of the 45 test images in pretraining, by the weights it started from" in found[0]
        assert "without labels" not in found[0]
    assert (
        "do not say what they were trained on" in said(cards={**other, "init/unknown": DatasetCard(name="unknown")})[0]
    )
    assert said(cards={**other, "init/faces": DatasetCard(name="third")}) == []
    assert said(cards={"init/faces": DatasetCard(name="tiny")}, about={"random_init": 3}) == []

    stream = {"faces": {"shards": len(index.shards), "digest": index.digest, "where": {}}}
    for kind, text in (
        ("supervised", "45 test images, with labels"),
        ("masked_image", "45 test images, without labels"),
    ):
        manifest = Manifest(
            step=1, samples=8, recipe={"objectives": [{"kind": kind}]}, input=tiny_extractor.loaded.input, cards=other
        )
        assert text in said(cards=other, streams=stream, manifest=manifest)[0]


def test_compare_is_paired_and_refuses_other_samples(labelled_shards: Path, tmp_path: Path) -> None:
    plan = replace(PLAN, probes=("linear", "knn"))
    whole = runner.run_probe(labelled_shards, PIXELS, "emotion", plan=plan, cache=tmp_path)
    half = runner.run_probe(labelled_shards, PIXELS, "emotion", plan=plan, where={"odd": "1"}, cache=tmp_path)
    same = compare_results(whole, whole, probes=("linear", "linear"))
    assert (same.value, same.low, same.high) == (0, 0, 0)
    with pytest.raises(ProbeError, match="different test samples"):
        compare_results(whole, half)
    relabelled = replace(whole, targets=replace(whole.targets, values=whole.targets.values[::-1]))
    with pytest.raises(ProbeError, match=r"different true labels(.|\n)*run the older one again"):
        compare_results(whole, relabelled)


def test_command_runs_a_baseline_and_prints_json(labelled_shards: Path, tmp_path: Path) -> None:
    cli = CliRunner()
    arguments = ["run", "--data", str(labelled_shards), "--model", "pixels", "--label", "emotion"]
    done = cli.invoke(app, [*arguments, "--probe", "linear,knn", "--out", str(tmp_path / "a"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["results"]["linear"]["test"]["count"] == 45

    shown = cli.invoke(app, ["report", str(tmp_path / "a")])
    assert "raw pixels" in shown.stdout
    compared = cli.invoke(app, ["compare", str(tmp_path / "a"), str(tmp_path / "a"), "--json"])
    assert json.loads(compared.stdout)["value"] == 0
    folder, value = str(tmp_path / "a"), {}
    for name in ("linear", "knn"):
        value[name] = json.loads(done.stdout)["results"][name]["test"]["accuracy"]
    two = cli.invoke(
        app, ["compare", folder, folder, "--probe", "linear", "--against", "knn", "--metric", "accuracy", "--json"]
    )
    assert json.loads(two.stdout)["probes"] == ["linear", "knn"]
    assert json.loads(two.stdout)["value"] == pytest.approx(value["linear"] - value["knn"])
    assert read_result(tmp_path / "a") is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label", "emotoin"], "did you mean 'emotion'"),
        (["--label", "emotion", "--probe", "forest"], "linear, knn, attentive"),
        (["--label", "emotion", "--where", "odd"], "COLUMN=VALUE"),
        (["--label", "emotion", "--slice", "odd=7"], "no test sample"),
        (["--label", "emotion", "--layers", "last"], "`all`"),
        (["--label", "emotion", "--probe", "attentive"], "needs an encoder's tokens"),
        ([], "--labels-like"),
    ],
)
def test_wrong_usage_is_explained(labelled_shards: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    start = ["run", "--data", str(labelled_shards), "--model", "pixels", "--out", str(tmp_path)]
    failed = CliRunner().invoke(app, [*start, *arguments])
    assert failed.exit_code != 0
    assert message in str(failed.exception)


def test_the_command_takes_the_column_of_the_parts(labelled_shards: Path, tmp_path: Path) -> None:
    arguments = ["run", "--data", str(labelled_shards), "--model", "pixels", "--label", "emotion", "--probe", "knn"]
    done = CliRunner().invoke(app, [*arguments, "--split", "odd", "--out", str(tmp_path)])
    # The column exists, but its values are no parts.
    assert "no labelled sample has split 'train'" in str(done.exception)
    assert "splits here: 0, 1" in str(done.exception)


def test_a_missing_column_lists_the_columns(labelled_shards: Path) -> None:
    with pytest.raises(ProbeError, match="AU1, AU2") as caught:
        runner.run_probe(labelled_shards, PIXELS, "valence", plan=PLAN)
    assert "emotion" in str(caught.value)


def test_without_scikit_image_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(MissingExtraError) as caught:
        HogSource(PIXELS.input).identity()
    assert "pip install 'facemae[study]'" in str(caught.value)
