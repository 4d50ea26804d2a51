"""The report of an equal-time table: results.json, report.md and a picture, in one folder that can be published."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facemae.errors import ProbeError
from facemae.files import storage_errors, write_text
from facemae_probes.studies.equal_time_pictures import draw_bars, draw_curves
from facemae_probes.studies.equal_time_summary import summarise
from facemae_probes.studies.units import FOLDER, check_together, read_units
from facemae_probes.studies.words import difference, duration, facts_table, machine_line, percent, place, versions_line

BARS, CURVES = "accuracy.png", "curves.png"


def write_table(out: Path, wanted: Sequence[tuple[str, int]], command: str | None) -> dict[str, Any]:
    """Write `out/report` from the units in `out/units`.

    Args:
        out: Folder of the study.
        wanted: Names and seeds that the table should have; what is not there is named as missing.
        command: The command line to name in the report.

    Returns:
        What is written to results.json.

    Raises:
        ProbeError: There are no units, or units that cannot stand in one table.
    """
    units = read_units(out)
    if not units:
        raise ProbeError(f"{out / FOLDER} holds no units", fix="facemae study equal-time --data … makes them")
    check_together(units)
    summary = summarise(units, wanted, command)
    folder = out / "report"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    draw_bars(folder / BARS, summary)
    if _has_curves(summary):
        draw_curves(folder / CURVES, summary)
    write_text(folder / "report.md", markdown(summary))
    write_text(folder / "results.json", json.dumps(summary, indent=1) + "\n")
    return summary


def markdown(summary: dict[str, Any]) -> str:
    """The report as Markdown.

    Args:
        summary: What `equal_time_summary.summarise` gives.
    """
    probes = list(summary["best_on_valid"])
    lines = [
        "# FER+ at equal time, frozen encoders",
        "",
        _intro(summary),
        "",
        *_missing(summary),
        *_overview(summary, probes),
        *(line for probe in probes for line in _of_probe(summary, probe)),
        *_time(summary),
        *_how(summary),
        *(f"- {note}." for note in summary["notes"]),
        "",
        f"![Test accuracy by system and probe]({BARS})",
        "",
        *([f"![kNN accuracy on valid during the runs]({CURVES})"] if _has_curves(summary) else []),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _intro(summary: dict[str, Any]) -> str:
    counts = {part: entry["samples"] for part, entry in summary["task"]["counts"].items()}
    minutes = "" if summary["minutes"] is None else f" for {summary['minutes']:g} minutes each"
    return (
        f"Systems pretrained on the train split of FER+{minutes}, then probed frozen with "
        f"{len(summary['task']['classes'])} classes. Layer, pooling and hyper-parameters were chosen on the "
        f"{summary['chosen_on']} for each system, seed and probe (plan `{summary['probe']}`). Labelled images: "
        f"{counts['train']:,} train, {counts['valid']:,} valid, {counts['test']:,} test. Data digest "
        f"`{summary['data']['digest'][:16]}`. Intervals: 95 % bootstrap over {summary['task']['unit']} (identical "
        f"images are one unit). They cover {summary['intervals_cover']}."
    )


def _missing(summary: dict[str, Any]) -> list[str]:
    if not summary["missing"]:
        return []
    names = ", ".join(f"{entry['name']} (seed {entry['seed']})" for entry in summary["missing"])
    return [f"**Not finished yet, and missing below:** {names}.", ""]


def _overview(summary: dict[str, Any], probes: Sequence[str]) -> list[str]:
    def cell(line: dict[str, Any], name: str, probe: str) -> str:
        if probe not in line["probes"]:
            return "-"
        text = f"{line['probes'][probe]['test']['accuracy']:.1%}"
        return f"**{text}**" if summary["best_on_valid"][probe] == name else text

    return [
        f"| test accuracy, mean over seeds | {' | '.join(probes)} | seeds |",
        "|---" * (len(probes) + 2) + "|",
        *(
            f"| {name} | {' | '.join(cell(line, name, probe) for probe in probes)} | {_seeds(line)} |"
            for name, line in summary["lines"].items()
        ),
        "",
        "Bold: the system whose mean on valid is highest, which is how one is to be chosen.",
        "",
    ]


def _of_probe(summary: dict[str, Any], probe: str) -> list[str]:
    def row(name: str, line: dict[str, Any]) -> str:
        entry = line["probes"][probe]
        values = ", ".join(
            f"{one['accuracy']:.1%} ({place(one['setting'])}; valid {one['setting']['valid']:.1%})"
            for one in entry["by_seed"]
        )
        against = entry["against_first"]
        gains = ["-", "-"]
        if against is not None:
            gains = [difference(against["test"]), difference(against["without_duplicates"])]
        return (
            f"| {name} | {percent(entry['test'])} | {values} | {entry['test']['macro_f1']:.3f} | "
            f"{percent(entry['without_duplicates'])} | {gains[0]} | {gains[1]} |"
        )

    first = f"less {summary['first']}, paired"
    head = ["features", "test, mean", "by seed (layer, pooling)", "macro-F1", "no duplicates", first]
    return [
        f"## {probe}",
        "",
        f"| {' | '.join(head)} | {first}, no duplicates |",
        "|---|---|---|---|---|---|---|",
        *(row(name, line) for name, line in summary["lines"].items() if probe in line["probes"]),
        "",
    ]


def _time(summary: dict[str, Any]) -> list[str]:
    trained = {name: line for name, line in summary["lines"].items() if line["kind"] == "system"}
    if not trained:
        return []
    rows = [
        f"| {name} | {line['about'] or '-'} | {line['calibration']['samples_per_s']:,.1f} | "
        f"{line['calibration']['spread']:.1%} | {line['samples']:,} | {line['pretraining'][0]['epochs'] or 0:.1f} | "
        f"{', '.join(duration(run['seconds']) for run in line['pretraining'])} | {_starts(line)} |"
        for name, line in trained.items()
    ]
    legend = (
        f"Equal time is given out as samples: a system's calibrated rate times {summary['minutes']:g} minutes. Rates "
        "were measured on the real runs, in turns, so that other load on the machine met all systems alike; spread is "
        "the range of a system's share over the rounds. The time a run then took is shown for comparison: it contains "
        "the work of others on the machine, and does not change a result."
    )
    return [
        "## Time",
        "",
        legend,
        "",
        "| system | | samples/s | spread | samples | epochs | time used, by seed | starts |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _how(summary: dict[str, Any]) -> list[str]:
    lines = summary["lines"].values()
    trained = [line for line in lines if line["kind"] == "system"]
    rows = {"probing": ", ".join(duration(seconds) for line in lines for seconds in line["probing_seconds"])}
    if trained:
        machine, run = trained[0]["calibration"]["machine"], trained[0]["pretraining"][0]
        revisions = sorted({revision for line in trained for revision in line["revisions"]})
        rows |= {
            "calibrated on": f"{machine_line(machine)}, code {machine['revision']}",
            "trained with": f"{run['device']}, {run['threads']} threads, precision {run['precision']}, code "
            + ", ".join(revisions),
        }
    rows |= {
        "command": f"`{summary['command']}`" if summary["command"] else "called from Python",
        "versions": versions_line(summary["versions"]),
    }
    return ["## How it was run", "", *facts_table(rows)]


def _seeds(line: dict[str, Any]) -> str:
    return ", ".join(map(str, line["seeds"])) if line["kind"] == "system" else "-"


def _has_curves(summary: dict[str, Any]) -> bool:
    return any(curve for line in summary["lines"].values() for curve in line.get("curves", []))


def _starts(line: dict[str, Any]) -> str:
    return ", ".join(str(run["starts"]) for run in line["pretraining"])
