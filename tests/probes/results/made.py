"""Results made of drawn scores, without a probe."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from facemae.rng import generator
from facemae_probes.metrics import evaluate, intervals, primary, slices
from facemae_probes.results.result import ProbeResult
from facemae_probes.results.scoring import SHOWN
from facemae_probes.tasks.targets import Kind, Targets

NAMES = ("happy", "sad")
CROP = {"detector": "mtcnn", "margin": "0.2", "alignment": "eyes", "colour": "grey"}
COUNT = 48


def made_result(
    kind: Kind = "classes",
    *,
    seed: int = 0,
    repeats: int = 1,
    folds: int = 1,
    protocol: str = "official",
    on_test: bool = False,
    groups: Sequence[Any] = (),
    least: int = 10,
) -> ProbeResult:
    """A result of one linear probe on 48 samples of 24 subjects.

    Args:
        kind: `classes` or `multilabel`.
        seed: Of the scores; the labels are always the same.
        repeats: Draws.
        folds: Folds of each draw.
        protocol: Its name.
        on_test: Whether it chooses on test.
        groups: A value a sample of the column `gender`; empty leaves it out.
        least: Units that a group needs for the gap.
    """
    labels, rng = generator(1, "made-labels"), generator(seed, "made-scores")
    if kind == "classes":
        targets = Targets(kind, NAMES, labels.integers(2, size=COUNT))
        right = np.clip(0.4 + 0.4 * rng.random((repeats, COUNT)), 0, 1)
        truth = targets.values == 0
        scores = np.stack([np.where(truth, right, 1 - right), np.where(truth, 1 - right, right)], axis=-1)
        thresholds = None
    else:
        targets = Targets(kind, NAMES, labels.integers(2, size=(COUNT, 2)))
        scores = 0.3 * targets.values + 0.5 * rng.random((repeats, COUNT, 2))
        thresholds = np.full(scores.shape, 0.35)
    scores = scores.astype(np.float32)
    units = np.arange(COUNT) // 2
    part: dict[str, Any] = {"unit": "subject", "thresholds": thresholds, "replicates": 100}
    entry: dict[str, Any] = {
        "settings": [{"layer": 3, "pooling": "mean", "valid": 0.5}],
        "test": {
            **evaluate(targets, scores, thresholds=thresholds),
            "intervals": {
                name: found.to_json() for name, found in intervals(targets, scores, units, SHOWN[kind], **part).items()
            },
        },
        "slices": {},
    }
    if groups:
        found = slices(targets, scores, units, SHOWN[kind][0], column="gender", values=groups, least=least, **part)
        entry["groups"] = {"gender": found.to_json()}
    if folds * repeats > 1:
        summary = {name: {"mean": 0.25, "deviation": 0.125} for name in SHOWN[kind]}
        entry["folds"] = {"each": [{}] * folds * repeats, "summary": summary}
    data = {
        "schema": 2,
        "model": {"name": "net", "crop": None},
        "data": {"shards": "shards/made", "crop": CROP},
        "task": {
            "label": "emotion",
            "kind": kind,
            "classes": list(NAMES),
            "unit": "subject",
            "units": {"test": COUNT // 2},
        },
        "protocol": {
            "name": protocol,
            "about": "as the owner has it",
            "chosen_on": "valid",
            "on_test": on_test,
            "repeats": repeats,
            "folds": [{"name": str(number)} for number in range(folds)],
        },
        "selection": {"metric": primary(kind), "on": "valid", "table": []},
        "chosen": {"probe": "linear", "valid": 0.5},
        "results": {"linear": entry},
        "warnings": [],
        "request": {"asked": seed},
    }
    keys = tuple(f"k{number}" for number in range(COUNT))
    limits = {} if thresholds is None else {"linear": thresholds}
    return ProbeResult(data, {"linear": scores}, targets, keys, units, {"odd=1": units % 2 == 1}, limits)
