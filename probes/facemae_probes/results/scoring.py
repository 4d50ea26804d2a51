"""From predictions to the numbers of a result: metrics with intervals, by slice, by fold, by groups of samples."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae_probes.choosing.constant import constant_outcome
from facemae_probes.choosing.outcome import Outcome
from facemae_probes.choosing.plan import ProbePlan
from facemae_probes.metrics import METRICS, evaluate, intervals, slices
from facemae_probes.tasks.targets import Kind, Targets
from facemae_probes.tasks.task import Task

SHOWN: Mapping[Kind, tuple[str, ...]] = {
    "classes": ("accuracy", "macro_f1", "mean_recall"),
    "multilabel": ("macro_f1", "macro_f1_fitted", "auc"),
    "distribution": ("cross_entropy", "accuracy"),
    "regression": ("ccc", "rmse"),
}
"""Metrics that get an interval, by kind of labels; the first is the headline. Those at fitted thresholds only where
some were fitted."""


def score_outcome(outcome: Outcome, task: Task, plan: ProbePlan) -> dict[str, Any]:
    """Blocks `test`, `slices`, `groups` and `folds` of one probe's result.

    Args:
        outcome: Its predictions.
        task: Labels and units.
        plan: Seed and replicates of the bootstrap.
    """
    test = task.splits.tested
    found: dict[str, Any] = {"test": _measure(outcome, task, plan, np.ones(len(test), dtype=bool))}
    found["slices"] = {name: _measure(outcome, task, plan, np.isin(test, rows)) for name, rows in task.slices.items()}
    if task.groups:
        found["groups"] = {name: _groups(outcome, task, plan, name, values) for name, values in task.groups.items()}
    if sum(len(folds) for folds in task.splits.repeats) > 1:
        found["folds"] = _folds(outcome, task)
    return found


def score_constant(task: Task) -> dict[str, float | None]:
    """The result's `constant` block: what the best constant answer reaches by each metric shown.

    Args:
        task: Labels and folds.
    """
    found = evaluate(task.tested, constant_outcome(task).scores)
    return _only(found, tuple(name for name in SHOWN[task.targets.kind] if name in found))


def _measure(outcome: Outcome, task: Task, plan: ProbePlan, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    targets, scores, thresholds = _part(outcome, task, chosen)
    units = task.units[task.splits.tested][chosen]
    bounds = intervals(
        targets,
        scores,
        units,
        [name for name in SHOWN[targets.kind] if thresholds is not None or not METRICS[name].fitted],
        unit=task.unit,
        thresholds=thresholds,
        replicates=plan.replicates,
        seed=plan.seed,
    )
    found = evaluate(targets, scores, thresholds=thresholds)
    return {**found, "intervals": {name: bound.to_json() for name, bound in bounds.items()}}


def _groups(outcome: Outcome, task: Task, plan: ProbePlan, name: str, values: tuple[str | None, ...]) -> dict[str, Any]:
    targets, scores, thresholds = _part(outcome, task, np.ones(len(values), dtype=bool))
    units = task.units[task.splits.tested]
    metric = SHOWN[targets.kind][0]
    return slices(
        targets,
        scores,
        units,
        metric,
        column=name,
        values=values,
        unit=task.unit,
        thresholds=thresholds,
        replicates=plan.replicates,
        seed=plan.seed,
    ).to_json()


def _folds(outcome: Outcome, task: Task) -> dict[str, Any]:
    """The headline metrics of each fold, and their mean and deviation over folds: how other papers count.

    Not what this result is judged by: the mean over folds weighs a small fold as much as a large one, and leaves out
    what a fold has no sample of.
    """
    test, metrics = task.splits.tested, SHOWN[task.targets.kind]
    rows: list[dict[str, Any]] = []
    for number, folds in enumerate(task.splits.repeats):
        for fold in folds:
            chosen = np.isin(test, fold.test)
            targets, scores, thresholds = _part(outcome, task, chosen)
            limits = None if thresholds is None else thresholds[number]
            found = evaluate(targets, scores[number], thresholds=limits)
            rows.append({"repeat": number, "fold": fold.name, "count": len(targets), **_only(found, metrics)})
    summary = {}
    for metric in metrics:
        known = np.array([row[metric] for row in rows if row[metric] is not None], dtype=float)
        spread = float(known.std(ddof=1)) if len(known) > 1 else None
        summary[metric] = {"mean": float(known.mean()) if len(known) else None, "deviation": spread}
    return {"each": rows, "summary": summary}


def _only(found: Mapping[str, Any], metrics: tuple[str, ...]) -> dict[str, Any]:
    return {name: found.get(name) for name in metrics}


def _part(
    outcome: Outcome, task: Task, chosen: NDArray[np.bool_]
) -> tuple[Targets, NDArray[np.float32], NDArray[np.float64] | None]:
    thresholds = None if outcome.thresholds is None else outcome.thresholds[:, chosen]
    return task.tested.take(chosen), outcome.scores[:, chosen], thresholds
