"""A drawing surface: anti-aliased colour, a region map of the same shapes, furrows and soft shade.

Colour is drawn at `OVERSAMPLE` times the final size and averaged down. Furrows (thin) and shade (soft) are collected on
maps of their own and multiplied in where they are asked for, so that all of them cost one multiplication.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from facemae.data.synthetic.geometry import Points
from facemae.data.synthetic.identity import Colour

OVERSAMPLE = 2
_SHIFT = 4
_NEUTRAL = 128

Pixels = npt.NDArray[np.uint8]


def fixed(points: Points) -> Any:
    """Pixel positions as the fixed-point integers that cv2 takes for sub-pixel drawing."""
    return (points * (1 << _SHIFT) + 0.5).astype(np.int32)


class Canvas:
    """One picture in the making.

    Args:
        background: uint8 [S, S, 3] at the oversampled size; drawn over in place.

    Attributes:
        colour: The picture, uint8 [S, S, 3].
        regions: The region map at the same size, uint8 [S, S].
    """

    def __init__(self, background: Pixels) -> None:
        self.colour = background
        self.size: int = background.shape[0]
        self.regions: Pixels = np.zeros((self.size, self.size), np.uint8)
        self._furrows: Pixels = np.full((self.size, self.size), _NEUTRAL, np.uint8)
        half = self.size // 2
        self._shade = np.ones((half, half), np.float32)
        self._axis = (np.arange(half, dtype=np.float32) + 0.5) * 2

    def fill(self, points: Points, colour: Colour, region: int | None = None) -> None:
        """Fill a polygon [n, 2]; it also covers the furrows drawn so far."""
        corners = fixed(points)
        cv2.fillPoly(self.colour, [corners], colour, cv2.LINE_AA, _SHIFT)
        cv2.fillPoly(self._furrows, [corners], _NEUTRAL, cv2.LINE_8, _SHIFT)
        if region is not None:
            cv2.fillPoly(self.regions, [corners], region, cv2.LINE_8, _SHIFT)

    def glaze(self, points: Points, colour: Colour, strength: float, region: int | None = None) -> None:
        """Fill a polygon so that what lies below shows through."""
        corners = fixed(points)
        mask: Pixels = np.zeros((self.size, self.size), np.uint8)
        cv2.fillPoly(mask, [corners], round(255 * strength), cv2.LINE_AA, _SHIFT)
        self.blend(mask, colour)
        if region is not None:
            cv2.fillPoly(self.regions, [corners], region, cv2.LINE_8, _SHIFT)

    def blend(self, mask: Pixels, colour: Colour) -> None:
        """Move the picture towards one colour by a mask [S, S], 255 meaning wholly."""
        x, y, width, height = cv2.boundingRect(mask)
        part = (slice(y, y + height), slice(x, x + width))
        weight = (mask[part].astype(np.float32) / 255)[..., None]
        under = self.colour[part]
        self.colour[part] = under + (np.asarray(colour, np.float32) - under) * weight

    def keep_inside(self, mask: Pixels, before: Pixels) -> None:
        """Take back what was drawn since the picture was `before`, except inside a mask [S, S]."""
        x, y, width, height = cv2.boundingRect(mask)
        part = (slice(y, y + height), slice(x, x + width))
        weight = (mask[part].astype(np.float32) / 255)[..., None]
        drawn, under = self.colour[part], before[part]
        kept = (under + (drawn.astype(np.float32) - under) * weight).astype(np.uint8)
        self.colour = before
        self.colour[part] = kept

    def line(self, points: Points, colour: Colour, width: float, region: int | None = None) -> None:
        """Draw an open curve [n, 2], `width` pixels of the oversampled picture thick."""
        thick = max(1, round(width))
        corners = fixed(points)
        cv2.polylines(self.colour, [corners], False, colour, thick, cv2.LINE_AA, _SHIFT)
        if region is not None:
            cv2.polylines(self.regions, [corners], False, region, thick, cv2.LINE_8, _SHIFT)

    def disc(self, centre: Points, radius: float, colour: Colour) -> None:
        """Fill a circle."""
        x, y = fixed(centre).tolist()
        cv2.circle(self.colour, (x, y), round(radius * (1 << _SHIFT)), colour, -1, cv2.LINE_AA, _SHIFT)

    def furrow(self, points: Points, strength: float, width: float = 1.0) -> None:
        """Darken (or, with a negative strength, lighten) along a curve; 1 is the deepest."""
        if abs(strength) < 0.03:
            return
        tone = int(np.clip(_NEUTRAL * (1 - 0.5 * strength), 0, 255))
        cv2.polylines(self._furrows, [fixed(points)], False, tone, max(1, round(width)), cv2.LINE_AA, _SHIFT)

    def soft(self, centre: Points, spread: tuple[float, float], strength: float) -> None:
        """Lighten (strength above 0) or darken a soft blob; `spread` are standard deviations in pixels."""
        if abs(strength) < 0.01:
            return
        across = np.exp(-0.5 * ((self._axis - centre[0]) / spread[0]) ** 2)
        down = np.exp(-0.5 * ((self._axis - centre[1]) / spread[1]) ** 2)
        self._shade += np.outer(down * strength, across)

    def settle(self, lit: npt.NDArray[np.float32] | None = None, tint: Colour = (1.0, 1.0, 1.0)) -> None:
        """Multiply furrows, shade, and light into everything that is not background, and clear them.

        Args:
            lit: Light as float [S/2, S/2]; none where None.
            tint: Colour of the light.
        """
        shade = self._shade if lit is None else self._shade * lit
        field = cv2.resize(shade, (self.size, self.size), interpolation=cv2.INTER_LINEAR)
        soft = cv2.GaussianBlur(self._furrows, (0, 0), self.size / 190)
        x, y, width, height = cv2.boundingRect(self.regions)
        person = (slice(y, y + height), slice(x, x + width))
        field = cv2.multiply(field[person], soft[person], scale=1 / _NEUTRAL, dtype=cv2.CV_32F)
        behind = self.regions[person] == 0
        planes = []
        for part in tint:
            plane = field * np.float32(part)
            plane[behind] = 1
            planes.append(plane)
        self.colour[person] = cv2.multiply(self.colour[person], cv2.merge(planes), dtype=cv2.CV_8U)
        self._furrows[:] = _NEUTRAL
        self._shade[:] = 1

    def finished(self) -> tuple[Pixels, Pixels]:
        """Colour [s, s, 3] averaged down to the final size, and the region map [s, s] at its pixels' centres."""
        side = self.size // OVERSAMPLE
        colour = cv2.resize(self.colour, (side, side), interpolation=cv2.INTER_AREA)
        return np.asarray(colour, np.uint8), np.ascontiguousarray(self.regions[::OVERSAMPLE, ::OVERSAMPLE])
