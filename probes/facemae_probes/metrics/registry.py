"""Metrics by name."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from facemae.errors import UsageError
from facemae_probes.metrics import confusion, probability, ranking, regression
from facemae_probes.metrics.base import Array, Metric, Predicted, Statistic, Units, mean_of_defined
from facemae_probes.tasks.targets import Kind, Targets

PRIMARY: dict[Kind, str] = {
    "classes": "accuracy",
    "multilabel": "macro_f1",
    "distribution": "accuracy",
    "regression": "ccc",
}


def register(metrics: Iterable[Metric], into: dict[str, Metric]) -> dict[str, Metric]:
    """Add metrics by name.

    Raises:
        UsageError: A name, alias or column name is taken.
    """
    for metric in metrics:
        taken = {name: owner for owner in into.values() for name in _names(owner)}
        for name in sorted(_names(metric) & set(taken)):
            raise UsageError(f"metric {metric.name!r} wants the name {name!r}, which {taken[name].name!r} has")
        into[metric.name] = metric
    return into


def _names(metric: Metric) -> set[str]:
    return {metric.name, *([metric.alias] if metric.alias else []), *([metric.column] if metric.column else [])}


METRICS: dict[str, Metric] = register(
    (*confusion.METRICS, *ranking.METRICS, *probability.METRICS, *regression.METRICS), {}
)
"""Another metric is one more entry in `METRICS` of the file of its family."""


@dataclass(frozen=True)
class Measure:
    """A metric as it was asked for: as a whole, or of one class or column.

    Attributes:
        name: As asked, such as `uar`, `auc` or `recall:happy`.
        title: What reports call it, such as `UAR`, `AUC` or `recall of happy`.
        metric: The metric.
        place: Number of the class or column; None for the whole.
    """

    name: str
    title: str
    metric: Metric
    place: int | None = None

    def value(self, repeats: list[Predicted]) -> float:
        """The value, the mean over repeats; NaN where one is undefined."""
        return sum(self.values(repeats)) / len(repeats)

    def values(self, repeats: list[Predicted]) -> list[float]:
        """The value of each repeat; NaN where undefined."""
        return [float(self._reduce(self.metric.values(each))) for each in repeats]

    def statistic(self, repeats: list[Predicted], units: Units) -> Statistic:
        """From how often units count [U, B] to the value in each draw [B], the mean over repeats; NaN if undefined."""
        each = [self.metric.statistic(predicted, units) for predicted in repeats]
        return lambda counts: np.asarray(np.mean([self._reduce(one(counts)) for one in each], axis=0))

    def _reduce(self, values: Array) -> Array:
        return mean_of_defined(values) if self.place is None else values[self.place]


def legal_names(kind: Kind) -> list[str]:
    """All names that `find_metric` knows for a kind of labels; `COLUMN:NAME` stands for every class or column."""
    fitting = [metric for metric in METRICS.values() if kind in metric.kinds]
    aliases = [metric.alias for metric in fitting if metric.alias and kind != "multilabel"]
    return [m.name for m in fitting] + aliases + [f"{m.column}:NAME" for m in fitting if kind in m.columns]


def find_metric(name: str, kind: Kind, names: tuple[str, ...] = ()) -> Measure:
    """A metric by name.

    Args:
        name: Such as `accuracy`, the field's `war`, or `f1:AU12` for one class or column.
        kind: What the labels are.
        names: Names of the classes or columns.

    Raises:
        UsageError: No such metric for this kind; the nearest and all legal names are given.
    """
    wanted, colon, part = name.partition(":")
    for metric in METRICS.values():
        if kind not in metric.kinds:
            continue
        if colon and wanted == metric.column and kind in metric.columns:
            if part in names:
                return Measure(name, f"{wanted.replace('_', ' ')} of {part}", metric, names.index(part))
            raise _unknown(f"no class or column {part!r} for metric {name!r}", part, list(names))
        if wanted == metric.name and not colon:
            return Measure(name, metric.title, metric)
        if wanted == metric.alias and not colon and kind != "multilabel":
            return Measure(name, metric.alias.upper(), metric)
    raise _unknown(f"no metric {name!r} for labels of kind {kind}", name, legal_names(kind))


def measure_of(name: str, targets: Targets) -> Measure:
    """A metric by name for these labels; errors as `find_metric`."""
    return find_metric(name, targets.kind, targets.names)


def primary(kind: Kind) -> str:
    """The metric that settings are chosen by where none is named."""
    return PRIMARY[kind]


def _unknown(found: str, name: str, legal: list[str]) -> UsageError:
    near = difflib.get_close_matches(name, legal, n=3, cutoff=0.4)
    return UsageError(
        found,
        expected=f"one of {', '.join(legal)}",
        fix=f"did you mean {' or '.join(near)}?" if near else None,
    )
