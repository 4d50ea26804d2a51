"""Eyes, brows, nose and mouth, and the folds that action units make in the skin."""

import cv2
import numpy as np

from facemae.data.regions import Region
from facemae.data.synthetic.canvas import Pixels, fixed
from facemae.data.synthetic.geometry import SIDES, Points, brow, corner, eye, mouth, nose, nose_base
from facemae.data.synthetic.pen import Pen, mix, scaled

_DARK = (26.0, 18.0, 18.0)


def draw_eye(pen: Pen, side: int) -> None:
    """One eye with lids, iris, lashes and crease."""
    who, action, canvas = pen.params.identity, pen.params.action, pen.canvas
    shape = eye(who, action, side, pen.params.scene.pose.gaze)
    upper, lower, crease, iris = (pen.place(part) for part in (shape.upper, shape.lower, shape.crease, shape.iris))
    contour = np.concatenate([upper, lower[::-1]])
    region = Region.LEFT_EYE if side > 0 else Region.RIGHT_EYE
    opening = 1 - action.on(43, side)
    if opening > 0.12:
        mask: Pixels = np.zeros((canvas.size, canvas.size), np.uint8)
        cv2.fillPoly(mask, [fixed(contour)], 255, cv2.LINE_AA, 4)
        ball = canvas.colour.copy()
        canvas.fill(contour, (236.0, 232.0, 228.0), region)
        radius = who.iris_size * pen.unit
        canvas.disc(iris[0], radius, scaled(who.iris, 0.55))
        canvas.disc(iris[0], radius * 0.82, who.iris)
        canvas.disc(iris[0], radius * 0.45, (12.0, 10.0, 10.0))
        canvas.disc(iris[0] + radius * np.array([-0.35, -0.4]), radius * 0.24, (250.0, 250.0, 250.0))
        # The iris may not run over the lids: outside the eye's contour the skin comes back.
        canvas.keep_inside(mask, ball)
        canvas.furrow(upper + np.array([0, 0.02 * pen.unit]), 0.35, 0.04 * pen.unit)
    else:
        canvas.line(upper, scaled(who.skin, 0.5), 0.02 * pen.unit, region)
    canvas.line(upper, mix(_DARK, who.brow, 0.25), 0.032 * pen.unit, region)
    canvas.line(lower, scaled(who.skin, 0.66), 0.014 * pen.unit)
    canvas.furrow(crease, 0.32 + 0.2 * who.age, 0.018 * pen.unit)


def draw_brow(pen: Pen, side: int) -> None:
    """One brow."""
    who = pen.params.identity
    region = Region.LEFT_BROW if side > 0 else Region.RIGHT_BROW
    pen.canvas.glaze(pen.place(brow(who, pen.params.action, side)), who.brow, 0.88, region)


def draw_nose(pen: Pen) -> None:
    """The nose: shape by light and shade, wings and nostrils by line."""
    who, canvas = pen.params.identity, pen.canvas
    parts = {name: pen.place(points) for name, points in nose(who, pen.params.action).items()}
    canvas.fill(parts["contour"], scaled(who.skin, 1.02), Region.NOSE)
    lamp = np.sign(pen.params.scene.light.azimuth) or 1.0
    for side in SIDES:
        canvas.furrow(parts[f"wing{side}"], 0.5, 0.026 * pen.unit)
        canvas.furrow(parts[f"bridge{side}"], 0.2 if side == lamp else 0.34, 0.04 * pen.unit)
        canvas.disc(parts[f"nostril{side}"][0], 0.03 * pen.unit, scaled(who.skin, 0.34))
    contour = parts["contour"]
    canvas.furrow(contour[4:7], 0.4, 0.024 * pen.unit)
    canvas.soft(parts["tip"][0], (0.07 * pen.unit, 0.07 * pen.unit), 0.2)
    base = nose_base(who, pen.params.action)
    pen.shade(0.0, base + 0.08, (who.nose_width, 0.045), -0.16)


def draw_mouth(pen: Pen) -> None:
    """Lips, and teeth and tongue where the mouth is open."""
    who, action, canvas = pen.params.identity, pen.params.action, pen.canvas
    shape = mouth(who, action)
    upper_outer, upper_inner, lower_inner, lower_outer = (
        pen.place(part) for part in (shape.upper_outer, shape.upper_inner, shape.lower_inner, shape.lower_outer)
    )
    canvas.fill(np.concatenate([upper_outer, upper_inner[::-1]]), scaled(who.lips, 0.86), Region.UPPER_LIP)
    canvas.fill(np.concatenate([lower_inner, lower_outer[::-1]]), who.lips, Region.LOWER_LIP)
    if shape.gap > 0.012:
        _draw_inside(pen, upper_inner, lower_inner, shape.gap)
    canvas.line(
        (upper_inner + lower_inner) / 2 if shape.gap <= 0.012 else upper_inner, (70.0, 26.0, 28.0), 0.016 * pen.unit
    )
    centre = lower_outer[8] * 0.6 + lower_inner[8] * 0.4
    canvas.soft(centre, (0.1 * pen.unit, 0.03 * pen.unit), 0.14)
    pen.crease([(-0.16, who.mouth_y + 0.13), (0.0, who.mouth_y + 0.16), (0.16, who.mouth_y + 0.13)], 0.12)


def _draw_inside(pen: Pen, upper: Points, lower: Points, gap: float) -> None:
    canvas = pen.canvas
    canvas.fill(np.concatenate([upper, lower[::-1]]), (58.0, 18.0, 22.0), Region.MOUTH)
    share = min(1.0, 0.055 / gap)
    teeth = upper + (lower - upper) * share
    inner = slice(2, -2)
    canvas.fill(np.concatenate([upper[inner], teeth[inner][::-1]]), (238.0, 232.0, 222.0))
    if gap > 0.13:
        tongue = lower + (upper - lower) * 0.38
        inner = slice(4, -4)
        canvas.fill(np.concatenate([tongue[inner], lower[inner][::-1]]), (176.0, 78.0, 82.0))


def draw_folds(pen: Pen) -> None:
    """Furrows, bulges and dimples of the action units, and those of age."""
    _forehead_folds(pen)
    for side in SIDES:
        _eye_folds(pen, side)
        _cheek_folds(pen, side)
    _chin_folds(pen)


def _forehead_folds(pen: Pen) -> None:
    who, action = pen.params.identity, pen.params.action
    a4, a9 = action.mean(4), action.mean(9)
    brow_y = who.eye_y - who.brow_lift
    for step in range(3):
        y = brow_y - 0.13 - 0.075 * step - 0.05 * action.mean(1)
        pen.crease([(-0.18, y + 0.01), (0.0, y), (0.18, y + 0.01)], 0.5 * action.mean(1) + 0.16 * who.age)
        for side in SIDES:
            outer = [(side * 0.2, y + 0.01), (side * 0.34, y + 0.015), (side * 0.46, y + 0.05)]
            pen.crease(outer, 0.5 * action.on(2, side) + 0.12 * who.age)
    for side in SIDES:
        pen.crease([(side * 0.055, brow_y - 0.1), (side * 0.045, brow_y + 0.09)], 0.7 * a4 + 0.1 * who.age, 0.026)
    pen.shade(0.0, brow_y + 0.03, (0.09, 0.07), -0.14 * a4)
    for step in range(3):
        y = who.eye_y - 0.08 + 0.055 * step
        pen.crease([(-0.075, y + 0.02), (0.0, y), (0.075, y + 0.02)], 0.65 * a9)
    for side in SIDES:
        bunny = [(side * 0.06, who.eye_y + 0.08), (side * 0.14, who.eye_y + 0.14)]
        pen.crease(bunny, 0.6 * action.on(9, side))


def _eye_folds(pen: Pen, side: int) -> None:
    who, action = pen.params.identity, pen.params.action
    a6, a7 = action.on(6, side), action.on(7, side)
    edge, y = who.eye_spacing + who.eye_width, who.eye_y
    for step in (-1, 0, 1):
        ray = [(side * (edge + 0.03), y + 0.03 * step), (side * (edge + 0.15), y + 0.1 * step - 0.01)]
        pen.crease(ray, 0.6 * a6 + 0.18 * who.age)
    below = y + 0.75 * who.eye_height + 0.04
    inner, outer = who.eye_spacing - 0.8 * who.eye_width, who.eye_spacing + 0.9 * who.eye_width
    bag = [(side * inner, below), (side * who.eye_spacing, below + 0.035), (side * outer, below - 0.02)]
    pen.crease(bag, 0.12 + 0.4 * a6 + 0.35 * a7 + 0.22 * who.age)
    pen.shade(side * who.eye_spacing, y - 0.1, (0.15, 0.07), -0.13)
    pen.shade(side * (who.eye_spacing + 0.06), y + 0.27 - 0.07 * a6, (0.13, 0.08), 0.08 + 0.2 * a6)


def _cheek_folds(pen: Pen, side: int) -> None:
    who, action = pen.params.identity, pen.params.action
    a6, a9, a10, a12, a14, a15, a20 = (action.on(unit, side) for unit in (6, 9, 10, 12, 14, 15, 20))
    x, y = corner(who, action, side)
    base = nose_base(who, action)
    wing = side * (who.nose_width + 0.03)
    middle = (wing + x) / 2 + side * (0.07 + 0.05 * a12)
    fold = [(wing, base - 0.06), (middle, (base + y) / 2 - 0.02), (x + side * 0.07, y + 0.03)]
    depth = 0.08 + 0.28 * who.age + 0.55 * a12 + 0.5 * a10 + 0.4 * a9 + 0.15 * a6
    pen.crease(fold, min(depth, 0.85), 0.03)
    pen.shade(x + side * 0.12, y - 0.16, (0.12, 0.1), 0.13 * a12)
    dimple = [(x + side * 0.045, y - 0.06), (x + side * 0.07, y), (x + side * 0.045, y + 0.06)]
    pen.crease(dimple, 0.9 * a14 + 0.3 * a12, 0.03)
    pen.crease([(x, y), (x + side * 0.035, y + 0.12)], 0.65 * a15, 0.03)
    for step in (0.0, 0.06):
        pen.crease([(x + side * (0.05 + step), y - 0.05), (x + side * (0.06 + step), y + 0.07)], 0.5 * a20)


def _chin_folds(pen: Pen) -> None:
    who, action = pen.params.identity, pen.params.action
    a17, a23, a24, a26 = (action.mean(unit) for unit in (17, 23, 24, 26))
    y = who.mouth_y + who.lower_lip + 0.08 + 0.17 * a26 - 0.04 * a17
    pen.crease([(-0.15, y + 0.05), (0.0, y), (0.15, y + 0.05)], 0.75 * a17, 0.03)
    for step in range(5):
        x = (step - 2) * 0.055
        pen.crease([(x, y + 0.09 + 0.03 * (step % 2)), (x + 0.02, y + 0.12 + 0.03 * (step % 2))], 0.6 * a17)
    pen.shade(0.0, y + 0.1, (0.12, 0.06), 0.14 * a17)
    for step in range(-2, 3):
        x = step * 0.42 * who.mouth_width
        pen.crease([(x, who.mouth_y - 0.12), (x * 0.94, who.mouth_y - 0.04)], 0.45 * a23, 0.018)
        pen.crease([(x * 0.94, who.mouth_y + 0.05), (x, who.mouth_y + 0.12)], 0.45 * a23, 0.018)
    pen.shade(0.0, who.mouth_y - 0.08, (0.2, 0.035), 0.16 * a24)
    pen.shade(0.0, who.mouth_y + 0.1, (0.2, 0.035), 0.16 * a24)
    for side in SIDES:
        x, height = corner(who, action, side)
        pen.crease([(x, height - 0.05), (x + side * 0.02, height + 0.05)], 0.6 * a24)
