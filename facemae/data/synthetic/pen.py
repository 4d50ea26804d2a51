"""A canvas together with the face being drawn on it: places face units on the picture."""

from dataclasses import dataclass, field

import numpy as np

from facemae.data.synthetic.canvas import Canvas
from facemae.data.synthetic.geometry import Points, Projection, on_surface, outline
from facemae.data.synthetic.identity import Colour
from facemae.data.synthetic.params import FaceParams


def mix(colour: Colour, other: Colour, share: float) -> Colour:
    """A colour `share` of the way to another."""
    red, green, blue = (a + share * (b - a) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def scaled(colour: Colour, factor: float) -> Colour:
    """A colour made darker or lighter."""
    red, green, blue = (min(255.0, max(0.0, part * factor)) for part in colour)
    return red, green, blue


@dataclass
class Pen:
    """Draws one face on one canvas.

    Attributes:
        canvas: Where to.
        params: What.
        rng: For texture only; shapes are decided by `params`.
        outline: The head's contour in face units.
        projection: From face units to the canvas.
    """

    canvas: Canvas
    params: FaceParams
    rng: np.random.Generator
    outline: Points = field(init=False)
    projection: Projection = field(init=False)

    def __post_init__(self) -> None:
        self.outline = outline(self.params.identity, self.params.action)
        self.projection = Projection(self.params.scene.pose, self.canvas.size)

    @property
    def unit(self) -> float:
        """Pixels of the oversampled picture in one face unit."""
        return self.params.scene.pose.scale * self.canvas.size

    def place(self, points: Points, silhouette: bool = False) -> Points:
        """Points [n, 3] in face units as pixels [n, 2]."""
        return self.projection(points, silhouette)

    def spot(self, x: float, y: float, lift: float = 0.0) -> Points:
        """The pixel position [2] of one place on the face's surface."""
        return np.asarray(self.place(on_surface(self.params.identity, x, y, lift))[0])

    def shade(self, x: float, y: float, spread: tuple[float, float], strength: float) -> None:
        """Lighten or darken a soft blob on the face; `spread` in face units."""
        narrow = max(0.35, float(np.cos(np.deg2rad(self.params.scene.pose.yaw))))
        self.canvas.soft(self.spot(x, y), (spread[0] * self.unit * narrow, spread[1] * self.unit), strength)

    def crease(self, points: list[tuple[float, float]], strength: float, width: float = 0.022) -> None:
        """Darken along a curve through places on the face; see `Canvas.furrow`."""
        if abs(strength) < 0.03:
            return
        flat = np.asarray(points, float)
        self.canvas.furrow(
            self.place(on_surface(self.params.identity, flat[:, 0], flat[:, 1])), strength, width * self.unit
        )
