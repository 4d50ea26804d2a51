"""All folds of a task: choose in each on its training rows, then predict its test rows once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from facemae_probes.choosing.outcome import Outcome
from facemae_probes.choosing.plan import TUNED, Candidate, ProbePlan, Say
from facemae_probes.choosing.selection import Seen, choose, finish
from facemae_probes.features.table import FeatureTable
from facemae_probes.finetune.contest import Finetuner
from facemae_probes.protocols.base import Fold
from facemae_probes.tasks.targets import Scores, Targets
from facemae_probes.tasks.task import Task

CHOICE = "choice"
"""Name in results of what is chosen in each fold among the probe kinds."""


@dataclass(frozen=True)
class _Tested:
    """What a probe kind gave in one fold; see `Outcome.put`."""

    scores: Scores
    row: dict[str, Any]
    judged: tuple[Targets, Scores] | None


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
        Outcomes by probe kind; and the table of all candidates where there is a single fold, else an empty one. Where
        all samples are tested in turn, what a fold is judged on is tested in another: there the kind too is chosen in
        each fold by itself, and `CHOICE` has the predictions of these.
    """
    outcomes: dict[str, Outcome] = {}
    tables: list[dict[str, Any]] = []
    count = sum(len(folds) for folds in task.splits.repeats)
    done = 0
    for repeat, folds in enumerate(task.splits.repeats):
        for fold in folds:
            seen = Seen.of(fold, task.targets, metric, on_test=task.splits.on_test)
            best, table = choose(features, seen, plan, say if count == 1 else _quiet)
            found = {str(kind): _predict(candidate, features, seen, fold, plan) for kind, candidate in best.items()}
            for kind in [kind for kind in plan.probes if kind in TUNED]:
                assert tuner is not None
                tuned = tuner.run(kind, fold, seen)
                found[kind] = _Tested(tuned.scores, tuned.row, tuned.judged)
                table += tuned.table
            tables += table if count == 1 else []
            if len(folds) > 1 and len(found) > 1:
                found[CHOICE] = _best(found)
            for name, tested in found.items():
                outcome = outcomes.setdefault(name, Outcome(task.targets, task.splits))
                outcome.put(repeat, fold, tested.scores, tested.row, tested.judged)
            done += 1
            if count > 1:
                say(f"{task.splits.protocol}: fold {done} of {count} ({fold.name})")
    return outcomes, tables


def _predict(candidate: Candidate, features: FeatureTable, seen: Seen, fold: Fold, plan: ProbePlan) -> _Tested:
    own = features.load(candidate.probe, [candidate.setting])[candidate.setting]
    scores, facts = finish(candidate, own, seen, fold.test, plan)
    judged = None
    if candidate.judged is not None:
        rows, found = candidate.judged
        judged = (seen.labels(rows), found)
    return _Tested(scores, {**candidate.row(), **facts}, judged)


def _best(found: Mapping[str, _Tested]) -> _Tested:
    """What was judged best in a fold, of what was judged; the first where nothing was."""
    judged = [tested for tested in found.values() if tested.row["valid"] is not None]
    return max(judged, key=lambda tested: float(tested.row["valid"])) if judged else next(iter(found.values()))


def best_judged(outcomes: Mapping[str, Outcome]) -> str:
    """The headline: `CHOICE` where there is one, else the probe that was judged best; the first where none was."""
    if CHOICE in outcomes:
        return CHOICE
    judged = {name: value for name, outcome in outcomes.items() if (value := mean_judgement(outcome)) is not None}
    return max(judged or outcomes, key=lambda name: judged.get(name, 0.0))


def mean_judgement(outcome: Outcome) -> float | None:
    """What a probe was judged at, over its folds; None where one had nothing to judge on."""
    values = [row["valid"] for row in outcome.settings]
    return None if None in values else float(np.mean(values))


def _quiet(_: str) -> None:
    """Says nothing of the candidates of one fold among many."""
