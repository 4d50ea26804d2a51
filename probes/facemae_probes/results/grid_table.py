"""The table of a grid: rows of finished cells, failed cells, and what a reader of each section has to know."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from facemae_probes.results.scoring import SHOWN
from facemae_probes.results.words import MARK, bounded, crop_line, mark, metric_title

Head = Mapping[str, str]
"""What a cell is: `model`, `task`, `shards`, `protocol`, `folder`."""
SECTION = ("task", "shards", "protocol")
"""Cells with the same of these stand in one section."""


def grid_table(
    asked: Sequence[Head], finished: Sequence[tuple[Head, dict[str, Any]]], failed: Sequence[tuple[Head, str]]
) -> dict[str, Any]:
    """The table as plain values.

    Args:
        asked: All cells.
        finished: Cells with the JSON results that they gave.
        failed: Cells with what went wrong, in one line.

    Returns:
        `cells`: how many were asked; `rows`: one a finished cell and probe; `failed`: one a failed cell; `sections`:
        title, crop of the faces and warnings of each task, shard set and protocol that has either.
    """
    sections = []
    for section in dict.fromkeys(_section(head) for head in asked):
        own = [(head, data) for head, data in finished if _section(head) == section]
        if own or any(_section(head) == section for head, _ in failed):
            sections.append(_about(section, own, asked))
    return {
        "cells": len(asked),
        "rows": [row for head, data in finished for row in _rows(head, data)],
        "failed": [{**head, "error": error} for head, error in failed],
        "sections": sections,
    }


def _about(
    section: tuple[str, ...], own: Sequence[tuple[Head, dict[str, Any]]], asked: Sequence[Head]
) -> dict[str, Any]:
    task, shards, protocol = section
    several = len({head["shards"] for head in asked if head["task"] == task}) > 1
    concerned: dict[str, list[str]] = {}
    for head, data in own:
        for text in dict.fromkeys(data["warnings"]):
            concerned.setdefault(text, []).append(head["model"])
    marks = dict.fromkeys(MARK for _, data in own if data["protocol"]["on_test"])
    return {
        **dict(zip(SECTION, section, strict=True)),
        "title": f"{task}{f' ({shards})' if several else ''}, {protocol}" + "".join(f" ({text})" for text in marks),
        "faces": list(dict.fromkeys(crop_line(data["data"]["crop"]) for _, data in own)),
        "warnings": [{"text": text, "models": models} for text, models in concerned.items()],
    }


def _rows(head: Head, data: dict[str, Any]) -> list[dict[str, Any]]:
    task, kind = data["task"], data["task"]["kind"]
    return [
        {
            **head,
            "on_test": data["protocol"]["on_test"],
            "mark": mark(data),
            "chosen_on": data["protocol"]["chosen_on"],
            "probe": probe,
            "chosen": probe == data["chosen"]["probe"],
            "count": entry["test"]["count"],
            "unit": task["unit"],
            "units": task["units"]["test"],
            "draws": data["protocol"]["repeats"],
            "metrics": {
                name: {"title": metric_title(name, kind), **_bounds(entry["test"]["intervals"].get(name))}
                for name in SHOWN[kind]
            },
        }
        for probe, entry in data["results"].items()
    ]


def _bounds(interval: dict[str, Any] | None) -> dict[str, Any]:
    return {name: None if interval is None else interval[name] for name in ("value", "low", "high", "deviation")}


def markdown(table: dict[str, Any]) -> str:
    """The table as Markdown: a section a task, shard set and protocol, a line a model and probe."""
    lines: list[str] = []
    reached = len({row["folder"] for row in table["rows"]}) + len(table["failed"])
    if reached < table["cells"]:
        lines += [f"So far {reached} of {table['cells']} cells.", ""]
    for section in table["sections"]:
        rows, failed = (
            [row for row in table[name] if _section(row) == _section(section)] for name in ("rows", "failed")
        )
        lines += [f"## {_text(section['title'])}", "", *_lines(rows, failed), "", *_notes(section, rows)]
    return "\n".join(lines)


def _lines(rows: Sequence[dict[str, Any]], failed: Sequence[dict[str, Any]]) -> list[str]:
    metrics = rows[0]["metrics"] if rows else {}
    titles = [*(entry["title"] for entry in metrics.values()), *(["n"] if rows else [])]
    return [
        _line(["model", "probe", *titles]),
        "|" + "---|" * (2 + len(titles)),
        *(
            _line(
                [
                    row["model"],
                    row["probe"] + (" *" if row["chosen"] else ""),
                    *(bounded(row["metrics"][name], 3) for name in metrics),
                    str(row["count"]),
                ]
            )
            for row in rows
        ),
        *(_line([entry["model"], f"failed: {entry['error']}", *("-" for _ in titles)]) for entry in failed),
    ]


def _notes(section: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    first = rows[0]
    lines = [
        f"Intervals: 95 % bootstrap over {first['unit']}s ({first['units']}). Settings chosen on {first['chosen_on']}."
    ]
    if first["draws"] > 1:
        lines.append(f"±: standard deviation over {first['draws']} draws.")
    lines += [f"Faces: {crop}." for crop in section["faces"]]
    models = {row["model"] for row in rows}
    for warning in section["warnings"]:
        who = "all models" if 1 < len(models) == len(warning["models"]) else ", ".join(warning["models"])
        lines.append(f"Warning ({who}): {warning['text']}.")
    return [part for line in lines for part in (_text(line), "")]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_text(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _text(text: str) -> str:
    """Text on one line."""
    return " ".join(text.split())


def _section(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(entry[name] for name in SECTION)
