"""Logs: cut back to a checkpoint, whole lines, means over steps that counted."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from facemae.errors import MissingExtraError
from facemae.train.folder import RunFolder
from facemae.train.log import RunLog, StepLog, append_line, read_lines
from facemae.train.metrics import MetricBag
from facemae.train.numerics import resume_promise
from facemae.train.trainer import pretrain
from tests.train.conftest import Tiny, run_until


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


def test_missing_tensorboard_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match="TensorBoard is not installed") as caught:
        RunLog(RunFolder(tmp_path), step=0, samples=0, steps=1, tensorboard=True, keys=False)
    assert "facemae[train]" in str(caught.value)


def test_tensorboard_shows_every_point_once(tiny: Tiny, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    recipe = tiny("log.tensorboard=true", "checkpoint.every=64 samples")
    run_until(recipe, out, 3)
    shutil.rmtree(out / "checkpoints/step-00000004")  # as after a crash: back to step 0
    run_until(recipe, out, 4)
    pretrain(recipe, out)
    board = EventAccumulator(str(out / "log/tensorboard"), size_guidance={"scalars": 0, "images": 0})
    board.Reload()
    lines = read_lines(out / "log/metrics.jsonl")
    assert [line["samples"] for line in lines] == [16, 32, 48, 64]
    for name in ("loss", "loss/masked_image", "lr", "grad_norm", "skipped"):
        points = [(event.step, event.value) for event in board.Scalars(name)]
        assert points == [(line["samples"], pytest.approx(line[name], rel=1e-6)) for line in lines], name
    assert "step" not in board.Tags()["scalars"]
    assert [event.step for event in board.Images("views")] == [0]
    assert [event.step for event in board.Images("reconstruction")] == [32, 64]


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
