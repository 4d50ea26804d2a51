"""From parameters to a picture: the order in which a face is painted."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from facemae.data.regions import Region
from facemae.data.synthetic.canvas import OVERSAMPLE, Canvas, Pixels
from facemae.data.synthetic.features import draw_brow, draw_eye, draw_folds, draw_mouth, draw_nose
from facemae.data.synthetic.geometry import SIDES
from facemae.data.synthetic.hair import draw_back_hair, draw_beard, draw_front_hair
from facemae.data.synthetic.identity import Colour
from facemae.data.synthetic.params import FaceParams, Label
from facemae.data.synthetic.pen import Pen, mix, scaled
from facemae.data.synthetic.props import draw_background, draw_glasses, draw_occlusion
from facemae.data.synthetic.scene import Light, Scene
from facemae.rng import generator


@dataclass(frozen=True)
class Rendered:
    """One drawn face.

    Attributes:
        image: uint8 [size, size, 3], RGB.
        regions: uint8 [size, size]; values of `Region`.
        labels: What `FaceParams.labels` says.
    """

    image: Pixels
    regions: Pixels
    labels: dict[str, Label]


def render(params: FaceParams, size: int = 64) -> Rendered:
    """Draw one face.

    Args:
        params: Who, doing what, seen how.
        size: Side of the picture in pixels; even numbers from 32 up look like faces.

    Returns:
        Picture, region map and labels; a pure function of the arguments.
    """
    return Studio(params, size).shoot(params)


class Studio:
    """What all pictures of one sample share, made once: background, texture and the camera's noise.

    A clip is many pictures of one sample, between which only action and pose change.

    Args:
        params: Any picture of the sample; names seed, person, sample, background and occlusion.
        size: Side of the pictures in pixels.
    """

    def __init__(self, params: FaceParams, size: int) -> None:
        self._rng = generator(params.seed, "synthetic", "texture", params.number, params.sample)
        self._background = draw_background(params.scene.background, size * OVERSAMPLE, self._rng)
        self._texture = self._rng.bit_generator.state
        self._noise: npt.NDArray[np.float32] | None = None

    def shoot(self, params: FaceParams) -> Rendered:
        """Draw one picture of the sample, the same as `render` draws it."""
        self._rng.bit_generator.state = self._texture
        pen = Pen(Canvas(self._background.copy()), params, self._rng)
        _paint(pen)
        image, regions = pen.canvas.finished()
        if self._noise is None and params.scene.noise > 0:
            self._noise = self._rng.standard_normal(image.shape, dtype=np.float32)
        return Rendered(_camera(image, params.scene, self._noise), regions, params.labels())


def _paint(pen: Pen) -> None:
    """Everything before the background, from back to front."""
    params = pen.params
    _draw_head(pen)
    for side in SIDES:
        draw_eye(pen, side)
    draw_nose(pen)
    draw_beard(pen)
    draw_mouth(pen)
    for side in SIDES:
        draw_brow(pen, side)
    draw_folds(pen)
    draw_front_hair(pen)
    draw_glasses(pen)
    lit = _lamp(pen, params.scene.light)
    pen.canvas.settle(lit, _tint(params.scene.light))
    if params.scene.occlusion != "none":
        draw_occlusion(pen)
        pen.canvas.settle()


def _draw_head(pen: Pen) -> None:
    """Clothes, neck, ears, and the skin of the face."""
    who, canvas = pen.params.identity, pen.canvas
    draw_back_hair(pen)
    # Down to below any frame: in whole frames of clips the head is small and high.
    right = [(0.42, 1.22), (1.5, 1.55), (1.7, 2.6), (1.7, 6.0)]
    shoulders = np.array([*((-x, y) for x, y in right), *right[::-1], (0.0, 1.5)])
    neck = np.array([(-0.72, 0.4), (-0.6, 1.0), (-0.66, 1.5), (0.66, 1.5), (0.6, 1.0), (0.72, 0.4)]) * (
        who.width * 0.82,
        1,
    )
    behind = -0.15
    canvas.fill(pen.place(_at_depth(shoulders, behind), True), who.clothes, Region.CLOTHES)
    canvas.fill(pen.place(_at_depth(neck, behind), True), scaled(who.skin, 0.74), Region.NECK)
    for side in SIDES:
        turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        ear = np.column_stack(
            [side * (who.width * 0.99 + 0.075 * np.cos(turn)), who.eye_y + 0.14 + who.ears * np.sin(turn)]
        )
        ring = pen.place(_at_depth(ear, -0.12))
        canvas.fill(ring, scaled(who.skin, 0.92), Region.EAR)
        canvas.furrow(ring.mean(axis=0) + (ring - ring.mean(axis=0)) * 0.55, 0.3, 0.02 * pen.unit)
    canvas.fill(pen.place(pen.outline, True), who.skin, Region.SKIN)
    rosy = mix(who.skin, (214.0, 96.0, 90.0), 0.22)
    for side in SIDES:
        turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        cheek = np.column_stack([side * 0.52 * who.width + 0.15 * np.cos(turn), who.eye_y + 0.36 + 0.11 * np.sin(turn)])
        canvas.glaze(pen.place(_at_depth(cheek, 0.55)), rosy, 0.5)
    _draw_marks(pen)


def _at_depth(flat: npt.NDArray[np.float64], z: float) -> npt.NDArray[np.float64]:
    return np.column_stack([flat, np.full(len(flat), z)])


def _draw_marks(pen: Pen) -> None:
    """Freckles and moles; the same on every image of an identity."""
    who = pen.params.identity
    own = generator(pen.params.seed, "synthetic", "marks", pen.params.number)
    for _ in range(who.freckles):
        x, y = own.uniform(-0.42, 0.42), who.eye_y + own.uniform(0.12, 0.4)
        pen.canvas.disc(pen.spot(x, y), 0.014 * pen.unit, scaled(who.skin, 0.76))
    if who.mole:
        pen.canvas.disc(pen.spot(*who.mole), 0.03 * pen.unit, scaled(who.skin, 0.42))


def _lamp(pen: Pen, light: Light) -> npt.NDArray[np.float32]:
    """Light on the head as on an ellipsoid: float [S/2, S/2], about 1 where the lamp shines straight on."""
    half = pen.canvas.size // 2
    centre = pen.place(np.array([[0.0, 0.05, 0.0]]))[0] / 2
    unit = pen.unit / 2
    axis = np.arange(half, dtype=np.float32) + 0.5
    x = ((axis - centre[0]) / (unit * 1.05))[None, :]
    y = ((axis - centre[1]) / (unit * 1.3))[:, None]
    z = np.sqrt(np.maximum(1 - x**2 - y**2, 0.05))
    azimuth, elevation = np.deg2rad([light.azimuth, light.elevation])
    toward = np.array([np.sin(azimuth) * np.cos(elevation), -np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    facing = np.maximum(x * toward[0] + y * toward[1] + z * toward[2], 0) / np.sqrt(x**2 + y**2 + z**2)
    lit = light.exposure * ((1 - light.strength) * (0.74 + 0.2 * z) + 1.22 * light.strength * facing)
    return np.asarray(lit, np.float32)


def _tint(light: Light) -> Colour:
    return 1 + 0.07 * light.warmth, 1.0, 1 - 0.1 * light.warmth


def _camera(image: Pixels, scene: Scene, noise: npt.NDArray[np.float32] | None) -> Pixels:
    """Blur, contrast and noise."""
    if scene.blur * image.shape[0] > 0.2:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), scene.blur * image.shape[0]), np.uint8)
    values = (image.astype(np.float32) - 128) * scene.contrast + 128
    if noise is not None:
        values += scene.noise * noise
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
