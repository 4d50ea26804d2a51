"""Results on disk and on the terminal: result.json, predictions, confusion matrices, a table."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facemae.errors import ProbeError
from facemae.files import atomic_path, atomic_write, storage_errors
from facemae_probes.results import ProbeResult

if TYPE_CHECKING:
    from rich.table import Table

RESULT = "result.json"


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
    for probe, predicted in result.predictions.items():
        entry = result.data["results"][probe]
        entry["predictions"] = f"predictions-{probe}.npz"
        entry["picture"] = f"confusion-{probe}.png"
        with atomic_write(folder / entry["predictions"]) as file:
            np.savez_compressed(file, **_arrays(result, predicted))
        draw_confusion(folder / entry["picture"], entry["test"], result.data["task"], title(result.data, probe))
    with atomic_write(folder / RESULT) as file:
        file.write((json.dumps(result.data, indent=1) + "\n").encode())


def _arrays(result: ProbeResult, predicted: Any) -> dict[str, Any]:
    slices = {f"slice {name}": rows for name, rows in result.slices.items()}
    keys = np.array(result.keys)
    return {"keys": keys, "truth": result.truth, "predicted": predicted, "units": result.units, **slices}


def read_result(folder: Path, request: dict[str, Any] | None = None) -> ProbeResult | None:
    """Read a result back.

    Args:
        folder: Where it was written.
        request: What the result must be an answer to; None takes any.

    Returns:
        The result, or None where there is none, or one to another request.
    """
    path = folder / RESULT
    if not path.exists():
        return None
    with storage_errors(path, "reading"):
        data = json.loads(path.read_text(encoding="utf-8"))
    if request is not None and data.get("request") != request:
        return None
    predictions = {}
    keys: tuple[str, ...] = ()
    truth = units = np.empty(0, np.int64)
    slices: dict[str, Any] = {}
    for probe, entry in data["results"].items():
        file = folder / entry["predictions"]
        if not file.exists():
            return None
        with np.load(file) as stored:
            predictions[probe] = stored["predicted"]
            truth, units = stored["truth"], stored["units"]
            keys = tuple(str(key) for key in stored["keys"])
            slices = {name.removeprefix("slice "): stored[name] for name in stored.files if name.startswith("slice ")}
    return ProbeResult(data, predictions, truth, keys, units, slices)


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
    return f"{data['model']['name']}, {probe}: accuracy {test['accuracy']:.1%}, macro-F1 {test['macro_f1']:.3f}"


def draw_confusion(path: Path, test: dict[str, Any], task: dict[str, Any], heading: str) -> None:
    """Draw a confusion matrix in shares of the true class; for binary columns, recall and F1 as bars.

    Args:
        path: PNG to write.
        test: Metrics of the test part.
        task: The result's `task` block.
        heading: Title.
    """
    # The object interface draws without a display and leaves the user's own figures alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = task["classes"]
    side = 2.2 + 0.55 * len(names)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if task["kind"] == "classes":
        _draw_matrix(axes, np.array(test["confusion"], dtype=float), names)
    else:
        place = np.arange(len(names))
        axes.bar(place - 0.2, [test["recall"][name] for name in names], 0.4, label="recall")
        axes.bar(place + 0.2, [test["f1"][name] for name in names], 0.4, label="F1")
        axes.set_xticks(place, names, rotation=45, ha="right")
        axes.set_ylim(0, 1)
        axes.legend()
    axes.set_title(heading, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def _draw_matrix(axes: Any, counts: Any, names: list[str]) -> None:
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), [f"{n} ({int(t)})" for n, t in zip(names, totals[:, 0], strict=True)])
    axes.set_xlabel("predicted")
    axes.set_ylabel("true (samples)")
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.5 else "black"
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=8)


def results_table(data: dict[str, Any]) -> "Table":
    """The result for a terminal: one line a probe, and one a slice."""
    from rich.table import Table

    task = data["task"]
    known = data.get("benchmark")
    asked = f"{data['data']['shards']}: {task['label']}"
    if known is not None:
        asked = f"{known['title']} ({known['version'] or 'no known version'}), {known['target']}"
    table = Table(
        title=f"{data['model']['name']} on {asked}",
        caption=f"intervals: 95 % bootstrap over {task['unit']}s; settings chosen on {data['selection']['on']}; "
        f"faces: {crop_line(data['model'].get('crop'))}",
    )
    for column in ("probe", "layer", "pooling", "valid", "part", "n", "accuracy", "macro-F1", "mean recall"):
        table.add_column(column)
    for probe, entry in data["results"].items():
        setting = entry["setting"]
        mark = " *" if probe == data["chosen"]["probe"] else ""
        first = (f"{probe}{mark}", str(setting["layer"]), setting["pooling"], f"{setting['valid']:.4f}")
        for part, found in [("test", entry["test"]), *entry["slices"].items()]:
            table.add_row(*first, part, str(found["count"]), *_cells(found))
            first = ("", "", "", "")
    return table


def crop_line(crop: dict[str, Any] | None) -> str:
    """The crop recipe in one line; `unknown` is printed as such."""
    if crop is None:
        return "crop unknown"
    return ", ".join(f"{name} {crop[name]}" for name in ("detector", "margin", "alignment"))


def _cells(found: dict[str, Any]) -> tuple[str, str, str]:
    def with_interval(metric: str) -> str:
        bounds = found["intervals"][metric]
        return f"{found[metric]:.4f} [{bounds['low']:.4f}, {bounds['high']:.4f}]"

    return with_interval("accuracy"), with_interval("macro_f1"), f"{found['mean_recall']:.4f}"
