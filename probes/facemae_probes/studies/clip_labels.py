"""Do frozen features of clips know what no single frame shows? A run on clips, its random start, and a run on stills.

Procedural clips have labels that are drawn so that only the order of frames, only the sound, or either tells them (see
decision 0043), and one, the expression, that a frame at its top tells. Encoders see the training persons only; a linear
probe learns on the same persons, its strength is chosen on others, and it is tested on a third part, or on clips drawn
with another seed: those are new to whoever chose a recipe by looking at the first.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae.config import Recipe
from facemae.data.card import read_card
from facemae.data.index import ShardIndex
from facemae.data.progress import progress
from facemae.errors import ProbeError
from facemae.features.extractor import load
from facemae.files import storage_errors
from facemae_probes.choosing.plan import Say
from facemae_probes.heads.linear import STRENGTHS, fit_path
from facemae_probes.heads.standardise import Standardiser
from facemae_probes.metrics.draws import bootstrap
from facemae_probes.metrics.evaluate import judge
from facemae_probes.metrics.intervals import summarise
from facemae_probes.runner import versions
from facemae_probes.studies.clip_labels_data import NEEDS, SPLITS, clip_features, open_clips, parts
from facemae_probes.studies.facts import here, pretraining_facts
from facemae_probes.studies.ferplus_set import published_tree, study_recipe
from facemae_probes.tasks.columns import Columns
from facemae_probes.tasks.targets import Targets

STILL = ("emotion",)
REPLICATES = 2000

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Asked:
    """What is asked of the study.

    Attributes:
        recipe: Recipe on clips, with sound.
        still: Recipe on stills.
        overrides: Changes to the first, each `a.b=c`.
        still_overrides: Changes to the second.
        test: Shard set whose clips, all of them, are tested instead of the first set's test part.
        layers: Blocks whose outputs are tried, from 0 or, negative, from the end; -1 is behind the final norm.
        pooling: How they are pooled.
        seed: Of intervals; runs have their recipes' seeds.
    """

    recipe: str = "hicmae_tiny"
    still: str = "fmae_tiny"
    overrides: tuple[str, ...] = ()
    still_overrides: tuple[str, ...] = ()
    test: Path | None = None
    layers: tuple[int, ...] = (-5, -3, -1)
    pooling: str = "mean"
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """What a line's probe said on the test part.

    Attributes:
        hit: float64 [M, labels], 1 where it was right, 0 where wrong, NaN where a clip has no such label.
        chosen: By label the block and the L2 strength chosen on the valid part.
    """

    hit: NDArray[np.float64]
    chosen: dict[str, tuple[int, float]]


def run_study(
    data: Path, out: Path, asked: Asked, *, command: str | None = None, say: Say = lambda _: None
) -> dict[str, Any]:
    """Run or continue the study.

    Args:
        data: Indexed shard set of procedural clips with the splits train, valid and test.
        out: Folder of the study: `runs/`, and `report/` to publish.
        asked: What is asked.
        command: The command line to name in the report.
        say: Told how it goes.

    Returns:
        What is written to `report/results.json`.

    Raises:
        ProbeError: A run was stopped before its end.
        UsageError: The clips have none of the labels, or a label nobody to learn it from or to be tested.
    """
    from facemae_probes.studies.clip_labels_report import write_report

    machine, shards = here(), data.resolve()
    clips = open_clips(shards, None if asked.test is None else asked.test.resolve())
    columns, labels = clips.columns, clips.labels
    recipes = {
        "clips": study_recipe(asked.recipe, asked.overrides, shards),
        "stills": study_recipe(asked.still, asked.still_overrides, shards),
    }
    runs = {name: _train(recipe, out / "runs" / name, say) for name, recipe in recipes.items()}
    models = {
        asked.recipe: (runs["clips"], None),
        f"{asked.recipe}, untrained": (runs["clips"], recipes["clips"].seed),
        asked.still: (runs["stills"], None),
    }
    answers = {}
    for name, (run, init) in models.items():
        blocks = {
            layer: load(run, random_init=init, layer=layer, pooling=asked.pooling).clips() for layer in asked.layers
        }
        with progress(f"features of {name}") as report:
            by_layer = clip_features(clips, blocks, report)
        for part in by_layer[asked.layers[0]]:
            line = name if part == "all" else f"{name}, {part} alone"
            answers[line] = answer({layer: found[part] for layer, found in by_layer.items()}, columns, labels)
    sizes = [len(part) for part in parts(columns)]
    units = np.array(columns.text("subject"))[parts(columns)[2]]
    summary = {
        "schema": 1,
        "study": "clip-labels",
        "how": {
            "command": command,
            "seed": asked.seed,
            "machine": machine,
            "runs": {name: pretraining_facts(run) for name, run in runs.items()},
            "probe": {
                "kind": "linear",
                "layers": list(asked.layers),
                "pooling": asked.pooling,
                "layer and strength chosen on": "valid",
            },
        },
        "recipes": {name: published_tree(recipe) for name, recipe in recipes.items()},
        "data": {
            **_named(shards),
            "test": None if asked.test is None else _named(asked.test),
            "clips": dict(zip(SPLITS, sizes, strict=True)),
            "subjects": len(np.unique(units)),
        },
        "labels": {name: NEEDS[name] for name in labels},
        "lines": compare(answers, labels, units, asked.seed),
        "against": {
            name: compare_two(answers[asked.recipe], answers[name], labels, units, asked.seed)
            for name in models
            if name != asked.recipe
        },
        "versions": versions(),
    }
    with storage_errors(out):
        (out / "report").mkdir(parents=True, exist_ok=True)
    write_report(out / "report", summary)
    return summary


def _named(shards: Path) -> dict[str, str]:
    return {"name": read_card(shards).name, "digest": ShardIndex.open(shards).digest}


def _train(recipe: Recipe, out: Path, say: Say) -> Path:
    from facemae.train.trainer import pretrain

    say(f"training {recipe.name}")
    run = pretrain(recipe, out)
    if run.stopped != "finished":
        raise ProbeError(f"{recipe.name} stopped at step {run.step} ({run.stopped})", fix="run the same command again")
    return out


def answer(features: Mapping[int, Floats], columns: Columns, labels: Sequence[str]) -> Answer:
    """Fit a linear probe for each label, choose its block and strength on valid, and ask it about test.

    Args:
        features: By block, [N, D] of all clips; NaN where a clip has none, which then is the mean of those that train.
        columns: Their metadata.
        labels: Label columns, of classes.
    """
    _, _, test = parts(columns)
    hit, chosen = np.full((len(test), len(labels)), np.nan), {}
    for place, label in enumerate(labels):
        known = _known(columns, label)
        fits = [(judged, layer, fitted) for layer, found in features.items() for judged, fitted in _fits(found, known)]
        # The first of equals: of the blocks as they were named the first, of its fits the strongest penalty.
        _, layer, best = max(fits, key=lambda fit: fit[0])
        chosen[label] = (layer, best.strength)
        hit[np.isin(test, known.asked), place] = 0.0
        hit[np.isin(test, known.rows[2]), place] = best.right
    return Answer(hit, chosen)


@dataclass(frozen=True)
class _Known:
    """Clips whose class of a label trains: their rows and targets of train, valid and test; `asked` are all of test."""

    rows: list[NDArray[np.int64]]
    targets: list[Targets]
    asked: NDArray[np.int64]


@dataclass(frozen=True)
class _Fit:
    strength: float
    right: NDArray[np.bool_]


def _known(columns: Columns, label: str) -> _Known:
    texts = np.array([text or "" for text in columns.text(label)])
    rows = [part[texts[part] != ""] for part in parts(columns)]
    names = tuple(sorted(set(texts[rows[0]])))
    known = [part[np.isin(texts[part], names)] for part in rows]
    targets = [Targets("classes", names, np.searchsorted(names, texts[part])) for part in known]
    return _Known(known, targets, rows[2])


def _fits(features: Floats, known: _Known) -> Iterator[tuple[float, _Fit]]:
    """Probes of every strength, strongest first, each with its accuracy on valid and what it says of test."""
    missing, rows = np.isnan(features), known.rows[0]
    mean = np.nansum(features[rows], axis=0) / np.maximum((~missing[rows]).sum(axis=0), 1)
    whole = np.where(missing, mean, features).astype(np.float32)
    scale = Standardiser.fit(whole, known.rows[0])
    train, valid, test = (scale(whole, part) for part in known.rows)
    for model in fit_path(train, known.targets[0], strengths=STRENGTHS):
        right = model.scores(test).argmax(axis=1) == known.targets[2].values
        yield judge(known.targets[1], model.scores(valid), "accuracy"), _Fit(model.strength, right)


def compare(
    answers: dict[str, Answer], labels: Sequence[str], units: NDArray[Any], seed: int
) -> dict[str, dict[str, Any]]:
    """Accuracy by line and label, and the mean over labels that need motion or sound, with intervals over persons."""
    return {
        name: {
            "chosen": {
                label: {"layer": layer, "strength": strength} for label, (layer, strength) in found.chosen.items()
            },
            **{key: _interval(found.hit, None, chosen, units, seed) for key, chosen in _choices(labels).items()},
        }
        for name, found in answers.items()
    }


def compare_two(
    one: Answer, other: Answer, labels: Sequence[str], units: NDArray[Any], seed: int
) -> dict[str, dict[str, Any]]:
    """Paired differences, one less the other, as in `compare`."""
    return {key: _interval(one.hit, other.hit, chosen, units, seed) for key, chosen in _choices(labels).items()}


def _choices(labels: Sequence[str]) -> dict[str, list[int]]:
    moving = [place for place, label in enumerate(labels) if label not in STILL]
    return {**{label: [place] for place, label in enumerate(labels)}, "mean of motion and sound": moving}


def _interval(
    hit: NDArray[np.float64], less: NDArray[np.float64] | None, chosen: list[int], units: NDArray[Any], seed: int
) -> dict[str, Any]:
    """Mean over labels of the share of hits, less that of another line, with the same draws of units."""
    _, unit = np.unique(units, return_inverse=True)
    count = int(unit.max()) + 1
    known = ~np.isnan(hit[:, chosen])
    worth = np.where(known, hit[:, chosen] if less is None else hit[:, chosen] - less[:, chosen], 0.0)
    sums, sizes = np.zeros((count, len(chosen))), np.zeros((count, len(chosen)))
    np.add.at(sums, unit, worth)
    np.add.at(sizes, unit, known)
    draws = np.concatenate(list(bootstrap(count, REPLICATES, seed, samples=len(hit))), axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = ((sums.T @ draws) / (sizes.T @ draws)).mean(axis=0)
        value = float((sums.sum(axis=0) / sizes.sum(axis=0)).mean())
    found = summarise("accuracy", [value], drawn, level=0.95, unit="subject", units=count)
    return {"value": found.value, "low": found.low, "high": found.high, "clips": int(known.any(axis=1).sum())}
