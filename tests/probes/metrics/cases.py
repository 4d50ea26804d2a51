"""Random cases of each kind of labels, and every metric written out with scikit-learn or a few lines."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import metrics as sk

from facemae.rng import generator
from facemae_probes.metrics import METRICS, decide
from facemae_probes.tasks.targets import MISSING, Kind, Targets

PAIRS = [(name, kind) for name, metric in METRICS.items() for kind in metric.kinds]
"""Every metric with every kind of labels that it is for."""


def case(kind: Kind, seed: int, count: int = 60, width: int = 4) -> tuple[Targets, np.ndarray, np.ndarray]:
    """Labels, scores and thresholds: scores have ties, the last class or column has no positive, labels are missing."""
    rng = generator(seed, "case", kind)
    names = tuple("abcdefgh"[:width])
    thresholds = rng.uniform(0.3, 0.7, size=width)
    if kind == "regression":
        numbers = rng.normal(3.0, 1.0, size=(count, width))
        scores = (0.6 * numbers + rng.normal(size=(count, width))).astype(np.float32)
        numbers[rng.random((count, width)) < 0.2] = np.nan
        return Targets(kind, names, numbers), scores, thresholds
    truth = rng.integers(width - 1, size=count)
    if kind == "multilabel":
        values = (rng.random((count, width)) < 0.4).astype(np.int64)
        values[:, -1] = 0
        scores = np.round(0.3 * values + 0.7 * rng.random((count, width)), 1).astype(np.float32)
        values[rng.random((count, width)) < 0.2] = MISSING
        return Targets(kind, names, values), scores, thresholds
    points = np.round(rng.random((count, width)), 1) + 0.1
    points[np.arange(count), truth] += 0.4
    scores = (points / points.sum(axis=1, keepdims=True)).astype(np.float32)
    if kind == "classes":
        return Targets(kind, names, truth.astype(np.int64)), scores, thresholds
    votes = np.array([rng.multinomial(10, np.eye(width)[t] * 0.6 + np.array([0.4, 0, 0, 0])) for t in truth])
    return Targets(kind, names, votes / 10.0), scores, thresholds


def reference(name: str, targets: Targets, scores: np.ndarray, thresholds: np.ndarray) -> list[float]:
    """Values by class or column, or one value; NaN where undefined."""
    scores = scores.astype(np.float64)
    if targets.kind == "regression":
        return [_numbers(name, targets.values[:, c], scores[:, c]) for c in range(targets.width)]
    if targets.kind == "multilabel":
        return [_column(name, targets.values[:, c], scores[:, c], thresholds[c]) for c in range(targets.width)]
    return _classes(name, targets, scores)


def mean(values: list[float]) -> float:
    """The mean of what is defined."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


AVERAGED: dict[str, Callable[..., Any]] = {
    "mean_recall": sk.recall_score,
    "macro_precision": sk.precision_score,
    "macro_f1": sk.f1_score,
    "macro_f1_fitted": sk.f1_score,
}
RANKING: dict[str, Callable[..., Any]] = {"auc": sk.roc_auc_score, "mean_average_precision": sk.average_precision_score}


def _classes(name: str, targets: Targets, scores: np.ndarray) -> list[float]:
    truth, guess, width = targets.majority(), decide(scores, targets.kind), targets.width
    if name == "accuracy":
        return [sk.accuracy_score(truth, guess)]
    if name in AVERAGED:
        return list(AVERAGED[name](truth, guess, labels=range(width), average=None, zero_division=0))
    if name in RANKING:
        return [_ranked(name, truth == c, scores[:, c]) for c in range(width)]
    if name == "ece":
        return [_ece(scores.max(axis=1), truth == guess)]
    shares = targets.values if targets.kind == "distribution" else np.eye(width)[truth]
    entropy = [-sum(t * np.log(t) for t in row if t > 0) for row in shares]
    losses = [-sum(t * np.log(p) for t, p in zip(*pair, strict=True)) for pair in zip(shares, scores, strict=True)]
    return [float(np.mean(losses) - (np.mean(entropy) if name == "kl" else 0))]


def _column(name: str, truth: np.ndarray, scores: np.ndarray, threshold: float) -> float:
    scores, truth = scores[truth != MISSING], truth[truth != MISSING]
    if not len(truth):
        return float("nan")
    guess = scores >= (threshold if name.endswith("fitted") else 0.5)
    if name == "accuracy":
        return float(sk.accuracy_score(truth, guess))
    if name in AVERAGED:
        return float(AVERAGED[name](truth, guess, zero_division=0))
    return _ece(scores, truth == 1) if name == "ece" else _ranked(name, truth == 1, scores)


def _ranked(name: str, positive: np.ndarray, scores: np.ndarray) -> float:
    if not positive.any() or (name == "auc" and positive.all()):
        return float("nan")
    return float(RANKING[name](positive, scores))


def _ece(confidence: np.ndarray, right: np.ndarray) -> float:
    total = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if b == 0:
            inside |= confidence == 0
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


def _numbers(name: str, truth: np.ndarray, guess: np.ndarray) -> float:
    guess, truth = guess[~np.isnan(truth)], truth[~np.isnan(truth)]
    if not len(truth):
        return float("nan")
    if name in ("rmse", "mae"):
        return float({"rmse": sk.root_mean_squared_error, "mae": sk.mean_absolute_error}[name](truth, guess))
    if name == "pearson":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            varies = truth.std() > 0 and guess.std() > 0
            return float(np.corrcoef(truth, guess)[0, 1]) if varies else float("nan")
    both = np.mean((truth - truth.mean()) * (guess - guess.mean()))
    below = truth.var() + guess.var() + (truth.mean() - guess.mean()) ** 2
    return float(2 * both / below) if below > 0 else float("nan")
