"""Choosing layer, pooling and hyper-parameters of each probe in one fold, on training rows only.

Nothing here can see test labels: `choose` is given a `Seen`, which holds the labels of training rows and of no others.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from facemae.errors import ProbeError
from facemae_probes.choosing.fitting import Fitted, pooled_fits, sequence_fits
from facemae_probes.choosing.plan import FROZEN, SEQUENCES, Candidate, Features, ProbeKind, ProbePlan, Say
from facemae_probes.features.sources import Setting
from facemae_probes.features.table import FeatureTable
from facemae_probes.heads.attentive import AttentiveSetting
from facemae_probes.heads.temporal import TemporalSetting
from facemae_probes.heads.training import TrainSetting
from facemae_probes.metrics import judge
from facemae_probes.protocols.base import Fold, Inner, Rows
from facemae_probes.tasks.targets import Scores, Targets


@dataclass(frozen=True)
class Seen:
    """What choosing may see of a fold.

    Attributes:
        rows: The rows whose labels are known, ascending.
        targets: Their labels.
        inner: Ways to choose.
        refit: Whether the chosen candidate is fitted again on `train`.
        train: The training rows.
        metric: What is chosen by.
        where: What is judged on, in the words of progress lines.
    """

    rows: Rows
    targets: Targets
    inner: tuple[Inner, ...]
    refit: bool
    train: Rows
    metric: str
    where: str = "in choosing"

    @classmethod
    def of(cls, fold: Fold, targets: Targets, metric: str, *, on_test: bool = False) -> "Seen":
        """The seen part of a fold, with the labels of the training rows and of those the fold judges on."""
        rows = np.unique(np.concatenate([fold.train, *(inner.judge for inner in fold.inner)]))
        where = "ON TEST LABELS" if on_test else cls.where
        return cls(rows, targets.take(rows), fold.inner, fold.refit, fold.train, metric, where)

    def labels(self, rows: Rows) -> Targets:
        """Labels of some of the seen rows.

        Raises:
            ProbeError: One of them may not be seen.
        """
        places = np.searchsorted(self.rows, rows).clip(max=len(self.rows) - 1)
        if not np.array_equal(self.rows[places], rows):
            raise ProbeError("choosing asked for labels of rows that it may not see")
        return self.targets.take(places)

    def judge(self, rows: Rows, scores: Scores) -> float:
        """How good scores of some of the seen rows are; larger is better."""
        return judge(self.labels(rows), scores, self.metric)


def choose(
    features: FeatureTable, seen: Seen, plan: ProbePlan, say: Say
) -> tuple[dict[ProbeKind, Candidate], list[dict[str, Any]]]:
    """Judge all candidates and keep the best of each kind.

    Args:
        features: Of all rows, by setting.
        seen: Rows and labels of the fold.
        plan: What to try.
        say: Told how it goes.

    Returns:
        Best candidate by kind (the first of equals), and the table of all.

    Raises:
        ProbeError: Probes of frozen features were asked for, and these features are for none of them.
    """
    best: dict[ProbeKind, Candidate] = {}
    table: list[dict[str, Any]] = []

    def consider(candidates: Iterator[Candidate]) -> None:
        for candidate in candidates:
            table.append(candidate.row())
            if candidate.probe not in best or candidate.rank > best[candidate.probe].rank:
                best[candidate.probe] = candidate

    pooled = tuple(kind for kind in plan.probes if kind in FROZEN and kind not in SEQUENCES)
    if pooled:
        wanted = list(features.settings) if seen.inner else _default(features.settings)
        for number, setting in enumerate(wanted, start=1):
            # One setting at a time: all of them together need not fit into memory.
            matrix = features.load(pooled[0], [setting])[setting]
            consider(_pooled(matrix, setting, pooled, seen, plan))
            _tell(table, setting, seen.where, f"{number}/{len(wanted)} ", say)
    for kind in [kind for kind in SEQUENCES if kind in plan.probes and kind in features.sequences]:
        promising = _promising(features.sequences[kind], table, plan.attentive_layers, seen)
        for setting, sequence in features.load(kind, promising).items():
            consider(_trained(kind, sequence, setting, seen, plan, say))
    if not best and set(FROZEN) & set(plan.probes):
        raise ProbeError(f"these features are not for the probe {', '.join(plan.probes)}", fix=_needs(plan))
    return best, table


_NEEDS = {
    "attentive": "it needs an encoder's tokens of stills: --probe linear,knn goes without",
    "temporal": "it needs clips: --clip COLUMN says which samples are frames of one clip",
}


def _needs(plan: ProbePlan) -> str:
    return "; ".join(text for kind, text in _NEEDS.items() if kind in plan.probes)


def finish(
    candidate: Candidate, features: Any, seen: Seen, test: Rows, plan: ProbePlan
) -> tuple[Scores, dict[str, Any]]:
    """Scores of the test rows and facts of the fit that gave them: the one that stays, or one on all training rows.

    Args:
        candidate: The chosen one.
        features: Those of its setting, as its kind reads them.
        seen: Rows and labels of the fold.
        test: Rows to predict.
        plan: The plan it is from.
    """
    if candidate.predict is not None:
        return candidate.predict(features, test), candidate.facts
    labels = seen.labels(seen.train)
    if candidate.probe in SEQUENCES:
        options, epoch = _training(candidate)
        fits = sequence_fits(candidate.probe, features, seen.train, labels, options, plan.seed, epoch)
    else:
        fits = pooled_fits(features, seen.train, labels, None, (candidate.probe,), *_only(candidate))
    fitted = _last(fits)
    return fitted.predict(features, test), fitted.facts


class _Pool:
    """Judgements of the candidates of one setting, pooled over the inner ways."""

    def __init__(self, setting: Setting, seen: Seen) -> None:
        self.setting, self.seen = setting, seen
        self.found: dict[tuple[Any, ...], list[tuple[Rows, Fitted]]] = {}

    def add(self, rows: Rows, fitted: Fitted) -> None:
        key = (fitted.probe, *sorted((name, repr(value)) for name, value in fitted.options.items()))
        self.found.setdefault(key, []).append((rows, fitted))

    def candidates(self) -> Iterator[Candidate]:
        for entries in self.found.values():
            # A candidate that does not exist in one of the ways, such as more neighbours than samples, is none.
            if len(entries) < len(self.seen.inner):
                continue
            rows = np.concatenate([rows for rows, _ in entries])
            scores = np.concatenate([fitted.scores for _, fitted in entries])
            first = entries[0][1]
            yield Candidate(
                first.probe,
                self.setting,
                first.options,
                _together([fitted.facts for _, fitted in entries]),
                self.seen.judge(rows, scores),
                (rows, scores),
                None if self.seen.refit else first.predict,
            )


def _pooled(
    features: Features, setting: Setting, kinds: Sequence[ProbeKind], seen: Seen, plan: ProbePlan
) -> Iterator[Candidate]:
    if not seen.inner:
        yield from _unjudged(kinds, setting, plan)
        return
    pool = _Pool(setting, seen)
    for inner in seen.inner:
        labels = seen.labels(inner.fit)
        for fitted in pooled_fits(features, inner.fit, labels, inner.judge, kinds, plan.strengths, plan.neighbours):
            pool.add(inner.judge, fitted)
    yield from pool.candidates()


def _unjudged(kinds: Sequence[ProbeKind], setting: Setting, plan: ProbePlan) -> Iterator[Candidate]:
    """What is taken where there is nothing to choose on: the middle of the path, the nearest neighbour."""
    defaults: dict[str, dict[str, Any]] = {
        "linear": {"strength": sorted(plan.strengths)[len(plan.strengths) // 2]},
        "knn": {"k": min(plan.neighbours)},
    }
    for kind in kinds:
        yield Candidate(kind, setting, defaults[kind], {}, None, None, None)


def _trained(
    kind: ProbeKind, features: Any, setting: Setting, seen: Seen, plan: ProbePlan, say: Say
) -> Iterator[Candidate]:
    """A candidate a setting of a probe that is trained in epochs, at its best epoch."""
    for options in plan.temporal if kind == "temporal" else plan.attentive:
        if not seen.inner:
            chosen = {**asdict(options), "epoch": options.epochs}
            yield Candidate(kind, setting, chosen, {}, None, None, None)
            return
        epochs: dict[int, list[tuple[Rows, Scores]]] = {}
        stays: tuple[float, Fitted] | None = None
        for inner in seen.inner:
            for fitted in sequence_fits(kind, features, inner.fit, seen.labels(inner.fit), options, plan.seed):
                scores = fitted.predict(features, inner.judge)
                epochs.setdefault(fitted.options["epoch"], []).append((inner.judge, scores))
                if not seen.refit:
                    # Without a refit there is one inner way, and the fit of its best epoch is the one that stays.
                    value = seen.judge(inner.judge, scores)
                    stays = (value, fitted.copy()) if stays is None or value > stays[0] else stays
        best = _best_epoch(kind, epochs, stays, asdict(options), setting, seen)
        say(f"{kind}: layer {setting.layer}, lr {options.lr:g}: {_shown(best.valid, seen.where)}")
        yield best


def _best_epoch(
    kind: ProbeKind,
    epochs: dict[int, list[tuple[Rows, Scores]]],
    stays: tuple[float, Fitted] | None,
    options: dict[str, Any],
    setting: Setting,
    seen: Seen,
) -> Candidate:
    pooled = {
        epoch: (np.concatenate([rows for rows, _ in found]), np.concatenate([scores for _, scores in found]))
        for epoch, found in epochs.items()
    }
    values = {epoch: seen.judge(*judged) for epoch, judged in pooled.items()}
    epoch = max(values, key=lambda number: (values[number], -number))
    chosen = {**options, "epoch": epoch}
    predict = None if stays is None else stays[1].predict
    return Candidate(kind, setting, chosen, {}, values[epoch], pooled[epoch], predict)


def _training(candidate: Candidate) -> tuple[TrainSetting, int]:
    options = {name: value for name, value in candidate.options.items() if name != "epoch"}
    setting = TemporalSetting if candidate.probe == "temporal" else AttentiveSetting
    return setting(**options), candidate.options["epoch"]


def _default(settings: Sequence[Setting]) -> list[Setting]:
    """The last layer with the first of its poolings."""
    return [next(each for each in settings if each.layer == settings[-1].layer)]


def _only(candidate: Candidate) -> tuple[tuple[float, ...], tuple[int, ...]]:
    if candidate.probe == "linear":
        return (candidate.options["strength"],), ()
    return (), (candidate.options["k"],)


def _together(facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Facts of several fits: the worst of each."""
    worst: dict[str, Callable[[list[Any]], Any]] = {"solved": all, "gradient": max, "iterations": max}
    return {name: worst[name]([each[name] for each in facts]) for name in facts[0]}


def _last(fits: Iterator[Fitted]) -> Fitted:
    *_, last = fits
    return last


def _tell(table: list[dict[str, Any]], setting: Setting, where: str, progress: str, say: Say) -> None:
    tried = [row for row in table if (row["layer"], row["pooling"]) == (setting.layer, setting.pooling)]
    for kind in dict.fromkeys(row["probe"] for row in tried):
        values = [row["valid"] for row in tried if row["probe"] == kind]
        top = None if None in values else max(values)
        say(f"{progress}{kind}: layer {setting.layer}, {setting.pooling}: {_shown(top, where)}")


def _shown(value: float | None, where: str) -> str:
    return "not judged" if value is None else f"{value:.4f} {where}"


def _promising(settings: Sequence[Setting], table: list[dict[str, Any]], count: int, seen: Seen) -> list[Setting]:
    """Settings whose layer, and pooling where it has one, did best with other probes."""
    if not seen.inner:
        return _default(settings)
    if not table:
        return list(settings)

    def top(setting: Setting) -> float:
        own = [
            -np.inf if row["valid"] is None else row["valid"]
            for row in table
            if row["layer"] == setting.layer and setting.pooling in ("tokens", row["pooling"])
        ]
        return float(max(own, default=-np.inf))

    return sorted(settings, key=lambda setting: -top(setting))[:count]
