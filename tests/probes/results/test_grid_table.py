"""A grid: a folder for every cell, and a table of what this call made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from facemae.errors import ProbeError, UsageError
from facemae_probes.grid import Cell, run_grid
from facemae_probes.results.report import read_result, write_result
from facemae_probes.results.result import ProbeResult
from facemae_probes.results.words import MARK
from tests.probes.results.made import made_result

Run = Callable[[Path], ProbeResult]


def made(**options: Any) -> Run:
    def run(folder: Path) -> ProbeResult:
        result = made_result(**options)
        write_result(folder, result)
        return result

    return run


def failing(folder: Path) -> ProbeResult:
    raise ProbeError("no a|b\nhere", expected="something")


def warned(*texts: str) -> Run:
    def run(folder: Path) -> ProbeResult:
        result = made_result()
        result.data["warnings"] += texts
        return result

    return run


def cell(run: Run = failing, **names: str) -> Cell:
    return Cell(**{"model": "net", "task": "emotion", "shards": "shards/a", "protocol": "official", **names}, run=run)


def table(out: Path, *cells: Cell) -> tuple[str, dict[str, Any]]:
    run_grid(cells, out, say=lambda _: None)
    return (out / "table.md").read_text(), json.loads((out / "table.json").read_text())


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": "few-shot:1%"},
        {"shards": "shards/b"},
        {"task": "emotion*"},
        {"model": "net "},
        {"model": "Net"},
        {"origin": "runs/other"},
        {"model": "net_emotion"},
    ],
)
def test_cells_that_differ_have_folders_that_differ(other: dict[str, str]) -> None:
    first = {"protocol": "few-shot:1", "origin": "runs/net"}
    folders = {cell(failing, **first).folder.lower(), cell(failing, **{**first, **other}).folder.lower()}
    assert len(folders) == 2
    assert all(folder.startswith("cells/emotion_few-shot-1_net") for folder in folders)


def test_a_long_name_still_makes_a_file_name(tmp_path: Path) -> None:
    folder = cell(task="AU" * 500, model="../../x", protocol="folds:" + "f" * 300).folder
    assert folder.count("/") == 1
    (tmp_path / folder).mkdir(parents=True)


def test_the_same_cell_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="net on emotion of shards/a, official, is asked for twice"):
        run_grid([cell(made()), cell(made(), model="b"), cell(made(), origin="x")], tmp_path, say=lambda _: None)
    assert not list(tmp_path.iterdir())


def test_cells_of_like_names_keep_their_results(tmp_path: Path) -> None:
    cells = [
        cell(made(seed=1), protocol="few-shot:1"),
        cell(made(seed=2), protocol="few-shot:1%"),
        cell(made(seed=3), protocol="few-shot:1", shards="shards/b"),
    ]
    text, values = table(tmp_path, *cells)
    for each, seed in zip(cells, (1, 2, 3), strict=True):
        assert read_result(tmp_path / each.folder, {"asked": seed}) is not None
    assert len({row["folder"] for row in values["rows"]}) == 3
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "## emotion (shards/a), few-shot:1",
        "## emotion (shards/a), few-shot:1%",
        "## emotion (shards/b), few-shot:1",
    ]


def test_an_older_result_is_not_shown_where_its_cell_fails_now(tmp_path: Path) -> None:
    table(tmp_path, cell(made()))
    text, values = table(tmp_path, cell(failing), cell(made(), model="other"))
    assert read_result(tmp_path / cell().folder) is not None, "it lies there, and answers an older question"
    assert [row["model"] for row in values["rows"]] == ["other"]
    assert [(row["model"], row["error"]) for row in values["failed"]] == [("net", "no a|b")]
    assert "| net | failed: no a\\|b | - | - | - | - |" in text


def test_a_section_with_failures_only_is_there(tmp_path: Path) -> None:
    text, values = table(tmp_path, cell(failing))
    assert text == "## emotion, official\n\n| model | probe |\n|---|---|\n| net | failed: no a\\|b |\n"
    assert values["rows"] == []


def test_the_table_is_written_after_every_cell(tmp_path: Path) -> None:
    seen: list[str] = []

    def looking(folder: Path) -> ProbeResult:
        seen.append((tmp_path / "table.md").read_text())
        return made_result()

    text, _ = table(tmp_path, cell(made()), cell(looking, model="b"))
    assert seen[0].startswith("So far 1 of 2 cells.\n\n## emotion, official\n")
    assert "So far" not in text


def test_a_section_says_how_faces_were_cut_and_each_warning_once(tmp_path: Path) -> None:
    text, values = table(
        tmp_path,
        cell(warned("small test", "another crop", "small test")),
        cell(warned("small test"), model="b"),
        cell(warned("small test"), task="age"),
    )
    assert values["sections"][0]["warnings"] == [
        {"text": "small test", "models": ["net", "b"]},
        {"text": "another crop", "models": ["net"]},
    ]
    first, second = text.split("## age")
    assert first.count("Faces: detector mtcnn, margin 0.2, alignment eyes, colour grey.\n") == 1
    assert first.count("Warning (all models): small test.\n") == 1
    assert first.count("Warning (net): another crop.\n") == 1
    assert "Warning (net): small test.\n" in second


def test_draws_show_their_deviation_and_choices_on_test_their_mark(tmp_path: Path) -> None:
    text, values = table(tmp_path, cell(made(repeats=3, on_test=True, protocol="paper:x"), protocol="paper:x"))
    row = values["rows"][0]
    bounds = row["metrics"]["accuracy"]
    shown = f"{bounds['value']:.3f} ± {bounds['deviation']:.3f} [{bounds['low']:.3f}, {bounds['high']:.3f}]"
    assert f"| net | linear * | {shown} |" in text
    assert "±: standard deviation over 3 draws." in text
    assert f"## emotion, paper:x ({MARK})\n" in text
    assert (row["on_test"], row["mark"]) == (True, f"{MARK}: paper:x")


def test_names_cannot_break_the_table(tmp_path: Path) -> None:
    text, _ = table(tmp_path, cell(made(), model="a|b\nc", task="x\n# y"))
    assert "| a\\|b c | linear * |" in text
    assert "## x # y, official\n" in text
