"""Results on disk and on the terminal: result.json, predictions, pictures, a table."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facemae.errors import ProbeError
from facemae.files import atomic_write, storage_errors
from facemae_probes.metrics import find_metric
from facemae_probes.results.pictures import draw_predictions
from facemae_probes.results.result import ProbeResult
from facemae_probes.results.scoring import SHOWN
from facemae_probes.tasks.targets import Kind, Targets

if TYPE_CHECKING:
    from rich.table import Table

RESULT = "result.json"
SCHEMA = 2
MARK = "CHOSEN ON TEST LABELS"
"""Printed wherever numbers of a protocol are printed that lets choices see test labels."""


def write_result(folder: Path, result: ProbeResult) -> None:
    """Write a result; `result.json` comes last, so a folder that has one is complete.

    Args:
        folder: Made if missing.
        result: The result; its data gains the names of the files.

    Raises:
        StorageError: Writing failed underneath.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for probe, scores in result.scores.items():
        entry = result.data["results"][probe]
        entry["predictions"] = f"predictions-{probe}.npz"
        entry["picture"] = f"{'scatter' if result.targets.kind == 'regression' else 'confusion'}-{probe}.png"
        with atomic_write(folder / entry["predictions"]) as file:
            np.savez_compressed(file, **_arrays(result, probe))
        draw_predictions(folder / entry["picture"], result.targets, scores, entry["test"], title(result.data, probe))
    with atomic_write(folder / RESULT) as file:
        file.write((json.dumps(result.data, indent=1) + "\n").encode())


def _arrays(result: ProbeResult, probe: str) -> dict[str, Any]:
    slices = {f"slice {name}": rows for name, rows in result.slices.items()}
    thresholds = {"thresholds": result.thresholds[probe]} if probe in result.thresholds else {}
    return {
        "keys": np.array(result.keys),
        "truth": result.targets.values,
        "scores": result.scores[probe],
        "units": result.units,
        **thresholds,
        **slices,
    }


def read_result(folder: Path, request: dict[str, Any] | None = None) -> ProbeResult | None:
    """Read a result back.

    Args:
        folder: Where it was written.
        request: What the result must be an answer to; None takes any.

    Returns:
        The result, or None where there is none, one to another request, or one of an older release.
    """
    path = folder / RESULT
    if not path.exists():
        return None
    with storage_errors(path, "reading"):
        data = json.loads(path.read_text(encoding="utf-8"))
    if data.get("schema") != SCHEMA or (request is not None and data.get("request") != request):
        return None
    scores, thresholds, shared = {}, {}, {}
    for probe, entry in data["results"].items():
        file = folder / entry["predictions"]
        if not file.exists():
            return None
        with np.load(file) as stored:
            shared = {name: stored[name] for name in stored.files if name not in ("scores", "thresholds")}
            scores[probe] = stored["scores"]
            if "thresholds" in stored.files:
                thresholds[probe] = stored["thresholds"]
    task = data["task"]
    return ProbeResult(
        data,
        scores,
        Targets(task["kind"], tuple(task["classes"]), shared["truth"]),
        tuple(str(key) for key in shared["keys"]),
        shared["units"],
        {name.removeprefix("slice "): rows for name, rows in shared.items() if name.startswith("slice ")},
        thresholds,
    )


def require_result(folder: Path) -> ProbeResult:
    """Read a result that has to be there.

    Raises:
        ProbeError: It is not.
    """
    result = read_result(folder)
    if result is None:
        raise ProbeError(f"{folder} holds no complete probe result", expected=RESULT, fix="facemae probe run --out DIR")
    return result


def title(data: dict[str, Any], probe: str) -> str:
    """One line that says what a picture shows."""
    test = data["results"][probe]["test"]
    kind = data["task"]["kind"]
    numbers = ", ".join(f"{_name(metric, kind)} {_value(test[metric])}" for metric in SHOWN[kind][:2])
    return f"{data['model']['name']}, {probe}: {numbers}{marked(data)}"


def marked(data: dict[str, Any]) -> str:
    """What follows the numbers of a protocol that lets choices see test labels; empty for others."""
    return f" ({MARK}: {data['protocol']['name']})" if data["protocol"]["on_test"] else ""


def results_table(data: dict[str, Any]) -> "Table":
    """The result for a terminal: one line a probe, and one a slice or group."""
    from rich.table import Table

    task, protocol = data["task"], data["protocol"]
    known = data.get("benchmark")
    asked = f"{data['data']['shards']}: {task['label']}"
    if known is not None:
        asked = f"{known['title']} ({known['version'] or 'no known version'}), {known['target']}"
    table = Table(
        title=f"{data['model']['name']} on {asked}, {protocol['name']}{marked(data)}",
        caption=f"{protocol['about']}\nintervals: 95 % bootstrap over {task['unit']}s; settings chosen on "
        f"{protocol['chosen_on']}; faces: {crop_line(data['model'].get('crop'))}",
    )
    metrics = SHOWN[task["kind"]]
    for column in (
        "probe",
        "layer",
        "pooling",
        "chosen at",
        "part",
        "n",
        *(_name(metric, task["kind"]) for metric in metrics),
    ):
        table.add_column(column)
    for probe, entry in data["results"].items():
        mark = " *" if probe == data["chosen"]["probe"] else ""
        first = (f"{probe}{mark}", *_settings(entry["settings"]))
        for part, found in [("test", entry["test"]), *entry["slices"].items()]:
            table.add_row(*first, part, str(found["count"]), *(_cell(found, metric) for metric in metrics))
            first = ("", "", "", "")
    return table


def crop_line(crop: dict[str, Any] | None) -> str:
    """The crop recipe in one line; `unknown` is printed as such."""
    if crop is None:
        return "crop unknown"
    return ", ".join(f"{name} {crop[name]}" for name in ("detector", "margin", "alignment"))


def _settings(rows: list[dict[str, Any]]) -> tuple[str, str, str]:
    """Layer, pooling and judgement of the folds; ranges where they differ."""
    layers = sorted({row["layer"] for row in rows if row.get("layer") is not None})
    poolings = sorted({row["pooling"] for row in rows if row.get("pooling") is not None})
    values = [row["valid"] for row in rows if row["valid"] is not None]
    layer = "-" if not layers else str(layers[0]) if len(layers) == 1 else f"{layers[0]} to {layers[-1]}"
    return layer, ", ".join(poolings) or "-", f"{sum(values) / len(values):.4f}" if values else "not chosen"


def _cell(found: dict[str, Any], metric: str) -> str:
    bounds = found["intervals"][metric]
    if bounds["value"] is None:
        return "-"
    return f"{_value(bounds['value'])} [{_value(bounds['low'])}, {_value(bounds['high'])}]"


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _name(metric: str, kind: Kind) -> str:
    return find_metric(metric, kind).title
