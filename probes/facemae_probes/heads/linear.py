"""Linear probe: softmax, logistic or least-squares regression on standardised features, over a path of L2 strengths.

The objective is ``loss + strength / 2 * ||W||²`` with a free bias and the loss of `losses`. For classes that is
scikit-learn's `LogisticRegression` with ``C = 1 / (strength * N)``, for numbers its `Ridge` with ``alpha = strength *
N``. Columns of binary labels or numbers share one strength and are otherwise independent. Each strength starts from the
solution of the one before it, strongest first, so the whole path costs little more than its weakest member.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from facemae.errors import ProbeError
from facemae_probes.heads.conditioner import Axes, check_finite
from facemae_probes.heads.losses import Labels, LabelScale, activate, residuals
from facemae_probes.heads.ridge import fits_closed_form, ridge_path
from facemae_probes.heads.solver import Point, Solver
from facemae_probes.heads.standardise import BLOCK_ELEMENTS, Floats, View, as_view
from facemae_probes.tasks.targets import Kind, Targets

STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
"""The default path, strongest first."""
TOLERANCE = 2e-6
"""Share of the objective by which it may be expected to lie above its least value when the solver stops."""
SOLVED = 1e-4
"""The same share up to which a strength counts as solved."""
HELD_BYTES = 2**30
"""Most bytes of features kept in memory; more are read again, block by block, in every pass of the solver."""


@dataclass(frozen=True)
class LinearModel:
    """A fitted linear probe.

    Attributes:
        weight: [D, C].
        bias: [C].
        kind: What the columns are.
        strength: L2 strength it was fitted with.
        loss: The objective's value at the solution; of numbers in units of each column's deviation.
        gradient: Norm of the objective's gradient there, in coordinates in which the curvature is about one.
        iterations: Steps of the solver; 0 for a closed form.
    """

    weight: Tensor
    bias: Tensor
    kind: Kind
    strength: float
    loss: float
    gradient: float
    iterations: int

    @property
    def gap(self) -> float:
        """How far the objective is expected to lie above its least value."""
        return self.gradient**2 / 2

    @property
    def solved(self) -> bool:
        """Whether the solver came close enough to the least value."""
        return self.gap <= SOLVED * self.loss

    def scores(self, features: Floats | View) -> NDArray[np.float32]:
        """What is predicted for standardised features [M, D]: [M, C] probabilities or numbers."""
        view = as_view(features)
        out = np.empty((len(view), len(self.bias)), dtype=np.float32)
        for start, block in view.blocks(self.weight.dtype):
            out[start : start + len(block)] = activate(block @ self.weight + self.bias, self.kind).numpy()
        return out


def fit_path(
    features: Floats | View,
    targets: Targets,
    *,
    strengths: Sequence[float] = STRENGTHS,
    max_iterations: int = 300,
    tolerance: float = TOLERANCE,
    dtype: torch.dtype = torch.float32,
    held_bytes: int = HELD_BYTES,
) -> Iterator[LinearModel]:
    """Fit the path.

    Args:
        features: [N, D], standardised, or a `Standardiser.view` of what is not.
        targets: Of the N samples, of any kind.
        strengths: L2 strengths, above zero; fitted strongest first whatever their order.
        max_iterations: Steps of the solver per strength.
        tolerance: See `TOLERANCE`.
        dtype: Arithmetic of the solver; sums over all samples run in double precision.
        held_bytes: See `HELD_BYTES`. It changes speed, not results beyond rounding.

    Yields:
        One model a strength.

    Raises:
        ProbeError: Features and targets do not fit, or are not finite; or a strength is not above zero.
    """
    view = as_view(features)
    _check(view, targets, strengths)
    label_scale = LabelScale.of(targets)
    labels = Labels.of(label_scale.standard(targets))
    path = sorted(strengths, reverse=True)
    found: Iterator[tuple[Tensor, Tensor, float, float, int]]
    if targets.kind == "regression" and fits_closed_form(view, labels.known is None, held_bytes):
        found = ((*solution, 0.0, 0) for solution in ridge_path(view, labels.wanted, path))
    else:
        found = _iterate(_Data(view, labels, dtype, held_bytes), path, max_iterations, tolerance)
    for strength, (weight, bias, loss, gap, steps) in zip(path, found, strict=True):
        check_finite(torch.tensor(loss))
        spread = label_scale.spread.to(weight.dtype)
        weight, bias = weight * spread[:, None], bias * spread + label_scale.centre.to(bias.dtype)
        weight, bias = weight.T.contiguous().to(dtype), bias.to(dtype)
        yield LinearModel(weight, bias, targets.kind, strength, loss, math.sqrt(2 * gap), steps)


def _check(view: View, targets: Targets, strengths: Sequence[float]) -> None:
    if len(view) != len(targets) or not len(view):
        raise ProbeError(f"features of {len(view)} samples and labels of {len(targets)}", expected="as many, not none")
    if not strengths or min(strengths) <= 0:
        raise ProbeError(f"L2 strengths {list(strengths)}", expected="one or more, above zero")


def _iterate(
    data: "_Data", path: Sequence[float], limit: int, tolerance: float
) -> Iterator[tuple[Tensor, Tensor, float, float, int]]:
    """Weights [C, D], biases [C], objective, gap and steps of each strength."""
    mean = data.axes.mean
    weight = mean.new_zeros(data.labels.width, len(mean))
    solver = Solver(data, data.axes, weight, weight.new_zeros(len(weight)))
    for strength in path:
        loss, gap, steps = solver.solve(strength, limit=limit, tolerance=tolerance)
        yield solver.weight, solver.bias - solver.weight @ mean, loss, gap, steps


class _Data:
    """The data's part of the objective: one pass over features that are held, or read in blocks.

    Biases are those of centred features: weights and biases then hardly depend on each other, whatever was standardised
    on which samples.
    """

    def __init__(self, view: View, labels: Labels, dtype: torch.dtype, held_bytes: int) -> None:
        self.labels = labels
        self._view, self._dtype = view, dtype
        self.axes = Axes.of(view, dtype)
        self._held = view.held(dtype) if len(view) * view.width * dtype.itemsize <= held_bytes else None

    def __call__(self, weight: Tensor, bias: Tensor) -> Point:
        """Loss, gradient and curvature at weights [C, D] and biases [C]."""
        shift = (bias - weight @ self.axes.mean)[:, None]
        loss = 0.0
        by_weight = torch.zeros(weight.shape, dtype=torch.float64)
        by_bias = torch.zeros(bias.shape, dtype=torch.float64)
        curvature = torch.zeros(1, dtype=torch.float64)
        for start, x in self._blocks():
            logits = F.linear(x, weight).T.contiguous().add_(shift)
            value, change, second = residuals(logits, self.labels[start : start + len(x)])
            loss += value
            by_weight += change @ x
            by_bias += change.sum(dim=1)
            curvature = curvature + second
        by_weight.addr_(by_bias, self.axes.mean.double(), alpha=-1)
        samples = len(self._view)
        sums = [(part / samples).to(self._dtype) for part in (by_weight, by_bias, curvature)]
        return Point(loss / samples, *sums)

    def _blocks(self) -> Iterator[tuple[int, Tensor]]:
        if self._held is None:
            yield from self._view.blocks(self._dtype)
            return
        size = max(64, BLOCK_ELEMENTS // self._view.width)
        for start in range(0, len(self._held), size):
            yield start, self._held[start : start + size]
