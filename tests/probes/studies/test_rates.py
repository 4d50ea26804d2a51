"""Rates, units and the table's numbers, on made-up measurements."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facemae.errors import ProbeError
from facemae.rng import generator
from facemae_probes.results.result import ProbeResult
from facemae_probes.studies import calibration
from facemae_probes.studies.calibration import combine, rate_of_steps, samples_for
from facemae_probes.studies.equal_time_report import markdown, write_table
from facemae_probes.studies.equal_time_summary import mean_difference, mean_interval, summarise
from facemae_probes.studies.ferplus_set import CLEAN
from facemae_probes.studies.units import Unit, check_together, from_text, probe_part, read_unit, to_text, write_unit
from facemae_probes.tasks.targets import Targets


def test_the_first_steps_are_not_timed_and_stages_keep_their_weight() -> None:
    assert rate_of_steps([30.0] * 5 + [0.5] * 35, batch=8) == pytest.approx(16)
    # Half of the run is a stage that is four times as fast; its first steps are slow because the run begins.
    seconds = [9.0] * 5 + [0.25] * 15 + [1.0] * 20
    assert rate_of_steps(seconds, batch=10) == pytest.approx(40 * 10 / (20 * 0.25 + 20 * 1.0))
    assert rate_of_steps([2.0], batch=4) == 2
    assert rate_of_steps([9.0, 2.0], batch=4) == 2


def test_a_busy_round_changes_no_systems_share() -> None:
    quiet = combine({"a": [100, 100, 100], "b": [50, 50, 50]})
    busy = combine({"a": [100, 30, 100], "b": [50, 15, 50]})
    assert quiet["a"]["samples_per_s"] == busy["a"]["samples_per_s"] == pytest.approx(100)
    assert busy["b"]["samples_per_s"] == pytest.approx(50)
    assert busy["a"]["spread"] == 0
    assert busy["a"]["rounds"] == [100, 30, 100]
    uneven = combine({"a": [100, 100, 100], "b": [50, 40, 50]})
    assert uneven["b"]["samples_per_s"] == pytest.approx(50)
    assert uneven["b"]["spread"] == pytest.approx(0.106, abs=0.01)


def test_minutes_become_whole_batches() -> None:
    assert samples_for({"samples_per_s": 100.0}, 1, 128) == 46 * 128
    assert samples_for({"samples_per_s": 1.0}, 0.001, 128) == 128


def test_calibration_that_is_stopped_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from facemae.recipe import load_recipe
    from facemae.train import trainer
    from facemae.train.loop import RunResult

    monkeypatch.setattr(trainer, "pretrain", lambda _, out: RunResult(str(out), 1, 8, None, "SIGINT"))
    with pytest.raises(ProbeError, match="calibration was stopped by SIGINT"):
        calibration.measure(load_recipe("fmae_tiny"), 3)


def _result(seed: int, *, right: float, images: int = 400) -> ProbeResult:
    """Predictions that are right in a share of the cases; every tenth image is there twice."""
    rng = generator(seed, "unit")
    truth = generator(1, "truth").integers(0, 3, size=images)
    guess = np.where(rng.random(images) < right, truth, (truth + 1) % 3)
    units = np.arange(images)
    units[::10] = units[1::10]
    clean = np.arange(images) % 5 != 0
    accuracy = float((guess == truth).mean())
    numbers = {"count": images, "accuracy": accuracy, "macro_f1": accuracy, "mean_recall": accuracy, "intervals": {}}
    entry = {
        "settings": [{"probe": "linear", "layer": 11, "pooling": "mean", "valid": right}],
        "test": numbers,
        "slices": {CLEAN: {**numbers, "accuracy": float((guess == truth)[clean].mean()), "count": int(clean.sum())}},
    }
    data = {
        "task": {
            "label": "x",
            "kind": "classes",
            "classes": ["a", "b", "c"],
            "unit": "pixel_md5",
            "counts": {part: {"samples": images} for part in ("train", "valid", "test")},
            "labels_digest": "0",
        },
        "data": {"card": {"name": "made up"}, "digest": "d" * 64},
        "model": {"digest": str(seed)},
        "chosen": {"probe": "linear", "valid": right},
        "selection": {"on": "official valid split"},
        "results": {"linear": entry},
        "duration_s": 1.0,
        "warnings": ["someone should know"],
        "versions": {"python": "3"},
    }
    keys = tuple(str(i) for i in range(images))
    scores = np.eye(3, dtype=np.float32)[guess][None]
    targets = Targets("classes", ("a", "b", "c"), truth)
    return ProbeResult(data, {"linear": scores}, targets, keys, units, {CLEAN: clean})


def _unit(name: str, seed: int, right: float, **changes: Any) -> Unit:
    machine = {"cores": 2, "processor": "P", "memory_gb": 8, "revision": "abc"}
    facts = {
        "schema": 1,
        "study": "equal-time",
        "kind": "system",
        "name": name,
        "seed": seed,
        "about": "",
        "from_recipe": "fmae_tiny",
        "overrides": [],
        "recipe": {"name": name, "efficiency": {}},
        "minutes": 60,
        "samples": 640,
        "curve": [{"samples": 320, "rankme": 3.0, "knn": 0.4}, {"samples": 640, "rankme": 5.0, "knn": 0.5}],
        "probe": "quick",
        "machine": machine,
        "calibration": {"samples_per_s": 10.0, "spread": 0.01, "machine": machine, "load_before": 0.1, "accepted": []},
        "pretraining": {
            "seconds": 61.0,
            "starts": 1,
            "epochs": 1.5,
            "device": "cpu",
            "threads": 2,
            "precision": "fp32",
        },
    }
    return Unit({**facts, **probe_part(_result(100 * seed + len(name), right=right)), **changes})


def test_a_unit_keeps_predictions_and_which_images_belong_together(tmp_path: Path) -> None:
    result = _result(4, right=0.7)
    unit = _unit("a", 4, 0.7)
    write_unit(tmp_path, unit)
    read = read_unit(tmp_path / "units" / "a-4.json")
    assert read.data == unit.data
    assert (read.truth == result.targets.values).all()
    assert (read.clean == result.slices[CLEAN]).all()
    for row in (0, 10):
        assert read.units[row] == read.units[row + 1]
        assert (read.units == read.units[row]).sum() == 2
    assert len(np.unique(read.units)) == len(np.unique(result.units))
    numbers = np.arange(36)
    assert (from_text(to_text(numbers)) == numbers).all()


def test_means_and_differences_are_over_seeds_with_each_image_drawn_once() -> None:
    one, other = [_unit("aa", seed, 0.8) for seed in (0, 1)], [_unit("b", seed, 0.6) for seed in (0, 1)]
    accuracies = [float((unit.predicted("linear") == unit.truth).mean()) for unit in one + other]
    found = mean_interval(one, "linear")
    assert found.value == pytest.approx(np.mean(accuracies[:2]))
    assert found.units == len(np.unique(one[0].units))
    # The same predictions twice are no more information than once.
    twice, once = mean_interval([one[0], one[0]], "linear"), mean_interval([one[0]], "linear")
    assert (twice.value, twice.low, twice.high) == (once.value, once.low, once.high)
    gain = mean_difference(one, other, "linear")
    assert gain.value == pytest.approx(np.mean(accuracies[:2]) - np.mean(accuracies[2:]))
    assert gain.low is not None
    assert gain.low > 0.1
    clean = mean_difference(one, other, "linear", "clean")
    rows = one[0].clean
    expected = [float((unit.predicted("linear") == unit.truth)[rows].mean()) for unit in one + other]
    assert clean.value == pytest.approx(np.mean(expected[:2]) - np.mean(expected[2:]))


def test_the_table_compares_over_shared_seeds_and_names_what_is_missing(tmp_path: Path) -> None:
    units = [_unit("a", 0, 0.6), _unit("a", 1, 0.6), _unit("bb", 1, 0.8)]
    for unit in units:
        write_unit(tmp_path, unit)
    wanted = [("a", 0), ("bb", 0), ("a", 1), ("bb", 1), ("hog", 0)]
    results = write_table(tmp_path, wanted, "facemae study equal-time")
    assert results["missing"] == [{"name": "bb", "seed": 0}, {"name": "hog", "seed": 0}]
    against = results["lines"]["bb"]["probes"]["linear"]["against_first"]
    assert against["seeds"] == [1]
    assert against["test"]["value"] == pytest.approx(mean_difference([units[2]], [units[1]], "linear").value)
    assert results["best_on_valid"] == {"linear": "bb"}
    assert results["notes"] == ["all: someone should know"]
    for name in ("accuracy.png", "curves.png"):
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")
    report = (tmp_path / "report" / "report.md").read_text()
    assert "missing below:** bb (seed 0), hog (seed 0)." in report
    assert json.loads((tmp_path / "report" / "results.json").read_text()) == json.loads(json.dumps(results))
    assert [len(line["by_seed"]) for line in (results["lines"][n]["probes"]["linear"] for n in ("a", "bb"))] == [2, 1]


def test_notes_say_where_times_are_not_equal() -> None:
    machine = {"cores": 4, "processor": "Q", "memory_gb": 8, "revision": "abc"}
    rate = {
        "samples_per_s": 10.0,
        "spread": 0.0,
        "machine": machine,
        "accepted": ["processor P -> Q"],
        "load_before": 3.0,
    }
    units = [_unit("a", 0, 0.6), _unit("a", 1, 0.6, samples=1280, calibration=rate)]
    notes = summarise(units, [("a", 0), ("a", 1)], None)["notes"]
    assert notes[0].startswith("the units were calibrated 2 times")
    assert "when rates were measured, the machine was busy, with a load of 3 on 4 cores" in notes
    assert "seeds of a were trained for different lengths: [640, 1280] samples" in notes
    assert "a, seed 1, was trained for accepted rates: processor P -> Q" in notes
    assert "called from Python" in markdown(summarise(units, [("a", 0)], None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probe": "full"}, "differ in probe"),
        ({"minutes": 30}, "minutes 60 -> 30"),
        ({"recipe": {"name": "a", "seed": 1, "efficiency": {}}}, "seed"),
        ({"data": {"name": "made up", "digest": "e"}}, "differ in data"),
    ],
)
def test_units_that_cannot_stand_in_one_table_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        check_together([_unit("a", 0, 0.6), _unit("a", 1, 0.6, **changes)])


def test_files_that_are_no_units_are_refused(tmp_path: Path) -> None:
    (tmp_path / "units").mkdir()
    with pytest.raises(ProbeError, match="holds no units"):
        write_table(tmp_path, [("a", 0)], None)
    path = tmp_path / "units" / "a-0.json"
    path.write_text("{}")
    with pytest.raises(ProbeError, match="is no unit of an equal-time table"):
        read_unit(path)
    path.write_text(json.dumps(_unit("b", 0, 0.6).data))
    with pytest.raises(ProbeError, match="holds the unit b with seed 0"):
        read_unit(path)
