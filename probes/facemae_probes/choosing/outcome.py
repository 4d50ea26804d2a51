"""Predictions of one probe on the test rows, gathered fold by fold."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae_probes.metrics import fit_one_threshold, fit_thresholds
from facemae_probes.protocols.base import Fold, Rows, Splits
from facemae_probes.tasks.targets import Scores, Targets


class Outcome:
    """What one probe predicts in all repeats and folds.

    Args:
        targets: Labels of all rows of the task; only their kind and names are looked at.
        splits: The folds.

    Attributes:
        scores: [R, N, C] of the R repeats and the N tested rows, ascending; NaN where nothing is predicted yet.
        thresholds: [R, N, C] of binary columns, fitted on training units of each fold; None for other labels, and where
            a fold had nothing to fit them on.
        settings: What was chosen, a row a fold.
    """

    def __init__(self, targets: Targets, splits: Splits) -> None:
        shape = (len(splits.repeats), len(splits.tested), targets.width)
        self.tested: Rows = splits.tested
        self.scores: Scores = np.full(shape, np.nan, dtype=np.float32)
        self.thresholds: NDArray[np.float64] | None = None
        if targets.kind == "multilabel":
            self.thresholds = np.full(shape, 0.5)
        self.settings: list[dict[str, Any]] = []
        self._fit = fit_one_threshold if splits.one_threshold else fit_thresholds

    def put(
        self,
        repeat: int,
        fold: Fold,
        scores: Scores,
        row: dict[str, Any],
        judged: tuple[Targets, Scores] | None,
    ) -> None:
        """Add a fold.

        Args:
            repeat: Number of the repeat.
            fold: The fold.
            scores: Of its test rows.
            row: What was chosen.
            judged: Labels that were judged on in choosing, with the scores they got there: what thresholds are fitted
                on. With None in any fold there are no fitted thresholds: 0.5 must not pass for one.
        """
        places = np.searchsorted(self.tested, fold.test)
        self.scores[repeat, places] = scores
        if judged is None:
            self.thresholds = None
        elif self.thresholds is not None:
            self.thresholds[repeat, places] = self._fit(*judged)
        self.settings.append({"repeat": repeat, "fold": fold.name, **row})
