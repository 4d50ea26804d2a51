"""The real run's rate: of lines that hold neither what happens once nor batches that were read before them."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from facemae.bench.step_run import run_rate
from facemae.errors import DataError
from facemae.recipe import load_recipe


class Run:
    """Stands for `facemae pretrain`: writes a log of these rates."""

    def __init__(self, patch: pytest.MonkeyPatch, rates: list[float], code: int = 0) -> None:
        self.rates, self.code, self.recipe = rates, code, Path()
        patch.setattr(subprocess, "run", self)

    def __call__(self, command: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        self.recipe, out = Path(command[command.index("pretrain") + 1]), Path(command[-1])
        (out / "log").mkdir(parents=True)
        lines = [json.dumps({"step": number, "samples_per_s": rate}) for number, rate in enumerate(self.rates)]
        (out / "log/metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
        return subprocess.CompletedProcess(command, self.code, "", "it broke")


@pytest.mark.parametrize(("workers", "steps", "margin"), [(0, 10, 1), (1, 1, 2), (2, 4, 1), (8, 5, 4)])
def test_lines_with_batches_that_were_read_ahead_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, steps: int, margin: int
) -> None:
    # Workers are two batches ahead each: after `margin` lines none of those is left, and none is read for later ones.
    assert margin * steps >= 2 * workers
    run = Run(monkeypatch, [1e9] * margin + [100.0, 50.0, 100.0] + [1e9] * margin)
    recipe = load_recipe("fmae_tiny", ["optim.batch_size=32"])
    assert run_rate(recipe, steps, tmp_path / "run", workers) == pytest.approx(75)
    asked = load_recipe(run.recipe)
    assert asked.optim.total.amount == (3 + 2 * margin) * steps * 32
    assert asked.checkpoint.every == asked.log.pictures == asked.optim.total
    assert asked.log.every_steps == steps


@pytest.mark.parametrize(("rates", "code"), [([1.0] * 5, 1), ([1.0] * 4, 0)])
def test_a_run_that_failed_or_stopped_is_not_a_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rates: list[float], code: int
) -> None:
    Run(monkeypatch, rates, code)
    with pytest.raises(DataError, match=rf"code {code} after {len(rates)} lines of metrics:\nit broke"):
        run_rate(load_recipe("fmae_tiny"), 1, tmp_path / "run", 0)
