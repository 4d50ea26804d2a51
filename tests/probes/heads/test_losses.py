"""Losses written by hand against automatic differentiation."""

import numpy as np
import pytest
import torch

from facemae.rng import generator
from facemae_probes.heads.losses import Labels, LabelScale, activate, label_loss, residuals
from facemae_probes.tasks.targets import KINDS, MISSING, Kind, Targets
from tests.probes.heads.made import features, targets


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_residuals_are_the_gradient_and_curvature_of_the_loss(kind: Kind, missing: bool) -> None:
    labels = Labels.of(targets(kind, features(20, 5), missing=missing))
    logits = torch.from_numpy(3 * generator(0, "logits").normal(size=(20, 4))).requires_grad_()
    loss = label_loss(logits, labels)
    (expected,) = torch.autograd.grad(loss, logits)
    value, change, curvature = residuals(logits.detach().T.contiguous(), labels)
    assert value == pytest.approx(20 * float(loss.detach()), rel=1e-9)
    torch.testing.assert_close(change.T, 20 * expected)
    hessian = torch.autograd.functional.hessian(lambda z: 20 * label_loss(z, labels), logits.detach())  # type: ignore[no-untyped-call]
    summed = sum(hessian[i, :, i, :] for i in range(20))
    torch.testing.assert_close(curvature if curvature.ndim == 2 else curvature.diag(), summed)


def test_missing_labels_do_not_change_the_loss() -> None:
    logits = torch.tensor([[0.3, -2.0], [1.0, 50.0]])
    changed = logits.clone()
    changed[1, 1] = -50
    coded = Targets("multilabel", ("a", "b"), np.array([[1, 0], [0, MISSING]]))
    numbers = Targets("regression", ("a", "b"), np.array([[1, 0], [0, np.nan]]))
    for truth in (coded, numbers):
        assert label_loss(logits, Labels.of(truth)) == label_loss(changed, Labels.of(truth))


def test_units_bring_numbers_to_one_scale_and_back() -> None:
    truth = targets("regression", features(), missing=True)
    label_scale = LabelScale.of(truth)
    standard = label_scale.standard(truth).values
    np.testing.assert_allclose(np.nanmean(standard, axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.nanstd(standard, axis=0), 1, rtol=1e-4)
    back = activate(torch.from_numpy(standard), "regression", label_scale)
    np.testing.assert_allclose(back.numpy(), truth.values, rtol=1e-5)
    np.testing.assert_array_equal(np.isnan(standard), np.isnan(truth.values))
