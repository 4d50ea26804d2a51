"""Logs: cut back to a checkpoint, whole lines, means over steps that counted."""

import json
from pathlib import Path

import torch

from facemae.train.log import StepLog, append_line, read_lines
from facemae.train.metrics import MetricBag
from facemae.train.numerics import resume_promise


def test_lines_after_the_checkpoint_are_removed_and_a_torn_one_too(tmp_path: Path) -> None:
    path = tmp_path / "log" / "keys.jsonl"
    log = StepLog(path, 0)
    for step in range(1, 7):
        log.write({"step": step, "keys": ["a"]})
    log.close()
    path.write_bytes(path.read_bytes() + b'{"step": 7, "ke')
    StepLog(path, 4).close()
    assert [line["step"] for line in read_lines(path)] == [1, 2, 3, 4]
    StepLog(path, 4).close()
    assert len(read_lines(path)) == 4
    StepLog(path, 0).close()
    assert path.read_bytes() == b""


def test_an_event_after_a_torn_line_is_on_its_own(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_line(path, {"event": "start"})
    path.write_bytes(path.read_bytes() + b'{"event": "sa')
    append_line(path, {"event": "resume"})
    assert [line["event"] for line in read_lines(path)] == ["start", "resume"]


def test_numbers_json_does_not_know_become_null(tmp_path: Path) -> None:
    log = StepLog(tmp_path / "metrics.jsonl", 0)
    log.write({"step": 1, "loss": float("nan"), "norm": float("inf"), "lr": 0.5})
    log.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": None, "norm": None, "lr": 0.5}


def test_means_leave_out_skipped_steps() -> None:
    bag = MetricBag(torch.device("cpu"))
    good, bad = torch.tensor(0.0), torch.tensor(1.0)
    bag.add({"loss": torch.tensor(1.0)}, good)
    bag.add({"loss": torch.tensor(torch.nan)}, bad)
    saved = bag.state()
    bag.add({"loss": torch.tensor(4.0)}, good)
    assert bag.read(lambda value: value) == {"loss": 2.5}
    other = MetricBag(torch.device("cpu"))
    other.load(json.loads(json.dumps(saved)))
    other.add({"loss": torch.tensor(4.0)}, good)
    assert other.read(lambda value: value) == {"loss": 2.5}
    bag.add({"loss": torch.tensor(torch.nan)}, bad)
    assert bag.read(lambda value: value) == {"loss": None}


def test_the_promise_names_what_differs() -> None:
    facts = {"device": "cpu", "threads": 1, "torch": "2.6"}
    assert resume_promise(facts, facts) == (
        True,
        "the same samples, views and masks, and bitwise the weights of an undisturbed run",
    )
    holds, text = resume_promise(facts, {**facts, "threads": 2})
    assert not holds
    assert "within rounding" in text
    assert "threads 1 -> 2" in text
    assert not resume_promise({"device": "cuda"}, {"device": "cuda"})[0]
