"""The linear head against scikit-learn and tiny references, for every kind of targets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from facemae.errors import ProbeError
from facemae_probes.heads import linear
from facemae_probes.heads.linear import LinearModel, fit_path
from facemae_probes.heads.losses import Labels, label_loss
from facemae_probes.heads.standardise import Standardiser, View
from facemae_probes.tasks.targets import KINDS, MISSING, Kind, Targets
from tests.probes.heads.made import features, targets

EXACT = 1e-10
WIDE = torch.float64


def _fit(x: np.ndarray, truth: Targets, strength: float, **options: Any) -> LinearModel:
    (model,) = fit_path(x, truth, strengths=(strength,), **options)
    return model


def _standard(samples: int = 240, dimensions: int = 12) -> np.ndarray:
    x = features(samples, dimensions)
    return Standardiser.fit(x)(x)


def _objective(weight: torch.Tensor, bias: torch.Tensor, x: np.ndarray, truth: Targets, strength: float) -> float:
    logits = torch.from_numpy(x).double() @ weight.double() + bias.double()
    return float(label_loss(logits, Labels.of(truth)) + 0.5 * strength * weight.double().square().sum())


@pytest.mark.parametrize("dimensions", [12, 300])
def test_the_path_reaches_scikit_learns_objective(dimensions: int) -> None:
    x = _standard(dimensions=dimensions)
    truth = targets("classes", x)
    models = list(fit_path(x, truth, strengths=(0.003, 0.1, 0.03)))
    assert [model.strength for model in models] == [0.1, 0.03, 0.003]
    for model in models:
        theirs = LogisticRegression(C=1 / (model.strength * len(x)), max_iter=5000, tol=1e-8)
        theirs.fit(x.astype(float), truth.values)
        weight, bias = torch.from_numpy(theirs.coef_.T.copy()), torch.from_numpy(theirs.intercept_)
        best = _objective(weight, bias, x, truth, model.strength)
        assert model.loss == pytest.approx(_objective(model.weight, model.bias, x, truth, model.strength), rel=1e-6)
        assert model.loss == pytest.approx(best, rel=1e-5)
        assert model.solved
        np.testing.assert_allclose(model.scores(x), theirs.predict_proba(x.astype(float)), atol=1e-2)


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_the_expected_gap_is_the_gap(spread: float) -> None:
    x = _standard(400, 40)
    truth = targets("classes", spread * x)
    exact = list(fit_path(x, truth, tolerance=EXACT, dtype=WIDE))
    for model, best in zip(fit_path(x, truth, tolerance=1e-4), exact, strict=True):
        gap = _objective(model.weight, model.bias, x, truth, model.strength) - best.loss
        assert gap + 1e-7 >= 0
        assert gap < 4 * model.gap + 1e-6
        assert model.gap < 1e-4 * model.loss


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(240, 12), (30, 200)])
def test_weights_are_where_the_gradient_vanishes(kind: Kind, shape: tuple[int, int]) -> None:
    """For every kind, with labels missing and without, of more samples than dimensions and of fewer."""
    x = _standard(*shape)
    for missing in (False, True):
        truth = targets(kind, x, missing=missing)
        model = _fit(x, truth, 0.02, tolerance=EXACT, dtype=WIDE)
        weight, bias = model.weight.clone().requires_grad_(), model.bias.clone().requires_grad_()
        loss = label_loss(torch.from_numpy(x).double() @ weight + bias, Labels.of(truth))
        loss = loss + 0.01 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        assert weight.grad is not None
        assert bias.grad is not None
        scale = 1 + model.weight.abs().amax(dim=0)
        assert float((weight.grad / scale).abs().max()) < 1e-4
        assert float((bias.grad / scale).abs().max()) < 1e-4


@pytest.mark.parametrize("shape", [(240, 12), (30, 200)])
def test_numbers_are_scikit_learns_ridge(shape: tuple[int, int]) -> None:
    x = _standard(*shape)
    truth = targets("regression", x)
    for model in fit_path(x, truth, strengths=(0.5, 0.01)):
        theirs = Ridge(alpha=model.strength * len(x)).fit(x.astype(float), truth.values)
        np.testing.assert_allclose(model.scores(x), theirs.predict(x.astype(float)), rtol=1e-4)
        assert model.iterations == 0
        units = truth.values.std(axis=0)
        loss = _objective(model.weight / torch.from_numpy(units), model.bias * 0, x, _centred(truth), model.strength)
        assert model.loss == pytest.approx(loss, rel=1e-4)


def _centred(truth: Targets) -> Targets:
    return Targets(truth.kind, truth.names, (truth.values - truth.values.mean(axis=0)) / truth.values.std(axis=0))


def test_missing_numbers_are_left_out_of_their_column() -> None:
    x = _standard()
    truth = targets("regression", x, missing=True)
    (model,) = fit_path(x, truth, strengths=(0.02,), tolerance=EXACT, dtype=WIDE)
    for column in range(truth.width):
        known = ~np.isnan(truth.values[:, column])
        # The penalty is weighed against all samples, known or not.
        theirs = Ridge(alpha=0.02 * len(x)).fit(x[known].astype(float), truth.values[known, column])
        np.testing.assert_allclose(model.scores(x)[:, column], theirs.predict(x.astype(float)), rtol=1e-4)


def test_columns_are_independent_regressions_and_missing_labels_are_left_out() -> None:
    x = _standard()
    truth = targets("multilabel", x, missing=True)
    model = _fit(x, truth, 0.02, tolerance=EXACT, dtype=WIDE)
    for column in range(truth.width):
        known = truth.values[:, column] != MISSING
        theirs = LogisticRegression(C=1 / (0.02 * len(x)), max_iter=5000, tol=1e-8)
        theirs.fit(x[known].astype(float), truth.values[known, column])
        np.testing.assert_allclose(model.weight[:, column].numpy(), theirs.coef_[0], atol=1e-3)


def test_certain_shares_are_classes() -> None:
    x = _standard()
    truth = targets("classes", x)
    shares = Targets("distribution", truth.names, np.eye(truth.width)[truth.values])
    one, other = (_fit(x, each, 0.01) for each in (truth, shares))
    np.testing.assert_allclose(one.scores(x), other.scores(x), atol=1e-5)


def test_one_strength_alone_has_the_solution_of_the_path() -> None:
    x = _standard(dimensions=40)
    truth = targets("classes", x)
    last = list(fit_path(x, truth, tolerance=1e-7))[-1]
    alone = _fit(x, truth, last.strength, tolerance=1e-7)
    assert alone.loss == pytest.approx(last.loss, rel=1e-5)
    np.testing.assert_allclose(alone.scores(x), last.scores(x), atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_features_read_in_blocks_have_the_solution_of_held_ones(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half precision from a read-only map, some of its rows, standardised on the way."""
    monkeypatch.setattr(linear, "BLOCK_ELEMENTS", 64)
    np.save(tmp_path / "x.npy", features(300, 16).astype(np.float16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    rows = np.arange(0, 300, 2)
    scale = Standardiser.fit(mapped, rows)
    plain = scale(np.array(mapped[rows]))
    truth = targets(kind, plain, missing=True)
    held = list(fit_path(plain, truth, strengths=(0.3, 0.01), tolerance=1e-8))
    read = list(fit_path(scale.view(mapped, rows), truth, strengths=(0.3, 0.01), tolerance=1e-8, held_bytes=0))
    for one, other in zip(held, read, strict=True):
        np.testing.assert_allclose(one.scores(plain), other.scores(scale.view(mapped, rows)), rtol=1e-3, atol=1e-3)


def test_a_fit_that_was_cut_short_says_so() -> None:
    x = _standard()
    truth = targets("classes", x)
    whole = _fit(x, truth, 0.001)
    short = _fit(x, truth, 0.001, max_iterations=1)
    assert whole.solved
    assert not short.solved
    assert short.iterations == 1 < whole.iterations
    assert short.gradient > whole.gradient


def test_classes_that_can_be_told_apart_are_solved() -> None:
    x = _standard(60, 300)
    truth = targets("classes", x)
    for model in fit_path(x, truth):
        assert model.solved
        assert model.iterations < 60


def test_a_class_without_samples_gets_no_share() -> None:
    x = _standard()
    truth = Targets("classes", ("a", "b", "c"), targets("classes", x, width=2).values)
    models = list(fit_path(x, truth))
    assert all(model.solved for model in models)
    assert all(float(model.scores(x)[:, 2].max()) < 1e-3 for model in models)


def test_numbers_that_do_not_vary_and_columns_without_labels_stay_finite() -> None:
    x = _standard()
    values = np.stack([np.full(len(x), 7.0), np.full(len(x), np.nan)], axis=1)
    scores = _fit(x, Targets("regression", ("same", "none"), values), 0.1).scores(x)
    np.testing.assert_allclose(scores, np.broadcast_to([7.0, 0.0], scores.shape), atol=1e-5)


@pytest.mark.parametrize(
    ("broken", "said"),
    [("short", "features of 239 samples and labels of 240"), ("nan", "not finite"), ("zero", r"strengths \[0.0\]")],
)
def test_what_cannot_be_fitted_is_said(broken: str, said: str) -> None:
    x = _standard()
    truth = targets("classes", x)
    strength = 0.0 if broken == "zero" else 1.0
    if broken == "nan":
        x[3, 2] = np.nan
    with pytest.raises(ProbeError, match=said):
        _fit(x[1:] if broken == "short" else x, truth, strength)


def test_models_score_arrays_and_views_alike() -> None:
    x = features()
    scale = Standardiser.fit(x)
    model: LinearModel = _fit(scale(x), targets("classes", x), 0.1)
    scores = model.scores(scale.view(x, np.array([5, 2])))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, model.scores(scale(x))[[5, 2]], rtol=1e-5)
    assert model.scores(View(scale(x))).sum(axis=1) == pytest.approx(1, abs=1e-5)
