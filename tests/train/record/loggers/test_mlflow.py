"""The logger for MLflow, told by a stand-in and by the package itself where it is installed."""

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from facemae.train.trainer import pretrain
from tests.train.conftest import Tiny, run_until
from tests.train.record.loggers.runs import POINTS, broken_off, complaints, gone_back


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
    assert [given for name, given in fake_mlflow if name == "update_run"] == [("f00", "RUNNING")] * 3
    assert FakeClient.experiments == {"faces": "7"}
    batches = [given for name, given in fake_mlflow if name == "log_batch"]
    assert ("optim.batch_size", "8") in [entry for _, _, params in batches for entry in params]
    points = [(key, step) for _, metrics, _ in batches for key, _, _, step in metrics if key == "loss.masked_image"]
    assert points == [("loss.masked_image", samples) for samples in (8, 16, 24, 32, 40, 48, 56, 64)]
    tags = [given for name, given in fake_mlflow if name == "set_tag"]
    assert ("f00", "event.save", "saved step-00000008") in tags
    assert ("log_artifact", ("f00", str(out / "log/pictures/views-step-0.png"), "pictures")) in fake_mlflow
    ends = [given[1] for name, given in fake_mlflow if name == "set_terminated"]
    assert ends == ["KILLED", "KILLED", "KILLED", "FINISHED"]


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
