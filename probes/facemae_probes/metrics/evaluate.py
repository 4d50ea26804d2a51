"""All metrics of one set of predictions, and the one number that choosing goes by."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from facemae.errors import ProbeError
from facemae_probes.metrics.base import Predicted, as_predicted, mean_of_defined
from facemae_probes.metrics.confusion import column_labels, decisions
from facemae_probes.metrics.intervals import number
from facemae_probes.metrics.registry import METRICS, measure_of
from facemae_probes.tasks.targets import Kind, Targets

EVALUATED: dict[Kind, tuple[str, ...]] = {
    "classes": ("accuracy", "macro_f1", "mean_recall", "macro_precision", "auc", "ece"),
    "multilabel": (
        "accuracy",
        "macro_f1",
        "mean_recall",
        "macro_precision",
        "macro_f1_fitted",
        "auc",
        "mean_average_precision",
        "ece",
    ),
    "distribution": ("accuracy", "macro_f1", "mean_recall", "macro_precision", "cross_entropy", "kl", "auc", "ece"),
    "regression": ("ccc", "pearson", "rmse", "mae"),
}
"""What a result prints, by kind of labels; fitted thresholds only where there are some."""


def evaluate(targets: Targets, scores: NDArray[Any], *, thresholds: NDArray[Any] | None = None) -> dict[str, Any]:
    """All metrics that a result prints.

    Args:
        targets: Labels of N samples; none is allowed.
        scores: [N, C], or [R, N, C] of R repeats.
        thresholds: Fitted thresholds of binary columns that broadcast to the scores.

    Returns:
        A JSON-able mapping: `count`; `support`, positives or coded numbers by name; each metric of `EVALUATED`; its
        values by name, such as `recall`, or `auc_by_name` where the metric itself has that name; and `confusion` with
        true classes as rows, or of each binary column. What is undefined is None. Of several repeats, `repeats`, means,
        the standard deviations of the metrics as `deviation`, and summed confusions.
    """
    repeats = as_predicted(targets, scores, thresholds)
    found: dict[str, Any] = {"count": len(targets)}
    deviation = {}
    for name in EVALUATED[targets.kind]:
        metric = METRICS[name]
        if metric.fitted and thresholds is None:
            continue
        values = np.stack([metric.values(each) for each in repeats])
        wholes = mean_of_defined(values.T)
        found[name] = number(float(wholes.mean()))
        deviation[name] = number(float(wholes.std(ddof=1))) if len(repeats) > 1 else None
        if targets.kind in metric.columns:
            key = f"{name}_by_name" if metric.column == name else metric.column
            found[key] = _by_name(targets.names, [number(float(value)) for value in values.mean(axis=0)])
    found["support"] = _by_name(targets.names, _support(targets))
    if targets.kind != "regression":
        found["confusion"] = _confusion(repeats)
    return found if len(repeats) == 1 else {**found, "repeats": len(repeats), "deviation": deviation}


def judge(targets: Targets, scores: NDArray[Any], metric: str, *, thresholds: NDArray[Any] | None = None) -> float:
    """One number for choosing between models: larger is better whatever the metric.

    Args:
        targets: Labels of N samples.
        scores: [N, C], or [R, N, C] of R repeats, whose mean counts.
        metric: Name; see `find_metric`. Where lower is better its value is negated.
        thresholds: Fitted thresholds, for metrics that need them.

    Returns:
        The number; minus infinity where the metric is undefined, so that anything that has a value is preferred.

    Raises:
        ProbeError: There is no sample to judge by, or the scores do not fit.
        UsageError: The metric does not exist for these labels.
    """
    measure = measure_of(metric, targets)
    if not len(targets):
        raise ProbeError("there is no sample to judge by", expected="a validation part or fold with samples")
    value = measure.value(as_predicted(targets, scores, thresholds))
    if np.isnan(value):
        return float("-inf")
    return value if measure.metric.higher else -value


def _support(targets: Targets) -> list[int]:
    """Positives of each class or binary column, or numbers that are known."""
    if targets.kind == "multilabel":
        return [int(count) for count in (targets.values == 1).sum(axis=0)]
    if targets.kind == "regression":
        return [int(count) for count in targets.known.sum(axis=0)]
    return [int(count) for count in np.bincount(targets.majority(), minlength=targets.width)]


def _confusion(repeats: list[Predicted]) -> Any:
    targets = repeats[0].targets
    guesses = [decisions(each) for each in repeats]
    if targets.kind == "multilabel":
        return {
            name: _summed([column_labels(each, guess, c) for each, guess in zip(repeats, guesses, strict=True)], 2)
            for c, name in enumerate(targets.names)
        }
    return _summed([(targets.majority(), guess) for guess in guesses], targets.width)


def _summed(pairs: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], width: int) -> list[list[int]]:
    total = np.zeros((width, width), dtype=np.int64)
    for truth, guess in pairs:
        if len(truth):
            total += sk.confusion_matrix(truth, guess, labels=range(width))
    return [[int(count) for count in row] for row in total]


def _by_name(names: tuple[str, ...], values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(names, values, strict=True))
