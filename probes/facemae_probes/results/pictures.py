"""Pictures of a result: confusion matrix, bars of binary columns, predicted over true numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facemae.files import atomic_path
from facemae_probes.tasks.targets import Scores, Targets

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 5000
"""Samples drawn in a scatter; further ones are left out evenly."""


def draw_predictions(path: Path, targets: Targets, scores: Scores, test: dict[str, Any], heading: str) -> None:
    """Draw what a probe predicts.

    Args:
        path: PNG to write.
        targets: True labels of N samples.
        scores: [R, N, C]; numbers are drawn of the first repeat.
        test: Metrics of these samples.
        heading: Title.
    """
    # The object interface draws without a display and leaves the user's own figures alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    side = 2.2 + 0.55 * (targets.width if targets.kind != "regression" else 5)
    across = targets.width if targets.kind == "regression" else 1
    figure = Figure(figsize=(side * across + 1, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(np.atleast_1d(figure.subplots(1, across)))
    if targets.kind == "multilabel":
        _bars(axes[0], list(targets.names), test)
    elif targets.kind == "regression":
        for column, each in enumerate(axes):
            _scatter(each, targets.values[:, column], scores[0, :, column], targets.names[column])
    else:
        # Confusions of several draws are summed, but every draw predicts the same samples.
        counts = np.array(test["confusion"], dtype=float) / test.get("repeats", 1)
        _matrix(axes[0], counts, list(targets.names))
    figure.suptitle(heading, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def _bars(axes: "Axes", names: list[str], test: dict[str, Any]) -> None:
    place = np.arange(len(names))
    for shift, (key, label) in zip((-0.2, 0.2), (("recall", "recall"), ("f1", "F1")), strict=True):
        axes.bar(place + shift, [test[key][name] or 0.0 for name in names], 0.4, label=label)
    axes.set_xticks(place, names, rotation=45, ha="right")
    axes.set_ylim(0, 1)
    axes.legend()


def _scatter(axes: "Axes", truth: NDArray[np.float64], predicted: NDArray[np.float32], name: str) -> None:
    known = np.flatnonzero(~np.isnan(truth))
    if len(known) > MOST_POINTS:
        known = known[np.linspace(0, len(known) - 1, MOST_POINTS).astype(np.int64)]
    axes.scatter(truth[known], predicted[known], s=4, alpha=0.4)
    ends = [float(truth[known].min(initial=0.0)), float(truth[known].max(initial=1.0))]
    axes.plot(ends, ends, color="black", linewidth=0.8)
    axes.set_xlabel(f"{name}, true")
    axes.set_ylabel("predicted")


def _matrix(axes: "Axes", counts: NDArray[np.float64], names: list[str]) -> None:
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), [f"{n} ({round(t)})" for n, t in zip(names, totals[:, 0], strict=True)])
    axes.set_xlabel("predicted")
    axes.set_ylabel("true (samples)")
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.5 else "black"
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=8)
