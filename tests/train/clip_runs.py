"""Tiny runs on packed clips, and what is asked of each: that it resumes exactly, and learns the same in other ways."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from facemae.config import Recipe
from facemae.recipe import load_recipe
from facemae.train.record.log import read_lines
from facemae.train.trainer import pretrain
from tests.data.test_loader_clips import LONG, members, write
from tests.spawn import run_in_processes
from tests.train.conftest import result_files, run_until
from tests.train.test_worlds import train, train_until

STEPS = 6
BEGINNING = """\
schema: 1
name: tiny
seed: 3
data: {lanes: 2, streams: [{name: clips, shards: SHARDS}]}
"""
CLIPS = """\
views:
  main:
    clip: {frames: 4, fps: 6.25}
    crop: {scale: [0.5, 1.0]}
    normalise: {mean: [0.5], std: [0.25]}
    mask: {kind: tube, ratio: 0.75}
"""
VOICES = """\
sounds:
  voice: {frames: 32, mel: {rate: 8000, mels: 16}, mask: {ratio: 0.75}}
"""
ENDING = """\
optim: {batch_size: 4, total: 24 samples, warmup: 8 samples, base_lr: 0.05, clip: 1.0, ema: 8 samples}
checkpoint: {every: 8 samples}
efficiency: {device: cpu, precision: fp32, threads: 1, workers: 0}
log: {every_steps: 2, loggers: [], keys: true, pictures: 12 samples}
"""

Runs = tuple[Recipe, Path]
"""A recipe and the folder of its undisturbed run, which tests may look at and copy."""
Samples = dict[str, dict[str, bytes]]


def silent(count: int = 8) -> Samples:
    """Clips of several lengths without sound."""
    return {f"clip{number}": members(LONG - number, sound=False) for number in range(count)}


def voiced(count: int = 9) -> Samples:
    """Clips of several lengths, of which every third has no sound."""
    return {f"clip{number}": members(LONG - number, sound=number % 3 > 0) for number in range(count)}


def tiny_recipe(middle: str, made: Samples, folder: Path, *overrides: str) -> Recipe:
    """The recipe of a tiny run; its views, encoders and objectives are `middle`."""
    shards = write(folder / "shards", made)
    (folder / "tiny.yaml").write_text(BEGINNING.replace("SHARDS", str(shards)) + middle + ENDING)
    return load_recipe(folder / "tiny.yaml", overrides)


def finished(recipe: Recipe, folder: Path) -> Runs:
    """An undisturbed run."""
    result = pretrain(recipe, folder / "run")
    assert (result.step, result.stopped) == (STEPS, "finished")
    return recipe, folder / "run"


def run_with(whole: Runs, folder: Path, **efficiency: Any) -> Path:
    """The same run with other settings of `efficiency`."""
    recipe, _ = whole
    changed = recipe.efficiency.model_copy(update=efficiency)
    pretrain(recipe.model_copy(update={"efficiency": changed}), folder / "run")
    return folder / "run"


def check_resume(whole: Runs, folder: Path) -> None:
    """A run that is stopped by a signal ends as the undisturbed one, bit by bit."""
    recipe, run = whole
    run_until(recipe, folder / "run", 3)
    assert pretrain(recipe, folder / "run").stopped == "finished"
    assert result_files(folder / "run", STEPS) == result_files(run, STEPS)


def check_two_processes(whole: Runs, folder: Path, losses: Sequence[str]) -> None:
    """Two processes resume exactly, see what one sees, and have its losses."""
    recipe, run = whole
    run_in_processes(train, 2, recipe, folder / "whole")
    run_in_processes(train_until, 2, recipe, folder / "run", 3, 1)
    run_in_processes(train, 2, recipe, folder / "run")
    mine, theirs = (result_files(folder / name, STEPS) for name in ("run", "whole"))
    assert mine == theirs
    assert mine["keys"] == result_files(run, STEPS)["keys"]
    check_losses(folder / "whole", run, losses, rel=1e-3)


def check_losses(one: Path, other: Path, losses: Sequence[str], *, rel: float) -> None:
    """Two runs log the same losses, within a relative tolerance."""
    mine, theirs = (read_lines(run / "log/metrics.jsonl") for run in (one, other))
    for first, second in zip(mine, theirs, strict=True):
        assert [first[name] for name in losses] == pytest.approx([second[name] for name in losses], rel=rel)
