"""What chance is: the best answer that is the same for every sample, known from training labels alone."""

from collections.abc import Mapping

import numpy as np

from facemae_probes.choosing.outcome import Outcome
from facemae_probes.heads.losses import LabelScale
from facemae_probes.tasks.targets import Kind, Scores, Targets
from facemae_probes.tasks.task import Task

CONSTANT: Mapping[Kind, str] = {
    "classes": "the commonest class of training",
    "multilabel": "yes to every column",
    "distribution": "the mean shares of training",
    "regression": "the mean numbers of training",
}
"""What it is by kind of labels. For binary columns it is that of the best F1: always no has none."""


def constant_answer(targets: Targets) -> Scores:
    """The answer to labels like these.

    Args:
        targets: What is learnt from.

    Returns:
        float32 [C].
    """
    if targets.kind == "classes":
        counts = np.bincount(targets.values, minlength=targets.width)
        return np.asarray(np.arange(targets.width) == counts.argmax(), dtype=np.float32)
    if targets.kind == "multilabel":
        return np.ones(targets.width, dtype=np.float32)
    if targets.kind == "distribution":
        return np.asarray(targets.values.mean(axis=0), dtype=np.float32)
    return np.asarray(LabelScale.of(targets).centre.numpy(), dtype=np.float32)


def constant_outcome(task: Task) -> Outcome:
    """It as the predictions of a probe: in every fold of its own training rows."""
    outcome = Outcome(task.targets, task.splits)
    for repeat, folds in enumerate(task.splits.repeats):
        for fold in folds:
            answer = constant_answer(task.targets.take(fold.train))
            outcome.put(repeat, fold, np.tile(answer, (len(fold.test), 1)), {}, None)
    return outcome
