"""Metrics of probabilities: cross-entropy, Kullback-Leibler divergence, and calibration."""

import numpy as np

from facemae.errors import ProbeError
from facemae_probes.metrics.base import Array, Metric, Predicted, Statistic, Units, ratio
from facemae_probes.tasks.targets import MISSING

BINS = 15
SMALLEST = float(np.finfo(np.float32).eps)
"""Probabilities are raised to this before a logarithm, as scikit-learn's log_loss does with float32."""


def _shares(predicted: Predicted) -> tuple[Array, Array]:
    """True shares of the classes and logarithms of the predicted ones, both [N, C]."""
    targets = predicted.targets
    off = np.abs(predicted.scores.sum(axis=1) - 1).max(initial=0.0)
    if off > 1e-2:
        raise ProbeError(
            f"class scores of a sample whose sum differs from 1 by {off:.3g}", expected="probabilities that sum to 1"
        )
    shares = targets.values if targets.kind == "distribution" else np.eye(targets.width)[targets.values]
    return shares, np.log(np.clip(predicted.scores, SMALLEST, 1.0))


def _mean_over_samples(losses: Array, units: Units) -> Statistic:
    samples = np.arange(len(losses))
    zeros = np.zeros_like(samples)
    total, count = units.table(zeros, samples, 1, losses), units.table(zeros, samples, 1)
    return lambda counts: ratio(total @ counts, count @ counts, np.nan)


def _cross_entropy(predicted: Predicted, units: Units) -> Statistic:
    shares, logs = _shares(predicted)
    return _mean_over_samples(-(shares * logs).sum(axis=1), units)


def _kl(predicted: Predicted, units: Units) -> Statistic:
    """KL(true || predicted) in nats: cross-entropy less the entropy of the true shares."""
    shares, logs = _shares(predicted)
    own = np.log(np.where(shares > 0, shares, 1.0))
    return _mean_over_samples((shares * (own - logs)).sum(axis=1), units)


def _calibration_error(predicted: Predicted, units: Units) -> Statistic:
    """Expected calibration error (Guo et al., On calibration of modern neural networks, ICML 2017, eq. 3).

    Fifteen bins (0, 1/15], ..., (14/15, 1] of equal width; the first holds zero too. Of classes, the score of the
    predicted class and whether it is right; of a binary column, the score and whether the label is one.
    """
    targets, width = predicted.targets, predicted.targets.width
    if targets.kind == "multilabel":
        samples, columns = np.nonzero(targets.values != MISSING)
        score, right = predicted.scores[samples, columns], targets.values[samples, columns] == 1
    else:
        samples, width = np.arange(len(targets)), 1
        columns, score = np.zeros_like(samples), predicted.scores.max(axis=1)
        right = predicted.scores.argmax(axis=1) == targets.majority()
    bins = np.clip(np.searchsorted(np.linspace(0, 1, BINS + 1), score, "left") - 1, 0, BINS - 1)
    # A bin's share times the distance of its mean score from its rate is |sum of (right - score)| / N.
    gaps = units.table(columns * BINS + bins, samples, width * BINS, right - score)
    count = units.table(columns, samples, width)

    def statistic(counts: Array) -> Array:
        distances = np.abs(gaps @ counts).reshape(width, BINS, -1).sum(axis=1)
        return ratio(distances, count @ counts, np.nan)

    return statistic


METRICS = (
    Metric("cross_entropy", "cross-entropy", ("classes", "distribution"), _cross_entropy, higher=False),
    Metric("kl", "KL divergence", ("distribution",), _kl, higher=False),
    Metric(
        "ece",
        "ECE",
        ("classes", "distribution", "multilabel"),
        _calibration_error,
        higher=False,
        column="ece",
        columns=("multilabel",),
    ),
)
