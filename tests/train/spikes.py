"""A tiny run that watches for spikes, and the spikes."""

from pathlib import Path
from typing import Any

import pytest

from facemae.config import Recipe
from facemae.data.schema import Batch
from facemae.objectives.pretraining import PretrainModel
from facemae.train.record.log import read_lines
from tests.train.conftest import Tiny

STEPS = 20
"""Of the run."""


def slow(value: Any) -> Any:
    """A parameter of the slow tests."""
    return pytest.param(value, marks=pytest.mark.slow)


def watched(tiny: Tiny, action: str, *more: str) -> Recipe:
    """The tiny recipe with a short window, a checkpoint every 4 of its 20 steps, and all of them in the log."""
    policy = f"optim.spike={{factor: 20, window: 64 samples, action: {action}, limit: 2}}"
    return tiny(
        "optim.total=160 samples", "checkpoint.every=32 samples", "log.every_steps=1", "log.pictures=160", policy, *more
    )


def spike_at(patch: pytest.MonkeyPatch, *batches: int) -> None:
    """Make the loss of these global batches 10,000 times as large."""
    forward = PretrainModel.forward

    def spiking(self: PretrainModel, batch: Batch, step: int, counts: Any) -> Any:
        loss, metrics = forward(self, batch, step, counts)
        return (loss * 1e4 if batch.step in batches else loss), metrics

    patch.setattr(PretrainModel, "forward", spiking)


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    """What a run's log has of a kind."""
    return [event for event in read_lines(run / "log/events.jsonl") if event["event"] == kind]


def keys(run: Path) -> list[list[str]]:
    """The samples of every step, by the run's log."""
    return [line["keys"] for line in read_lines(run / "log/keys.jsonl")]
