"""The linear probe against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from facemae.rng import generator
from facemae_probes.caveats import linear_warnings
from facemae_probes.linear import LinearModel, Standardiser, fit_path, label_loss
from facemae_probes.metrics import MISSING

Data = tuple[np.ndarray, np.ndarray]


def _data(samples: int = 240, dimensions: int = 12, classes: int = 4) -> Data:
    rng = generator(0, "linear-data")
    mixing = rng.normal(size=(dimensions, dimensions))
    x = rng.normal(size=(samples, dimensions)) @ mixing * rng.uniform(0.1, 30, size=dimensions) + 5
    y = (x @ rng.normal(size=(dimensions, classes)) + 60 * rng.normal(size=(samples, classes))).argmax(1)
    return x.astype(np.float32), y.astype(np.int64)


def _objective(weight: torch.Tensor, bias: torch.Tensor, x: np.ndarray, y: np.ndarray, strength: float) -> float:
    logits = torch.from_numpy(x).double() @ weight.double() + bias.double()
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y))
    return float(loss + 0.5 * strength * weight.double().square().sum())


@pytest.mark.parametrize("dimensions", [12, 300])
def test_the_path_reaches_scikit_learns_objective(dimensions: int) -> None:
    x, y = _data(dimensions=dimensions)
    x = Standardiser.fit(x)(x)
    models = list(fit_path(x, y, classes=4, kind="classes", strengths=(0.003, 0.1, 0.03), dtype=torch.float64))
    assert [model.strength for model in models] == [0.1, 0.03, 0.003]
    for model in models:
        theirs = LogisticRegression(C=1 / (model.strength * len(x)), max_iter=5000, tol=1e-8).fit(x.astype(float), y)
        weight, bias = torch.from_numpy(theirs.coef_.T.copy()), torch.from_numpy(theirs.intercept_)
        best = _objective(weight, bias, x, y, model.strength)
        assert model.loss == pytest.approx(_objective(model.weight, model.bias, x, y, model.strength), rel=1e-9)
        assert model.loss == pytest.approx(best, abs=1e-4)
        np.testing.assert_allclose(model.scores(x), theirs.predict_proba(x.astype(float)), atol=1e-2)


def test_a_fit_that_was_cut_short_says_so() -> None:
    x, y = _data()
    x = Standardiser.fit(x)(x)
    (whole,) = fit_path(x, y, classes=4, kind="classes", strengths=(0.001,))
    (short,) = fit_path(x, y, classes=4, kind="classes", strengths=(0.001,), max_iterations=2)
    assert whole.solved
    assert not short.solved
    assert short.iterations <= 2 < whole.iterations
    assert short.gradient > whole.gradient


def _row(strength: float, *, solved: bool = True) -> dict[str, object]:
    return {"probe": "linear", "strength": strength, "solved": solved, "gradient": 0.5, "iterations": 300}


def test_what_a_reader_must_know_of_a_linear_probe_is_said() -> None:
    path = [_row(1.0), _row(0.1), _row(0.01)]
    assert linear_warnings(path[1], path) == []
    assert "end of its path (0.01 to 1)" in linear_warnings(path[2], path)[0]
    assert "end of its path" in linear_warnings(path[0], path)[0]
    assert linear_warnings(path[0], path[:1]) == []
    unsolved = _row(0.1, solved=False)
    said = linear_warnings(unsolved, [path[0], unsolved, path[2]])
    assert "not solved" in said[0]
    assert "gradient norm 0.5 after 300 iterations" in said[0]
    assert "1 of 3 linear fits" in said[1]


def test_single_precision_agrees_with_double() -> None:
    x, y = _data()
    x = Standardiser.fit(x)(x)
    pairs = zip(
        fit_path(x, y, classes=4, kind="classes"),
        fit_path(x, y, classes=4, kind="classes", dtype=torch.float64),
        strict=True,
    )
    for single, double in pairs:
        assert single.loss == pytest.approx(double.loss, abs=1e-4)


def test_columns_are_independent_regressions_and_missing_labels_are_left_out() -> None:
    x, y = _data()
    x = Standardiser.fit(x)(x)
    columns = np.stack([y == 0, y > 1], axis=1).astype(np.int64)
    columns[::5, 1] = MISSING
    strength = 0.02
    (model,) = fit_path(x, columns, classes=2, kind="multilabel", strengths=(strength,), dtype=torch.float64)
    assert isinstance(model, LinearModel)
    for column in range(2):
        known = columns[:, column] != MISSING
        # The penalty is weighed against all samples, coded or not.
        theirs = LogisticRegression(C=1 / (strength * len(x)), max_iter=5000, tol=1e-8)
        theirs.fit(x[known].astype(float), columns[known, column])
        np.testing.assert_allclose(model.weight[:, column].numpy(), theirs.coef_[0], atol=5e-3)


def test_missing_labels_do_not_change_the_loss() -> None:
    logits = torch.tensor([[0.3, -2.0], [1.0, 50.0]])
    labels = torch.tensor([[1, 0], [0, MISSING]])
    changed = logits.clone()
    changed[1, 1] = -50
    assert label_loss(logits, labels, "multilabel") == label_loss(changed, labels, "multilabel")


def test_constant_dimensions_stay_finite() -> None:
    x = np.ones((10, 3), dtype=np.float16)
    x[:, 1] = np.arange(10)
    scaled = Standardiser.fit(x)(x)
    assert np.isfinite(scaled).all()
    np.testing.assert_allclose(scaled[:, 1].std(), 1, rtol=1e-3)
    assert not scaled[:, 0].any()
