"""L-BFGS along a path of L2 strengths (Nocedal and Wright, Numerical Optimization, algorithms 7.4 and 3.1).

Two things make it cheap here. The approximate Hessian of `conditioner` takes the place of the usual multiple of the
identity. And what was learned of the curvature at one strength holds at the next but for the penalty's part, which is
known: the pairs are corrected and kept, so that a path is one long solve rather than many.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from facemae_probes.heads.conditioner import Axes, Conditioner

HISTORY = 20
"""Pairs of steps and gradient changes kept."""
ENOUGH = 1e-4
"""Share of the promised decrease that a step must bring."""
SHORTEST = 1e-6
"""Shortest step tried."""


@dataclass(frozen=True)
class Point:
    """The data's part of the objective somewhere.

    Attributes:
        loss: Mean loss, without penalty.
        weight: Its gradient by the weights, [C, D].
        bias: Its gradient by the biases, [C].
        curvature: Mean second derivatives by the logits, [C, C] or [C].
    """

    loss: float
    weight: Tensor
    bias: Tensor
    curvature: Tensor


Evaluate = Callable[[Tensor, Tensor], Point]


@dataclass
class Pair:
    """A step and what it changed.

    Attributes:
        step: [C·D + C].
        change: Of the gradient without penalty, [C·D + C].
    """

    step: Tensor
    change: Tensor


@dataclass
class Solver:
    """Weights [C, D] and biases [C] on their way along the path.

    Attributes:
        evaluate: Gives the data's part of the objective; one pass over the features.
        axes: Of the features.
        weight: [C, D].
        bias: [C].
        passes: Evaluations so far.
    """

    evaluate: Evaluate
    axes: Axes
    weight: Tensor
    bias: Tensor
    passes: int = 0
    _pairs: deque[Pair] = field(default_factory=lambda: deque(maxlen=HISTORY))
    _point: Point | None = None

    def solve(self, strength: float, *, limit: int, tolerance: float) -> tuple[float, float, int]:
        """Walk to the solution for one strength.

        Args:
            strength: L2 strength.
            limit: Most steps.
            tolerance: Stop where the objective is expected to lie less than this share of itself above its least value.

        Returns:
            The objective, how far above its least value it is expected to lie, and the steps done.
        """
        point = self._point or self._look(self.weight, self.bias)
        steps, fresh = 0, False
        while True:
            value, gradient = self._value(point, self.weight, strength), self._gradient(point, strength)
            direction = self._direction(gradient, Conditioner.of(self.axes, point.curvature, strength), strength)
            slope = float(gradient @ direction)
            if -slope / 2 <= tolerance * abs(value) or steps == limit:
                break
            moved = self._line_search(value, slope, direction, strength)
            if moved is None:
                if fresh or not self._pairs:
                    break
                # The pairs mislead: they come from a place where the curvature was another.
                self._pairs.clear()
                fresh = True
                continue
            length, reached = moved
            change = self._flat(reached.weight - point.weight, reached.bias - point.bias)
            self._pairs.append(Pair(length * direction, change))
            self._move(length * direction)
            point, fresh = reached, False
            steps += 1
        self._point = point
        return value, max(-slope / 2, 0.0), steps

    def _look(self, weight: Tensor, bias: Tensor) -> Point:
        self.passes += 1
        return self.evaluate(weight, bias)

    def _line_search(
        self, value: float, slope: float, direction: Tensor, strength: float
    ) -> tuple[float, Point] | None:
        """The first of shorter and shorter steps that decreases the objective enough; None where there is none."""
        length = 1.0
        weight, bias = self._split(direction)
        while length > SHORTEST:
            point = self._look(self.weight + length * weight, self.bias + length * bias)
            found = self._value(point, self.weight + length * weight, strength)
            if found <= value + ENOUGH * length * slope:
                return length, point
            # The parabola through what is known has its least value here.
            best = -slope * length**2 / (2 * (found - value - slope * length)) if math.isfinite(found) else 0.0
            length = min(max(best, 0.1 * length), 0.5 * length)
        return None

    def _direction(self, gradient: Tensor, conditioner: Conditioner, strength: float) -> Tensor:
        out = -gradient
        kept = []
        for pair in reversed(self._pairs):
            change = pair.change + strength * self._penalised(pair.step)
            curvature = float(pair.step @ change)
            if curvature > 0:
                share = float(pair.step @ out) / curvature
                out = out - share * change
                kept.append((pair.step, change, curvature, share))
        out = self._flat(*conditioner(*self._split(out)))
        if kept:
            # How far the approximate Hessian is off along the newest step; it matters where classes are separable.
            _, change, curvature, _ = kept[0]
            out *= curvature / float(change @ self._flat(*conditioner(*self._split(change))))
        for step, change, curvature, share in reversed(kept):
            out += (share - float(change @ out) / curvature) * step
        return out

    def _value(self, point: Point, weight: Tensor, strength: float) -> float:
        return point.loss + 0.5 * strength * float(weight.square().sum(dtype=torch.float64))

    def _gradient(self, point: Point, strength: float) -> Tensor:
        return self._flat(point.weight + strength * self.weight, point.bias)

    def _penalised(self, flat: Tensor) -> Tensor:
        out = flat.clone()
        out[self.weight.numel() :] = 0
        return out

    def _move(self, step: Tensor) -> None:
        weight, bias = self._split(step)
        self.weight, self.bias = self.weight + weight, self.bias + bias

    def _flat(self, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.cat([weight.flatten(), bias])

    def _split(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        size = self.weight.numel()
        return flat[:size].view_as(self.weight), flat[size:]
