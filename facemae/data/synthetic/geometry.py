"""The face as curves: what identity and action units do to shape, before pose and paint.

Every curve is an array [n, 3] of points (x, y, z) in face units: x to the image's right, y down, z towards the viewer.
`side` is +1 for the subject's left (the image's right) and -1 for the subject's right.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from facemae.data.synthetic.action_units import Action
from facemae.data.synthetic.identity import Identity
from facemae.data.synthetic.scene import Pose

Points = npt.NDArray[np.float64]

SIDES = (-1, 1)
_ALONG = np.linspace(-1, 1, 17)
_UP = np.linspace(0, 1, 9)


@dataclass(frozen=True)
class Mouth:
    """Curves from the image-left corner to the image-right one, outermost first, and the height of the gap."""

    upper_outer: Points
    upper_inner: Points
    lower_inner: Points
    lower_outer: Points
    gap: float


@dataclass(frozen=True)
class Eye:
    """Lid curves from the inner to the outer corner, the iris's centre and the crease above."""

    upper: Points
    lower: Points
    crease: Points
    iris: Points


def depth(identity: Identity, x: npt.ArrayLike, y: npt.ArrayLike) -> Points:
    """How far the face's surface stands out at (x, y): an ellipsoid."""
    inside = 1 - (np.asarray(x) / (1.12 * identity.width)) ** 2 - (np.asarray(y) / 1.25) ** 2
    return np.asarray(0.66 * np.sqrt(np.maximum(inside, 0.0)))


def on_surface(identity: Identity, x: npt.ArrayLike, y: npt.ArrayLike, lift: float = 0.0) -> Points:
    """Points [n, 3] on the face's surface, raised by `lift`."""
    points = np.empty((max(np.size(x), np.size(y)), 3))
    points[:, 0], points[:, 1] = x, y
    points[:, 2] = depth(identity, points[:, 0], points[:, 1]) + lift
    return points


def smooth(points: Points, steps: int = 5, closed: bool = True) -> Points:
    """A Catmull-Rom curve through the points [n, d], `steps` points a span."""
    if closed:
        ring = np.concatenate([points[-1:], points, points[:2]])
    else:
        ring = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = (np.arange(steps) / steps)[None, :, None]
    p0, p1, p2, p3 = (ring[i : len(ring) - 3 + i, None, :] for i in range(4))
    curve = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * (p1 - p2) + p3 - p0) * t**3)
    curve = curve.reshape(-1, points.shape[1])
    return curve if closed else np.concatenate([curve, points[-1:]])


def outline(identity: Identity, action: Action) -> Points:
    """The head's closed contour from the skull's top, clockwise in the image."""
    drop = 0.17 * action.mean(26)
    chin = identity.chin + drop - 0.035 * action.mean(17)
    halves = []
    for side in (1, -1):
        cheek = 0.02 * (action.on(12, side) + action.on(6, side))
        width = identity.width
        half = np.array(
            [
                (0.56 * width * identity.forehead, -0.9),
                (width * identity.forehead, -0.48),
                (width + cheek * 0.5, -0.02),
                (width * (0.55 + 0.45 * identity.jaw) + cheek, 0.33),
                (width * identity.jaw * 0.9 + 0.02 * action.on(20, side), 0.6 + 0.6 * drop),
                (width * identity.chin_width, chin - 0.07),
            ]
        )
        halves.append(half * (side, 1))
    right, left = halves
    flat = smooth(np.concatenate([[(0.0, -1.0)], right, [(0.0, chin)], left[::-1]]))
    forward = 0.34 * np.clip((flat[:, 1] - 0.15) / 0.85, 0, 1)
    return np.column_stack([flat, forward])


def eye(identity: Identity, action: Action, side: int, gaze: tuple[float, float]) -> Eye:
    """One eye: AU5 raises the upper lid, AU6 and AU7 narrow it from below, AU43 closes it."""
    a5, a6, a7, a43 = (action.on(unit, side) for unit in (5, 6, 7, 43))
    along = _ALONG
    x = side * (identity.eye_spacing + along * identity.eye_width)
    base = identity.eye_y - identity.eye_tilt * along
    profile = 1 - np.abs(along) ** 2.3
    height = identity.eye_height * (1 + 0.8 * a5 - 0.42 * a7 - 0.15 * a6)
    below = 0.6 * identity.eye_height * (1 - 0.75 * a7 - 0.6 * a6)
    lid = height + (-below - height) * a43
    upper = base - lid * profile * (1 + 0.12 * along)
    lower = base + below * profile
    fold = base - (max(lid, 0.5 * height) + 0.035 - 0.015 * a5) * (1 - 0.8 * np.abs(along) ** 3)
    centre = (
        side * identity.eye_spacing + 0.35 * gaze[0] * identity.eye_width,
        identity.eye_y + 0.02 * gaze[1] - 0.12 * identity.eye_height,
    )
    return Eye(
        on_surface(identity, x, upper),
        on_surface(identity, x, lower),
        on_surface(identity, x, fold),
        on_surface(identity, *centre),
    )


def brow(identity: Identity, action: Action, side: int) -> Points:
    """One brow as a closed contour: AU1 raises its inner end, AU2 its outer end, AU4 lowers it and pulls it inwards."""
    a1, a2, a4, a5, a9 = (action.on(unit, side) for unit in (1, 2, 4, 5, 9))
    inner = identity.eye_spacing - 1.05 * identity.eye_width - 0.055 * a4
    outer = identity.eye_spacing + 1.25 * identity.eye_width
    x = side * (inner + (outer - inner) * _UP)
    y = identity.eye_y - identity.brow_lift + identity.brow_slope * _UP - identity.brow_arch * np.sin(np.pi * _UP)
    y = y - 0.15 * a1 * (1 - _UP) ** 1.4 - 0.14 * a2 * _UP**1.3 - 0.02 * a5
    y = y + a4 * (0.13 - 0.08 * _UP) + 0.04 * a9 * (1 - _UP)
    # Never onto the eye: a strong frown stops above the lid.
    y = np.minimum(y, identity.eye_y - 0.55 * identity.eye_height - identity.brow_thickness)
    thick = identity.brow_thickness * (0.72 + 0.9 * _UP * (1 - _UP)) * (1 - 0.75 * _UP**3)
    edge = np.concatenate([y - thick, (y + thick)[::-1]])
    return on_surface(identity, np.concatenate([x, x[::-1]]), edge, lift=0.03)


def corner(identity: Identity, action: Action, side: int) -> tuple[float, float]:
    """One mouth corner: AU12 pulls it up and out, AU15 down, AU14 and AU20 sideways, AU18, AU23 and AU24 in."""
    a12, a14, a15, a20, a23, a24 = (action.on(unit, side) for unit in (12, 14, 15, 20, 23, 24))
    x = identity.mouth_width + 0.1 * a12 + 0.04 * a14 + 0.02 * a15 + 0.11 * a20 - 0.07 * a23 - 0.03 * a24
    x -= 0.05 * action.mean(26) + 0.12 * action.on(18, side)
    y = identity.mouth_y - 0.13 * a12 - 0.035 * a14 + 0.115 * a15 + 0.035 * a20 + 0.07 * action.mean(26)
    return side * x, y


def mouth(identity: Identity, action: Action) -> Mouth:
    """The lips: AU10 lifts the upper one, AU17 pushes the lower one up, AU23 and AU24 thin both, AU25 and AU26 part.

    AU18, the pucker of rounded vowels, is not among `ACTION_UNITS`: only speech has it.
    """
    a9, a10, a12, a17, a20, a23, a24, a25, a26 = (action.mean(unit) for unit in (9, 10, 12, 17, 20, 23, 24, 25, 26))
    (left_x, left_y), (right_x, right_y) = (corner(identity, action, side) for side in SIDES)
    gap = (0.075 * a25 + 0.27 * a26 + 0.055 * a10) * (1 - 0.9 * a24)
    thin = 1 - 0.5 * a23 - 0.72 * a24 - 0.3 * a20 - 0.25 * a12 - 0.15 * a17 + 0.45 * action.mean(18)
    upper = identity.upper_lip * max(thin - 0.3 * a10, 0.14)
    lower = identity.lower_lip * max(thin + 0.25 * a17, 0.16)
    middle = identity.mouth_y - 0.075 * a17 - 0.03 * a10 - 0.02 * a9
    u = _ALONG
    x = np.where(u < 0, -u * left_x, u * right_x)
    bend = np.abs(u) ** 1.9
    ends = np.where(u < 0, left_y, right_y)
    line = middle + (ends - middle) * bend
    profile = 1 - np.abs(u) ** 2.2
    upper_inner = line - 0.22 * gap * profile
    lower_inner = line + 0.78 * gap * profile
    bow = identity.cupid * (np.exp(-((u / 0.12) ** 2)) - 0.5 * np.exp(-(((np.abs(u) - 0.25) / 0.14) ** 2)))
    upper_outer = upper_inner - upper * (1 - np.abs(u) ** 1.5) + bow * (1 - a10)
    lower_outer = lower_inner + lower * profile

    def lifted(y: Points) -> Points:
        return on_surface(identity, x, y, lift=0.05)

    return Mouth(lifted(upper_outer), lifted(upper_inner), lifted(lower_inner), lifted(lower_outer), float(gap))


def nose_base(identity: Identity, action: Action) -> float:
    """Height of the nose's base; AU9 and AU10 lift it."""
    return identity.eye_y + identity.nose_length - 0.045 * action.mean(9) - 0.015 * action.mean(10)


def nose(identity: Identity, action: Action) -> dict[str, Points]:
    """Contour, wings, nostrils and the lines of the bridge."""
    base = nose_base(identity, action)
    wing = identity.nose_width * (1 + 0.16 * action.mean(9) + 0.05 * action.mean(10))
    bridge, top = identity.nose_bridge, identity.eye_y - 0.06
    half = [(bridge, top), (bridge * 1.05, (top + base) / 2), (wing * 0.92, base - 0.11), (wing, base - 0.035)]
    contour = [*half, (0.4 * wing, base + 0.012), (0.0, base + 0.035), (-0.4 * wing, base + 0.012)]
    contour += [(-x, y) for x, y in reversed(half)]
    flat = np.array(contour)
    # The nose stands out most at its tip.
    out = 0.2 * np.clip((flat[:, 1] - top) / (base - top), 0, 1) * (1 - 0.35 * (flat[:, 0] / wing) ** 2)
    surface = on_surface(identity, flat[:, 0], flat[:, 1])
    surface[:, 2] += out
    curves = {"contour": surface, "tip": on_surface(identity, 0.0, base - 0.06, lift=0.24)}
    for side in SIDES:
        arc = np.array(
            [(wing * 0.8, base - 0.12), (wing * 1.02, base - 0.06), (wing * 0.95, base), (wing * 0.7, base + 0.005)]
        )
        curves[f"wing{side}"] = on_surface(identity, side * arc[:, 0], arc[:, 1], lift=0.09)
        curves[f"nostril{side}"] = on_surface(identity, side * wing * 0.46, base + 0.002, lift=0.15)
        line = np.array([(bridge * 1.2, top + 0.04), (bridge, (top + base) / 2), (wing * 0.6, base - 0.12)])
        curves[f"bridge{side}"] = on_surface(identity, side * line[:, 0], line[:, 1], lift=0.05)
    return curves


class Projection:
    """Takes points in face units to pixels of a square picture.

    Args:
        pose: The head's pose.
        size: Side of the picture in pixels.
    """

    def __init__(self, pose: Pose, size: int) -> None:
        yaw, pitch, roll = (math.radians(angle) for angle in (pose.yaw, pose.pitch, pose.roll))
        self._sin_yaw, self._sin_pitch = math.sin(yaw), math.sin(pitch)
        # Rows: to the right, down, ahead. First the yaw about the vertical axis, then the pitch.
        turn = np.array([[math.cos(yaw), 0, self._sin_yaw], [0, 1, 0], [-self._sin_yaw, 0, math.cos(yaw)]])
        nod = np.array([[1, 0, 0], [0, math.cos(pitch), self._sin_pitch], [0, 0, 1]])
        self._turn = (nod @ turn).T
        tilt = np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
        self._tilt = tilt.T * (pose.scale * size)
        self._centre = np.array([0.5 + pose.x, 0.5 + pose.y]) * size

    def __call__(self, points: Points, silhouette: bool = False) -> Points:
        """Points [n, 3] as pixels [n, 2].

        Args:
            points: The points.
            silhouette: They are the head's contour, whose width does not shrink when the head turns.
        """
        if silhouette:
            flat = points[:, :2] + points[:, 2:] * (self._sin_yaw, self._sin_pitch)
        else:
            turned = points @ self._turn
            flat = turned[:, :2] * (1 + 0.06 * turned[:, 2:])
        return np.asarray(flat @ self._tilt + self._centre)
