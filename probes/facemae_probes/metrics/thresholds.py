"""From scores to decisions, and the thresholds of binary columns."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae_probes.tasks.targets import MISSING, Kind, Targets

HALF = 0.5
"""Threshold of a binary column where none was fitted."""


def decide(scores: NDArray[Any], kind: Kind, thresholds: NDArray[Any] | None = None) -> NDArray[np.int64]:
    """Turn scores into predictions.

    Args:
        scores: [N, C].
        kind: What the labels are.
        thresholds: Of binary columns, [C] or [N, C]; None takes 0.5.

    Returns:
        [N] class numbers, the first of equals; or [N, C] zeros and ones, one where the score is at least the threshold.

    Raises:
        ProbeError: The labels are numbers.
    """
    if kind == "regression":
        raise ProbeError("predicted numbers need no decision", expected="scores of classes or of binary columns")
    if kind == "multilabel":
        return np.asarray(scores >= (HALF if thresholds is None else thresholds), dtype=np.int64)
    return np.asarray(scores.argmax(axis=1), dtype=np.int64)


def fit_thresholds(targets: Targets, scores: NDArray[Any]) -> NDArray[np.float64]:
    """The threshold of each binary column that gives it the largest F1.

    Give it training units only, and scores from models that were not fitted on these very samples: a model is surer of
    samples that it has seen, and the threshold would be too high for others.

    Args:
        targets: Labels of N samples, of kind multilabel; labels that were not coded are left out.
        scores: [N, C].

    Returns:
        float64 [C]. A threshold lies halfway between two scores, or is the lowest score; of several that are equally
        good, the one nearest to 0.5. A column with no positive label keeps 0.5, since every threshold gives it F1 0.

    Raises:
        ProbeError: The labels have no binary columns, or the shapes differ.
    """
    if targets.kind != "multilabel" or scores.shape != targets.values.shape:
        raise ProbeError(
            f"thresholds of labels of kind {targets.kind} with scores of shape {scores.shape}",
            expected=f"multilabel, with scores of shape {targets.values.shape}",
        )
    known = targets.values != MISSING
    columns = range(targets.width)
    return np.array([_fit(targets.values[known[:, c], c] == 1, scores[known[:, c], c]) for c in columns], dtype=float)


def _fit(positive: NDArray[np.bool_], scores: NDArray[Any]) -> float:
    if not positive.any():
        return HALF
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order].astype(np.float64)
    last = np.append(ordered[1:] < ordered[:-1], True)  # Equal scores are decided alike.
    found = np.cumsum(positive[order])[last]
    f1 = 2 * found / (np.flatnonzero(last) + 1 + positive.sum())
    levels = ordered[last]
    limits = np.append((levels[:-1] + levels[1:]) / 2, levels[-1])
    best = limits[f1 >= f1.max() * (1 - 1e-12)]
    return float(best[np.abs(best - HALF).argmin()])


def fit_one_threshold(targets: Targets, scores: NDArray[Any]) -> NDArray[np.float64]:
    """The one of the thresholds 0.01, 0.02, ..., 0.99 that gives the largest mean F1 over all binary columns.

    As `AU_evaluate` of FMAE-IAT has it; for comparison with numbers that were made so.

    Args:
        targets: Labels of N samples, of kind multilabel; labels that were not coded are left out.
        scores: [N, C].

    Returns:
        [C], the same in all columns; of equally good ones the lowest.
    """
    known, true = targets.known, targets.values == 1

    def mean_f1(threshold: float) -> float:
        guess = (scores >= threshold) & known
        below = guess.sum(axis=0) + true.sum(axis=0)
        hits = 2.0 * (guess & true).sum(axis=0)
        return float(np.divide(hits, below, out=np.zeros(len(below)), where=below > 0).mean())

    best = max((step / 100 for step in range(1, 100)), key=mean_f1)
    return np.full(targets.width, best)
