"""A result for a terminal: a line a probe, and one a slice, a group, the largest gap, the mean over folds.

Last comes what chance is: a constant answer, where the result has one.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from facemae_probes.choosing.constant import CONSTANT
from facemae_probes.results.scoring import SHOWN
from facemae_probes.results.words import bounded, decimal, faces_line, marked, metric_title

if TYPE_CHECKING:
    from rich.table import Table

Line = tuple[str, str, list[str]]
"""What a line is about, how many samples, and a cell a metric."""
_FEW = 20
"""Units below which a bootstrap cannot tell how they differ from others."""


def results_table(data: dict[str, Any]) -> "Table":
    """The result for a terminal.

    Args:
        data: The JSON result.
    """
    from rich.markup import escape
    from rich.table import Table

    # Names come from data, and Rich would take some brackets in them for styles.
    table = Table(title=escape(_heading(data)), caption=escape("\n".join(_caption(data))))
    kind = data["task"]["kind"]
    for column in ("probe", "layer", "pooling", "chosen at", "part", "n"):
        table.add_column(column)
    for metric in SHOWN[kind]:
        table.add_column(metric_title(metric, kind))
    for name, settings, lines in _entries(data):
        first = (name, *settings)
        for part, count, cells in lines:
            table.add_row(*first, *(escape(text) for text in (part, count, *cells)))
            first = ("", "", "", "")
    return table


def tall_lines(data: dict[str, Any]) -> list[str]:
    """The same, with a line a metric, for where the table is too wide."""
    kind = data["task"]["kind"]
    names = [metric_title(metric, kind) for metric in SHOWN[kind]]
    width = max(map(len, names))
    lines = [_heading(data)]
    for entry, (layer, pooling, chosen_at), parts in _entries(data):
        lines.append(f"{entry}: layer {layer}, pooling {pooling}, chosen at {chosen_at}" if layer else f"{entry}:")
        for part, count, cells in parts:
            lines.append(f"  {part}" + (f", n = {count}" if count else ""))
            lines += [f"    {name:{width}}  {text}" for name, text in zip(names, cells, strict=True) if text]
    return [*lines, *_caption(data)]


def _heading(data: dict[str, Any]) -> str:
    known = data.get("benchmark")
    asked = f"{data['data']['shards']}: {data['task']['label']}"
    if known is not None:
        asked = f"{known['title']} ({known['version'] or 'no known version'}), {known['target']}"
    return f"{data['model']['name']} on {asked}, {data['protocol']['name']}{marked(data)}"


def _entries(data: dict[str, Any]) -> Iterator[tuple[str, tuple[str, str, str], Iterable[Line]]]:
    """Probes with layer, pooling, judgement and lines; then the constant answer, which has no settings."""
    for probe, entry in data["results"].items():
        mark = " *" if probe == data["chosen"]["probe"] else ""
        yield f"{probe}{mark}", _settings(entry["settings"]), _lines(data, entry)
    if "constant" in data:
        cells = [decimal(data["constant"].get(metric)) for metric in SHOWN[data["task"]["kind"]]]
        count = data["results"][data["chosen"]["probe"]]["test"]["count"]
        yield "constant answer", ("", "", ""), [("test", str(count), cells)]


def _lines(data: dict[str, Any], entry: dict[str, Any]) -> Iterator[Line]:
    metrics = SHOWN[data["task"]["kind"]]
    for part, found in [("test", entry["test"]), *entry["slices"].items()]:
        yield part, str(found["count"]), [bounded(found["intervals"].get(metric)) for metric in metrics]
    if _folded(data):
        summary = entry["folds"]["summary"]
        cells = [f"{decimal(summary[name]['mean'])} ± {decimal(summary[name]['deviation'])}" for name in metrics]
        yield f"mean of {len(entry['folds']['each'])} folds", "", cells
    for block in entry.get("groups", {}).values():
        yield from _groups(block, metrics, data["task"]["unit"])


def _groups(block: dict[str, Any], metrics: tuple[str, ...], unit: str) -> Iterator[Line]:
    """Lines of the values of a column: they have one metric, and the others' cells stay empty."""

    def cells(text: str) -> list[str]:
        return [text if metric == block["metric"] else "" for metric in metrics]

    unknown = block["unknown"]
    for group in [*block["groups"], *([unknown] if unknown is not None else [])]:
        value = "unknown" if group["value"] is None else group["value"]
        count = str(group["count"]) + ("" if unit == "sample" else f" ({group['units']} {unit}s)")
        yield f"{block['column']}={value}", count, cells(bounded(group["interval"]))
    gap = block["gap"]
    if gap is None:
        yield f"{block['column']}: largest gap", "", cells(f"no two groups of {block['least']} {unit}s")
    else:
        about = f"{block['column']}: largest gap, {gap['first']} - {gap['second']}"
        yield about, f"{gap['interval']['units']} {unit}s", cells(bounded(gap["interval"], signed=True))


def _caption(data: dict[str, Any]) -> list[str]:
    task, protocol = data["task"], data["protocol"]
    count = task["units"]["test"]
    few = f", and {count} say little about others" if count < _FEW else ""
    lines = [
        protocol["about"],
        f"intervals: 95 % bootstrap over {count:,} {task['unit']}s{few}; settings chosen on {protocol['chosen_on']}",
        "*: the probe chosen there, whose test result is the headline",
        f"faces: {faces_line(data)}",
    ]
    if protocol["repeats"] > 1:
        lines.append(f"±: standard deviation over {protocol['repeats']} draws")
    if _folded(data):
        lines.append("mean of folds: each fold counts alike; ± is the standard deviation over folds")
    if "constant" in data:
        lines.append(f"constant answer: {CONSTANT[task['kind']]}, for every sample")
    gaps = [block["gap"] for entry in data["results"].values() for block in entry.get("groups", {}).values()]
    notes = dict.fromkeys(gap["note"] for gap in gaps if gap is not None)
    return [*lines, *(f"largest gap: {note}" for note in notes)]


def _folded(data: dict[str, Any]) -> bool:
    """Whether test samples are predicted in several folds. Draws have one fold each: their mean is the result."""
    return len(data["protocol"]["folds"]) > 1


def _settings(rows: list[dict[str, Any]]) -> tuple[str, str, str]:
    """Layer, pooling and judgement of the folds; ranges where they differ."""
    layers = sorted({row["layer"] for row in rows if row.get("layer") is not None})
    poolings = sorted({row["pooling"] for row in rows if row.get("pooling") is not None})
    values = [row["valid"] for row in rows if row["valid"] is not None]
    layer = "-" if not layers else str(layers[0]) if len(layers) == 1 else f"{layers[0]} to {layers[-1]}"
    return layer, ", ".join(poolings) or "-", f"{sum(values) / len(values):.4f}" if values else "not chosen"
