"""Fine-tuning within a fold: each option is fitted on the inner rows, the best one predicts the test rows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae_probes.choosing.selection import Seen
from facemae_probes.features.pool import Pool
from facemae_probes.finetune.fold import finetune_fold, predict_rows
from facemae_probes.finetune.plan import FinetuneOption, FinetunePlan
from facemae_probes.protocols.base import Fold, Rows
from facemae_probes.tasks.targets import Scores, Targets
from facemae_probes.tasks.task import Task


@dataclass(frozen=True)
class Tuned:
    """What fine-tuning in a fold comes to.

    Attributes:
        row: What was chosen, as a line of the selection table.
        table: Lines of all options.
        scores: Of the test rows.
        judged: Labels that were judged on, with their scores; None where nothing was judged.
    """

    row: dict[str, Any]
    table: list[dict[str, Any]]
    scores: Scores
    judged: tuple[Targets, Scores] | None


class Finetuner:
    """Fine-tunes one encoder on the folds of a task.

    Args:
        pool: The shard sets; it learns from the first.
        task: Labels and folds.
        model: Run, checkpoint or exported encoder.
        plan: How.
        out: Folder of the runs.
        say: Told how it goes.
    """

    def __init__(
        self, pool: Pool, task: Task, model: Path, plan: FinetunePlan, out: Path, say: Callable[[str], None]
    ) -> None:
        self.pool, self.task, self.model, self.plan, self.out, self.say = pool, task, model, plan, out, say

    def run(self, kind: str, fold: Fold, seen: Seen) -> Tuned:
        """Choose, fit and predict.

        Args:
            kind: `finetune`, or `scratch` for the same net from random weights.
            fold: The fold.
            seen: What choosing may see of it.
        """
        plan = self.plan.scratch() if kind == "scratch" else self.plan
        options = plan.options() if seen.inner else plan.options()[:1]
        # One option that is fitted again anyway needs no judgement, unless thresholds are to be fitted on it.
        judge = seen.inner and (len(options) > 1 or not seen.refit or self.task.targets.kind == "multilabel")
        best: tuple[float, FinetuneOption, tuple[Rows, Scores] | None] = (-np.inf, options[0], None)
        table = []
        rows = np.concatenate([np.empty(0, np.int64), *(inner.judge for inner in seen.inner)])
        for option in options if judge else ():
            scores = np.concatenate(
                [self._predict(self._fit(plan, option, inner.fit), inner.judge) for inner in seen.inner]
            )
            value = seen.judge(rows, scores)
            self.say(f"{kind}: base_lr {option.base_lr:g}: {value:.4f} {seen.where}")
            table.append(self._row(kind, plan, option, value))
            if best[2] is None or value > best[0]:
                best = (value, option, (rows, scores))
        value, option, judged = best
        run = self._fit(plan, option, seen.train if seen.refit else seen.inner[0].fit)
        row = self._row(kind, plan, option, value if judged is not None else None)
        known = None if judged is None else (seen.labels(judged[0]), judged[1])
        return Tuned(row, table or [row], self._predict(run, fold.test), known)

    def _row(self, kind: str, plan: FinetunePlan, option: FinetuneOption, valid: float | None) -> dict[str, Any]:
        shown = None if valid is None or not np.isfinite(valid) else valid
        about = {"probe": kind, "layer": None, "pooling": plan.pool}
        how = {"base_lr": option.base_lr, "layer_decay": plan.layer_decay, "epochs": plan.epochs}
        return {**about, **how, "valid": shown}

    def _fit(self, plan: FinetunePlan, option: FinetuneOption, rows: Rows) -> Path:
        samples = self._own(rows, 0)
        if len(samples) != len(rows):
            raise ProbeError("fine-tuning on samples of the set that is tested", expected="training rows of --data")
        task = self.task
        return finetune_fold(
            self.pool.shards[0],
            task.samples - self.pool.offsets[0],
            task.targets,
            task.columns,
            rows,
            self.model,
            plan,
            option,
            self.out,
            say=self.say,
        )

    def _predict(self, run: Path, rows: Rows) -> Scores:
        """Scores of rows of any of the sets, in their order."""
        scores: NDArray[np.float32] = np.empty((len(rows), self.task.targets.width), dtype=np.float32)
        for number, shards in enumerate(self.pool.shards):
            own = self._own(rows, number)
            if len(own):
                offset = self.pool.offsets[number]
                scores[np.isin(rows, own)] = predict_rows(run, shards, self.task.samples - offset, own)
        return scores

    def _own(self, rows: Rows, number: int) -> Rows:
        """Those rows that are of one set."""
        start = self.pool.offsets[number]
        last = number + 1 == len(self.pool.offsets)
        stop = np.iinfo(np.int64).max if last else self.pool.offsets[number + 1]
        samples = self.task.samples[rows]
        return rows[(samples >= start) & (samples < stop)]
