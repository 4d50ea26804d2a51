"""The equal-time study from images to a table, on a tiny set in the layout of FER+."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from facemae.errors import ConfigError, ProbeError, UsageError
from facemae_probes.studies import equal_time
from facemae_probes.studies.commands import app
from facemae_probes.studies.equal_time import Calibrating, Table, run_equal_time, seeds_of, systems_of
from facemae_probes.studies.systems import BUILT_IN, System, find_systems, read_systems
from facemae_probes.studies.units import import_units, read_units
from tests.probes.ferplus_layout import TINY

SYSTEMS = {
    "joint": {"recipe": "fmae_tiny", "overrides": list(TINY), "about": "joint decoder"},
    "cross": {"recipe": "fmae_tiny", "overrides": [*TINY, "objectives.0.decoder.kind=cross"]},
}


def _call(data: Path, out: Path, *more: str) -> Any:
    systems = out.parent / "systems.yaml"
    systems.write_text(yaml.safe_dump(SYSTEMS, sort_keys=False))
    arguments = ["equal-time", "--data", str(data), "--out", str(out), "--systems", str(systems)]
    arguments += ["--minutes", "0.0003", "--rounds", "1", "--round-seconds", "0.1", "--seeds", "3,5", *more]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def _table(**changes: Any) -> Table:
    systems = tuple(System(name=name, **entry) for name, entry in SYSTEMS.items())
    return Table(**{"systems": systems, "minutes": 0.0003, "seeds": (3, 5), "baselines": False, **changes})


@pytest.fixture(scope="module")
def study(ferplus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study in which one system has one seed, and HOG is there."""
    out = tmp_path_factory.mktemp("equal") / "study"
    done = _call(ferplus_folder, out, "--calibrate-only", "--json")
    assert not (out / "runs").exists()
    assert json.loads(done.stdout) == json.loads((out / "calibration.json").read_text())
    _call(ferplus_folder, out, "--only", "joint", "--seed", "3")
    _call(ferplus_folder, out, "--only", "hog")
    return out


def test_a_unit_is_finished_alone_and_the_report_says_what_is_missing(study: Path) -> None:
    calibration = json.loads((study / "calibration.json").read_text())
    assert set(calibration["systems"]) == {"joint", "cross"}
    for entry in calibration["systems"].values():
        assert entry["samples_per_s"] > 0
        assert (entry["batch"], entry["threads"], len(entry["rounds"])) == (8, 1, 1)
    assert [(unit.name, unit.seed) for unit in read_units(study)] == [("hog", 0), ("joint", 3)]
    unit = next(unit for unit in read_units(study) if unit.trained)
    entry = unit.data["calibration"]
    assert unit.data["samples"] == max(1, int(entry["samples_per_s"] * 0.0003 * 60 / 8)) * 8
    assert unit.data["pretraining"]["samples"] == unit.data["samples"]
    assert unit.data["curve"][-1]["samples"] == unit.data["samples"]
    assert 0 <= unit.data["curve"][-1]["knn"] <= 1
    assert set(unit.data["probes"]) == {"linear", "knn", "attentive"}

    results = json.loads((study / "report" / "results.json").read_text())
    missing = {(entry["name"], entry["seed"]) for entry in results["missing"]}
    assert missing == {("cross", 3), ("joint", 5), ("cross", 5), ("random", 0)}
    assert set(results["lines"]) == {"joint", "hog"}
    assert results["lines"]["hog"]["probes"]["knn"]["against_first"]["seeds"] == [3]
    report = (study / "report" / "report.md").read_text()
    assert "**Not finished yet, and missing below:** joint (seed 5)" not in report
    assert "cross (seed 3)" in report
    assert "Equal time is given out as samples" in report
    assert (study / "report" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    for path in (*study.glob("*.json"), *study.glob("units/*"), *study.glob("report/*.*")):
        assert str(study.parent).encode() not in path.read_bytes(), f"{path.name} holds a path"


def test_probing_is_done_again_without_training_again(
    study: Path, ferplus_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ProbeError("interrupted")

    before = (study / "units" / "joint-3.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(equal_time, "probe", fail)
        with pytest.raises(ProbeError, match="interrupted"):
            run_equal_time(ferplus_folder, study, _table(), only="cross", seed=5)
    run = study / "runs" / "cross-5"
    written = {path: path.stat().st_mtime_ns for path in run.glob("checkpoints/*/model.safetensors")}
    assert written
    said: list[str] = []
    results = run_equal_time(ferplus_folder, study, _table(), seed=5, only="cross", say=said.append)
    assert {path: path.stat().st_mtime_ns for path in run.glob("checkpoints/*/model.safetensors")} == written
    assert results["lines"]["cross"]["seeds"] == [5]
    assert results["lines"]["cross"]["probes"]["linear"]["against_first"] is None, "no seed in common yet"
    assert not any((study / "features").glob("*")), "features of a finished unit are removed"
    assert (study / "units" / "joint-3.json").read_bytes() == before


def test_finished_units_are_read_and_refused_for_another_question(study: Path, ferplus_folder: Path) -> None:
    said: list[str] = []
    run_equal_time(ferplus_folder, study, _table(), only="joint", seed=3, say=said.append)
    assert "joint, seed 3: done, its unit is read" in said
    with pytest.raises(ProbeError, match=r"joint-3.json was made otherwise than asked for now: minutes 0.0003 -> 1"):
        run_equal_time(ferplus_folder, study, _table(minutes=1.0), only="joint", seed=3)


def _edited(study: Path, folder: Path, **machine: object) -> Path:
    """A study folder with units and shards of another, and rates that say they come from elsewhere."""
    (folder / "shards").symlink_to(study / "shards")
    found = json.loads((study / "calibration.json").read_text())
    found["machine"] |= machine
    (folder / "calibration.json").write_text(json.dumps(found))
    return folder


def test_rates_of_another_machine_are_refused_unless_accepted(
    study: Path, ferplus_folder: Path, tmp_path: Path
) -> None:
    out = _edited(study, tmp_path, processor="Another Processor")
    with pytest.raises(ProbeError) as refused:
        run_equal_time(ferplus_folder, out, _table())
    assert "measured on another machine or with other code: processor Another Processor ->" in str(refused.value)
    assert "--accept-calibration" in str(refused.value)
    accepted = run_equal_time(ferplus_folder, out, _table(), calibrating=Calibrating(accept=True, only=True))
    assert accepted["machine"]["processor"] == "Another Processor"


def test_rates_of_other_code_recipes_and_systems_are_refused(study: Path, ferplus_folder: Path, tmp_path: Path) -> None:
    out = _edited(study, tmp_path)
    other = System(name="joint", recipe="fmae_tiny", overrides=(*TINY, "optim.clip=null"))
    with pytest.raises(ProbeError, match=r"the recipe of joint changed since its rate was measured: optim.clip"):
        run_equal_time(ferplus_folder, out, _table(systems=(other,)))
    threads = System(name="joint", recipe="fmae_tiny", overrides=(*TINY, "efficiency.threads=2"))
    with pytest.raises(ProbeError, match=r"efficiency.threads: 1 -> 2"):
        run_equal_time(ferplus_folder, out, _table(systems=(threads,)))
    with pytest.raises(ProbeError, match="has no rate of third"):
        run_equal_time(ferplus_folder, out, _table(systems=(other.model_copy(update={"name": "third"}),)))
    found = json.loads((out / "calibration.json").read_text())
    (out / "calibration.json").write_text(json.dumps({**found, "code": "0"}))
    with pytest.raises(ProbeError, match="other code: code "):
        run_equal_time(ferplus_folder, out, _table())
    (out / "calibration.json").write_text(json.dumps({**found, "data": {**found["data"], "digest": "0"}}))
    with pytest.raises(ProbeError, match="measured on other data"):
        run_equal_time(ferplus_folder, out, _table(), calibrating=Calibrating(accept=True))
    (out / "calibration.json").write_text("[]")
    with pytest.raises(ProbeError, match="is no calibration of this study"):
        run_equal_time(ferplus_folder, out, _table())


def test_new_rates_are_refused_once_a_unit_is_begun(study: Path, ferplus_folder: Path) -> None:
    with pytest.raises(ProbeError, match=r"new rates would give other lengths than those of .*joint-3"):
        run_equal_time(ferplus_folder, study, _table(), calibrating=Calibrating(again=True))


def test_units_made_elsewhere_join_a_table(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "table"
    done = CliRunner().invoke(
        app,
        ["equal-time", "--out", str(out), "--import", str(study), "--report-only", "--json"],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    assert {"joint", "hog"} <= set(json.loads(done.stdout)["lines"])
    assert json.loads(done.stdout)["command"] == (
        f"facemae study equal-time --import {study.name} --out table --minutes 60 --seeds 0,1 --probe quick "
        "--report-only"
    )
    assert import_units(study / "units", out) == [], "what is there is not copied again"
    changed = json.loads((out / "units" / "hog-0.json").read_text())
    (out / "units" / "hog-0.json").write_text(json.dumps({**changed, "about": "edited"}))
    with pytest.raises(ProbeError, match="is another unit than"):
        import_units(study, out)
    with pytest.raises(ProbeError, match="holds no units"):
        import_units(study / "report", out)


def test_systems_are_names_or_a_file(tmp_path: Path) -> None:
    names = ["fmae_tiny", "fmae_tiny_cross", "fmae_tiny_rising", "swav_tiny", "simclr_tiny"]
    assert [system.name for system in find_systems(())] == names
    assert find_systems(["all"]) == BUILT_IN
    with pytest.raises(UsageError, match="no built-in system 'fmae_huge'"):
        find_systems(["fmae_huge"])
    with pytest.raises(UsageError, match="named twice"):
        find_systems(["fmae_tiny", "fmae_tiny"])
    path = tmp_path / "systems.yaml"
    path.write_text("a: {recipe: fmae_tiny, overrides: [optim.clip=null]}")
    assert systems_of([str(path)]) == (System(name="a", recipe="fmae_tiny", overrides=("optim.clip=null",)),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[fmae_tiny]", "holds no systems"),
        ("a: [", "is not valid YAML"),
        ("a: fmae_tiny", "system a is 'fmae_tiny'"),
        ("A b: {recipe: fmae_tiny}", "'A b' is no name of a system"),
        ("random: {recipe: fmae_tiny}", "'random' is no name of a system"),
        ("a: {overrides: []}", "system a: recipe: Field required"),
        ("a: {recipe: fmae_tiny, overides: []}", "system a: overides: Extra inputs"),
        ("a: {recipe: fmae_tiny, name: b}", "multiple values for keyword argument 'name'"),
    ],
)
def test_a_file_of_systems_that_does_not_fit_says_why(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "systems.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_systems(path)
    assert message in str(refused.value)


def test_a_system_of_an_unknown_recipe_is_refused_before_anything_is_measured(
    study: Path, ferplus_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "shards").symlink_to(study / "shards")
    with pytest.raises(ConfigError, match="unknown recipe 'fmae_huge'"):
        run_equal_time(ferplus_folder, tmp_path, _table(systems=(System(name="huge", recipe="fmae_huge"),)))
    assert not (tmp_path / "calibration.json").exists()


@pytest.mark.parametrize("system", BUILT_IN, ids=lambda system: str(system.name))
def test_built_in_systems_resolve(system: System, tmp_path: Path) -> None:
    from facemae_probes.studies.ferplus_set import study_recipe

    assert study_recipe(system.recipe, system.overrides, tmp_path).optim.batch_size > 0


def test_a_table_says_what_it_cannot_hold() -> None:
    with pytest.raises(UsageError, match="--probe fast"):
        _table(probe="fast")
    with pytest.raises(UsageError, match="--minutes 0"):
        _table(minutes=0.0)
    with pytest.raises(UsageError, match="--seeds"):
        _table(seeds=(1, 1))
    with pytest.raises(UsageError, match="no unit third with seed 3"):
        _table().chosen("third", 3)
    with pytest.raises(UsageError, match="--seeds 0,x"):
        seeds_of("0,x")
    assert _table(baselines=True).chosen("hog", 7) == [("hog", 0)]
    assert _table().wanted() == [("joint", 3), ("cross", 3), ("joint", 5), ("cross", 5)]
    done = CliRunner().invoke(app, ["equal-time", "--out", "x"])
    assert "no --data" in str(done.exception)
