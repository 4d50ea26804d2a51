"""Pictures of an equal-time table: bars of test accuracy, and how the systems got there."""

from pathlib import Path
from typing import Any

from facemae.files import atomic_path


def draw_bars(path: Path, summary: dict[str, Any]) -> None:
    """Draw test accuracy by probe and system: bars with intervals, the seeds' values as dots.

    Args:
        path: PNG to write.
        summary: What `equal_time_summary.summarise` gives.
    """
    probes, lines = list(summary["best_on_valid"]), summary["lines"]
    figure, axes = _figure(3.5 + 0.35 * len(lines) * len(probes))
    width = 0.8 / len(lines)
    for number, (name, line) in enumerate(lines.items()):
        places, values, errors = [], [], []
        for position, probe in enumerate(probes):
            if probe not in line["probes"]:
                continue
            found = line["probes"][probe]["test"]
            bounds = found["intervals"]["accuracy"]
            place = position + (number - (len(lines) - 1) / 2) * width
            places.append(place)
            values.append(100 * found["accuracy"])
            errors.append((100 * (found["accuracy"] - bounds["low"]), 100 * (bounds["high"] - found["accuracy"])))
            dots = [100 * one["accuracy"] for one in line["probes"][probe]["by_seed"]]
            axes.plot([place] * len(dots), dots, "k.", markersize=4)
        bounds = list(zip(*errors, strict=True))
        axes.bar(places, values, width * 0.9, yerr=bounds, label=name, color=_colour(number, line), capsize=2)
    axes.set_xticks(range(len(probes)), probes)
    axes.set_ylabel("test accuracy, %")
    axes.set_title(f"FER+, frozen, {summary['minutes'] or 0:g} minutes of pretraining each", fontsize=9)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(path, figure)


def draw_curves(path: Path, summary: dict[str, Any]) -> None:
    """Draw kNN accuracy on valid against the time a system was given, one line a seed.

    Args:
        path: PNG to write.
        summary: What `equal_time_summary.summarise` gives.
    """
    figure, axes = _figure(7.5)
    for number, (name, line) in enumerate(summary["lines"].items()):
        # Time on the calibrated machine; the monitor's own is left out.
        rate = 60 * line["calibration"]["samples_per_s"] if line["kind"] == "system" else 1
        for position, curve in enumerate(line.get("curves", [])):
            minutes = [point["samples"] / rate for point in curve]
            accuracy = [100 * point["knn"] for point in curve]
            label = name if position == 0 else None
            axes.plot(minutes, accuracy, ".-", color=_colour(number, line), label=label, linewidth=1)
    axes.set_xlabel("minutes at the calibrated rate")
    axes.set_ylabel("kNN accuracy on valid, %")
    axes.set_title("Mean-pooled last layer, 1,000 faces, one line a seed", fontsize=9)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(path, figure)


def _figure(width: float) -> tuple[Any, Any]:
    # The object interface draws without a display and leaves the user's own figures alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _colour(number: int, line: dict[str, Any]) -> str:
    return f"C{number}" if line["kind"] == "system" else str(0.45 + 0.2 * (number % 2))


def _save(path: Path, figure: Any) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
