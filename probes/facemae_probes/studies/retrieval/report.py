"""The report of a retrieval study: results.json, report.md and its pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from facemae.files import atomic_path, storage_errors, write_text
from facemae.train.record.pictures import RECONSTRUCTION, save_picture
from facemae_probes.studies.retrieval.scores import DIRECTIONS, excludes_chance
from facemae_probes.studies.retrieval.windows import PER_CLIP, Windows
from facemae_probes.studies.words import duration, facts_table, machine_line, versions_line

COLUMNS = {
    "within": f"which of the {PER_CLIP} of its clip",
    "top1": "first in the gallery",
    "top5": "among the first five",
    "same_part": "among windows of the same place",
    "own_clip": "first is of the right clip",
}
"""Shares shown, both directions together."""


def write_report(
    folder: Path,
    summary: dict[str, Any],
    matrices: dict[str, NDArray[np.float64]],
    windows: Windows,
    reconstruction: Image | None,
) -> None:
    """Write the folder.

    Args:
        folder: Where.
        summary: What `study.run_study` returns.
        matrices: Similarities of the held-out windows of the speaker that was learned from, by line of the table.
        windows: Those windows.
        reconstruction: Clips masked, reconstructed and as they are; None where the recipe predicts nothing.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    pictures = {}
    if reconstruction is not None:
        save_picture(reconstruction, folder / "reconstruction.png", RECONSTRUCTION)
        shown = summary["data"]["shown"]
        whose = "Held-out clips" if shown is None else f"Clips of {shown}"
        pictures["reconstruction.png"] = f"{whose}: masked, reconstructed, original; then the sound beneath, likewise"
    draw_shifts(folder / "shifts.png", summary)
    pictures["shifts.png"] = "What is found when all sounds are moved in time, held-out clips"
    draw_similarity(folder / "similarity.png", matrices)
    pictures["similarity.png"] = (
        f"Similarity of {len(windows)} windows of video (rows) and sound (columns), clip by clip"
    )
    write_text(folder / "results.json", json.dumps(summary, indent=1) + "\n")
    write_text(folder / "report.md", markdown(summary, pictures))


def markdown(summary: dict[str, Any], pictures: dict[str, str]) -> str:
    """The report as Markdown.

    Args:
        summary: What `study.run_study` returns.
        pictures: Captions by file name.
    """
    data = summary["data"]
    about = (
        f"Recipe `{summary['recipe']['name']}`; {data['clips']['train']} clips of {data['subject']} train. Windows of "
        f"{data['window_seconds']:g} s without overlap, {PER_CLIP} a clip; shares of both directions together, with "
        f"95 % bootstrap intervals over clips. They cover {summary['intervals_cover']}. A tie counts as a miss."
    )
    lines = ["# Which second of sound belongs to which second of a face", "", about, ""]
    if data["tuning"]:
        lines += ["**For choosing settings**: the clips held out here are of the training part.", ""]
    for name, gallery in summary["galleries"].items():
        lines += _table(name, gallery)
    lines += _verdict(summary)
    lines += _directions(next(iter(summary["galleries"].values()))["trained"])
    lines += _how(summary)
    lines += [f"{caption}:\n\n![{caption}]({name})\n" for name, caption in pictures.items()]
    return "\n".join(lines).rstrip() + "\n"


def _table(name: str, gallery: dict[str, Any]) -> list[str]:
    first = next(iter(gallery.values()))
    lines = [
        f"## Held-out clips: {name}",
        "",
        f"{first['clips']} clips, a gallery of {first['gallery']} windows.",
        "",
        f"| | {' | '.join(COLUMNS.values())} | median rank |",
        "|---|" + "---|" * (len(COLUMNS) + 1),
    ]
    for line, scores in gallery.items():
        cells = [_share(scores["both"][column]) for column in COLUMNS]
        lines.append(f"| {line} | {' | '.join(cells)} | {scores['both']['median_rank']['value']:g} |")
    chance = first["chance"]
    cells = [f"{chance[column]:.1%}" for column in COLUMNS]
    return [*lines, f"| *chance* | {' | '.join(cells)} | {chance['median_rank']:g} |", ""]


def _verdict(summary: dict[str, Any]) -> list[str]:
    own = next(iter(summary["galleries"].values()))
    sentences = []
    for measure in ("top1", "within"):
        above = "above" if excludes_chance(own["trained"], measure) else "**not** above"
        sentences.append(
            f"{COLUMNS[measure].capitalize()}: trained, it is {above} chance in both directions' intervals."
        )
    sentences.append(moved_verdict(summary["shifts"], own["trained"]["chance"]["top1"]))
    return [*(f"- {sentence}" for sentence in sentences), ""]


def moved_verdict(curve: list[dict[str, Any]], chance: float) -> str:
    """What is left in the gallery where all sounds are moved, by whatever time.

    Not within the clip: a window moved by less than its length has more in common with the right one than with others.
    """
    moved = [point for point in curve if point["seconds"]]
    above = [point["seconds"] for point in moved if _certain(point["top1"]) > chance]
    nearest, most = (min(abs(point["seconds"]) for point in moved), max(point["top1"]["value"] for point in moved))
    if above:
        times = ", ".join(f"{seconds:+.1f} s" for seconds in above)
        return f"With the sound moved in time, the right window **stays first above chance** at {times}."
    return (
        f"With the sound moved by {nearest:.1f} s or more, the right window is first in at most {most:.1%}, by its "
        f"interval no more than chance ({chance:.1%})."
    )


def _certain(share: dict[str, Any]) -> float:
    """The lower end of the interval, or the value where there is none."""
    return float(share["value"] if share["low"] is None else share["low"])


def _directions(scores: dict[str, Any]) -> list[str]:
    lines = ["| trained, by direction | " + " | ".join(COLUMNS.values()) + " |", "|---|" + "---|" * len(COLUMNS)]
    for name in DIRECTIONS:
        cells = (_share(scores[name][column]) for column in COLUMNS)
        lines += [f"| {name} | {' | '.join(cells)} |"]
    return [*lines, ""]


def _share(entry: dict[str, Any]) -> str:
    if entry["low"] is None:
        return f"{entry['value']:.1%}"
    return f"{entry['value']:.1%} [{entry['low']:.1%}, {entry['high']:.1%}]"


def _how(summary: dict[str, Any]) -> list[str]:
    how, runs = summary["how"], summary["how"]["runs"]
    rows = {"command": f"`{how['command']}`", "commit": how["machine"]["revision"], "seed": str(how["seed"])}
    for name, run in runs.items():
        rows[f"run, {name}"] = (
            f"{run['samples']} samples, {run['epochs']} epochs, {duration(run['seconds'])} by the clock, "
            f"{run['threads']} threads, {run['precision']}, commit {', '.join(run['code'])}"
        )
    rows |= {"machine": machine_line(how["machine"]), "versions": versions_line(summary["versions"])}
    return facts_table(rows)


def draw_shifts(path: Path, summary: dict[str, Any]) -> None:
    """Draw what is found over how far the sound was moved."""
    figure, axes = _figure(6.5, 3.6)
    curve = summary["shifts"]
    chance = next(iter(summary["galleries"].values()))["trained"]["chance"]
    seconds = [point["seconds"] for point in curve]
    for number, (measure, label) in enumerate((("within", COLUMNS["within"]), ("top1", COLUMNS["top1"]))):
        values = [100 * point[measure]["value"] for point in curve]
        axes.plot(seconds, values, ".-", color=f"C{number}", label=label)
        if curve[0][measure]["low"] is not None:
            low, high = ([100 * point[measure][end] for point in curve] for end in ("low", "high"))
            axes.fill_between(seconds, low, high, color=f"C{number}", alpha=0.2)
        axes.axhline(100 * chance[measure], color=f"C{number}", linestyle=":", linewidth=1)
    axes.set_xlabel("sound taken later, seconds")
    axes.set_ylabel("found, % (dotted: chance)")
    axes.legend(fontsize=8)
    _save(path, figure)


def draw_similarity(path: Path, matrices: dict[str, NDArray[np.float64]]) -> None:
    """Draw similarities of videos and sounds, a panel for each line of the table."""
    figure, every = _figure(3.2 * len(matrices), 3.4, len(matrices))
    for axes, (name, matrix) in zip(np.atleast_1d(every), matrices.items(), strict=True):
        axes.imshow(matrix, interpolation="nearest")
        axes.set_title(name, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    _save(path, figure)


def _figure(width: float, height: float, panels: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, panels)


def _save(path: Path, figure: Any) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
