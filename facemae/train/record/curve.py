"""The picture of how a run goes: its loss, and what its monitor found, over samples seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facemae.files import atomic_path
from facemae.train.record.log import read_lines


@dataclass(frozen=True)
class _Panel:
    """Curves that share an axis.

    Attributes:
        label: Of the axis.
        names: Of the metrics, with what they are called in the legend; the later ones are drawn as dotted references.
    """

    label: str
    names: Mapping[str, str]


PANELS = (
    _Panel("loss", {"loss": "loss"}),
    _Panel("effective rank", {"monitor/rankme": "RankMe, held-out faces"}),
    _Panel("accuracy", {"monitor/knn": "kNN, held-out faces", "monitor/majority": "most frequent class"}),
)


def save_curve(metrics: Path, path: Path) -> None:
    """Draw what `metrics.jsonl` has of `PANELS`; nothing where there are no lines yet.

    Raises:
        StorageError: Reading or writing failed underneath.
    """
    from matplotlib.figure import Figure

    lines = read_lines(metrics)
    panels = [panel for panel in PANELS if any(_points(lines, name) for name in panel.names)]
    if not panels:
        return
    figure = Figure(figsize=(7, 4 + 2 * (len(panels) - 1)), layout="constrained")
    every = figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=[2] + [1] * (len(panels) - 1))
    for axes, panel in zip(every[:, 0], panels, strict=True):
        for number, (name, label) in enumerate(panel.names.items()):
            points = _points(lines, name)
            style = {"linestyle": ":", "color": "grey"} if number else {"marker": "" if len(points) > 40 else "."}
            axes.plot([x for x, _ in points], [y for _, y in points], linewidth=1, label=label, **style)
        axes.set_ylabel(panel.label)
        axes.grid(alpha=0.3)
        if panel.label != "loss":
            axes.legend(loc="best", fontsize="small")
    every[-1, 0].set_xlabel("samples seen")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _points(lines: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(line["samples"], line[name]) for line in lines if line.get(name) is not None]
