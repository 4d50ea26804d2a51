"""The report of a study of labels that need motion or sound: results.json and report.md."""

import json
from pathlib import Path
from typing import Any

from facemae.files import write_text
from facemae_probes.studies.words import duration, facts_table, machine_line, versions_line

MEAN = "mean of motion and sound"


def write_report(folder: Path, summary: dict[str, Any]) -> None:
    """Write the folder's two files; `summary` is what `clip_labels.run_study` returns."""
    write_text(folder / "results.json", json.dumps(summary, indent=1) + "\n")
    write_text(folder / "report.md", markdown(summary))


def markdown(summary: dict[str, Any]) -> str:
    """The report as Markdown."""
    data, how = summary["data"], summary["how"]
    columns = [*summary["labels"], MEAN]
    probe, clips = how["probe"], data["clips"]
    blocks = ", ".join(map(str, probe["layers"]))
    fresh = "" if data["test"] is None else f", all of the set {data['test']['name']}"
    about = (
        f"Linear probes on frozen features (blocks {blocks}, pooling {probe['pooling']}), fitted on {clips['train']} "
        f"clips, block and strength chosen on {clips['valid']} for each label, tested on {clips['test']} clips of "
        f"{data['subjects']} other persons{fresh}. Accuracy with 95 % bootstrap intervals over persons; one run of "
        "each kind, with one seed. Labels but `emotion` (8 classes) have two values, drawn evenly."
    )
    lines = ["# Labels of clips that need motion or sound", "", about, "", _head("", columns)]
    lines += [f"| *needs* | {' | '.join([*summary['labels'].values(), ''])} |"]
    lines += [
        f"| {name} | {' | '.join(_share(line[column]) for column in columns)} |"
        for name, line in summary["lines"].items()
    ]
    lines += ["", _head(f"{next(iter(summary['lines']))} less", columns)]
    lines += [
        f"| {name} | {' | '.join(_points(line[column]) for column in columns)} |"
        for name, line in summary["against"].items()
    ]
    lines += ["", *(_verdict(name, line[MEAN]) for name, line in summary["against"].items()), ""]
    rows = {"command": f"`{how['command']}`", "commit": how["machine"]["revision"], "seed": str(how["seed"])}
    for name, run in how["runs"].items():
        rows[f"run, {name}"] = (
            f"{run['samples']} samples, {run['epochs']} epochs, {duration(run['seconds'])} by the clock, "
            f"{run['threads']} threads, {run['precision']}, commit {', '.join(run['code'])}"
        )
    rows |= {"machine": machine_line(how["machine"]), "versions": versions_line(summary["versions"])}
    return "\n".join([*lines, *facts_table(rows)]).rstrip() + "\n"


def _head(first: str, columns: list[str]) -> str:
    return f"| {first} | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}"


def _share(entry: dict[str, Any]) -> str:
    if entry["value"] is None:
        return "-"
    return f"{entry['value']:.1%}" + ("" if entry["low"] is None else f" [{entry['low']:.1%}, {entry['high']:.1%}]")


def _points(entry: dict[str, Any]) -> str:
    if entry["value"] is None:
        return "-"
    ends = "" if entry["low"] is None else f" [{100 * entry['low']:+.1f}, {100 * entry['high']:+.1f}]"
    return f"{100 * entry['value']:+.1f}{ends}"


def _verdict(name: str, entry: dict[str, Any]) -> str:
    low, high = entry["low"], entry["high"]
    if low is None or high is None:
        return f"- Against {name}: undecided."
    outcome = "ahead" if low > 0 else "**behind**" if high < 0 else "undecided"
    return f"- Against {name}, over the labels that need motion or sound: {outcome}."
