"""MLflow. Server and experiment come from its own environment (`MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME`)."""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from facemae.recipe import leaves
from facemae.train.record.loggers.base import LoggerRun
from facemae.train.record.loggers.numbers import numbers

EXPERIMENT = "facemae"
"""The experiment where the environment names none."""

_PARAMETERS = 100
_LONGEST = 500


class MLflow:
    """One run there for one run folder: a continued run goes on under its id."""

    def __init__(self, run: LoggerRun) -> None:
        self._client: Any = MlflowClient()
        self._sent = run.sent
        self._status = "FAILED"
        known = run.identity("mlflow")
        if known is not None:
            self._id = known
            self._client.update_run(known, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if found is None else found.experiment_id
        self._id = str(self._client.create_run(experiment, run_name=run.name).info.run_id)
        run.remember("mlflow", self._id)
        parameters = [Param(_legal(key), str(value)[:_LONGEST]) for key, value in leaves(run.recipe)]
        for first in range(0, len(parameters), _PARAMETERS):
            self._client.log_batch(self._id, params=parameters[first : first + _PARAMETERS])

    def metrics(self, record: Mapping[str, Any]) -> None:
        """See `Logger`."""
        if record["samples"] > self._sent:
            now = round(time.time() * 1000)
            values = numbers(record).items()
            self._client.log_batch(
                self._id, metrics=[Metric(_legal(name), value, now, record["samples"]) for name, value in values]
            )

    def event(self, record: Mapping[str, Any]) -> None:
        """The last of each kind, as a tag."""
        self._client.set_tag(self._id, f"event.{record['event']}", record["text"][:_LONGEST])
        self._status = _status(str(record.get("reason"))) if record["event"] == "stop" else "FAILED"

    def picture(self, name: str, path: Path, samples: int) -> None:
        """See `Logger`."""
        self._client.log_artifact(self._id, str(path), "pictures")

    def close(self) -> None:
        """See `Logger`."""
        self._client.set_terminated(self._id, status=self._status)


def _status(reason: str) -> str:
    if reason == "finished":
        return "FINISHED"
    return "KILLED" if reason.startswith("SIG") else "FAILED"


def _legal(name: str) -> str:
    """A name as MLflow allows it; its file store makes folders of slashes, and `loss` is a file already."""
    return re.sub(r"[^\w\-. ]", "_", name.replace("/", "."))
