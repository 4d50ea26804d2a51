"""Loggers: each shows the whole run once, continues it under its id, and can neither stop nor delay it."""

import errno
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

from facemae.errors import ConfigError, MissingExtraError
from facemae.train.record.log import RunLog, read_lines
from facemae.train.record.loggers import LoggerRun, base
from facemae.train.saving.folder import RunFolder
from facemae.train.trainer import pretrain
from tests.train.conftest import Tiny, run_until
from tests.train.record.loggers.runs import complaints


def test_missing_tensorboard_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.delitem(sys.modules, "facemae.train.record.loggers.tensorboard", raising=False)
    with pytest.raises(MissingExtraError, match="names tensorboard, which is not installed") as caught:
        RunLog(RunFolder(tmp_path), step=0, batch=8, steps=1, keys=False, loggers=["tensorboard"])
    assert "facemae[train]" in str(caught.value)


def test_tensorboard_shows_every_point_once(tiny: Tiny, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    recipe = tiny("log.loggers=[tensorboard]", "checkpoint.every=64 samples")
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


class Broken:
    """Fails at every call."""

    def __init__(self, run: LoggerRun) -> None:
        self.opened = run

    def metrics(self, record: Mapping[str, Any]) -> None:
        raise ConnectionError("no route to host\nand more")

    event = metrics

    def picture(self, name: str, path: Path, samples: int) -> None:
        raise ConnectionError("no route to host")

    def close(self) -> None:
        raise ConnectionError("no route to host")


class Unopened(Broken):
    """Cannot even be opened."""

    def __init__(self, run: LoggerRun) -> None:
        raise ConnectionError("no route to host")


class Stuck(Broken):
    """Never comes back from its first call."""

    def metrics(self, record: Mapping[str, Any]) -> None:
        threading.Event().wait()

    event = metrics


class Unanswered(Broken):
    """Waits for a server when it is constructed."""

    answer: threading.Event

    def __init__(self, run: LoggerRun) -> None:
        self.answer.wait(120)


class Well:
    """Takes everything."""

    closed: list[str]

    def __init__(self, run: LoggerRun) -> None:
        pass

    def metrics(self, record: Mapping[str, Any]) -> None:
        pass

    event = metrics

    def picture(self, name: str, path: Path, samples: int) -> None:
        pass

    def close(self) -> None:
        self.closed.append("well")


@pytest.fixture
def as_wandb(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def put(name: str) -> None:
        monkeypatch.setitem(base.KINDS, "wandb", (f"{__name__}:{name}", "facemae[wandb]"))

    return put


def test_a_logger_that_fails_is_said_once_and_counted(
    tiny: Tiny, tmp_path: Path, as_wandb: Callable[[str], None]
) -> None:
    as_wandb("Broken")
    recipe = tiny("log.loggers=[wandb]", "log.every_steps=1")
    assert pretrain(recipe, tmp_path / "run").stopped == "finished"
    said = complaints(tmp_path / "run")
    first = "fails: ConnectionError: no route to host"
    assert said == [
        f"logger wandb {first}; the run goes on, and its own files hold everything",
        # Eight lines of metrics, ten events with the one above, three pictures, and the end.
        f"logger wandb failed 22 times; the first: {first}",
    ]
    assert len(read_lines(tmp_path / "run/log/metrics.jsonl")) == 8


def test_a_full_disk_under_tensorboard_is_said_without_its_threads_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: RecordWriter, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    told: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    monkeypatch.setattr(RecordWriter, "write", full)
    loggers = base.Loggers(["tensorboard"], LoggerRun(RunFolder(tmp_path), {}, 0, 0))
    for step in range(1, 4):
        loggers.metrics({"step": step, "samples": step, "loss": 1.0})
    loggers.close()
    (said,) = loggers.complaints()
    assert "No space left on device" in said
    assert not told
    # Other threads' errors are told as before.
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    assert [failure.exc_type for failure in told] == [ZeroDivisionError]


def test_a_logger_that_cannot_be_opened_is_said(tiny: Tiny, tmp_path: Path, as_wandb: Callable[[str], None]) -> None:
    as_wandb("Unopened")
    assert pretrain(tiny("log.loggers=[wandb]"), tmp_path / "run").stopped == "finished"
    (said,) = complaints(tmp_path / "run")
    assert said.startswith("logger wandb cannot be opened: ConnectionError: no route to host; the run goes on")


def test_a_logger_that_hangs_delays_nothing(
    tiny: Tiny, tmp_path: Path, as_wandb: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_wandb("Stuck")
    monkeypatch.setattr(base, "PATIENCE", 0.05)
    assert pretrain(tiny("log.loggers=[wandb]"), tmp_path / "run").stopped == "finished"
    (said,) = complaints(tmp_path / "run")
    assert "did not send everything within 0 s of the end" in said
    monkeypatch.setattr(base, "WAITING", 2)
    assert pretrain(tiny("log.loggers=[wandb]"), tmp_path / "other").stopped == "finished"
    assert "does not keep up: 2 records wait" in complaints(tmp_path / "other")[0]


def test_a_logger_whose_construction_hangs_delays_nothing(
    tiny: Tiny, tmp_path: Path, as_wandb: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_wandb("Unanswered")
    monkeypatch.setattr(Unanswered, "answer", threading.Event(), raising=False)
    monkeypatch.setattr(base, "PATIENCE", 0.05)
    assert pretrain(tiny("log.loggers=[wandb]"), tmp_path / "run").stopped == "finished"
    (said,) = complaints(tmp_path / "run")
    assert "did not open within 0 s of the end" in said
    Unanswered.answer.set()


def test_all_loggers_are_waited_for_together(
    tmp_path: Path, as_wandb: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_wandb("Stuck")
    monkeypatch.setitem(base.KINDS, "mlflow", (f"{__name__}:Well", "facemae[mlflow]"))
    monkeypatch.setattr(Well, "closed", [], raising=False)
    monkeypatch.setattr(base, "WAITING", 1)
    deadlines = []
    join = base._Worker.join

    def joined(worker: base._Worker, deadline: float) -> None:
        deadlines.append(deadline)
        # The stuck one is given up at once, the other gets its time.
        join(worker, 0.0 if worker._name == "wandb" else deadline)

    monkeypatch.setattr(base._Worker, "join", joined)
    loggers = base.Loggers(["wandb", "mlflow"], LoggerRun(RunFolder(tmp_path), {}, 0, 0))
    for _ in range(9):
        loggers._workers[0].send(lambda logger: logger.metrics({}))
    loggers.close()
    assert len(deadlines) == 2
    assert len(set(deadlines)) == 1
    assert Well.closed == ["well"]
    assert len(loggers.complaints()) == 1


def test_loggers_remember_their_runs_at_the_same_time(tmp_path: Path) -> None:
    run = LoggerRun(RunFolder(tmp_path), {}, 0, 0)
    threads = [threading.Thread(target=run.remember, args=(f"kind{number}", str(number))) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run.identity(f"kind{number}") for number in range(8)] == [str(number) for number in range(8)]


def test_an_unknown_logger_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match=r"log\.loggers\.0: .*'tensorboard', 'wandb' or 'mlflow'"):
        tiny("log.loggers=[neptune]")
