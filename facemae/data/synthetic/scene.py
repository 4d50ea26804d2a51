"""How a drawn face is seen: pose, light, what is in front of it and behind it, and the camera."""

from dataclasses import dataclass

import numpy as np

from facemae.rng import generator

OCCLUSIONS = ("none", "sunglasses", "mask", "hand", "bar", "patch")
BACKGROUNDS = ("flat", "gradient", "clouds", "stripes", "lights")


@dataclass(frozen=True)
class Pose:
    """Where the head is and how it is turned.

    Attributes:
        yaw: Turn to the image's right, in degrees.
        pitch: Nod downwards, in degrees.
        roll: Tilt in the image plane, clockwise, in degrees.
        scale: Size of a face unit as a share of the image's side.
        x: Shift of the head's centre, as a share of the image's side; `y` likewise.
        gaze: Shift of the irises, horizontal and vertical, from -1 to 1.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    scale: float = 0.45
    x: float = 0.0
    y: float = 0.0
    gaze: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Light:
    """One lamp and the light from everywhere.

    Attributes:
        azimuth: From -90 (image left) over 0 (front) to 90 degrees.
        elevation: From below (negative) to above, in degrees.
        strength: Share of the light that comes from the lamp.
        exposure: Brightness of everything.
        warmth: Below 0 bluish, above 0 yellowish.
    """

    azimuth: float = 0.0
    elevation: float = 30.0
    strength: float = 0.4
    exposure: float = 1.0
    warmth: float = 0.0

    @property
    def kind(self) -> str:
        """`left`, `right`, `above`, `below` or `front`, in the image's sense; the label `light`."""
        if abs(self.azimuth) > 30:
            return "right" if self.azimuth > 0 else "left"
        if self.elevation > 40:
            return "above"
        return "below" if self.elevation < -5 else "front"


@dataclass(frozen=True)
class Scene:
    """Everything about an image that is neither who nor what the face does.

    Attributes:
        pose: The head's pose.
        light: The light.
        occlusion: One of `OCCLUSIONS`.
        occlusion_place: Two numbers in 0..1 that say where and how large; their use depends on the kind.
        background: One of `BACKGROUNDS`.
        blur: Standard deviation of the camera's blur, as a share of the image's side.
        noise: Standard deviation of the camera's noise, in grey levels.
        contrast: Factor around mid-grey.
    """

    pose: Pose = Pose()
    light: Light = Light()
    occlusion: str = "none"
    occlusion_place: tuple[float, float] = (0.5, 0.5)
    background: str = "gradient"
    blur: float = 0.0
    noise: float = 0.0
    contrast: float = 1.0


def _bounded(rng: np.random.Generator, spread: float, limit: float) -> float:
    return float(np.clip(rng.normal(0, spread), -limit, limit))


def sample_scene(seed: int, identity: int, sample: int) -> Scene:
    """Draw how one image is taken; see `sample_action` for the arguments."""
    rng = generator(seed, "synthetic", "scene", identity, sample)
    pose = Pose(
        yaw=_bounded(rng, 10, 30),
        pitch=_bounded(rng, 6, 20),
        roll=_bounded(rng, 4, 15),
        scale=float(rng.uniform(0.43, 0.49)),
        x=_bounded(rng, 0.015, 0.05),
        y=_bounded(rng, 0.015, 0.05) - 0.02,
        gaze=(_bounded(rng, 0.4, 0.9), _bounded(rng, 0.25, 0.6)),
    )
    light = Light(
        azimuth=float(rng.uniform(-80, 80)),
        elevation=float(rng.uniform(-20, 65)),
        strength=float(rng.uniform(0.15, 0.7)),
        exposure=float(rng.uniform(0.88, 1.2)),
        warmth=_bounded(rng, 0.4, 1.0),
    )
    return Scene(
        pose=pose,
        light=light,
        occlusion=str(rng.choice(OCCLUSIONS, p=(0.8, 0.04, 0.04, 0.04, 0.04, 0.04))),
        occlusion_place=(float(rng.uniform()), float(rng.uniform())),
        background=str(rng.choice(BACKGROUNDS)),
        blur=float(rng.choice([0.0, 0.0, 0.006, 0.012]) * rng.uniform(0.5, 1)),
        noise=float(rng.uniform(0, 3)),
        contrast=float(rng.uniform(0.82, 1.12)),
    )
