"""Runs that loggers are shown: broken off, or gone back."""

import shutil
from pathlib import Path

import pytest

from facemae.config import Recipe
from facemae.train.record.log import read_lines
from facemae.train.trainer import pretrain
from tests.train.conftest import Tiny, run_until
from tests.train.spikes import spike_at, watched


def complaints(run: Path) -> list[str]:
    return [event["text"] for event in read_lines(run / "log/events.jsonl") if event["event"] == "logger"]


def broken_off(recipe: Recipe, out: Path) -> None:
    """A run that stops at step 4, twice loses what it saves after that, as in crashes at step 7 and 6, and ends."""
    run_until(recipe, out, 3)
    for step in (7, 6):
        run_until(recipe, out, step - 1)
        for saved in (6, 7):
            shutil.rmtree(out / f"checkpoints/step-{saved:08d}", ignore_errors=True)
    pretrain(recipe, out)


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
