"""The FER+ study on a tiny set of its layout."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from facemae.data.card import read_card
from facemae.data.index import ShardIndex
from facemae.data.select import metadata
from facemae_probes.commands import app as probe_app
from facemae_probes.studies import ferplus_set, write
from facemae_probes.studies.commands import app
from facemae_probes.studies.facts import pretraining_facts
from tests.probes.ferplus_layout import TINY


def _split_of(shards: Path) -> dict[str, str]:
    table = metadata(ShardIndex.open(shards), ["key", "split"])
    return dict(zip(table["key"].to_pylist(), table["split"].to_pylist(), strict=True))


def test_one_command_packs_pretrains_probes_and_reports(ferplus_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    arguments = ["ferplus", "--data", str(ferplus_folder), "--out", str(out), "--layers", "-1"]
    arguments += ["--pooling", "mean", "--probe", "linear,knn", "--json", *TINY]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)

    assert results["data"]["samples"] == 72
    assert results["recipe"]["data"]["streams"][0]["where"] == {"split": "train"}
    consumed = [json.loads(line) for line in (out / "run" / "log" / "keys.jsonl").read_text().splitlines()]
    assert sum(len(line["keys"]) for line in consumed) == 32
    assert {_split_of(out / "shards")[key] for line in consumed for key in line["keys"]} == {"train"}
    card = read_card(out / "shards")
    assert (card.licence, card.redistributable) == ("unknown", False)
    assert "none given by the authors" in card.terms
    assert set(results["lines"]) == {"pretrained", "random, same probe", "random, own choice", "raw pixels", "HOG"}
    assert (
        results["lines"]["pretrained"]["setting"]["probe"] == results["lines"]["random, same probe"]["setting"]["probe"]
    )
    assert (
        results["model"]["digest"]
        != json.loads((out / "probes/random-same-linear/result.json").read_text())["model"]["digest"]
    )
    line = results["lines"]["pretrained"]
    assert line["without_duplicates"]["count"] < line["test"]["count"] < 24
    assert results["task"]["unit"] == "pixel_md5"
    gain = results["gain_over_random"]["accuracy"]
    assert gain["low"] <= gain["value"] <= gain["high"]

    assert set(results["all_probes"]["random, same settings"]) == {"linear", "knn"}
    for kind, entry in results["all_probes"]["random, same settings"].items():
        chosen = results["all_probes"]["pretrained"][kind]["setting"]
        assert (entry["setting"]["layer"], entry["setting"]["pooling"]) == (chosen["layer"], chosen["pooling"])
    assert set(results["gain_by_probe"]) == set(results["against_hog"]) == {"linear", "knn"}
    for kind, entry in results["against_hog"].items():
        theirs = results["all_probes"]["HOG"][kind]["test"]["accuracy"]
        assert entry["hog"] == theirs
        assert entry["value"] == pytest.approx(line["test"]["accuracy"] - theirs)
    how = results["how"]
    assert how["pretraining"]["samples"] == 32
    assert how["pretraining"]["seconds"] > 0
    assert how["pretraining"]["threads"] == 1
    assert how["command"].startswith("facemae study ferplus --data data --out study")
    assert "log.keys=true" in how["command"]
    assert str(tmp_path) not in json.dumps(results)

    report = (out / "report" / "report.md").read_text()
    assert "HOG floor" in report
    assert "HOG with kNN reaches" in report
    assert "one pretraining, with one seed" in report
    assert how["machine"]["revision"] in report
    assert str(tmp_path) not in report
    assert (out / "report" / "reconstruction.png").exists()
    assert (out / "report" / "confusion.png").exists()

    before = (out / "probes/pretrained/result.json").stat().st_mtime_ns
    again = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert (out / "probes/pretrained/result.json").stat().st_mtime_ns == before
    assert json.loads(again.stdout)["lines"] == results["lines"]

    compared = CliRunner().invoke(
        probe_app,
        [
            "compare",
            str(out / "probes/pretrained"),
            str(out / "probes/random-own"),
            "--probe",
            "linear",
            "--json",
            "--slice",
            ferplus_set.CLEAN,
        ],
        catch_exceptions=False,
    )
    assert json.loads(compared.stdout)["unit"] == "pixel_md5"


def _event(kind: str, step: int, time: float, **facts: object) -> str:
    return json.dumps({"event": kind, "step": step, "time": time, "text": "", **facts})


def test_pretraining_time_adds_up_over_starts_and_leaves_pauses_out(tmp_path: Path) -> None:
    begin = {"steps": 10, "total_samples": 80, "facts": {"processor": "P", "threads": 2, "precision": "bf16"}}
    events = [
        _event("setup", 0, 100),
        _event("start", 0, 100, **begin),
        _event("save", 4, 140),  # killed after this save
        _event("note", 4, 1000),
        _event("setup", 4, 1001),
        _event("resume", 4, 1002, **begin, code="abc"),
        _event("save", 10, 1060),
        _event("stop", 10, 1062),
        _event("resume", 10, 5000, **begin, code="def"),  # started again when it was done
        _event("stop", 10, 5003),
    ]
    log = tmp_path / "log"
    log.mkdir()
    (log / "events.jsonl").write_text("\n".join(events) + "\n")
    (log / "metrics.jsonl").write_text('{"step": 5, "samples": 40, "samples_per_s": 1.5}\n')
    facts = pretraining_facts(tmp_path)
    assert (facts["seconds"], facts["starts"], facts["samples"]) == (100, 2, 80)
    assert (facts["samples_per_s"], facts["median_samples_per_s"]) == (0.8, 1.5)
    assert (facts["processor"], facts["threads"], facts["precision"]) == ("P", 2, "bf16")
    assert facts["code"] == ["unknown", "abc"]


@pytest.mark.parametrize(
    ("low", "high", "words"), [(0.01, 0.03, "**beats**"), (-0.03, -0.01, "lies below"), (-0.01, 0.02, "holds 0")]
)
def test_the_comparison_with_hog_is_said_as_it_is(low: float, high: float, words: str) -> None:
    outcome = "beats" if low > 0 else "loses" if high < 0 else "undecided"
    found = {"value": 0.0, "low": low, "high": high}
    assert words in write.outcome_words({"outcome": outcome, **found, "without_duplicates": found})


def test_pretraining_is_confined_to_the_train_split(tmp_path: Path) -> None:
    recipe = ferplus_set.study_recipe("fmae_tiny", ["optim.total=80 epochs"], tmp_path / "shards")
    assert recipe.data.streams[0].where == {"split": "train"}
    assert recipe.optim.total.amount == 80
