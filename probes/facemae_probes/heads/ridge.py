"""Least squares with an L2 penalty, in closed form for a whole path of strengths.

One eigendecomposition, then a division for each strength (Hastie et al., The Elements of Statistical Learning, section
3.4.1).
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from facemae_probes.heads.conditioner import check_finite
from facemae_probes.heads.standardise import View

WIDEST = 2048
"""Largest matrix that is diagonalised in double precision; it takes seconds."""


def fits_closed_form(view: View, wanted_known: bool, budget: int) -> bool:
    """Whether the closed form applies and is cheap: nothing missing, and few dimensions, or few samples held twice."""
    if not wanted_known or min(view.shape) > WIDEST:
        return False
    return view.width <= len(view) or 8 * len(view) * view.width <= budget


def ridge_path(view: View, wanted: Tensor, strengths: Sequence[float]) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Solve for each strength, in double precision.

    Args:
        view: [N, D] features.
        wanted: [N, C] numbers.
        strengths: L2 strengths, in the order of the results.

    Yields:
        Weights [C, D], biases [C], and the objective: half the mean squared error summed over columns, and penalty.
    """
    wanted = wanted.double()
    middle = wanted.mean(dim=0)
    wanted = wanted - middle
    total = float(wanted.square().sum()) / len(wanted)
    mean, variance, cross, basis = (_primal if view.width <= len(view) else _dual)(view, wanted)
    for strength in strengths:
        inside = cross / (variance + strength)[:, None]
        fitted = float((2 * cross * inside - variance[:, None] * inside.square()).sum())
        weight = (basis @ inside).T
        loss = 0.5 * (max(total - fitted, 0.0) + strength * float(inside.square().sum()))
        yield weight, middle - weight @ mean, loss


def _primal(view: View, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean [D], variances [K] on the axes, covariance of axes and numbers [K, C], axes [D, K]; from the covariance."""
    mean = torch.zeros(view.width, dtype=torch.float64)
    gram = torch.zeros(view.width, view.width, dtype=torch.float64)
    cross = torch.zeros(view.width, wanted.shape[1], dtype=torch.float64)
    for start, block in view.blocks(torch.float64):
        mean += block.sum(dim=0)
        gram.addmm_(block.T, block)
        cross.addmm_(block.T, wanted[start : start + len(block)])
    mean /= len(view)
    check_finite(gram)
    gram = (gram / len(view)).addr_(mean, mean, alpha=-1)
    variance, basis = torch.linalg.eigh(gram)
    return mean, variance.clamp_min(0), basis.T @ (cross / len(view)), basis


def _dual(view: View, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same from the products of fewer samples than dimensions."""
    x = view.held(torch.float64).clone()
    check_finite(x)
    mean = x.mean(dim=0)
    x -= mean
    variance, inner = torch.linalg.eigh(x @ x.T / len(view))
    kept = variance > 1e-12 * variance[-1].clamp_min(torch.finfo(torch.float64).tiny)
    variance, inner = variance[kept], inner[:, kept]
    basis = x.T @ (inner / (variance * len(view)).sqrt())
    return mean, variance, basis.T @ (x.T @ wanted) / len(view), basis
