"""A real run against its parts: the loader alone and the step alone."""

import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

from facemae.config import CheckpointConfig, Recipe, SpanConfig
from facemae.data.loader import build_loader
from facemae.errors import DataError
from facemae.recipe import recipe_to_yaml
from facemae.recipe_specs import view_specs
from facemae.train.record.log import read_lines

LINES = 3
"""Lines of a run's log that count."""
_BATCHES = 24


def loader_rate(recipe: Recipe, workers: int) -> float:
    """Samples a second of the recipe's loader, whose batches nobody uses, from the arrival of the first."""
    loader = build_loader(
        recipe.data, view_specs(recipe), seed=recipe.seed, batch_size=recipe.optim.batch_size,
        stop_step=_BATCHES, workers=workers,
    )  # fmt: skip
    start = 0.0
    for number, _ in enumerate(loader):
        if number == 0:
            start = time.perf_counter()
    return (_BATCHES - 1) * recipe.optim.batch_size / (time.perf_counter() - start)


def run_rate(recipe: Recipe, steps: int, out: Path, workers: int) -> float:
    """Samples a second of `facemae pretrain`, from its own log.

    Lines before and after those that count hold what happens once, checkpoints and pictures, and as many steps as
    workers read ahead: else what is measured would take batches that were read before, and the loader cost nothing.

    Args:
        recipe: The recipe.
        steps: Steps to a line of the log.
        out: The run folder.
        workers: Loader processes of the run.

    Raises:
        DataError: The run failed.
    """
    # torch's loader keeps two batches a worker under way.
    margin = max(1, math.ceil(2 * workers / steps))
    expected = LINES + 2 * margin
    total = SpanConfig(amount=expected * steps * recipe.optim.batch_size, unit="samples")
    recipe = recipe.model_copy(
        update={
            "optim": recipe.optim.model_copy(update={"total": total, "warmup": SpanConfig(amount=5, unit="percent")}),
            "checkpoint": CheckpointConfig(every=total),
            # As many as the parts were measured in.
            "efficiency": recipe.efficiency.model_copy(update={"processes": 1}),
            "log": recipe.log.model_copy(update={"every_steps": steps, "pictures": total}),
        }
    )
    path = out.with_suffix(".yaml")
    path.write_text(recipe_to_yaml(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "facemae", "pretrain", str(path), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    lines = read_lines(out / "log" / "metrics.jsonl")
    if done.returncode or len(lines) != expected:
        raise DataError(
            f"the run ended with code {done.returncode} after {len(lines)} lines of metrics:\n{done.stderr.strip()}",
            expected=f"{expected} lines",
        )
    return float(statistics.harmonic_mean([line["samples_per_s"] for line in lines[margin:-margin]]))
