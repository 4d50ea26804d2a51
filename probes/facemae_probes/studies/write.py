"""A study's report: results.json, report.md and the pictures it shows, in one folder that can be published."""

import json
import re
from pathlib import Path
from typing import Any

from facemae.files import atomic_write, storage_errors, write_text
from facemae_probes.results.result import ProbeResult
from facemae_probes.results.words import crop_line
from facemae_probes.studies.words import difference, duration, facts_table, machine_line, percent, place, versions_line


def write_report(out: Path, results: dict[str, ProbeResult], summary: dict[str, Any]) -> None:
    """Write `out/report/`.

    Args:
        out: Folder of the study.
        results: Probe results by line of the table.
        summary: What `ferplus.summarise` gives.
    """
    folder = out / "report"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    trained = results["pretrained"].data
    confusion = out / "probes" / "pretrained" / trained["results"][trained["chosen"]["probe"]]["picture"]
    pictures = {"confusion.png": ("Confusion matrix of the pretrained encoder", confusion)}
    for name, caption in (
        ("curve", "Training loss"),
        ("reconstruction", "Reconstructions at the end: masked, reconstructed, original"),
        ("views", "Training views"),
    ):
        found = _last_picture(out / "run" / "log" / "pictures", name)
        if found is not None:
            pictures[f"{name}.png"] = (caption, found)
    for name, (_, source) in pictures.items():
        with storage_errors(source, "reading"):
            content = source.read_bytes()
        with atomic_write(folder / name) as file:
            file.write(content)
    write_text(folder / "report.md", markdown(summary, {name: caption for name, (caption, _) in pictures.items()}))
    write_text(folder / "results.json", json.dumps(summary, indent=1) + "\n")


def _last_picture(folder: Path, name: str) -> Path | None:
    """The newest picture of a name, by the step in it."""
    found = sorted(folder.glob(f"{name}*.png"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.stem)])
    return found[-1] if found else None


def markdown(summary: dict[str, Any], pictures: dict[str, str]) -> str:
    """The report as Markdown.

    Args:
        summary: What `ferplus.summarise` gives.
        pictures: Captions by file name.
    """
    legend = (
        f"Intervals: 95 % bootstrap over {summary['task']['unit']} (identical images are one unit). They cover "
        f"{summary['intervals_cover']}. *random, same probe*: the probe, layer and pooling that the pretrained encoder "
        "chose; *random, own choice*: the best on valid of all that was tried with the random encoder."
    )
    lines = [
        "# FER+, 8 classes, frozen encoder",
        "",
        _intro(summary),
        "",
        "| features | probe | layer, pooling | valid | test accuracy | test macro-F1 | without duplicates |",
        "|---|---|---|---|---|---|---|",
        *(_row(name, line) for name, line in summary["lines"].items()),
        "",
        legend,
        "",
        *_gains(summary),
        *_verdict(summary),
        *_all_probes(summary),
        *_how(summary["how"], summary["versions"]),
        *(f"Note on {name}: {text}.\n" for name, texts in summary["warnings"].items() for text in texts),
        *(f"{caption}:\n\n![{caption}]({name})\n" for name, caption in pictures.items()),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _intro(summary: dict[str, Any]) -> str:
    chosen = summary["chosen"]
    counts = {part: entry["samples"] for part, entry in summary["task"]["counts"].items()}
    return (
        f"Recipe `{summary['recipe']['name']}`, {summary['run']['samples']:,} samples seen, pretrained on the train "
        f"split only. Probe, layer and pooling were chosen on the {summary['chosen_on']}: "
        f"**{chosen['probe']}, layer {chosen['layer']}, {chosen['pooling']}** (valid {chosen['valid']:.1%}). "
        f"Labelled images: {counts['train']:,} train, {counts['valid']:,} valid, {counts['test']:,} test. "
        f"Faces: {crop_line(summary['model'].get('crop'))}. Data digest `{summary['data']['digest'][:16]}`, "
        f"weights `{summary['model']['digest'][:16]}`."
    )


def _gains(summary: dict[str, Any]) -> list[str]:
    chosen = summary["chosen"]["probe"]
    rows = {f"{chosen} (chosen): {name}": entry for name, entry in summary["gain_over_random"].items()}
    rows |= {f"{kind}: accuracy": entry for kind, entry in summary["gain_by_probe"].items() if kind != chosen}
    return [
        "| pretrained - random, same probe, layer and pooling | difference |",
        "|---|---|",
        *(f"| {name.replace('_', '-')} | {difference(entry)} |" for name, entry in rows.items()),
        "",
    ]


def _verdict(summary: dict[str, Any]) -> list[str]:
    verdict, against = summary["verdict"], summary["against_hog"]
    line = summary["lines"]["pretrained"]
    probe = f"the chosen frozen probe ({line['setting']['probe']}, {line['test']['accuracy']:.1%})"
    floor = f"- Beats the published HOG floor of {verdict['hog_floor']:.1%} (HOG and logistic regression): "
    needed = f"- Gains at least {verdict['needed_gain']:.0%} over random weights, interval above 0: "
    words = {kind: outcome_words(entry) for kind, entry in against.items()}
    stronger = ", more than its linear probe" if against["knn"]["hog"] > against["linear"]["hog"] else ""
    lines = [
        floor + f"**{_yes(verdict['beats_hog_floor'])}**",
        f"- HOG with a linear probe reaches {against['linear']['hog']:.1%} here: {probe} {words['linear']}.",
        f"- HOG with kNN reaches {against['knn']['hog']:.1%} here{stronger}: {probe} {words['knn']}.",
        needed + f"**{_yes(verdict['gains_enough'])}**",
    ]
    return [*lines, ""]


def outcome_words(entry: dict[str, Any]) -> str:
    """Whether something beats a baseline, in words: `beats`, `loses` or `undecided`, with the difference."""
    words = {
        "beats": "**beats** it",
        "loses": "**does not beat** it and lies below",
        "undecided": "**does not clearly beat** it: the interval of the difference holds 0",
    }
    clean = difference(entry["without_duplicates"])
    return f"{words[entry['outcome']]} ({difference(entry)}; without duplicates {clean})"


def _all_probes(summary: dict[str, Any]) -> list[str]:
    legend = (
        "All probes on the test split, each setting chosen on valid. *random, same settings*: layer and pooling are "
        "those that the pretrained encoder chose for this probe; *random, own settings*: chosen for the random encoder."
    )
    return [
        legend,
        "",
        "| features | probe | layer, pooling | valid | test accuracy | macro-F1 | without duplicates |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {probe} | {place(entry['setting'])} | {entry['setting']['valid']:.1%} | "
            f"{percent(entry['test'])} | {entry['test']['macro_f1']:.3f} | {percent(entry['without_duplicates'])} |"
            for name, probes in summary["all_probes"].items()
            for probe, entry in probes.items()
        ),
        "",
    ]


def _how(how: dict[str, Any], versions: dict[str, str]) -> list[str]:
    run, machine = how["pretraining"], how["machine"]
    starts = f" in {run['starts']} starts" if run["starts"] > 1 else ""
    speed = "unknown" if run["samples_per_s"] is None else f"{run['samples_per_s']:,.0f}"
    rows = {
        "pretraining": f"{duration(run['seconds'])}{starts}, {run['samples']:,} samples, {speed} samples/s",
        "on": f"{run['device']}, {run['threads']} threads, precision {run['precision']}",
        "probing": duration(how["probing_seconds"]),
        "machine": machine_line(machine),
        "code": f"{machine['revision']} (when this study was last started)",
        "seed": str(how["seed"]),
        "command": f"`{how['command']}`" if how["command"] else "called from Python",
        "versions": versions_line(versions),
    }
    return ["How it was run:", "", *facts_table(rows)]


def _row(name: str, line: dict[str, Any]) -> str:
    setting, test, clean = line["setting"], line["test"], line["without_duplicates"]
    return (
        f"| {name} | {setting['probe']} | {place(setting)} | {setting['valid']:.1%} | "
        f"{percent(test)} | {test['macro_f1']:.3f} | {percent(clean)} |"
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"
