"""The summary as one HTML file that needs nothing else: pictures are inside it."""

import base64
import html
from typing import Any

from facemae.files import write_text
from facemae_probes.tour.settings import Places
from facemae_probes.tour.show import MEASURED, measured, units

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .35rem .8rem; border-bottom: 1px solid #d5dae0; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; border: 1px solid #d5dae0; }
figcaption { color: #57606a; } figure { margin: 2rem 0; }
"""

_EXPLANATION = (
    "Percent, with 95&nbsp;% bootstrap intervals over {units}. <em>Constant</em> is the best answer without looking "
    "at the image, <em>random</em> the same encoder before training, which is no mean rival of so short a training. "
    "Faces, persons and labels are drawn: the numbers show that the path works, not how good the encoder is on "
    "photographs."
)
_CAPTIONS = {
    "faces": "Faces as drawn, a row of region maps, the expressions, and every action unit at its maximum.",
    "views-step-0": "What the model is shown: crops of the faces and the patches that stay visible.",
    "curve": "Loss over the faces seen.",
}


def write_page(summary: dict[str, Any], places: Places) -> None:
    """Write `report.html`."""
    body = [
        "<h1>facemae quickstart</h1>",
        f"<p>{_text(_opening(summary))}</p>",
        "<h2>What frozen features know</h2>",
        _results(summary),
        f"<p>{_EXPLANATION.format(units=_text(units(summary)))}</p>",
        "<h2>Steps</h2>",
        _steps(summary),
        "<h2>Pictures</h2>",
        *(_figure(name, path, places) for name, path in summary["pictures"].items()),
    ]
    head = f'<meta charset="utf-8"><title>facemae quickstart</title><style>{_STYLE}</style>'
    write_text(places.page, f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n')


def _text(value: object) -> str:
    return html.escape(str(value))


def _opening(summary: dict[str, Any]) -> str:
    return (
        f"The whole path took {summary['seconds']:.0f} seconds on {summary['cores']} cores. Folder: {summary['folder']}"
    )


def _table(head: list[str], rows: list[list[str]], numbers_from: int) -> str:
    lines = ["<tr>" + "".join(f"<th>{_text(cell)}</th>" for cell in head) + "</tr>"]
    for row in rows:
        words = "".join(f"<td>{_text(cell)}</td>" for cell in row[:numbers_from])
        numbers = "".join(f'<td class="number">{_text(cell)}</td>' for cell in row[numbers_from:])
        lines.append(f"<tr>{words}{numbers}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _results(summary: dict[str, Any]) -> str:
    head = ["question", "on", *MEASURED]
    rows = [
        [
            f"{row['question']} ({row['classes']})",
            f"{row['images']} images: {row['about']}",
            *measured(row),
        ]
        for row in summary["rows"]
    ]
    return _table(head, rows, 4)


def _steps(summary: dict[str, Any]) -> str:
    rows = [[name, step["text"], f"{step['seconds']:.1f} s"] for name, step in summary["steps"].items()]
    return _table(["step", "what", "time"], rows, 2)


def _figure(name: str, path: str, places: Places) -> str:
    data = base64.b64encode((places.root / path).read_bytes()).decode()
    caption = _CAPTIONS.get(name, name.replace("-", " "))
    if name.startswith("reconstruction"):
        caption = f"{name}: what is left after masking, what the model makes of it, and the face."
    return (
        f'<figure><img alt="{_text(name)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{_text(caption)} ({_text(path)})</figcaption></figure>"
    )
