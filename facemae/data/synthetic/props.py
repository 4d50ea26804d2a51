"""What is not the person: background, glasses and things in front of the face."""

import cv2
import numpy as np
import numpy.typing as npt

from facemae.data.regions import Region
from facemae.data.synthetic.canvas import Pixels
from facemae.data.synthetic.geometry import SIDES, Points, on_surface
from facemae.data.synthetic.identity import SKIN_TONES, Colour
from facemae.data.synthetic.pen import Pen, scaled


def draw_background(kind: str, size: int, rng: np.random.Generator) -> Pixels:
    """A background, uint8 [size, size, 3]."""
    one, two = _muted(rng), _muted(rng)
    if kind == "flat":
        grid: npt.NDArray[np.floating] = np.broadcast_to(one, (4, 4, 3))
    elif kind == "gradient":
        turn = rng.uniform(0, 2 * np.pi)
        across, down = np.meshgrid(np.linspace(-1, 1, 8), np.linspace(-1, 1, 8))
        share = 0.5 + 0.36 * (across * np.cos(turn) + down * np.sin(turn))
        grid = one + (two - one) * share[..., None]
    elif kind == "clouds":
        side = int(rng.integers(4, 17))
        grid = one + (two - one) * rng.uniform(0, 1, (side, side, 1))
    elif kind == "stripes":
        side = int(rng.integers(5, 12))
        bars = (np.arange(side) % 2)[None, :, None] * np.ones((side, 1, 1))
        grid = one + (two - one) * (bars if rng.uniform() < 0.5 else bars.transpose(1, 0, 2))
    else:
        return _lights(size, one * 0.4, rng)
    smooth = cv2.INTER_NEAREST if kind == "stripes" else cv2.INTER_CUBIC
    wide = cv2.resize(np.ascontiguousarray(grid, np.float32), (size, size), interpolation=smooth)
    return np.asarray(np.clip(wide, 0, 255), np.uint8)


def _muted(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A colour of low saturation, as walls and curtains have."""
    grey = rng.uniform(45, 215)
    return np.asarray(np.clip(grey + rng.uniform(-55, 55, 3), 0, 255), np.float32)


def _lights(size: int, base: npt.NDArray[np.float32], rng: np.random.Generator) -> Pixels:
    """Out-of-focus lights before a dark ground."""
    picture = np.broadcast_to(base, (size, size, 3)).astype(np.uint8).copy()
    for _ in range(int(rng.integers(6, 16))):
        x, y = rng.integers(0, size, 2).tolist()
        colour = rng.uniform(90, 240, 3).tolist()
        cv2.circle(picture, (x, y), int(rng.integers(size // 28 + 1, size // 9 + 2)), colour, -1, cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), size / 64), np.uint8)


def draw_glasses(pen: Pen) -> None:
    """Clear glasses as the identity wears them."""
    who = pen.params.identity
    if who.glasses == "none":
        return
    colour = scaled(who.clothes, 0.45)
    width = 0.03 * pen.unit
    for side in SIDES:
        lens = pen.place(_lens(pen, side, who.glasses == "square"))
        pen.canvas.line(np.concatenate([lens, lens[:1]]), colour, width, Region.GLASSES)
        temple = np.array([(side * (who.eye_spacing + 0.25), who.eye_y), (side * who.width * 0.99, who.eye_y - 0.03)])
        pen.canvas.line(pen.place(on_surface(who, temple[:, 0], temple[:, 1])), colour, width, Region.GLASSES)
    inner = who.eye_spacing - 0.24
    bridge = np.array([(-inner, who.eye_y - 0.02), (0.0, who.eye_y - 0.05), (inner, who.eye_y - 0.02)])
    pen.canvas.line(pen.place(on_surface(who, bridge[:, 0], bridge[:, 1], lift=0.08)), colour, width, Region.GLASSES)


def _lens(pen: Pen, side: int, square: bool, grow: float = 1.0) -> Points:
    who = pen.params.identity
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    power = 0.5 if square else 0.9
    x = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** power * 0.245 * grow
    y = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** power * 0.19 * grow
    return on_surface(who, side * who.eye_spacing + x, who.eye_y + 0.03 + y, lift=0.06)


def draw_occlusion(pen: Pen) -> None:
    """Whatever lies in front of the face; the region map says `OCCLUDER` there."""
    kinds = {"sunglasses": _sunglasses, "mask": _mask, "hand": _hand, "bar": _bar, "patch": _patch}
    kind = pen.params.scene.occlusion
    if kind != "none":
        kinds[kind](pen)


def _sunglasses(pen: Pen) -> None:
    who = pen.params.identity
    dark = (24.0, 22.0, 26.0)
    for side in SIDES:
        lens = pen.place(_lens(pen, side, pen.params.scene.occlusion_place[0] < 0.5, 1.06))
        pen.canvas.fill(lens, dark, Region.OCCLUDER)
        shine = lens.mean(axis=0) + (lens - lens.mean(axis=0)) * 0.4 + np.array([-0.06, -0.05]) * pen.unit
        pen.canvas.glaze(shine, (200.0, 208.0, 216.0), 0.3)
    bar = np.array(
        [(-who.width * 0.99, who.eye_y - 0.03), (0.0, who.eye_y - 0.06), (who.width * 0.99, who.eye_y - 0.03)]
    )
    pen.canvas.line(pen.place(on_surface(who, bar[:, 0], bar[:, 1], lift=0.06)), dark, 0.05 * pen.unit, Region.OCCLUDER)


def _mask(pen: Pen) -> None:
    """A surgical mask from the nose's bridge to the chin."""
    who, (tone, high) = pen.params.identity, pen.params.scene.occlusion_place
    top = who.eye_y + 0.2 + 0.06 * high
    colour: Colour = (196.0, 216.0, 226.0) if tone < 0.6 else (46.0, 48.0, 54.0)
    jaw = pen.outline[pen.outline[:, 1] > 0.32]
    edge = np.array(
        [
            (-0.92 * who.width, top + 0.12),
            (-0.4, top + 0.06),
            (0.0, top - 0.06),
            (0.4, top + 0.06),
            (0.92 * who.width, top + 0.12),
        ]
    )
    line = pen.place(on_surface(who, edge[:, 0], edge[:, 1], lift=0.12))
    contour = np.concatenate([pen.place(jaw, silhouette=True), line])
    pen.canvas.fill(contour, colour, Region.OCCLUDER)
    for share in (0.3, 0.5, 0.7):
        y = top + share * (float(pen.outline[:, 1].max()) - top)
        pen.crease([(-0.5 * who.width, y), (0.0, y + 0.05), (0.5 * who.width, y)], 0.3, 0.02)


def _hand(pen: Pen) -> None:
    """A hand on cheek, chin or brow: a palm and four fingers."""
    across, tone = pen.params.scene.occlusion_place
    side = 1 if across < 0.5 else -1
    where = pen.spot(side * 0.5, 0.25 + 0.55 * (2 * across % 1))
    colour = scaled(SKIN_TONES[int(tone * (len(SKIN_TONES) - 1))], 0.95)
    lean = np.deg2rad(-side * (20 + 40 * tone))
    along, aside = np.array([np.sin(lean), -np.cos(lean)]), np.array([np.cos(lean), np.sin(lean)])
    unit = pen.unit
    palm = [
        where + unit * (a * along + s * aside)
        for a, s in ((-0.9, -0.2), (-0.1, -0.27), (0.05, -0.2), (0.05, 0.2), (-0.1, 0.25), (-0.9, 0.16))
    ]
    pen.canvas.fill(np.stack(palm), colour, Region.OCCLUDER)
    for finger, length in enumerate((0.42, 0.52, 0.5, 0.38)):
        root = where + unit * (finger - 1.5) * 0.125 * aside
        tip = root + unit * length * along
        pen.canvas.line(np.stack([root, tip]), scaled(colour, 0.8), 0.155 * unit, Region.OCCLUDER)
        pen.canvas.line(np.stack([root, tip]), colour, 0.12 * unit, Region.OCCLUDER)


def _bar(pen: Pen) -> None:
    """A straight bar across the picture, such as a strap or a microphone stand."""
    place, tone = pen.params.scene.occlusion_place
    size, turn = pen.canvas.size, np.pi * tone
    along = np.array([np.cos(turn), np.sin(turn)])
    aside = np.array([-along[1], along[0]]) * size * (0.03 + 0.05 * tone)
    centre = np.array([0.5, 0.35 + 0.3 * place]) * size
    corners = np.stack(
        [
            centre - along * size + aside,
            centre + along * size + aside,
            centre + along * size - aside,
            centre - along * size - aside,
        ]
    )
    grey = 40 + 170 * place
    pen.canvas.fill(corners, (grey, grey * 0.92, grey * 0.85), Region.OCCLUDER)


def _patch(pen: Pen) -> None:
    """A rectangle with a texture of its own somewhere on the face."""
    across, down = pen.params.scene.occlusion_place
    size = pen.canvas.size
    side = int(size * (0.18 + 0.14 * pen.rng.uniform()))
    x, y = int((0.22 + 0.4 * across) * size), int((0.25 + 0.4 * down) * size)
    texture = pen.rng.uniform(20, 235, (4, 4, 3)).astype(np.float32)
    pen.canvas.colour[y : y + side, x : x + side] = cv2.resize(texture, (side, side), interpolation=cv2.INTER_NEAREST)
    pen.canvas.regions[y : y + side, x : x + side] = Region.OCCLUDER
