"""What is measured: accuracy, macro-F1, per-class recall and the confusion matrix.

Point values come from scikit-learn. Classes that a model never predicts, or that a test part lacks, stay in every
average with the value zero: leaving them out would make a small test set look better than it is.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

TaskKind = Literal["classes", "multilabel"]

MISSING = -1
"""Value of a label that was not coded; it takes part in neither training nor metrics."""


def primary_metric(kind: TaskKind) -> str:
    """The metric settings are chosen by: accuracy for classes, macro-F1 for several binary columns."""
    return "accuracy" if kind == "classes" else "macro_f1"


def decide(scores: NDArray[np.floating[Any]], kind: TaskKind) -> NDArray[np.int64]:
    """Turn scores into predictions.

    Args:
        scores: [N, C] class scores, or [N, C] probabilities of the binary columns.
        kind: What the columns are.

    Returns:
        [N] class numbers, or [N, C] zeros and ones (threshold 0.5).
    """
    if kind == "classes":
        return np.asarray(scores.argmax(axis=1), dtype=np.int64)
    return np.asarray(scores >= 0.5, dtype=np.int64)


def evaluate(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], names: tuple[str, ...], kind: TaskKind
) -> dict[str, Any]:
    """All metrics of one set of predictions.

    Args:
        truth: [N] class numbers, or [N, C] of 0, 1 and `MISSING`.
        predicted: Same shape.
        names: Names of the classes or columns.
        kind: What the columns are.

    Returns:
        A JSON-able mapping. `recall`, `f1` and `support` are by name; `confusion` has true classes as rows.
    """
    if kind == "classes":
        return _evaluate_classes(truth, predicted, names)
    return _evaluate_columns(truth, predicted, names)


def score(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int, kind: TaskKind) -> float:
    """The primary metric alone; see `primary_metric`."""
    if kind == "classes":
        return float(sk.accuracy_score(truth, predicted))
    return float(np.mean([_column_f1(truth[:, c], predicted[:, c]) for c in range(classes)]))


def _evaluate_classes(truth: NDArray[np.int64], predicted: NDArray[np.int64], names: tuple[str, ...]) -> dict[str, Any]:
    numbers = list(range(len(names)))
    _, recall, f1, support = sk.precision_recall_fscore_support(truth, predicted, labels=numbers, zero_division=0)
    return {
        "count": len(truth),
        "accuracy": float(sk.accuracy_score(truth, predicted)) if len(truth) else float("nan"),
        "macro_f1": float(f1.mean()),
        "mean_recall": float(recall.mean()),
        "recall": _by_name(names, recall),
        "f1": _by_name(names, f1),
        "support": {name: int(n) for name, n in zip(names, support, strict=True)},
        "confusion": sk.confusion_matrix(truth, predicted, labels=numbers).tolist(),
    }


def _evaluate_columns(truth: NDArray[np.int64], predicted: NDArray[np.int64], names: tuple[str, ...]) -> dict[str, Any]:
    f1, recall, right, support, confusion = [], [], [], {}, {}
    for column, name in enumerate(names):
        known = truth[:, column] != MISSING
        t, p = truth[known, column], predicted[known, column]
        f1.append(_column_f1(truth[:, column], predicted[:, column]))
        recall.append(float(sk.recall_score(t, p, zero_division=0)) if len(t) else 0.0)
        right.append(float(np.mean(t == p)) if len(t) else 0.0)
        support[name] = int(t.sum())
        confusion[name] = sk.confusion_matrix(t, p, labels=[0, 1]).tolist() if len(t) else [[0, 0], [0, 0]]
    return {
        "count": len(truth),
        "accuracy": float(np.mean(right)),
        "macro_f1": float(np.mean(f1)),
        "mean_recall": float(np.mean(recall)),
        "recall": _by_name(names, recall),
        "f1": _by_name(names, f1),
        "support": support,
        "confusion": confusion,
    }


def _column_f1(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    known = truth != MISSING
    if not known.any():
        return 0.0
    return float(sk.f1_score(truth[known], predicted[known], zero_division=0))


def _by_name(names: tuple[str, ...], values: Any) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}
