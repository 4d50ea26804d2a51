"""The quickstart: the whole path once, small; what it leaves behind; running it again."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from facemae.errors import UsageError
from facemae_probes.quickstart import app
from facemae_probes.tour.page import write_page
from facemae_probes.tour.settings import Places, Settings
from facemae_probes.tour.steps import run_tour

SMALL = Settings(
    count=150,
    identities=10,
    size=32,
    samples=256,
    batch=64,
    layers=(-1,),
    poolings=("mean",),
    strengths=(0.1,),
    replicates=50,
    recipe=(
        "encoder.image_size=32",
        "objectives.0.decoder.width=32",
        "objectives.0.decoder.depth=1",
        "efficiency.workers=0",
        "efficiency.threads=1",
        "efficiency.precision=fp32",
    ),
)


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    folder = tmp_path_factory.mktemp("quickstart") / "tour"
    said: list[str] = []
    return folder, run_tour(folder, SMALL, said.append), said


def test_it_answers_every_question_for_both_encoders(tour: tuple[Path, dict[str, Any], list[str]]) -> None:
    rows = tour[1]["rows"]
    assert {row["question"] for row in rows} == {"expression", "action units", "identity"}
    for row in rows:
        for name in ("random", "pretrained"):
            assert 0 <= row[name]["low"] <= row[name]["value"] <= row[name]["high"] <= 1
        assert 0 < row["constant"] < 1
        difference = row["pretrained"]["value"] - row["random"]["value"]
        assert row["gain"]["value"] == pytest.approx(difference, abs=1e-9)


def test_expression_is_probed_on_new_persons_and_identity_on_known_ones(
    tour: tuple[Path, dict[str, Any], list[str]],
) -> None:
    probes = Places(tour[0]).probes
    expression = json.loads((probes / "expression" / "pretrained" / "result.json").read_text())
    identity = json.loads((probes / "identity" / "pretrained" / "result.json").read_text())
    assert not any("are in test and in train" in text for text in expression["warnings"])
    counts = identity["task"]["counts"]
    assert len(identity["task"]["classes"]) == 7
    assert all(counts["train"][name] and counts["test"][name] for name in identity["task"]["classes"])


def test_everything_it_names_is_there(tour: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, summary, _ = tour
    for path in [*summary["pictures"].values(), summary["features"], summary["page"], summary["model"]]:
        assert (folder / path).exists(), path
    assert any("reconstruction" in name for name in summary["pictures"])
    with np.load(folder / summary["features"], allow_pickle=False) as features:
        assert any(len(features[name]) == SMALL.count for name in features.files if features[name].ndim)
    assert json.loads((folder / "summary.json").read_text()) == summary


def test_every_step_says_how_long_it_took(tour: tuple[Path, dict[str, Any], list[str]]) -> None:
    _, summary, said = tour
    for name in ("draw", "look", "verify", "pretrain", "probe", "extract"):
        assert summary["steps"][name]["seconds"] >= 0
    assert sum("s)" in line for line in said) >= 6
    assert "      6 of 6: identity of the pretrained encoder …" in said


def test_running_it_again_does_nothing_twice(tour: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, first, _ = tour
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.tar")}
    said: list[str] = []
    second = run_tour(folder, SMALL, said.append)
    assert sum("done before" in line for line in said) == 6
    assert second["rows"] == first["rows"]
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.tar")}


def test_a_step_that_was_cut_off_is_done_again(tour: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, first, _ = tour
    journal = folder / "tour.json"
    kept = json.loads(journal.read_text())
    del kept["steps"]["probe"], kept["steps"]["extract"]
    journal.write_text(json.dumps(kept))
    (folder / first["features"]).unlink()
    said: list[str] = []
    assert run_tour(folder, SMALL, said.append)["rows"] == first["rows"]
    assert sum("done before" in line for line in said) == 4
    assert (folder / first["features"]).exists()


def test_other_settings_in_the_same_folder_are_refused(tour: tuple[Path, dict[str, Any], list[str]]) -> None:
    with pytest.raises(UsageError, match="other settings: samples"):
        run_tour(tour[0], replace(SMALL, samples=512))


def test_a_folder_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="no quickstart's folder"):
        run_tour(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_page_shows_names_and_never_runs_them(tour: tuple[Path, dict[str, Any], list[str]], tmp_path: Path) -> None:
    folder, summary, _ = tour
    hostile = "<script>alert(1)</script>"
    changed = {**summary, "folder": hostile, "rows": [{**summary["rows"][0], "about": hostile}]}
    page = folder / "report.html"
    kept = page.read_text()
    try:
        write_page(changed, Places(folder))
        assert "<script" not in page.read_text()
        assert "&lt;script&gt;" in page.read_text()
    finally:
        page.write_text(kept)
    assert kept.count("data:image/png;base64,") == len(summary["pictures"])
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", kept)  # four letters that pictures have by chance


def test_the_command_offers_an_example() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "facemae quickstart" in result.output


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the promise is about two cores")
def test_the_full_size_keeps_its_promise(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "tour"), "--json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout.splitlines()[-1])
    assert summary["seconds"] <= 300
    gains = {(row["question"], row["probe"]): row["gain"] for row in summary["rows"]}
    assert gains["expression", "linear"]["low"] > 0
    assert gains["action units", "linear"]["low"] > 0
