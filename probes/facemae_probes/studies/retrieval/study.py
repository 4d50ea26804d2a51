"""Does a run know which second of sound belongs to which second of a face? Trained, its controls, and a linear floor.

Clips of one speaker train; thirty others of that speaker, and all other speakers, are held out and are looked at once.
Settings are chosen with `tune`, which holds out clips of the training part instead. Controls:

- `contrast off`: the same recipe with the contrast's weight 0, from the same initial weights over the same samples.
- sounds moved in time, by up to a second either way (`shifts`): the trained run, all windows alike. Who speaks, how
  loud and in which room stays the same, so whoever knows only that loses nothing; for whoever hears *when*, the right
  window is no longer the first of the gallery. `sound shifted` is the last point: each window has the sound of the
  next one of its clip, the last one that of the first. The right sound is still there, so what is found for `trained`
  is lost here by arithmetic: this line says only whether a neighbour is taken for it.
- `untrained`: the weights that both runs start from.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

from facemae.config import DataConfig, Recipe
from facemae.data.card import read_card
from facemae.data.index import ShardIndex
from facemae.data.loader import build_loader
from facemae.data.material import sound_extension
from facemae.errors import ProbeError
from facemae.files import storage_errors, write_text
from facemae.recipe import load_recipe
from facemae.recipe_specs import sound_specs, view_specs
from facemae.train.record.pictures import EXAMPLES, head, reconstruction_picture
from facemae_probes.choosing.plan import Say
from facemae_probes.runner import versions
from facemae_probes.studies.facts import here, pretraining_facts
from facemae_probes.studies.ferplus_set import published_tree
from facemae_probes.studies.retrieval.linear import fit_linear
from facemae_probes.studies.retrieval.model import (
    Compared,
    Embedder,
    load_embedder,
    pair_of,
    similarity,
    untrained_embedder,
)
from facemae_probes.studies.retrieval.parts import Parts, draw_parts
from facemae_probes.studies.retrieval.scores import score
from facemae_probes.studies.retrieval.windows import Windows, cut_windows

Floats = NDArray[np.float64]

RUNS = {"trained": None, "contrast off": 0.0}
"""Weight of the contrast in each run; None leaves the recipe's."""
SHIFTS = 5
"""Shifts of the sound to either side of none, in equal steps of a window's length."""


@dataclass(frozen=True)
class Asked:
    """What is asked of the study.

    Attributes:
        recipe: Recipe that is trained.
        overrides: Changes to it, each `a.b=c`.
        subject: The speaker that is learned from; None for the one with most clips.
        held: Clips of that speaker held out.
        seed: Of the held-out clips and of intervals; the run's own seed is the recipe's.
        tune: Hold out this many of the training clips instead.
        show: Shard set whose clips are shown reconstructed, such as procedural ones where held-out people are not to be
            published; None shows held-out clips.
    """

    recipe: str
    overrides: tuple[str, ...] = ()
    subject: str | None = None
    held: int = 30
    seed: int = 0
    tune: int | None = None
    show: Path | None = None


def run_study(
    data: Path, out: Path, asked: Asked, *, command: str | None = None, say: Say = lambda _: None
) -> dict[str, Any]:
    """Run or continue the study.

    Args:
        data: Indexed shard set of clips with sound, with speakers as subjects.
        out: Folder of the study: `train-keys.txt`, `runs/`, and `report/` to publish.
        asked: What is asked.
        command: The command line to name in the report.
        say: Told how it goes.

    Returns:
        What is written to `report/results.json`.

    Raises:
        ProbeError: A run was stopped before its end.
        UsageError: The recipe contrasts no clip with its sound, or there are too few clips.
        DataError: A held-out clip is too short or has no sound.
    """
    from facemae_probes.studies.retrieval.report import write_report

    machine, shards = here(), data.resolve()
    index = ShardIndex.open(shards)
    parts = draw_parts(index, subject=asked.subject, held=asked.held, seed=asked.seed, tune=asked.tune)
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    recipe = study_recipe(asked, shards, parts.write_keys(index, out.resolve() / "train-keys.txt"))
    pair = pair_of(recipe)
    say(f"{len(parts.train)} clips of {parts.subject} train, {len(parts.held)} are held out")
    # Before anything is trained: a clip that cannot be looked at is said at once.
    held = {
        name: cut_windows(index, places, pair.view, pair.sound)
        for name, places in ((parts.subject, parts.held), ("other speakers", parts.others))
        if places
    }
    runs = {name: _train(recipe, weight, out / "runs" / name.replace(" ", "-"), say) for name, weight in RUNS.items()}
    began = time.perf_counter()
    embedders = {name: load_embedder(run) for name, run in runs.items()}
    embedders["untrained"] = untrained_embedder(recipe)
    linear = fit_linear(cut_windows(index, parts.train, pair.view, pair.sound, leave_out=True))
    say("looking at the held-out clips")
    matrices = {
        name: _matrices(embedders, windows) | {"linear": linear.similarity(windows)} for name, windows in held.items()
    }
    own = held[parts.subject]
    summary = {
        "schema": 1,
        "study": "av-retrieval",
        "how": {
            "command": command,
            "seed": asked.seed,
            "machine": machine,
            "runs": {name: pretraining_facts(run) for name, run in runs.items()},
            "looking_seconds": round(time.perf_counter() - began, 1),
        },
        "recipe": _published(recipe),
        "weights": {name: embedder.digest for name, embedder in embedders.items()},
        "data": _describe(index, parts, asked) | {"window_seconds": own.seconds},
        "galleries": {
            name: {
                line: score(matrix, held[name].clip, held[name].part, seed=asked.seed) for line, matrix in lines.items()
            }
            for name, lines in matrices.items()
        },
        "linear_correlation": [round(value, 3) for value in linear.correlation],
        "shifts": _shift_curve(embedders["trained"], own, asked.seed),
        "intervals_cover": "sampling of the clips only: one run of each kind, with one seed",
        "versions": versions(),
    }
    picture = _reconstruction(*_shown(index, parts, asked.show), embedders["trained"], out)
    write_report(out / "report", summary, matrices[parts.subject], own, picture)
    return summary


def study_recipe(asked: Asked, shards: Path, keys: Path) -> Recipe:
    """The recipe on the training clips, every stream.

    Raises:
        ConfigError: The recipe or a change to it does not exist.
    """
    recipe = load_recipe(asked.recipe, asked.overrides)
    chosen = {"shards": str(shards), "keys": str(keys)}
    streams = tuple(stream.model_copy(update=chosen) for stream in recipe.data.streams)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"streams": streams})})


def _published(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, without where things lie on this machine and how it logs."""
    tree = published_tree(recipe)
    streams = [{**stream, "keys": Path(stream["keys"]).name} for stream in tree["data"]["streams"]]
    return {**tree, "data": {**tree["data"], "streams": streams}, "efficiency": None, "log": None}


def _describe(index: ShardIndex, parts: Parts, asked: Asked) -> dict[str, Any]:
    """Which data, and what of it is held out."""
    return {
        "name": read_card(index.folder).name,
        "digest": index.digest,
        "subject": parts.subject,
        "clips": {"train": len(parts.train), "held": len(parts.held), "others": len(parts.others)},
        "held": [index.key(place) for place in parts.held],
        "tuning": asked.tune is not None,
        "shown": None if asked.show is None else read_card(asked.show).name,
    }


def _train(recipe: Recipe, weight: float | None, out: Path, say: Say) -> Path:
    """Train, or continue, and give the run's folder."""
    from facemae.train.trainer import pretrain

    if weight is not None:
        number = pair_of(recipe).number
        changed = [
            each.model_copy(update={"weight": weight}) if place == number else each
            for place, each in enumerate(recipe.objectives)
        ]
        recipe = recipe.model_copy(update={"objectives": tuple(changed)})
    say(f"training {out.name}")
    run = pretrain(recipe, out)
    if run.stopped != "finished":
        raise ProbeError(f"{out.name} stopped at step {run.step} ({run.stopped})", fix="run the same command again")
    return out


def _matrices(embedders: dict[str, Embedder], windows: Windows) -> dict[str, Floats]:
    """Similarities [W, W] of clips and sounds, by line of the table."""
    plain, moved = windows.mels(), windows.mels(windows.seconds)
    trained, off = embedders["trained"], embedders["contrast off"]
    found = {
        "trained": _similarity(trained, windows, plain),
        "sound shifted": _similarity(trained, windows, moved),
        "contrast off": _similarity(off, windows, plain),
    }
    if off.model.sound_encoder is not None and off.model.encoder.width == off.model.sound_encoder.width:
        found["contrast off, means of tokens"] = _similarity(off, windows, plain, "means")
    return found | {"untrained": _similarity(embedders["untrained"], windows, plain)}


def _similarity(embedder: Embedder, windows: Windows, mels: torch.Tensor, compared: Compared = "heads") -> Floats:
    return similarity(embedder.video(windows.pixels, compared), embedder.sound(mels, compared)).numpy()


def _shift_curve(embedder: Embedder, windows: Windows, seed: int) -> list[dict[str, Any]]:
    """What is found when all sounds are moved: seconds, with `within` and `top1` of both directions."""
    video, curve = embedder.video(windows.pixels), []
    for step in range(-SHIFTS, SHIFTS + 1):
        later = step * windows.seconds / SHIFTS
        found = score(
            similarity(video, embedder.sound(windows.mels(later))).numpy(), windows.clip, windows.part, seed=seed
        )
        curve.append({"seconds": round(later, 3), **{name: found["both"][name] for name in ("within", "top1")}})
    return curve


def _shown(index: ShardIndex, parts: Parts, show: Path | None) -> tuple[ShardIndex, list[int]]:
    """Which clips are shown reconstructed: of another set those with sound."""
    if show is None:
        return index, list(parts.held)
    index = ShardIndex.open(show)
    return index, [place for place in range(len(index)) if sound_extension(index.members(place)) is not None]


def _reconstruction(index: ShardIndex, places: Sequence[int], embedder: Embedder, out: Path) -> Image | None:
    """Clips masked, reconstructed and as they are, with the recipe's own views; then their sounds likewise."""
    keys = out / "shown-keys.txt"
    write_text(keys, "".join(f"{index.key(place)}\n" for place in places))
    recipe = embedder.recipe
    stream = recipe.data.streams[0].model_copy(update={"shards": str(index.folder), "keys": str(keys), "where": {}})
    specs = view_specs(recipe)
    loader = build_loader(
        DataConfig(streams=(stream,), lanes=1),
        specs,
        seed=recipe.seed,
        batch_size=min(EXAMPLES, len(places)),
        stop_step=1,
        sounds=sound_specs(recipe),
    )
    return reconstruction_picture(embedder.model, head(next(iter(loader))), specs)
