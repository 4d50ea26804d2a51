"""The logger for Weights & Biases, told by a stand-in and by the package itself where it is installed."""

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from facemae.errors import ConfigError
from facemae.train.record.log import RunLog, read_lines
from facemae.train.saving.folder import RunFolder
from facemae.train.trainer import pretrain
from tests.train.conftest import Tiny, run_until
from tests.train.record.loggers.runs import POINTS, broken_off, complaints, gone_back


class FakeRun:
    def __init__(self, calls: list[tuple[str, Any]], identity: str) -> None:
        self.calls, self.id = calls, identity

    def define_metric(self, name: str, step_metric: str) -> None:
        self.calls.append(("define_metric", (name, step_metric)))

    def log(self, values: dict[str, Any]) -> None:
        self.calls.append(("log", values))

    def finish(self, exit_code: int) -> None:
        self.calls.append(("finish", exit_code))


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """The calls of wandb that are made, in order; their names and arguments are those of wandb 0.31."""
    calls: list[tuple[str, Any]] = []
    module = types.ModuleType("wandb")

    def init(**given: Any) -> FakeRun:
        calls.append(("init", given))
        return FakeRun(calls, given["id"] or "abc123")

    module.init = init  # type: ignore[attr-defined]
    module.Image = lambda path: ("image", path)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delitem(sys.modules, "facemae.train.record.loggers.wandb", raising=False)
    yield calls
    sys.modules.pop("facemae.train.record.loggers.wandb", None)


def test_wandb_is_told_everything_once_and_continues_its_run(
    tiny: Tiny, tmp_path: Path, fake_wandb: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "faces")
    out = tmp_path / "run"
    broken_off(tiny("log.loggers=[wandb]", "log.every_steps=1"), out)
    inits = [given for name, given in fake_wandb if name == "init"]
    assert [given["id"] for given in inits] == [None, "abc123", "abc123", "abc123"]
    assert {(given["project"], given["resume"], given["name"]) for given in inits} == {("faces", "allow", "tiny/run")}
    assert inits[0]["config"]["optim"]["batch_size"] == 8
    assert fake_wandb[1] == ("define_metric", ("*", "samples"))
    logged = [given for name, given in fake_wandb if name == "log"]
    lines = [given for given in logged if "loss" in given]
    assert [given["samples"] for given in lines] == [8, 16, 24, 32, 40, 48, 56, 64]
    assert "step" not in lines[0]
    assert lines[-1]["loss"] == read_lines(out / "log/metrics.jsonl")[-1]["loss"]
    assert any("continuing from step-00000004" in str(given.get("events/resume")) for given in logged)
    pictures = [given["pictures/reconstruction"] for given in logged if "pictures/reconstruction" in given]
    assert pictures[-1] == ("image", str(out / "log/pictures/reconstruction-step-8.png"))
    assert [given for name, given in fake_wandb if name == "finish"] == [0, 0, 0, 0]


def test_wandb_gets_the_stretch_after_a_rewind_beside_the_one_passed_over(
    tiny: Tiny, tmp_path: Path, fake_wandb: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone_back(tiny, "wandb", tmp_path / "run", monkeypatch)
    logged = [given for name, given in fake_wandb if name == "log"]
    points = [(given["samples"], given["rewinds"]) for given in logged if "loss" in given]
    assert [point for point in points if point != (64, 0)] == POINTS
    assert [given["samples"] for given in logged if "events/rewind" in given] == [64]
    # No step of the service's own is given, which it would insist on going up.
    assert all("step" not in given for given in logged)


def test_wandb_hears_of_an_end_by_an_error(tmp_path: Path, fake_wandb: list[tuple[str, Any]]) -> None:
    with (
        pytest.raises(ConfigError),
        RunLog(RunFolder(tmp_path), step=0, batch=8, steps=1, keys=False, loggers=["wandb"]) as log,
        log.failures(),
    ):
        raise ConfigError("no")
    assert fake_wandb[-1] == ("finish", 1)


def test_wandb_itself_in_its_offline_mode(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra facemae[wandb] is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    out = tmp_path / "run"
    run_until(tiny("log.loggers=[wandb]"), out, 3)
    pretrain(tiny("log.loggers=[wandb]"), out)
    assert not complaints(out)
    written = list(out.glob("log/wandb/offline-run-*/run-*.wandb"))
    assert len(written) == 2
    assert len({path.stem for path in written}) == 1
    assert all(b"loss/masked_image" in path.read_bytes() for path in written)
