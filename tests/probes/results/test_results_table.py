"""What the terminal shows of a result."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from facemae_probes.commands.results import show
from facemae_probes.results.table import results_table, tall_lines
from facemae_probes.results.words import faces_line
from tests.probes.results.made import COUNT, CROP, made_result


def shown(data: dict[str, Any]) -> str:
    console = Console(width=300, file=io.StringIO())
    console.print(results_table(data))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


def line_of(text: str, part: str) -> str:
    found = [line for line in text.splitlines() if part in line]
    assert len(found) == 1, text
    return found[0]


def test_groups_are_shown_with_their_gap_and_what_to_know_of_it() -> None:
    genders = ["f" if number % 3 else "m" for number in range(COUNT - 4)] + [None] * 4
    data = made_result(groups=genders).data
    block = data["results"]["linear"]["groups"]["gender"]
    text = shown(data)
    for group in block["groups"]:
        line = line_of(text, f"gender={group['value']}")
        assert f"{group['count']} ({group['units']} subjects)" in line
        bounds = group["interval"]
        assert f"{bounds['value']:.4f} [{bounds['low']:.4f}, {bounds['high']:.4f}]" in line
    assert "4 (2 subjects)" in line_of(text, "gender=unknown")
    gap = block["gap"]
    line = line_of(text, f"gender: largest gap, {gap['first']} - {gap['second']}")
    bounds = gap["interval"]
    assert f"{bounds['value']:+.4f} [{bounds['low']:+.4f}, {bounds['high']:+.4f}]" in line
    assert gap["note"] in " ".join(text.split())


def test_groups_too_small_for_a_gap_say_so() -> None:
    text = shown(made_result(groups=["f"] * (COUNT - 2) + ["m"] * 2).data)
    assert "no two groups of 10 subjects" in line_of(text, "gender: largest gap")


def test_names_in_brackets_are_shown() -> None:
    text = shown(made_result(groups=["[red]a", "[/]b"] * (COUNT // 2)).data)
    assert "gender=[red]a" in text
    assert "gender=[/]b" in text


def test_where_the_table_is_too_wide_there_is_a_line_a_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made_result(folds=4).data
    bounds = data["results"]["linear"]["test"]["intervals"]["accuracy"]
    interval = f"{bounds['value']:.4f} [{bounds['low']:.4f}, {bounds['high']:.4f}]"
    assert "0.2500 ± 0.1250" in "\n".join(tall_lines(data))
    for width, alike in (("80", 1), ("300", 0)):
        monkeypatch.setenv("COLUMNS", width)
        show(data, False, tmp_path)
        printed = capsys.readouterr().out
        assert interval in printed
        assert max(len(line) for line in printed.splitlines() if interval in line) < 80 or not alike
        assert ("─" in printed or "━" in printed) == (not alike)


def test_several_folds_have_their_mean_and_deviation() -> None:
    text = shown(made_result(folds=4).data)
    assert "0.2500 ± 0.1250" in line_of(text, "mean of 4 folds")
    assert "mean of folds" not in shown(made_result().data)


def test_several_draws_have_a_deviation_beside_the_mean() -> None:
    data = made_result(repeats=3).data
    bounds = data["results"]["linear"]["test"]["intervals"]["accuracy"]
    text = shown(data)
    mean = f"{bounds['value']:.4f} ± {bounds['deviation']:.4f} [{bounds['low']:.4f}, {bounds['high']:.4f}]"
    assert mean in line_of(text, "linear *")
    assert "±: standard deviation over 3 draws" in text
    assert "mean of" not in text, "the mean over draws is the result"
    assert "±" not in shown(made_result().data)


def test_faces_are_those_of_the_data_and_the_models_where_they_differ() -> None:
    data = made_result().data
    own = "detector mtcnn, margin 0.2, alignment eyes, colour grey"
    assert faces_line(data) == own, "a baseline was trained on no faces"
    assert f"faces: {own}" in shown(data)
    data["model"]["crop"] = dict(CROP)
    assert faces_line(data) == own
    data["model"]["crop"]["margin"] = "0.5"
    trained = "of the model's training: detector mtcnn, margin 0.5, alignment eyes, colour grey"
    assert faces_line(data) == f"{own}; {trained}"
    data["test_data"] = {"crop": {**CROP, "detector": "none"}}
    tested = "of the test set: detector none, margin 0.2, alignment eyes, colour grey"
    assert faces_line(data) == f"{own}; {tested}; {trained}"


def test_a_constant_answer_stands_last_where_the_result_has_one() -> None:
    data = made_result("multilabel").data
    assert "constant" not in shown(data), "results of early releases have none"
    data["constant"] = {"macro_f1": 0.6667, "auc": 0.5}
    assert [cell.strip() for cell in line_of(shown(data), "constant answer ").split("│")[1:-1]] == [
        "constant answer", "", "", "", "test", "48", "0.6667", "-", "0.5000",
    ]  # fmt: skip
    assert "constant answer: yes to every column, for every sample" in shown(data)
    tall = tall_lines(data)
    place = tall.index("constant answer:")
    assert tall[place + 1] == "  test, n = 48"
    assert tall[place + 2].split() == ["macro", "F1", "0.6667"]


def test_the_units_of_intervals_are_counted_and_few_are_remarked() -> None:
    data = made_result().data
    assert f"95 % bootstrap over {COUNT // 2} subjects; settings" in " ".join(shown(data).split())
    data["task"]["units"]["test"] = 2
    assert "95 % bootstrap over 2 subjects, and 2 say little about others; settings" in " ".join(shown(data).split())
