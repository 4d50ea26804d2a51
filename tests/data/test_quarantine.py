"""Quarantine: every replacement is written once, and too many stop the run."""

import json
from pathlib import Path

import pytest

from facemae.data.quarantine import Quarantine
from facemae.data.schema import Batch, Replacement
from facemae.errors import DamageLimitError, StorageError


def batch(step: int, damaged: int = 0, size: int = 10) -> Batch:
    replaced = tuple(Replacement("faces", step * size + i, f"bad{step}-{i}", "good", "cut off") for i in range(damaged))
    return Batch(step, 0, ("k",) * size, ("faces",) * size, {}, ({},) * size, replaced)


def test_replacements_are_written_once_also_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    first = Quarantine(path, 0.1)
    first.record(batch(0))
    assert not path.exists()
    first.record(batch(1, damaged=2))
    again = Quarantine(path, 0.1)
    again.record(batch(1, damaged=2))
    again.record(batch(2, damaged=1))
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(entry["step"], entry["position"], entry["requested"]) for entry in entries] == [
        (1, 10, "bad1-0"),
        (1, 11, "bad1-1"),
        (2, 20, "bad2-0"),
    ]
    assert entries[0]["used"] == "good"
    assert entries[0]["reason"] == "cut off"
    assert (again.seen, again.replaced) == (20, 3)


def test_a_line_cut_off_by_a_crash_does_not_stop_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    path.write_text('{"step": 0, "posi')
    Quarantine(path, 0.1).record(batch(1, damaged=1))
    assert json.loads(path.read_text().splitlines()[-1])["step"] == 1


def test_the_run_stops_above_the_rate(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", 0.01)
    for step in range(8):
        quarantine.record(batch(step, damaged=1))
    with pytest.raises(DamageLimitError, match="10 of 90 samples did not decode") as caught:
        quarantine.record(batch(8, damaged=2))
    assert "data.max_damage" in str(caught.value)


def test_a_rate_below_the_limit_runs_for_ever(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", 0.02)
    for step in range(500):
        quarantine.record(batch(step, damaged=int(step % 10 == 0)))
    assert quarantine.replaced == 50


def test_a_limit_of_zero_forgives_nothing(tmp_path: Path) -> None:
    with pytest.raises(DamageLimitError):
        Quarantine(tmp_path / "quarantine.jsonl", 0.0).record(batch(0, damaged=1))
    assert (tmp_path / "quarantine.jsonl").exists()


def test_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"quarantine\.jsonl"):
        Quarantine(tmp_path / "gone" / "quarantine.jsonl", 0.1).record(batch(0, damaged=1))
