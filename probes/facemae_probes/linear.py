"""Linear probe: logistic regression on standardised features, over a path of L2 strengths.

The objective is ``mean loss + strength / 2 * ||W||²`` with a free bias: scikit-learn's `LogisticRegression` with
``C = 1 / (strength * N)``. Each strength starts from the solution of the one before it, strongest first, so the whole
path costs little more than its weakest member. Several binary columns (action units) share one strength and are
otherwise independent regressions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from facemae_probes.metrics import MISSING, TaskKind

STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
"""The default path, strongest first."""
CURVATURE = 0.15
"""Typical second derivative of the loss by a logit; a guess is enough, it only conditions the solver."""
ROTATE_UP_TO = 4096
"""Most dimensions for which the covariance is diagonalised."""
SOLVED = 0.02
"""Gradient norm up to which a strength counts as solved. It is taken in the solver's coordinates, where curvatures are
about one, so half its square, 0.0002, is about what the objective still lies above its least value."""


@dataclass(frozen=True)
class Standardiser:
    """Per-dimension mean and scale of the training features; dimensions that do not vary keep scale one."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @classmethod
    def fit(cls, features: NDArray[np.floating]) -> "Standardiser":
        """Measure training features [N, D]; sums run in double precision, in blocks."""
        total = np.zeros(features.shape[1])
        squares = np.zeros(features.shape[1])
        for start in range(0, len(features), 4096):
            block = np.asarray(features[start : start + 4096], dtype=np.float64)
            total += block.sum(axis=0)
            squares += np.square(block).sum(axis=0)
        mean = total / len(features)
        deviation = np.sqrt(np.maximum(squares / len(features) - mean**2, 0))
        flat = deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
        return cls(mean.astype(np.float32), np.where(flat, 1.0, deviation).astype(np.float32))

    def __call__(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Standardised copy [N, D], fp32."""
        out = np.array(features, dtype=np.float32)
        out -= self.mean
        out /= self.scale
        return out


@dataclass(frozen=True)
class LinearModel:
    """A fitted linear probe.

    Attributes:
        weight: [D, C].
        bias: [C].
        kind: What the columns are.
        strength: L2 strength it was fitted with.
        loss: The objective's value at the solution.
        gradient: Norm of the objective's gradient there, in the solver's coordinates.
        iterations: L-BFGS iterations it took.
    """

    weight: Tensor
    bias: Tensor
    kind: TaskKind
    strength: float
    loss: float
    gradient: float
    iterations: int

    @property
    def solved(self) -> bool:
        """Whether the solver came close enough to the least value."""
        return self.gradient <= SOLVED

    def scores(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Class probabilities, or probabilities of the columns: [N, C] for standardised features [N, D]."""
        logits = torch.from_numpy(np.ascontiguousarray(features)).to(self.weight.dtype) @ self.weight + self.bias
        values = logits.softmax(1) if self.kind == "classes" else logits.sigmoid()
        return np.asarray(values.float().numpy())


def label_loss(logits: Tensor, labels: Tensor, kind: TaskKind) -> Tensor:
    """Mean over samples of the cross-entropy, or of the summed binary cross-entropies of coded columns.

    Args:
        logits: [N, C].
        labels: [N] class numbers, or [N, C] of 0, 1 and `MISSING`.
        kind: What the columns are.
    """
    if kind == "classes":
        return F.cross_entropy(logits, labels)
    known = (labels != MISSING).to(logits.dtype)
    target = (labels == 1).to(logits.dtype)
    return (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * known).sum() / len(logits)


def fit_path(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    *,
    classes: int,
    kind: TaskKind,
    strengths: Sequence[float] = STRENGTHS,
    max_iterations: int = 300,
    tolerance: float = 1e-4,
    dtype: torch.dtype = torch.float32,
) -> Iterator[LinearModel]:
    """Fit the path.

    Args:
        features: [N, D], standardised.
        labels: [N] class numbers, or [N, C] of 0, 1 and `MISSING`.
        classes: Number of classes or columns.
        kind: What the labels are.
        strengths: L2 strengths; fitted strongest first whatever their order.
        max_iterations: L-BFGS iterations per strength.
        tolerance: Largest gradient entry at which the solver stops.
        dtype: Arithmetic.

    Yields:
        One model a strength.
    """
    x = torch.from_numpy(np.ascontiguousarray(features)).to(dtype)
    y = torch.from_numpy(np.ascontiguousarray(labels))
    x, axes, variance = _rotate(x)
    weight = torch.zeros(x.shape[1], classes, dtype=dtype)
    bias = torch.zeros(classes, dtype=dtype, requires_grad=True)
    for strength in sorted(strengths, reverse=True):
        scale = (CURVATURE * variance + strength).rsqrt()[:, None]
        scaled = (weight / scale).requires_grad_()
        loss, gradient, iterations = _solve(x, y, scaled, scale, bias, kind, strength, max_iterations, tolerance)
        weight = scaled.detach() * scale
        plain = weight if axes is None else axes @ weight
        yield LinearModel(plain, bias.detach().clone(), kind, strength, loss, gradient, iterations)


def _rotate(x: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Features on the axes of their covariance, the axes, and the variance along them.

    A rotation leaves the objective as it is, and on these axes its curvature is nearly diagonal: dividing each weight's
    axis by that curvature (`scale` in `fit_path`) makes L-BFGS converge in tens instead of hundreds of passes.
    """
    if x.shape[1] > ROTATE_UP_TO or x.shape[1] > len(x):
        return x, None, x.square().mean(dim=0)
    variance, axes = torch.linalg.eigh(x.T @ x / len(x))
    return x @ axes, axes, variance.clamp_min(0)


def _solve(
    x: Tensor,
    y: Tensor,
    scaled: Tensor,
    scale: Tensor,
    bias: Tensor,
    kind: TaskKind,
    strength: float,
    max_iterations: int,
    tolerance: float,
) -> tuple[float, float, int]:
    """Run L-BFGS in place on `scaled` (weights are `scaled * scale`) and `bias`.

    Returns:
        The objective, the norm of its gradient, and the iterations done.
    """
    optimiser = torch.optim.LBFGS(
        [scaled, bias],
        max_iter=max_iterations,
        history_size=20,
        tolerance_grad=tolerance,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        weight = scaled * scale
        loss = label_loss(x @ weight + bias, y, kind) + 0.5 * strength * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    loss = float(closure().detach())
    gradient = torch.cat([part.grad.flatten() for part in (scaled, bias) if part.grad is not None])
    return loss, float(gradient.norm()), int(optimiser.state[scaled]["n_iter"])
