"""Curves over time: how an expression comes and goes, blinks, and the slow circle of a head."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def ease(share: npt.ArrayLike) -> Floats:
    """From 0 to 1 with a level start and end (a raised cosine); shares outside are cut."""
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * np.clip(np.asarray(share, float), 0, 1)))


@dataclass(frozen=True)
class Bump:
    """Nothing, a rise, a stay and a fall; times in seconds.

    Attributes:
        onset: The rise begins.
        top: The rise ends.
        leave: The fall begins.
        offset: The fall ends.
    """

    onset: float
    top: float
    leave: float
    offset: float

    @property
    def apex(self) -> float:
        """The middle of the stay."""
        return (self.top + self.leave) / 2

    def level(self, time: npt.ArrayLike) -> Floats:
        """From 0 to 1 at these times."""
        at = np.asarray(time, float)
        return ease((at - self.onset) / (self.top - self.onset)) * ease((self.offset - at) / (self.offset - self.leave))


@dataclass(frozen=True)
class Circle:
    """A head that goes round slowly: yaw and pitch on an ellipse.

    The phase is drawn evenly, so that where the head is, at any time, says nothing about which way round it goes.

    Attributes:
        yaw: Half-axis in degrees; `pitch` likewise.
        period: Seconds a round.
        phase: Angle at time 0, in radians.
        turn: +1 as the clock goes in the image, -1 against it; 0 for a head that keeps still.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    period: float = 1.0
    phase: float = 0.0
    turn: int = 0

    def at(self, time: float) -> tuple[float, float]:
        """Yaw to the image's right and pitch downwards, in degrees."""
        angle = self.phase + self.turn * 2 * np.pi * time / self.period
        return float(self.yaw * np.cos(angle)), float(self.pitch * np.sin(angle))
