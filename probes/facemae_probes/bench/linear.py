"""The linear path against scikit-learn's logistic regression, to the same objective."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from facemae.bench.report import BenchResult, compare_rates, machine
from facemae.errors import ProbeError
from facemae_probes.bench.made import SAID, made_features
from facemae_probes.heads.linear import STRENGTHS, fit_path
from facemae_probes.heads.standardise import Standardiser
from facemae_probes.tasks.targets import Targets

TOLERANCES = (1e-2, 5e-3, 2e-3, 1e-3, 5e-4, 2e-4, 1e-4, 5e-5, 2e-5, 1e-5)
"""Values of scikit-learn's `tol` that are tried, loosest first."""
SAME = 1e-4
"""Share of the least objective above it at which a solution counts as reached."""
Fit = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Case:
    """What both sides fit.

    Attributes:
        features: [N, D], standardised.
        targets: Classes.
        strengths: Strongest first.
        best: Least objective of each strength.
    """

    features: NDArray[np.float32]
    targets: Targets
    strengths: tuple[float, ...]
    best: tuple[float, ...]

    @classmethod
    def made(cls, samples: int, dimensions: int, classes: int, strengths: Sequence[float] = STRENGTHS) -> "Case":
        """Make features and solve them in double precision as far as it goes."""
        raw, labels = made_features(samples, dimensions, classes)
        features = Standardiser.fit(raw)(raw)
        targets = Targets("classes", tuple(map(str, range(classes))), labels)
        path = tuple(sorted(strengths, reverse=True))
        exact = fit_path(features, targets, strengths=path, dtype=torch.float64, tolerance=1e-12)
        return cls(features, targets, path, tuple(model.loss for model in exact))

    def excess(self, fits: Sequence[Fit]) -> list[float]:
        """How far solutions, weights [D, C] and biases [C], lie above the least objective, as shares of it."""
        x = self.features.astype(np.float64)
        chosen = np.arange(len(x)), self.targets.values
        found = []
        for (weight, bias), strength, best in zip(fits, self.strengths, self.best, strict=False):
            logits = x @ weight + bias
            logits -= logits.max(axis=1, keepdims=True)
            loss = (np.log(np.exp(logits).sum(axis=1)) - logits[chosen]).mean()
            found.append(float(loss + 0.5 * strength * np.square(weight).sum()) / best - 1)
        return found


def bench_linear(
    samples: int, dimensions: int, classes: int, rounds: int, *, tell: Callable[[str], None] = lambda _: None
) -> list[BenchResult]:
    """Time the whole path of both sides.

    scikit-learn is given, for each strength, the loosest tolerance that brings it within `SAME` of the least objective.
    It is measured as a user would call it, each strength anew, and with `warm_start`.

    Raises:
        ProbeError: A side does not reach the objective.
    """
    case = Case.made(samples, dimensions, classes)
    facts = {
        "samples": samples,
        "dimensions": dimensions,
        "classes": classes,
        "strengths": list(case.strengths),
        "features": SAID,
        "threads": torch.get_num_threads(),
        "same_objective": SAME,
        "rounds": rounds,
    }
    ours = _ours(case)
    facts["excess_ours"] = _reached("the path", case, ours)
    results = []
    for warm in (False, True):
        name = "scikit-learn LogisticRegression, lbfgs" + (", warm_start" if warm else "")
        tell(f"tuning {name}")
        tolerances, theirs = tune(case, warm=warm)
        excess = _reached(name, case, theirs)
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds} against {name}")
            seconds["ours"].append(_time(partial(_ours, case)))
            seconds["theirs"].append(_time(partial(sklearn_path, case, tolerances, warm=warm)))
        mine, other, ratio = compare_rates(seconds["ours"], seconds["theirs"])
        settings = {**facts, "baseline": name, "tolerances": tolerances, "excess_baseline": excess}
        label = "probe, linear path" + (", warm-started baseline" if warm else "")
        results.append(BenchResult(label, mine, other, "s", 1 / ratio, settings, machine()))
    return results


def _ours(case: Case) -> list[Fit]:
    models = fit_path(case.features, case.targets, strengths=case.strengths)
    return [(model.weight.double().numpy(), model.bias.double().numpy()) for model in models]


def tune(case: Case, *, warm: bool) -> tuple[list[float], list[Fit]]:
    """The loosest tolerance for each strength with which scikit-learn reaches the objective, and its solutions."""
    chosen: list[float] = []
    fits: list[Fit] = []
    for number in range(len(case.strengths)):
        for tolerance in TOLERANCES:
            tried = sklearn_path(case, [*chosen, tolerance], warm=warm, after=fits)
            if case.excess(tried)[number] <= SAME:
                break
        chosen.append(tolerance)
        fits = tried
    return chosen, fits


def sklearn_path(case: Case, tolerances: Sequence[float], *, warm: bool, after: Sequence[Fit] = ()) -> list[Fit]:
    """Fit as many strengths as there are tolerances, going on after those that are fitted already."""
    model = LogisticRegression(max_iter=5000, warm_start=warm)
    fits = list(after)
    if fits:
        model.coef_, model.intercept_ = (np.array(part.T, dtype=np.float32) for part in fits[-1])
        model.classes_ = np.arange(case.targets.width)
    for number in range(len(fits), len(tolerances)):
        model.set_params(C=1 / (case.strengths[number] * len(case.features)), tol=tolerances[number])
        with warnings.catch_warnings():
            # Whether it converged is judged by the objective.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(case.features, case.targets.values)
        # A warm start goes on in the very arrays.
        fits.append((model.coef_.T.astype(np.float64), model.intercept_.astype(np.float64)))
    return fits


def _reached(name: str, case: Case, fits: Sequence[Fit]) -> float:
    worst = max(case.excess(fits))
    if worst > SAME:
        raise ProbeError(f"{name} ends {worst:.1e} of the objective above its least value", expected=f"at most {SAME}")
    return worst


def _time(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
