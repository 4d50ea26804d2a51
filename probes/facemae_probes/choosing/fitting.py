"""Fits of the frozen probes in one form: options, scores, and how further rows are predicted."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from facemae_probes.choosing.plan import Features, Predict, ProbeKind
from facemae_probes.heads.attentive import AttentiveModel, fit_attentive
from facemae_probes.heads.knn import KnnModel, fit_neighbours
from facemae_probes.heads.linear import LinearModel, fit_path
from facemae_probes.heads.standardise import Standardiser
from facemae_probes.heads.temporal import TemporalModel, TemporalSetting, fit_temporal
from facemae_probes.heads.training import TrainSetting
from facemae_probes.protocols.base import Rows
from facemae_probes.tasks.targets import Scores, Targets


@dataclass(frozen=True)
class Fitted:
    """A fit.

    Attributes:
        probe: Its kind.
        options: Hyper-parameters.
        facts: What the fit says of itself.
        scores: Of the rows that were asked for with the fit; empty where none were.
        predict: From all features and row numbers to scores.
    """

    probe: ProbeKind
    options: dict[str, Any]
    facts: dict[str, Any]
    scores: Scores
    predict: Predict = field(repr=False)
    model: Any = field(default=None, repr=False)

    def copy(self) -> "Fitted":
        """One that stays as it is while the fit goes on."""
        model = copy.deepcopy(self.model)
        return replace(self, model=model, predict=model.scores)


def pooled_fits(
    features: Features,
    rows: Rows,
    targets: Targets,
    judge: Rows | None,
    kinds: Sequence[ProbeKind],
    strengths: Sequence[float],
    neighbours: Sequence[int],
) -> Iterator[Fitted]:
    """Linear and kNN probes of one setting.

    Args:
        features: [N, D].
        rows: Rows to learn from.
        targets: Labels of these rows.
        judge: Rows to score at once; None for none.
        kinds: Which of the two.
        strengths: L2 path of the linear probe.
        neighbours: Values of k.

    Yields:
        A fit a strength, strongest first, and one a k.
    """
    scale = Standardiser.fit(features, rows)
    train = scale.view(features, rows)
    shown = np.empty(0, dtype=np.int64) if judge is None else judge
    queries = scale(features, shown)
    if "linear" in kinds:
        for model in fit_path(train, targets, strengths=strengths):
            facts = {"gradient": model.gradient, "iterations": model.iterations, "solved": model.solved}
            scores = model.scores(queries)
            yield Fitted("linear", {"strength": model.strength}, facts, scores, _on(model, scale), model)
    if "knn" in kinds:
        for bank, scores in fit_neighbours(train, targets, queries, counts=neighbours):
            yield Fitted("knn", {"k": bank.k}, {}, scores, _on(bank, scale), bank)


def sequence_fits(
    kind: ProbeKind,
    features: Any,
    rows: Rows,
    targets: Targets,
    options: TrainSetting,
    seed: int,
    until: int | None = None,
) -> Iterator[Fitted]:
    """The attentive or temporal probe, after each epoch.

    Args:
        kind: Which of the two.
        features: Token maps [N, T, D], or clips.
        rows: Rows to learn from.
        targets: Labels of these rows.
        options: Hyper-parameters.
        seed: Seed of weights, order and dropout.
        until: Last epoch; None for all. The schedule is that of all.
    """
    fits: Iterator[tuple[int, AttentiveModel | TemporalModel]]
    if isinstance(options, TemporalSetting):
        fits = fit_temporal(features, rows, targets, setting=options, seed=seed)
    else:
        fits = fit_attentive(features, rows, targets, setting=options, seed=seed)
    for epoch, model in fits:
        yield Fitted(kind, {"epoch": epoch}, {}, np.empty((0, targets.width), np.float32), model.scores, model)
        if epoch == until:
            return


def _on(model: LinearModel | KnnModel, scale: Standardiser) -> Predict:
    return lambda features, rows: model.scores(scale(features, rows))
