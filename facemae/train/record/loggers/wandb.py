"""Weights & Biases. Project, entity, host and mode come from its own environment variables (`WANDB_PROJECT`, …)."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from facemae.train.record.loggers.base import LoggerRun
from facemae.train.record.loggers.numbers import numbers

PROJECT = "facemae"
"""The project where the environment names none."""


class WeightsAndBiases:
    """One run there for one run folder: a continued run goes on under its id."""

    def __init__(self, run: LoggerRun) -> None:
        folder = run.folder.metrics.parent
        folder.mkdir(parents=True, exist_ok=True)
        known = run.identity("wandb")
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=str(folder),
            id=known,
            resume="allow",
            name=run.name,
            config=dict(run.recipe),
        )
        # Steps of its own would refuse what is logged again after a crash.
        self._run.define_metric("*", step_metric="samples")
        self._sent = run.sent
        self._reason = ""
        if known is None:
            run.remember("wandb", str(self._run.id))

    def metrics(self, record: Mapping[str, Any]) -> None:
        """See `Logger`."""
        if record["samples"] > self._sent:
            self._run.log({**numbers(record), "samples": record["samples"]})

    def event(self, record: Mapping[str, Any]) -> None:
        """See `Logger`."""
        self._run.log({f"events/{record['event']}": record["text"], "samples": record["samples"]})
        self._reason = str(record.get("reason", self._reason)) if record["event"] == "stop" else ""

    def picture(self, name: str, path: Path, samples: int) -> None:
        """See `Logger`."""
        self._run.log({f"pictures/{name}": wandb.Image(str(path)), "samples": samples})

    def close(self) -> None:
        """See `Logger`."""
        self._run.finish(exit_code=0 if self._reason == "finished" or self._reason.startswith("SIG") else 1)
