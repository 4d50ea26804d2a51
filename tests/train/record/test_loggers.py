"""Loggers: each shows the whole run once, continues it under its id, and can neither stop nor delay it."""

import errno
import shutil
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

from facemae.config import Recipe
from facemae.errors import ConfigError, MissingExtraError
from facemae.train.record.log import RunLog, read_lines
from facemae.train.record.loggers import LoggerRun, base
from facemae.train.saving.folder import RunFolder
from facemae.train.trainer import pretrain
from tests.train.conftest import Tiny, run_until
from tests.train.optim.test_spike import spike_at, watched


def test_missing_tensorboard_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

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


def complaints(run: Path) -> list[str]:
    return [event["text"] for event in read_lines(run / "log/events.jsonl") if event["event"] == "logger"]


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


def broken_off(recipe: Recipe, out: Path) -> None:
    """A run that stops at step 4, goes on to step 5, loses its checkpoints after step 4 as in a crash, and ends."""
    run_until(recipe, out, 3)
    run_until(recipe, out, 5)
    shutil.rmtree(out / "checkpoints/step-00000006")
    pretrain(recipe, out)


# --- Weights & Biases ----------------------------------------------------------------------------------------------


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
    assert [given["id"] for given in inits] == [None, "abc123", "abc123"]
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
    assert [given for name, given in fake_wandb if name == "finish"] == [0, 0, 0]


def gone_back(tiny: Tiny, kind: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A run that goes back from batch 7 to the checkpoint of step 4, and is lost after step 7, which it does again."""
    spike_at(monkeypatch, 7)
    recipe = watched(tiny, "rewind", f"log.loggers=[{kind}]", "optim.total=80 samples")
    run_until(recipe, out, 10)
    shutil.rmtree(out / "checkpoints/step-00000007")
    pretrain(recipe, out)
    return recipe


POINTS = [
    *((step * 8, 0) for step in range(1, 8)),  # to the spike in the eighth step
    *((step * 8, 1) for step in range(5, 11)),
]
"""Samples and times back of every line, in the order of sending: a stretch that is another one is sent again."""


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


# --- MLflow --------------------------------------------------------------------------------------------------------


class FakeClient:
    """Takes what MlflowClient of MLflow 3.17 takes."""

    calls: list[tuple[str, Any]]
    experiments: dict[str, str]

    def get_experiment_by_name(self, name: str) -> Any:
        found = self.experiments.get(name)
        return None if found is None else types.SimpleNamespace(experiment_id=found)

    def create_experiment(self, name: str) -> str:
        self.experiments[name] = "7"
        return "7"

    def create_run(self, experiment_id: str, run_name: str) -> Any:
        self.calls.append(("create_run", (experiment_id, run_name)))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="f00"))

    def update_run(self, run_id: str, status: str) -> None:
        self.calls.append(("update_run", (run_id, status)))

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        self.calls.append(("log_batch", (run_id, list(metrics), list(params))))

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self.calls.append(("set_tag", (run_id, key, value)))

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str) -> None:
        self.calls.append(("log_artifact", (run_id, local_path, artifact_path)))

    def set_terminated(self, run_id: str, status: str) -> None:
        self.calls.append(("set_terminated", (run_id, status)))


@pytest.fixture
def fake_mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """The calls of mlflow that are made, in order."""
    FakeClient.calls, FakeClient.experiments = [], {}
    module, entities = types.ModuleType("mlflow"), types.ModuleType("mlflow.entities")
    module.MlflowClient = FakeClient  # type: ignore[attr-defined]
    entities.Metric = lambda *values: values  # type: ignore[attr-defined]
    entities.Param = lambda *values: values  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.delitem(sys.modules, "facemae.train.record.loggers.mlflow", raising=False)
    yield FakeClient.calls
    sys.modules.pop("facemae.train.record.loggers.mlflow", None)


def test_mlflow_is_told_everything_once_and_continues_its_run(
    tiny: Tiny, tmp_path: Path, fake_mlflow: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "faces")
    out = tmp_path / "run"
    broken_off(tiny("log.loggers=[mlflow]", "log.every_steps=1"), out)
    assert [given for name, given in fake_mlflow if name == "create_run"] == [("7", "tiny/run")]
    assert [given for name, given in fake_mlflow if name == "update_run"] == [("f00", "RUNNING")] * 2
    assert FakeClient.experiments == {"faces": "7"}
    batches = [given for name, given in fake_mlflow if name == "log_batch"]
    assert ("optim.batch_size", "8") in [entry for _, _, params in batches for entry in params]
    points = [(key, step) for _, metrics, _ in batches for key, _, _, step in metrics if key == "loss.masked_image"]
    assert points == [("loss.masked_image", samples) for samples in (8, 16, 24, 32, 40, 48, 56, 64)]
    tags = [given for name, given in fake_mlflow if name == "set_tag"]
    assert ("f00", "event.save", "saved step-00000008") in tags
    assert ("log_artifact", ("f00", str(out / "log/pictures/views-step-0.png"), "pictures")) in fake_mlflow
    ends = [given[1] for name, given in fake_mlflow if name == "set_terminated"]
    assert ends == ["KILLED", "KILLED", "FINISHED"]


def test_mlflow_gets_the_stretch_after_a_rewind_beside_the_one_passed_over(
    tiny: Tiny, tmp_path: Path, fake_mlflow: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone_back(tiny, "mlflow", tmp_path / "run", monkeypatch)
    batches = [metrics for name, given in fake_mlflow if name == "log_batch" for metrics in given[1:2]]
    points = [(step, value) for metrics in batches for key, value, _, step in metrics if key == "rewinds"]
    assert [point for point in points if point != (64, 0)] == POINTS
    assert "event.rewind" in [given[1] for name, given in fake_mlflow if name == "set_tag"]


def test_mlflow_itself_in_a_local_folder(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra facemae[mlflow] is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    out = tmp_path / "run"
    run_until(tiny("log.loggers=[mlflow]"), out, 3)
    pretrain(tiny("log.loggers=[mlflow]"), out)
    assert not complaints(out)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("facemae").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["optim.batch_size"] == "8"
    history = client.get_metric_history(run.info.run_id, "loss.masked_image")
    assert [point.step for point in history] == [16, 32, 48, 64]
    assert "views-step-0.png" in [Path(entry.path).name for entry in client.list_artifacts(run.info.run_id, "pictures")]
