"""In every fold of every protocol, choices and predictions are the same whatever the labels of its test rows are."""

from dataclasses import replace

import numpy as np
import pytest

from facemae.rng import generator
from facemae_probes.choosing.outcome import Outcome
from facemae_probes.choosing.plan import Candidate, ProbePlan
from facemae_probes.choosing.selection import Seen, choose, finish
from facemae_probes.features.sources import Setting
from facemae_probes.features.table import HeldFeatures
from facemae_probes.metrics import primary
from facemae_probes.protocols.base import Fold, Protocol, Samples
from facemae_probes.protocols.few_shot import FewShot
from facemae_probes.protocols.folds import GivenFolds, KFold, LeaveOneOut
from facemae_probes.protocols.official import Official
from facemae_probes.protocols.paper import Paper
from facemae_probes.tasks.columns import Columns
from facemae_probes.tasks.targets import Kind, Targets

N, WIDTH = 72, 3
PLAN = ProbePlan(probes=("linear", "knn"), strengths=(1.0, 0.01), neighbours=(1, 3, 5))


def _features() -> HeldFeatures:
    draws = generator(4, "features").normal(size=(3, N, 6)).astype(np.float32)
    return HeldFeatures({Setting(layer, "mean"): draws[layer] for layer in range(3)})


def _values(kind: Kind, purpose: str) -> np.ndarray:
    rng = generator(4, "labels", kind, purpose)
    if kind == "classes":
        return rng.integers(WIDTH, size=N)
    if kind == "multilabel":
        return rng.integers(-1, 2, size=(N, WIDTH))
    if kind == "regression":
        return np.where(rng.random((N, WIDTH)) < 0.1, np.nan, rng.normal(size=(N, WIDTH)))
    return np.asarray(rng.dirichlet(np.ones(WIDTH), size=N))


def _samples(kind: Kind) -> Samples:
    subject = np.arange(N) // 6
    columns = {
        "key": [f"k{i}" for i in range(N)],
        "split": ["test" if s % 3 == 2 else "train" for s in subject],
        "subject": [f"s{s}" for s in subject],
        "fold": [str(s % 4) for s in subject],
    }
    targets = Targets(kind, tuple("abc"), _values(kind, "true"))
    return Samples(Columns(np.arange(N), columns), "split", targets, subject.astype(np.int64), "subject")


def _answers(fold: Fold, targets: Targets) -> tuple[dict[str, dict[str, object]], dict[str, np.ndarray]]:
    """What is chosen, and what is predicted, thresholds included."""
    features, seen = _features(), Seen.of(fold, targets, primary(targets.kind))
    best, _ = choose(features, seen, PLAN, lambda _: None)
    rows: dict[str, dict[str, object]] = {}
    predicted: dict[str, np.ndarray] = {}
    for kind, candidate in best.items():
        rows[kind] = candidate.row()
        scores, _ = finish(
            candidate, features.load(kind, [candidate.setting])[candidate.setting], seen, fold.test, PLAN
        )
        predicted[kind] = _decided(fold, targets, seen, candidate, scores)
    return rows, predicted


def _decided(fold: Fold, targets: Targets, seen: Seen, candidate: Candidate, scores: np.ndarray) -> np.ndarray:
    from facemae_probes.protocols.base import Splits

    outcome = Outcome(targets, Splits("one", "", "", ((fold,),)))
    judged = None if candidate.judged is None else (seen.labels(candidate.judged[0]), candidate.judged[1])
    outcome.put(0, fold, scores, candidate.row(), judged)
    return scores if outcome.thresholds is None else np.concatenate([scores, outcome.thresholds[0]])


PROTOCOLS: list[Protocol] = [
    Official(), KFold(3), GivenFolds("fold"), LeaveOneOut(), FewShot(1, draws=2), FewShot(4, draws=2),
    FewShot(0.2, draws=2),
]  # fmt: skip
CASES = [(protocol, kind) for protocol in PROTOCOLS for kind in ("classes", "multilabel", "regression", "distribution")]
CASES = [case for case in CASES if not (isinstance(case[0], FewShot) and case[1] in ("multilabel", "regression"))]


@pytest.mark.parametrize(("protocol", "kind"), CASES, ids=[f"{p.name}-{k}" for p, k in CASES])
def test_test_labels_change_nothing(protocol: Protocol, kind: Kind) -> None:
    made = _samples(kind)
    for folds in protocol.split(made).check().repeats[:2]:
        for fold in folds[:3]:
            values = made.targets.values.copy()
            values[fold.test] = _values(kind, "other")[fold.test]
            rows, predicted = _answers(fold, made.targets)
            blind_rows, blind = _answers(fold, replace(made.targets, values=values))
            assert blind_rows == rows
            for probe, scores in predicted.items():
                np.testing.assert_array_equal(scores, blind[probe])


def test_choosing_on_test_does_depend_on_them() -> None:
    made = _samples("classes")
    ((fold,),) = Paper("hicmae").split(made).check().repeats
    values = made.targets.values.copy()
    values[fold.test] = _values("classes", "other")[fold.test]
    assert _answers(fold, made.targets)[0] != _answers(fold, replace(made.targets, values=values))[0]
