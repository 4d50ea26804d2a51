"""How results are spoken of: the mark of choices on test, titles, numbers, how faces were cut."""

from typing import Any

from facemae_probes.metrics import find_metric
from facemae_probes.results.scoring import SHOWN
from facemae_probes.tasks.targets import Kind

MARK = "CHOSEN ON TEST LABELS"
"""Printed wherever numbers of a protocol are printed that lets choices see test labels."""
CROP = ("detector", "margin", "alignment", "colour")
"""What of a crop recipe is told, and compared between a model and data."""


def mark(data: dict[str, Any]) -> str:
    """What a protocol that lets choices see test labels is marked with; empty for others."""
    return f"{MARK}: {data['protocol']['name']}" if data["protocol"]["on_test"] else ""


def marked(data: dict[str, Any]) -> str:
    """The mark as it follows numbers or names, in parentheses after a space; empty for others."""
    return f" ({mark(data)})" if mark(data) else ""


def title(data: dict[str, Any], probe: str) -> str:
    """One line that says what a picture shows."""
    test = data["results"][probe]["test"]
    kind = data["task"]["kind"]
    numbers = ", ".join(f"{metric_title(metric, kind)} {decimal(test.get(metric))}" for metric in SHOWN[kind][:2])
    return f"{data['model']['name']}, {probe}: {numbers}{marked(data)}"


def metric_title(metric: str, kind: Kind) -> str:
    """What a metric is called."""
    return find_metric(metric, kind).title


def decimal(value: float | None, places: int = 4, *, signed: bool = False) -> str:
    """A number; `-` where it is undefined."""
    return "-" if value is None else f"{value:{'+' if signed else ''}.{places}f}"


def bounded(found: dict[str, Any] | None, places: int = 4, *, signed: bool = False) -> str:
    """A value with its deviation over draws, where there are some, and its interval, where it has one.

    Args:
        found: An interval as JSON; None where the metric was not measured.
        places: Digits after the point.
        signed: Whether numbers have a plus.
    """
    if found is None or found["value"] is None:
        return "-"
    text = decimal(found["value"], places, signed=signed)
    if found["deviation"] is not None:
        text += f" ± {decimal(found['deviation'], places)}"
    if found["low"] is None:
        return text
    return f"{text} [{', '.join(decimal(found[end], places, signed=signed) for end in ('low', 'high'))}]"


def crop_line(crop: dict[str, Any] | None) -> str:
    """The crop recipe in one line; `unknown` is printed as such."""
    if crop is None:
        return "crop unknown"
    return ", ".join(f"{name} {crop[name]}" for name in CROP)


def faces_line(data: dict[str, Any]) -> str:
    """How the faces of a result were cut, and those of another test set and of the model's training where that differs.

    Args:
        data: The JSON result. A baseline was trained on no faces.
    """
    own = crop_line(data["data"]["crop"])
    parts = [own]
    tested = crop_line(data["test_data"]["crop"]) if "test_data" in data else own
    if tested != own:
        parts.append(f"of the test set: {tested}")
    trained = data["model"].get("crop")
    if trained is not None and crop_line(trained) not in {own} & {tested}:
        parts.append(f"of the model's training: {crop_line(trained)}")
    return "; ".join(parts)
