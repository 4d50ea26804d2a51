"""Does the way of choosing leak? Random labels, real features, honest choice against choice on test.

With labels drawn at random nothing can be learnt, so every accuracy above chance is an artefact. The honest way, which
chooses on validation samples, must stay inside the band of chance. The way that chooses on test must leave it: that
shows that this test can see a leak, and how much choosing on test is worth where there is nothing to be found.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae.files import write_text
from facemae.rng import generator
from facemae_probes.choosing.plan import Features, ProbePlan, Say
from facemae_probes.choosing.selection import Seen, choose, finish
from facemae_probes.features.pool import Pool
from facemae_probes.features.sources import FeatureSource, Setting
from facemae_probes.features.table import HeldFeatures
from facemae_probes.protocols.base import Fold, Protocol, Rows, Samples
from facemae_probes.protocols.official import Official
from facemae_probes.protocols.paper import Paper
from facemae_probes.studies.facts import here
from facemae_probes.tasks.columns import Columns, read_columns
from facemae_probes.tasks.targets import Targets

LEAST_CANDIDATES = 100
DRAWS = 10_000
"""Shuffles that the band of chance is made of."""


@dataclass(frozen=True)
class LeakSize:
    """How much is drawn.

    Attributes:
        train: Training samples.
        valid: Samples that the honest way chooses on.
        test: Test samples; the fewer, the more choosing on them is worth.
        classes: Classes of the random labels.
        permutations: Draws of labels.
    """

    train: int = 800
    valid: int = 400
    test: int = 400
    classes: int = 7
    permutations: int = 50

    def __post_init__(self) -> None:
        if not 0 < self.test <= 400:
            raise ProbeError(f"{self.test} test samples", expected="1 to 400: with many, no choice is worth much")


def leak_study(
    shards: Path, source: FeatureSource, out: Path, size: LeakSize, plan: ProbePlan, say: Say
) -> dict[str, Any]:
    """The test on features of a shard set with splits train, valid and test, whose own labels play no part.

    Args:
        shards: Indexed shard set.
        source: Where features come from.
        out: Folder of features and of `leak.json`.
        size: How much is drawn.
        plan: Probes, layers, poolings and settings; at least 100 candidates.
        say: Told how it goes.

    Returns:
        What is written to `leak.json`.

    Raises:
        ProbeError: A split has too few samples, or the plan too few candidates.
    """
    columns = read_columns(shards)
    split = columns.require("split", "to take the parts from")
    rows = {}
    for part, count in (("train", size.train), ("valid", size.valid), ("test", size.test)):
        known = np.array([row for row, value in enumerate(split) if value == part], dtype=np.int64)
        if len(known) < count:
            raise ProbeError(f"{shards.name} has {len(known)} samples of split {part}", expected=f"at least {count}")
        rows[part] = np.sort(generator(plan.seed, "leak", part).permutation(known)[:count])
    chosen = np.sort(np.concatenate([*rows.values()]))
    places = {part: np.searchsorted(chosen, own) for part, own in rows.items()}
    settings = source.settings(plan.layers, plan.poolings)
    features = Pool.of(shards).features(source, settings, columns.samples[chosen], out / "features", say)
    found = leak_test(features, places["train"], places["valid"], places["test"], size, plan, say)
    found |= {"model": source.describe()["name"], "data": shards.name, "machine": here()}
    write_text(out / "leak.json", json.dumps(found, indent=1) + "\n")
    return found


def leak_test(
    features: Mapping[Setting, Features],
    train: Rows,
    valid: Rows,
    test: Rows,
    size: LeakSize,
    plan: ProbePlan,
    say: Say,
) -> dict[str, Any]:
    """The test itself.

    Args:
        features: By setting, [N, D].
        train: Rows to learn from.
        valid: Rows that the honest way chooses on.
        test: Rows to predict.
        size: Classes and permutations.
        plan: What is chosen from.
        say: Told how it goes.

    Returns:
        Accuracies of both ways, the band of chance, and whether each is where it has to be.

    Raises:
        ProbeError: There are too few candidates.
    """
    rows = max(len(matrix) for matrix in features.values())
    split = np.full(rows, None, dtype=object)
    for part, own in (("train", train), ("valid", valid), ("test", test)):
        split[own] = part
    columns = Columns(np.arange(rows), {"key": [str(row) for row in range(rows)], "split": split.tolist()})
    # The folds are those of the protocols themselves: what is tested is what runs.
    protocols: dict[str, Protocol] = {"honest": Official(), "paper": Paper("hicmae")}
    accuracies: dict[str, list[float]] = {name: [] for name in protocols}
    right: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    candidates = 0
    for number in range(size.permutations):
        drawn = generator(plan.seed, "leak", "labels", number).integers(size.classes, size=rows)
        targets = Targets("classes", tuple(f"class {c}" for c in range(size.classes)), drawn)
        for name, protocol in protocols.items():
            samples = Samples(columns, "split", targets, np.arange(rows), seed=plan.seed)
            ((fold,),) = protocol.split(samples).check().repeats
            predicted, candidates = _predict(features, targets, fold, plan)
            accuracies[name].append(float(np.mean(predicted == drawn[test])))
            if name == "honest":
                right.append((predicted, drawn[test]))
        if candidates < LEAST_CANDIDATES:
            raise ProbeError(f"the plan has {candidates} candidates", expected=f"at least {LEAST_CANDIDATES}")
        say(f"labels {number + 1} of {size.permutations}: {_line(accuracies)}")
    return _summary(accuracies, right, candidates, len(test), size, plan)


def _predict(
    features: Mapping[Setting, Features], targets: Targets, fold: Fold, plan: ProbePlan
) -> tuple[NDArray[np.int64], int]:
    """Classes that the best candidate of all probes gives the test rows, and how many candidates there were."""
    seen = Seen.of(fold, targets, "accuracy")
    best, table = choose(HeldFeatures(features), seen, plan, lambda _: None)
    winner = max(best.values(), key=lambda candidate: candidate.rank)
    scores, _ = finish(winner, features[winner.setting], seen, fold.test, plan)
    return np.asarray(scores.argmax(axis=1), dtype=np.int64), len(table)


def _summary(
    accuracies: Mapping[str, list[float]],
    right: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
    candidates: int,
    test: int,
    size: LeakSize,
    plan: ProbePlan,
) -> dict[str, Any]:
    chance = _means_of_shuffles(right, plan.seed)
    low, high, top = (float(value) for value in np.quantile(chance, [0.025, 0.975, 0.99]))
    honest, paper = (float(np.mean(accuracies[name])) for name in ("honest", "paper"))
    return {
        "schema": 1,
        "study": "leak",
        "test_samples": test,
        "classes": size.classes,
        "permutations": size.permutations,
        "candidates": candidates,
        "seed": plan.seed,
        "chance": {"mean": float(chance.mean()), "low": low, "high": high, "percentile_99": top},
        "honest": {"mean": honest, "each": accuracies["honest"], "inside_band": low <= honest <= high},
        "paper": {"mean": paper, "each": accuracies["paper"], "above_percentile_99": paper > top},
    }


def _means_of_shuffles(right: list[tuple[NDArray[np.int64], NDArray[np.int64]]], seed: int) -> NDArray[np.float64]:
    """Mean accuracy over the draws of labels, of the honest predictions against shuffled labels: [DRAWS]."""
    means = np.zeros(DRAWS)
    for number, (predicted, truth) in enumerate(right):
        rng = generator(seed, "leak", "shuffle", number)
        shuffled = rng.permuted(np.broadcast_to(truth, (DRAWS, len(truth))), axis=1)
        means += (shuffled == predicted).mean(axis=1)
    return np.asarray(means / len(right))


def lines(found: Mapping[str, Any]) -> list[str]:
    """The result for a terminal."""
    chance, honest, paper = found["chance"], found["honest"], found["paper"]
    size = f"{found['permutations']} draws of random labels, {found['test_samples']} test samples"
    band = f"band of the mean [{chance['low']:.4f}, {chance['high']:.4f}], 99th percentile"
    inside = "inside" if honest["inside_band"] else "OUTSIDE"
    above = "above" if paper["above_percentile_99"] else "NOT above"
    return [
        f"{size}, {found['candidates']} candidates",
        f"chance: {chance['mean']:.4f}, {band} {chance['percentile_99']:.4f}",
        f"honest choice: {honest['mean']:.4f}, {inside} the band",
        f"choice on test: {paper['mean']:.4f}, {above} the 99th percentile",
    ]


def _line(accuracies: Mapping[str, list[float]]) -> str:
    return ", ".join(f"{name} {np.mean(values):.4f}" for name, values in accuracies.items())
