"""The curvature of a linear head's objective, roughly: what makes its solver need tens of passes instead of hundreds.

The Hessian of the softmax loss is the mean over samples of (diag(p) - p pᵀ) ⊗ x xᵀ. Taking the mean of each factor
alone leaves a Kronecker product, which two small eigendecompositions invert for every strength. It is only used to
choose directions and to weigh gradients, so a part of the samples is enough to measure it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from facemae.errors import ProbeError
from facemae_probes.heads.standardise import View

ROWS_A_DIMENSION = 16
"""Samples per dimension from which the covariance is measured."""
WIDEST = 2048
"""Most dimensions for which all axes are found; of more, the leading ones."""
LEADING = 1024
"""Samples, and so at most axes, where only leading axes are found."""
LEAST = 1e-9
"""Added to the curvature of a column, which is zero where nothing of it is known."""


def check_finite(values: Tensor) -> None:
    """Refuse what an eigendecomposition would fail on without a word of its cause.

    Raises:
        ProbeError: A value is infinite or not a number.
    """
    if not bool(values.isfinite().all()):
        raise ProbeError("features are not finite", expected="numbers", fix="extract them again")


@dataclass(frozen=True)
class Axes:
    """Principal axes of features.

    Attributes:
        mean: [D].
        basis: [D, K] orthonormal, K at most D.
        variance: [K] variances along them.
        rest: Mean variance along what they leave out.
    """

    mean: Tensor
    basis: Tensor
    variance: Tensor
    rest: float

    @classmethod
    def of(cls, view: View, dtype: torch.dtype) -> "Axes":
        """Measure them on evenly spaced samples."""
        full = view.width <= min(WIDEST, len(view))
        count = min(len(view), ROWS_A_DIMENSION * view.width if full else LEADING)
        part = view.take(np.linspace(0, len(view) - 1, count).astype(np.int64))
        if full:
            return cls._full(part, dtype)
        x = part.held(dtype).clone()
        check_finite(x)
        mean = x.mean(dim=0)
        x -= mean
        variance, inner = torch.linalg.eigh(x @ x.T / count)
        kept = variance > 1e-6 * variance[-1].clamp_min(torch.finfo(dtype).tiny)
        variance, inner = variance[kept], inner[:, kept]
        basis = x.T @ (inner / (variance * count).sqrt())
        outside = float(x.square().sum() / count - variance.sum()) / max(view.width - len(variance), 1)
        return cls(mean, basis, variance, max(outside, 0.0))

    @classmethod
    def _full(cls, part: View, dtype: torch.dtype) -> "Axes":
        mean = torch.zeros(part.width, dtype=dtype)
        gram = torch.zeros(part.width, part.width, dtype=dtype)
        for _, block in part.blocks(dtype):
            mean += block.sum(dim=0)
            gram.addmm_(block.T, block)
        mean /= len(part)
        check_finite(gram)
        gram = (gram / len(part)).addr_(mean, mean, alpha=-1)
        variance, basis = torch.linalg.eigh(gram)
        return cls(mean, basis, variance.clamp_min(0), 0.0)


@dataclass(frozen=True)
class Conditioner:
    """Solves with the approximate Hessian.

    Attributes:
        axes: Of the features.
        columns: [C, C] eigenvectors of the columns' curvature; None where columns are independent.
        inverse: [C, K] inverse curvature along both axes.
        beside: [C, 1] inverse curvature outside the feature axes.
        bias: [C] inverse curvature of the bias.
    """

    axes: Axes
    columns: Tensor | None
    inverse: Tensor
    beside: Tensor
    bias: Tensor

    @classmethod
    def of(cls, axes: Axes, curvature: Tensor, strength: float) -> "Conditioner":
        """From the mean second derivatives by the logits, [C, C] or [C]."""
        columns = None
        if curvature.ndim == 2:
            # One number added to all logits changes nothing. Given a curvature of its own, that direction does not mix
            # with those of rare classes, whose curvature is as small.
            wide = curvature.double()
            spread, axes_of_columns = torch.linalg.eigh(wide + torch.full_like(wide, 1 / len(wide)))
            curvature, columns = spread.to(curvature.dtype), axes_of_columns.to(curvature.dtype)
        curvature = (curvature.clamp_min(0) + LEAST)[:, None]
        return cls(
            axes,
            columns,
            1 / (curvature * axes.variance + strength),
            1 / (curvature * axes.rest + strength),
            1 / curvature[:, 0],
        )

    def __call__(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse curvature times a gradient: weights [C, D] and biases [C]."""
        if self.columns is not None:
            # What rounding leaves of that direction is dropped.
            weight = self.columns.T @ (weight - weight.mean(dim=0))
            bias = self.columns.T @ (bias - bias.mean())
        inside = weight @ self.axes.basis
        if self.axes.basis.shape[1] == self.axes.basis.shape[0]:
            weight = (inside * self.inverse) @ self.axes.basis.T
        else:
            weight = weight * self.beside + (inside * (self.inverse - self.beside)) @ self.axes.basis.T
        bias = bias * self.bias
        return (weight, bias) if self.columns is None else (self.columns @ weight, self.columns @ bias)
