"""The quickstart's journal and what it prints; the whole path is in tests/test_quickstart.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from facemae.errors import UsageError
from facemae_probes.tour import steps
from facemae_probes.tour.probing import QUESTIONS
from facemae_probes.tour.settings import Journal, Places, Settings
from facemae_probes.tour.show import print_summary, units
from facemae_probes.tour.steps import StoppedError, run_tour


def test_time_of_interrupted_starts_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("facemae_probes.tour.steps.time.monotonic", lambda: float(next(clock)))
    interrupted = [True]

    def pretrain(tour: steps.Tour) -> dict[str, Any]:
        if interrupted.pop() if interrupted else False:
            raise StoppedError("stopped by SIGTERM")
        return {"text": "done"}

    monkeypatch.setattr(steps, "_STEPS", (("pretrain", "pretrain", pretrain),))
    monkeypatch.setattr(steps, "_summarise", lambda _tour, journal, _seconds: {"steps": journal.steps})
    monkeypatch.setattr("facemae_probes.tour.page.write_page", lambda *_: None)
    folder = tmp_path / "tour"
    with pytest.raises(StoppedError):
        run_tour(folder, say=lambda _: None)
    assert json.loads((folder / "tour.json").read_text())["steps"] == {}
    summary = run_tour(folder, say=lambda _: None)
    assert summary["steps"]["pretrain"]["seconds"] == 20


def test_what_a_killed_write_left_locks_nobody_out(tmp_path: Path) -> None:
    (tmp_path / ".tour.json.abc123.tmp").write_text("{")
    assert Journal(Places(tmp_path), Settings()).steps == {}
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="no quickstart's folder"):
        Journal(Places(other), Settings())


def _summary(unit: str) -> dict[str, Any]:
    span = {"value": 0.5, "low": 0.4, "high": 0.6}
    row = {"question": "identity", "classes": 3, "probe": "knn", "metric": "accuracy", "about": QUESTIONS[2].about}
    row |= {"unit": unit, "constant": 0.3, "random": span, "pretrained": span, "gain": span}
    return {"rows": [row], "seconds": 1, "cores": 2, "page": "p", "pictures": {}, "model": "m", "features": "f"}


def test_the_table_names_its_units_and_says_what_the_encoder_saw(capsys: pytest.CaptureFixture[str]) -> None:
    assert units(_summary("sample")) == "samples"
    print_summary(_summary("subject"), Path("tour"))
    shown = " ".join(capsys.readouterr().out.split())
    assert "over subjects" in shown
    assert "persons)" not in shown
    assert "held out from the probe; the encoder saw them without labels" in shown
