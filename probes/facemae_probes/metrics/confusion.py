"""Metrics of decisions: accuracy, recall, precision and F1.

True and false positives and negatives are pooled over everything given, before any ratio. Classes that a model never
predicts, or that a test part lacks, stay in every mean with the value zero: leaving them out would make a small test
set look better than it is. So MEGC2019 defines UF1 and UAR over the pooled predictions of all subjects (See et al.,
MEGC 2019: the second facial micro-expressions grand challenge, FG 2019). A binary column with no coded label at all is
another matter: it says nothing of the model and has no value. So is a class that a tested data set never had where a
model learnt from another: `Targets.meant` leaves it out. A class that the test part has and a bootstrap draw of it
lacks has no value in that draw: zero would tell of the draw, and even a perfect model's interval would reach far down.

Point values come from scikit-learn; the sums here are for draws.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn import metrics as sk

from facemae.errors import ProbeError
from facemae_probes.metrics.base import Array, Metric, Predicted, Statistic, Units, ratio
from facemae_probes.metrics.thresholds import decide
from facemae_probes.tasks.targets import MISSING, Kind

DECIDED: tuple[Kind, ...] = ("classes", "multilabel", "distribution")


@dataclass(frozen=True)
class Tally:
    """Samples per unit, by class or column.

    Attributes:
        hit: [C, U] true positives.
        guessed: [C, U] predicted positives.
        true: [C, U] positives.
        known: [1, U] samples of classes, or [C, U] coded labels of columns.
    """

    hit: csr_array
    guessed: csr_array
    true: csr_array
    known: csr_array


def tally(predicted: Predicted, units: Units, *, fitted: bool = False) -> Tally:
    """Count decisions per unit; `fitted` takes the fitted thresholds."""
    targets, width = predicted.targets, predicted.targets.width
    guess = decisions(predicted, fitted=fitted)
    if targets.kind == "multilabel":
        known = targets.values != MISSING

        def count(mask: NDArray[np.bool_]) -> csr_array:
            samples, columns = np.nonzero(mask & known)
            return units.table(columns, samples, width)

        positive = targets.values == 1
        return Tally(count(positive & (guess == 1)), count(guess == 1), count(positive), count(known))
    truth, samples = targets.majority(), np.arange(len(targets))
    right = np.flatnonzero(truth == guess)
    return Tally(
        units.table(truth[right], right, width),
        units.table(guess, samples, width),
        units.table(truth, samples, width),
        units.table(np.zeros_like(truth), samples, 1),
    )


def decisions(predicted: Predicted, *, fitted: bool = False) -> NDArray[np.int64]:
    """The predictions; see `decide`."""
    if fitted and predicted.thresholds is None:
        raise ProbeError(
            "no thresholds to decide at",
            expected="thresholds fitted on training units",
            fix="give thresholds=fit_thresholds(training targets, their scores), or take macro_f1 at 0.5",
        )
    return decide(predicted.scores, predicted.targets.kind, predicted.thresholds if fitted else None)


def column_labels(
    predicted: Predicted, guess: NDArray[np.int64], column: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The coded labels of a binary column, and the predictions for the same samples."""
    known = predicted.targets.values[:, column] != MISSING
    return predicted.targets.values[known, column], guess[known, column]


def _accuracy(predicted: Predicted) -> Array:
    guess = decisions(predicted)
    if predicted.targets.kind != "multilabel":
        return np.array([sk.accuracy_score(predicted.targets.majority(), guess)])
    return _by_column(predicted, guess, sk.accuracy_score)


def _accuracy_of_draws(predicted: Predicted, units: Units) -> Statistic:
    sums = tally(predicted, units)

    def statistic(counts: Array) -> Array:
        hit, known = sums.hit @ counts, sums.known @ counts
        if predicted.targets.kind != "multilabel":
            return ratio(hit.sum(axis=0, keepdims=True), known, np.nan)
        # Right are the known labels less the misses and false alarms.
        return ratio(known - (sums.guessed @ counts + sums.true @ counts - 2 * hit), known, np.nan)

    return statistic


def _of_counts(
    name: str, compute: Callable[[Array, Array, Array], Array], score: Callable[..., Any], *, fitted: bool = False
) -> dict[str, Any]:
    """Point and statistic of a metric of hits, predicted positives and positives."""

    def point(predicted: Predicted) -> Array:
        guess = decisions(predicted, fitted=fitted)
        if predicted.targets.kind == "multilabel":
            return _by_column(predicted, guess, lambda t, p: score(t, p, zero_division=0))
        numbers = range(predicted.targets.width)
        found = score(predicted.targets.majority(), guess, labels=numbers, average=None, zero_division=0)
        return np.where(_meant(predicted)[:, 0], np.asarray(found, dtype=np.float64), np.nan)

    def statistic(predicted: Predicted, units: Units) -> Statistic:
        sums = tally(predicted, units, fitted=fitted)
        lacking = sums.true.sum(axis=1)[:, None] == 0

        def of_draws(counts: Array) -> Array:
            true = sums.true @ counts
            values = compute(sums.hit @ counts, sums.guessed @ counts, true)
            drawn = (true > 0) | lacking
            return np.where((sums.known @ counts > 0) & drawn & _meant(predicted), values, np.nan)

        return of_draws

    return {"point": point, "statistic": statistic, "column": name, "fitted": fitted}


def _meant(predicted: Predicted) -> NDArray[np.bool_]:
    """[C, 1]: the classes that means are over."""
    meant, width = predicted.targets.meant, predicted.targets.width
    return np.isin(np.arange(width), range(width) if meant is None else meant)[:, None]


def _by_column(predicted: Predicted, guess: NDArray[np.int64], score: Callable[..., Any]) -> Array:
    pairs = (column_labels(predicted, guess, column) for column in range(predicted.targets.width))
    return np.array([score(t, p) if len(t) else np.nan for t, p in pairs], dtype=np.float64)


def _f1(hit: Array, guessed: Array, true: Array) -> Array:
    return ratio(2 * hit, guessed + true, 0.0)


METRICS = (
    Metric(
        "accuracy",
        "accuracy",
        DECIDED,
        _accuracy_of_draws,
        _accuracy,
        column="accuracy",
        columns=("multilabel",),
        alias="war",
    ),
    Metric(
        "mean_recall",
        "mean recall",
        DECIDED,
        columns=DECIDED,
        alias="uar",
        **_of_counts("recall", lambda hit, _, true: ratio(hit, true, 0.0), sk.recall_score),
    ),
    Metric(
        "macro_precision",
        "macro precision",
        DECIDED,
        columns=DECIDED,
        **_of_counts("precision", lambda hit, guessed, _: ratio(hit, guessed, 0.0), sk.precision_score),
    ),
    Metric(
        "macro_f1",
        "macro F1",
        DECIDED,
        columns=DECIDED,
        alias="uf1",
        **_of_counts("f1", _f1, sk.f1_score),
    ),
    Metric(
        "macro_f1_fitted",
        "macro F1 at fitted thresholds",
        ("multilabel",),
        columns=("multilabel",),
        **_of_counts("f1_fitted", _f1, sk.f1_score, fitted=True),
    ),
)
