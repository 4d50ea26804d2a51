"""Choosing probe, layer, pooling and hyper-parameters on the validation part.

Nothing here can see test labels: `choose` is given a `Seen`, which holds training and validation labels only.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError, UsageError
from facemae_probes.attentive import SETTINGS, AttentiveSetting, fit_attentive
from facemae_probes.knn import NEIGHBOURS, KnnModel, fit_neighbours
from facemae_probes.linear import STRENGTHS, LinearModel, Standardiser, fit_path
from facemae_probes.metrics import TaskKind, decide, score
from facemae_probes.sources import Setting
from facemae_probes.task import Task

Features = NDArray[np.floating[Any]]
Say = Callable[[str], None]
Predict = Callable[[Features, NDArray[np.int64]], NDArray[np.float32]]
ProbeKind = Literal["linear", "knn", "attentive"]
PROBES: tuple[ProbeKind, ...] = ("linear", "knn", "attentive")


@dataclass(frozen=True)
class ProbePlan:
    """Which probes, over which settings.

    Attributes:
        probes: Probe kinds.
        layers: Encoder blocks; None for all. Negative numbers count from the end.
        poolings: Poolings of the linear and kNN probes; the attentive probe reads all tokens.
        strengths: L2 path of the linear probe.
        neighbours: Values of k of the kNN probe.
        attentive: Hyper-parameters of the attentive probe.
        attentive_layers: The attentive probe is tried on this many layers, those whose other probes did best on the
            validation part; on all where no other probe runs.
        seed: Seed of everything drawn.
        replicates: Bootstrap replicates.
    """

    probes: tuple[ProbeKind, ...] = PROBES
    layers: tuple[int, ...] | None = None
    poolings: tuple[str, ...] = ("mean", "cls", "grid2", "grid4")
    strengths: tuple[float, ...] = STRENGTHS
    neighbours: tuple[int, ...] = NEIGHBOURS
    attentive: tuple[AttentiveSetting, ...] = SETTINGS
    attentive_layers: int = 2
    seed: int = 0
    replicates: int = 2000

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.probes if kind not in PROBES]
        if unknown or not self.probes:
            raise UsageError(f"unknown probe {', '.join(unknown) or '(none)'}", expected=f"some of {', '.join(PROBES)}")


@dataclass(frozen=True)
class Candidate:
    """One fitted setting.

    Attributes:
        probe: Its kind.
        setting: Layer and pooling.
        options: Hyper-parameters, as written in the result.
        valid: Score on the validation part.
        predict: From features and rows to scores [len(rows), C].
    """

    probe: ProbeKind
    setting: Setting
    options: dict[str, Any]
    valid: float
    predict: Predict = field(repr=False)

    def row(self) -> dict[str, Any]:
        """The line of the selection table."""
        return {
            "probe": self.probe,
            "layer": self.setting.layer,
            "pooling": self.setting.pooling,
            **self.options,
            "valid": self.valid,
        }


@dataclass(frozen=True)
class Seen:
    """What choosing may see: rows and labels of the training and validation parts."""

    train: NDArray[np.int64]
    train_labels: NDArray[np.int64]
    valid: NDArray[np.int64]
    valid_labels: NDArray[np.int64]
    classes: int
    kind: TaskKind

    @classmethod
    def of(cls, task: Task) -> "Seen":
        """The seen part of a task."""
        train, valid = task.parts["train"], task.parts["valid"]
        return cls(train, task.labels[train], valid, task.labels[valid], len(task.names), task.kind)

    def judge(self, scores: NDArray[np.float32]) -> float:
        """Score predictions for the validation part."""
        return score(self.valid_labels, decide(scores, self.kind), self.classes, self.kind)


Load = Callable[[Sequence[Setting]], dict[Setting, Features]]


def choose(
    load: Load, settings: Sequence[Setting], token_settings: Sequence[Setting], seen: Seen, plan: ProbePlan, say: Say
) -> tuple[dict[ProbeKind, Candidate], list[dict[str, Any]]]:
    """Fit all candidates and keep the best of each kind.

    Args:
        load: Gives features of settings, from one pass of the source.
        settings: For linear and kNN.
        token_settings: For the attentive probe; empty where the source has no tokens.
        seen: Training and validation labels.
        plan: What to try.
        say: Told how it goes.

    Returns:
        Best candidate by kind (the first of equals), and the table of all.

    Raises:
        ProbeError: Only the attentive probe was asked for, of features that are no tokens.
    """
    best: dict[ProbeKind, Candidate] = {}
    table: list[dict[str, Any]] = []

    def consider(candidates: Iterable[Candidate]) -> None:
        for candidate in candidates:
            table.append(candidate.row())
            if candidate.probe not in best or candidate.valid > best[candidate.probe].valid:
                best[candidate.probe] = candidate

    if {"linear", "knn"} & set(plan.probes):
        features = load(settings)
        for setting in settings:
            consider(_pooled_candidates(features[setting], setting, seen, plan))
            _tell(table, setting, say)
    if "attentive" in plan.probes and token_settings:
        promising = _promising(token_settings, table, plan.attentive_layers)
        for setting, tokens in load(promising).items():
            for options in plan.attentive:
                consider([_best_epoch(tokens, setting, options, seen, plan.seed)])
                say(f"attentive: layer {setting.layer}, lr {options.lr:g}: {table[-1]['valid']:.4f} on valid")
    if not best:
        raise ProbeError(
            "the attentive probe needs an encoder's tokens; these features have none", fix="--probe linear,knn"
        )
    return best, table


def _tell(table: list[dict[str, Any]], setting: Setting, say: Say) -> None:
    tried = [row for row in table if (row["layer"], row["pooling"]) == (setting.layer, setting.pooling)]
    for kind in dict.fromkeys(row["probe"] for row in tried):
        top = max(row["valid"] for row in tried if row["probe"] == kind)
        say(f"{kind}: layer {setting.layer}, {setting.pooling}: {top:.4f} on valid")


def _pooled_candidates(features: Features, setting: Setting, seen: Seen, plan: ProbePlan) -> Iterator[Candidate]:
    train = features[seen.train]
    scale = Standardiser.fit(train)
    train, valid = scale(train), scale(features[seen.valid])
    if "linear" in plan.probes:
        for model in fit_path(train, seen.train_labels, classes=seen.classes, kind=seen.kind, strengths=plan.strengths):
            yield Candidate(
                "linear",
                setting,
                {
                    "strength": model.strength,
                    "gradient": model.gradient,
                    "iterations": model.iterations,
                    "solved": model.solved,
                },
                seen.judge(model.scores(valid)),
                _on_pooled(model, scale),
            )
    if "knn" in plan.probes:
        for bank, votes in fit_neighbours(
            train, seen.train_labels, valid, classes=seen.classes, kind=seen.kind, counts=plan.neighbours
        ):
            yield Candidate(
                "knn",
                setting,
                {"k": bank.k},
                seen.judge(votes),
                _on_pooled(bank, scale),
            )


def _on_pooled(model: LinearModel | KnnModel, scale: Standardiser) -> Predict:
    return lambda features, rows: model.scores(scale(features[rows]))


def _best_epoch(tokens: Features, setting: Setting, options: AttentiveSetting, seen: Seen, seed: int) -> Candidate:
    best: Candidate | None = None
    for epoch, model in fit_attentive(
        tokens, seen.train, seen.train_labels, classes=seen.classes, kind=seen.kind, setting=options, seed=seed
    ):
        valid = seen.judge(model.scores(tokens, seen.valid))
        if best is None or valid > best.valid:
            chosen = {**asdict(options), "epoch": epoch}
            best = Candidate("attentive", setting, chosen, valid, copy.deepcopy(model).scores)
    assert best is not None
    return best


def _promising(settings: Sequence[Setting], table: list[dict[str, Any]], count: int) -> list[Setting]:
    if not table:
        return list(settings)
    top = {setting: max(row["valid"] for row in table if row["layer"] == setting.layer) for setting in settings}
    return sorted(settings, key=lambda setting: -top[setting])[:count]
