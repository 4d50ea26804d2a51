"""All folds of a task: choose in each on its training rows, then predict its test rows once."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from facemae_probes.choosing.outcome import Outcome
from facemae_probes.choosing.plan import TUNED, Candidate, ProbePlan, Say
from facemae_probes.choosing.selection import Seen, choose, finish
from facemae_probes.features.table import FeatureTable
from facemae_probes.finetune.contest import Finetuner
from facemae_probes.protocols.base import Fold
from facemae_probes.tasks.task import Task


def all_folds(
    features: FeatureTable, tuner: Finetuner | None, task: Task, plan: ProbePlan, metric: str, say: Say
) -> tuple[dict[str, Outcome], list[dict[str, Any]]]:
    """Choose, fit and predict in every fold.

    Args:
        features: Of all rows of the task.
        tuner: What trains whole nets; None where the plan asks for none.
        task: Labels and folds.
        plan: What to try.
        metric: What is chosen by.
        say: Told how it goes.

    Returns:
        Outcomes by probe kind; and the table of all candidates where there is a single fold, else an empty one.
    """
    outcomes: dict[str, Outcome] = {}
    tables: list[dict[str, Any]] = []
    count = sum(len(folds) for folds in task.splits.repeats)
    done = 0
    for repeat, folds in enumerate(task.splits.repeats):
        for fold in folds:
            seen = Seen.of(fold, task.targets, metric, on_test=task.splits.on_test)
            best, table = choose(features, seen, plan, say if count == 1 else _quiet)
            tables += table if count == 1 else []
            for kind, candidate in best.items():
                outcome = outcomes.setdefault(str(kind), Outcome(task.targets, task.splits))
                _predict(outcome, repeat, fold, candidate, features, seen, plan)
            for kind in [kind for kind in plan.probes if kind in TUNED]:
                assert tuner is not None
                tuned = tuner.run(kind, fold, seen)
                outcome = outcomes.setdefault(str(kind), Outcome(task.targets, task.splits))
                outcome.put(repeat, fold, tuned.scores, tuned.row, tuned.judged)
                tables += tuned.table if count == 1 else []
            done += 1
            if count > 1:
                say(f"{task.splits.protocol}: fold {done} of {count} ({fold.name})")
    return outcomes, tables


def _predict(
    outcome: Outcome,
    repeat: int,
    fold: Fold,
    candidate: Candidate,
    features: FeatureTable,
    seen: Seen,
    plan: ProbePlan,
) -> None:
    own = features.load(candidate.probe, [candidate.setting])[candidate.setting]
    scores, facts = finish(candidate, own, seen, fold.test, plan)
    judged = None
    if candidate.judged is not None:
        rows, found = candidate.judged
        judged = (seen.labels(rows), found)
    outcome.put(repeat, fold, scores, {**candidate.row(), **facts}, judged)


def best_judged(outcomes: Mapping[str, Outcome]) -> str:
    """The probe that was judged best, of those that were judged in every fold; the first where none was."""
    judged = {name: value for name, outcome in outcomes.items() if (value := mean_judgement(outcome)) is not None}
    return max(judged or outcomes, key=lambda name: judged.get(name, 0.0))


def mean_judgement(outcome: Outcome) -> float | None:
    """What a probe was judged at, over its folds; None where one had nothing to judge on."""
    values = [row["valid"] for row in outcome.settings]
    return None if None in values else float(np.mean(values))


def _quiet(_: str) -> None:
    """Says nothing of the candidates of one fold among many."""
