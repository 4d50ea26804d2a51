"""The steps of the quickstart, each a call to the library."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facemae.errors import DataError, FacemaeError
from facemae.files import write_text
from facemae.parallel import usable_cores
from facemae_probes.tour.probing import probe_everything
from facemae_probes.tour.settings import Journal, Places, Settings

Say = Callable[[str], None]


class StoppedError(FacemaeError):
    """The quickstart was asked to stop; the same command continues."""

    exit_code = 130


@dataclass(frozen=True)
class Tour:
    """One quickstart under way."""

    settings: Settings
    places: Places
    say: Say


def run_tour(folder: Path, settings: Settings | None = None, say: Say | None = None) -> dict[str, Any]:
    """Draw, verify, pretrain, probe and extract; skip what an earlier call finished.

    Args:
        folder: Where everything goes.
        settings: Sizes; the defaults take some minutes on two cores.
        say: Told how it goes; None prints to stderr.

    Returns:
        The summary, as in `summary.json`: seconds and facts of each step, the table of the probes, paths of pictures.

    Raises:
        UsageError: The folder holds something else, or a quickstart with other settings.
        StoppedError: Ctrl-C or SIGTERM during pretraining; the same call continues.
    """
    settings = settings or Settings()
    places = Places(folder)
    journal = Journal(places, settings)
    tour = Tour(settings, places, say or _to_stderr)
    began = time.monotonic()
    for number, (name, what, step) in enumerate(_STEPS, 1):
        head = f"[{number}/{len(_STEPS)}] {what}"
        if name in journal.steps:
            tour.say(f"{head}: done before")
            continue
        tour.say(f"{head} …")
        start = time.monotonic()
        try:
            facts = step(tour)
        finally:
            journal.spend(name, time.monotonic() - start)
        journal.finish(name, facts)
        tour.say(f"{head}: {facts.get('text', 'done')} ({time.monotonic() - start:.1f} s)")
    summary = _summarise(tour, journal, time.monotonic() - began)
    write_text(places.summary, json.dumps(summary, indent=1) + "\n")
    from facemae_probes.tour.page import write_page

    write_page(summary, places)
    return summary


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _draw(tour: Tour) -> dict[str, Any]:
    from facemae.data.progress import progress
    from facemae.data.synthetic.dataset import make_dataset

    settings = tour.settings
    with progress("drawing faces") as report_progress:
        report = make_dataset(
            tour.places.shards,
            count=settings.count,
            identities=settings.identities,
            size=settings.size,
            seed=settings.seed,
            shard_size=max(1, settings.count // 4),
            overwrite=True,
            progress=report_progress,
        )
    return {
        "text": f"{report.written} faces of {settings.identities} persons in {report.shards} shards",
        "written": report.written,
        "digest": report.digest,
    }


def _look(tour: Tour) -> dict[str, Any]:
    from facemae.data.synthetic.sheet import write_sheet

    settings = tour.settings
    write_sheet(tour.places.sheet, seed=settings.seed, count=settings.count, identities=settings.identities)
    return {"text": str(tour.places.sheet)}


def _verify(tour: Tour) -> dict[str, Any]:
    from facemae.data.verify import verify_shards

    report = verify_shards(tour.places.shards, near=None)
    if not report.sound or report.crossing_exact:
        raise DataError(
            f"the faces under {tour.places.shards} are not sound: " + "; ".join(report.lines()),
            expected="intact checksums, images that decode, no duplicates across splits",
            fix=f"remove {tour.places.root} and start again; if it happens again, look at the disk",
        )
    return {"text": f"{report.samples} checksums and images are sound, no image is in two splits"}


def _pretrain(tour: Tour) -> dict[str, Any]:
    from facemae.recipe import load_recipe
    from facemae.train.trainer import pretrain

    recipe = load_recipe("fmae_tiny", tour.settings.overrides(tour.places.shards))
    result = pretrain(recipe, tour.places.run)
    if result.stopped != "finished":
        raise StoppedError(f"stopped by {result.stopped} at step {result.step}", fix="the same command continues")
    pictures = tour.places.run / "log" / "pictures"
    return {
        "text": f"{result.samples} faces in {result.step} steps, loss {result.loss:.3f}",
        "samples": result.samples,
        "steps": result.step,
        "loss": result.loss,
        "pictures": sorted(str(path.relative_to(tour.places.root)) for path in pictures.glob("*.png")),
    }


def _probe(tour: Tour) -> dict[str, Any]:
    rows, pictures = probe_everything(tour.places, tour.settings, tour.say)
    return {"text": f"{len(rows)} probes", "rows": rows, "pictures": pictures}


def _extract(tour: Tour) -> dict[str, Any]:
    from facemae.features.extraction import extract_features
    from facemae.features.extractor import load
    from facemae.features.sources import open_paths

    out = tour.places.features
    report = extract_features(load(tour.places.run), open_paths([tour.places.shards]), out, overwrite=True)
    return {"text": f"{report.images} faces into {out}", "images": report.images}


_STEPS: tuple[tuple[str, str, Callable[[Tour], dict[str, Any]]], ...] = (
    ("draw", "draw and pack faces", _draw),
    ("look", "make a contact sheet", _look),
    ("verify", "verify the shards", _verify),
    ("pretrain", "pretrain a masked autoencoder, smaller than fmae_tiny", _pretrain),
    ("probe", "probe expression, action units and identity", _probe),
    ("extract", "extract features", _extract),
)


def _summarise(tour: Tour, journal: Journal, seconds: float) -> dict[str, Any]:
    steps = journal.steps
    pictures = {
        "faces": tour.places.sheet.name,
        **{Path(path).stem: path for path in steps["pretrain"]["pictures"]},
        **steps["probe"]["pictures"],
    }
    return {
        "schema": 1,
        "folder": str(tour.places.root),
        "seconds": round(sum(step["seconds"] for step in steps.values()), 1),
        "seconds_now": round(seconds, 1),
        "cores": usable_cores(),
        "steps": {name: {"seconds": step["seconds"], "text": step["text"]} for name, step in steps.items()},
        "rows": steps["probe"]["rows"],
        "pictures": pictures,
        "model": tour.places.run.name,
        "features": tour.places.features.name,
        "page": tour.places.page.name,
    }
