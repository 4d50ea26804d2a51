"""Hair and beard."""

import numpy as np

from facemae.data.regions import Region
from facemae.data.synthetic.canvas import Canvas
from facemae.data.synthetic.geometry import Points, corner, mouth, on_surface, smooth
from facemae.data.synthetic.identity import Colour, Identity
from facemae.data.synthetic.pen import Pen, mix, scaled


def _crown(pen: Pen, volume: float, taper: float = 0.75) -> Points:
    """The hair's outer edge from the image-left side over the top to the right, in face units [n, 3].

    `taper` is the share of the volume that is gone at the ears.
    """
    who = pen.params.identity
    angle = np.linspace(np.pi, 2 * np.pi, 25)
    x = np.cos(angle) * (who.width + volume * (1 - taper * np.abs(np.cos(angle)) ** 3))
    y = np.sin(angle) * (1.0 + volume)
    if who.hair_style == "curly":
        bumps = 1 + 0.035 * np.sin(angle * 17) + 0.025 * np.sin(angle * 29 + 1)
        x, y = x * bumps, y * bumps
    return np.column_stack([x, y, np.zeros_like(x)])


def draw_back_hair(pen: Pen) -> None:
    """The hair behind the head: long, bob, curly, bun."""
    who = pen.params.identity
    if who.hair_style not in ("long", "bob", "curly", "bun"):
        return
    dark = scaled(who.hair, 0.72)
    if who.hair_style == "bun":
        turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        ball = np.column_stack([0.3 * np.cos(turn), -1.2 + 0.26 * np.sin(turn), np.full(20, -0.3)])
        pen.canvas.fill(pen.place(ball), who.hair, Region.HAIR)
        return
    volume = who.hair_volume + (0.2 if who.hair_style == "curly" else 0.06)
    length = {"long": 1.6, "bob": 0.75, "curly": 0.45}[who.hair_style]
    crown = _crown(pen, volume, taper=0.0)
    wide = who.width + volume
    side = np.array(
        [(wide * 1.02, 0.3), (wide * (1.12 if who.hair_style == "long" else 1.0), length), (wide * 0.5, length + 0.05)]
    )
    right = np.column_stack([side, np.full(3, -0.2)])
    left = right[::-1] * (-1, 1, 1)
    pen.canvas.fill(pen.place(np.concatenate([crown, right, left]), silhouette=True), dark, Region.HAIR)


def _hairline(who: Identity) -> Points:
    """The lower edge of the front hair from image right to left, flat points [n, 2]."""
    width, line, part = who.width, who.hairline, who.parting
    side = 0.95 * width
    if who.hair_style == "fringe":
        low = who.eye_y - who.brow_lift - 0.09
        inner = [(0.62 * side, low), (0.2 * side, low - 0.03), (-0.25 * side, low + 0.02), (-0.62 * side, low)]
        return np.array([(side, -0.12), *inner, (-side, -0.12)])
    if who.hair_style == "parted":
        inner = [(0.75 * side, line + 0.18), (part * 0.5 * side, line - 0.16), (-0.75 * side, line + 0.18)]
        return np.array([(side, -0.15), *inner, (-side, -0.15)])
    peak = 0.05 * part
    inner = [(0.82 * side, line + 0.14), (0.42 * side, line - 0.03), (0.0, line + peak), (-0.42 * side, line - 0.03)]
    return np.array([(side, -0.2), *inner, (-0.82 * side, line + 0.14), (-side, -0.2)])


def draw_front_hair(pen: Pen) -> None:
    """The hair on top of the head, down to the hairline."""
    who, canvas = pen.params.identity, pen.canvas
    if who.hair_style == "bald":
        return
    thin = who.hair_style == "buzz"
    volume = 0.015 if thin else who.hair_volume + (0.1 if who.hair_style == "curly" else 0.0)
    crown = _crown(pen, volume)
    crown = crown[crown[:, 1] < -0.02]
    flat = smooth(_hairline(who), closed=False)
    line = on_surface(who, flat[:, 0], flat[:, 1])
    # The hairline's ends lie on the contour, which keeps its width when the head turns.
    outer, inner = pen.place(crown, silhouette=True), pen.place(line)
    contour = np.concatenate([outer, inner])
    if thin:
        canvas.glaze(contour, who.hair, 0.62, Region.HAIR)
        return
    canvas.fill(contour, who.hair, Region.HAIR)
    _strands(pen, canvas, outer, inner, who.hair)


def _strands(pen: Pen, canvas: Canvas, outer: Points, inner: Points, colour: Colour) -> None:
    """Lighter and darker strands from the crown to the hairline."""
    for _ in range(14):
        start, end = pen.rng.uniform(0.05, 0.95, 2)
        top = outer[int(start * (len(outer) - 1))]
        low = inner[int((1 - (0.6 * start + 0.4 * end)) * (len(inner) - 1))]
        tone = scaled(mix(colour, (128.0, 110.0, 90.0), 0.12), float(pen.rng.uniform(0.65, 1.35)))
        bent = (top + low) / 2 + pen.rng.normal(0, 0.02 * pen.unit, 2)
        canvas.line(np.stack([top + (low - top) * 0.12, bent, low + (top - low) * 0.08]), tone, 0.016 * pen.unit)


def draw_beard(pen: Pen) -> None:
    """Stubble, moustache, goatee or full beard; drawn before the mouth."""
    who, action = pen.params.identity, pen.params.action
    if who.beard == "none":
        return
    strength = 0.3 if who.beard == "stubble" else 0.85
    region = None if who.beard == "stubble" else Region.BEARD
    colour = scaled(who.hair, 0.85)
    shape = mouth(who, action)
    if who.beard != "goatee":
        lip = shape.upper_outer[2:-2]
        above = lip - np.array([0.0, 0.085, 0.0])
        pen.canvas.glaze(pen.place(np.concatenate([lip, above[::-1]])), colour, strength, region)
    if who.beard in ("stubble", "full"):
        contour = pen.outline
        jaw = contour[(contour[:, 1] > 0.12)]
        left, right = corner(who, action, -1), corner(who, action, 1)
        inner = np.array([(-0.86 * who.width, 0.12), (-0.6 * who.width, 0.42), (left[0] - 0.06, left[1] - 0.02)])
        lower = shape.lower_outer[2:-2, :2] + np.array([0.0, 0.03])
        other = np.array([(right[0] + 0.06, right[1] - 0.02), (0.6 * who.width, 0.42), (0.86 * who.width, 0.12)])
        flat = np.concatenate([inner, lower, other])
        edge = pen.place(on_surface(who, flat[:, 0], flat[:, 1]))
        pen.canvas.glaze(np.concatenate([pen.place(jaw, silhouette=True), edge]), colour, strength, region)
    if who.beard == "goatee":
        chin = float(pen.outline[:, 1].max())
        low = float(shape.lower_outer[8, 1]) + 0.05
        flat = np.array(
            [(-0.14, low + 0.03), (0.14, low + 0.03), (0.17, chin - 0.08), (0.0, chin), (-0.17, chin - 0.08)]
        )
        pen.canvas.glaze(pen.place(on_surface(who, *smooth(flat).T)), colour, strength, region)
