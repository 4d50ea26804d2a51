"""Who a drawn face is: everything that stays the same over all images of one identity.

Lengths are in face units: the head's centre is (0, 0), y points down, and the skull's top lies at about y = -1.
"""

from dataclasses import dataclass

import numpy as np

from facemae.rng import generator

Colour = tuple[float, float, float]

SKIN_TONES: tuple[Colour, ...] = (
    (252, 224, 202),
    (243, 205, 176),
    (228, 184, 148),
    (206, 157, 118),
    (175, 124, 88),
    (138, 93, 63),
    (103, 67, 46),
    (74, 48, 36),
)
HAIR_COLOURS: tuple[Colour, ...] = (
    (28, 22, 20),
    (48, 33, 26),
    (82, 54, 36),
    (120, 80, 46),
    (172, 128, 74),
    (214, 184, 122),
    (150, 66, 34),
    (168, 166, 164),
    (226, 224, 220),
)
EYE_COLOURS: tuple[Colour, ...] = (
    (62, 40, 26),
    (98, 66, 38),
    (112, 112, 62),
    (72, 118, 92),
    (84, 128, 172),
    (120, 134, 146),
)
CLOTHES: tuple[Colour, ...] = (
    (52, 66, 96),
    (122, 40, 46),
    (60, 92, 70),
    (196, 190, 180),
    (38, 38, 42),
    (206, 164, 74),
    (96, 72, 120),
)

HAIR_STYLES = ("bald", "buzz", "short", "parted", "fringe", "bob", "long", "curly", "bun")
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
GLASSES = ("none", "round", "square")


@dataclass(frozen=True)
class Identity:
    """The lasting traits of one drawn person.

    Attributes:
        name: Subject name used in labels, for example `id00012`.
        width: Half-width of the face at the cheekbones.
        jaw: Half-width at the jaw's angle, as a share of `width`.
        chin_width: Half-width of the chin, as a share of `width`.
        chin: Height of the chin's lowest point (positive is down).
        forehead: Half-width at the temples, as a share of `width`.
        hairline: Height of the hairline on the forehead (negative is up).
        skin: Colour, RGB in 0..255; so are `hair`, `brow`, `iris`, `lips` and `clothes`.
        hair_style: One of `HAIR_STYLES`.
        hair_volume: How far the hair stands off the skull.
        parting: Where the hair parts, from -1 (image left) to 1.
        eye_y: Height of the eyes.
        eye_spacing: Distance of an eye's centre from the middle line.
        eye_width: Half-width of an eye; `eye_height` is the open eye's upper half.
        eye_tilt: How far the outer corner lies above the inner one.
        iris_size: Radius of the iris.
        brow_lift: Height of the brow above the eye.
        brow_thickness: Half-thickness of the brow at its thickest.
        brow_arch: Height of the brow's arch.
        brow_slope: How far the brow's outer end lies below its inner end.
        nose_length: From the eyes' line to the nose's base.
        nose_width: Half-width at the wings.
        nose_bridge: Half-width of the bridge.
        mouth_y: Height of the mouth's middle at rest.
        mouth_width: Half-width of the mouth at rest.
        upper_lip: Thickness of the upper lip; `lower_lip` of the lower one.
        cupid: Depth of the bow in the upper lip.
        ears: Size of the ears.
        beard: One of `BEARDS`.
        glasses: One of `GLASSES`.
        age: 0 for smooth skin, 1 for clear wrinkles.
        freckles: Number of freckles; `mole` is the place of a mole in face units or None.
    """

    name: str
    width: float
    jaw: float
    chin_width: float
    chin: float
    forehead: float
    hairline: float
    skin: Colour
    hair: Colour
    brow: Colour
    iris: Colour
    lips: Colour
    clothes: Colour
    hair_style: str
    hair_volume: float
    parting: float
    eye_y: float
    eye_spacing: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    iris_size: float
    brow_lift: float
    brow_thickness: float
    brow_arch: float
    brow_slope: float
    nose_length: float
    nose_width: float
    nose_bridge: float
    mouth_y: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    cupid: float
    ears: float
    beard: str
    glasses: str
    age: float
    freckles: int
    mole: tuple[float, float] | None


def _between(palette: tuple[Colour, ...], rng: np.random.Generator) -> Colour:
    """A colour on the way from one entry of a palette to the next."""
    place = rng.uniform(0, len(palette) - 1)
    first = int(place)
    share = place - first
    low, high = np.asarray(palette[first]), np.asarray(palette[min(first + 1, len(palette) - 1)])
    return _colour(low + share * (high - low) + rng.normal(0, 3, 3))


def _near(palette: tuple[Colour, ...], rng: np.random.Generator) -> Colour:
    return _colour(np.asarray(palette[rng.integers(len(palette))]) + rng.normal(0, 7, 3))


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = np.clip(values, 0, 255).tolist()
    return red, green, blue


def _colours(rng: np.random.Generator) -> dict[str, Colour]:
    skin = _between(SKIN_TONES, rng)
    hair = _near(HAIR_COLOURS if sum(skin) > 420 else HAIR_COLOURS[:4], rng)
    iris = _near(EYE_COLOURS if sum(skin) > 480 else EYE_COLOURS[:3], rng)
    rosy = np.asarray([206.0, 92.0, 92.0]) * rng.uniform(0.75, 1.1)
    red = rng.uniform(0.25, 0.65)
    return {
        "skin": skin,
        "hair": hair,
        "brow": _colour(np.asarray(hair) * rng.uniform(0.55, 0.85)),
        "iris": iris,
        "lips": _colour(np.asarray(skin) * (1 - red) * 0.9 + rosy * red),
        "clothes": _near(CLOTHES, rng),
    }


def sample_identity(seed: int, identity: int) -> Identity:
    """Draw one person.

    Args:
        seed: Seed of the data set.
        identity: Number of the person.

    Returns:
        The person; the same for the same two numbers, on every machine.
    """
    rng = generator(seed, "synthetic", "identity", identity)

    def draw(low: float, high: float) -> float:
        # A mean of two uniform draws: the middle is common, the ends are rare, nothing lies outside.
        return float(low + (high - low) * rng.uniform(size=2).mean())

    colours = _colours(rng)
    mole = (float(rng.uniform(-0.45, 0.45)), float(rng.uniform(0.15, 0.75))) if rng.uniform() < 0.15 else None
    return Identity(
        name=f"id{identity:05d}",
        width=draw(0.62, 0.86),
        jaw=draw(0.66, 0.98),
        chin_width=draw(0.28, 0.56),
        chin=draw(0.9, 1.14),
        forehead=draw(0.82, 0.98),
        hairline=draw(-0.82, -0.52),
        hair_style=str(rng.choice(HAIR_STYLES)),
        hair_volume=draw(0.03, 0.24),
        parting=float(rng.uniform(-0.8, 0.8)),
        eye_y=draw(-0.13, 0.03),
        eye_spacing=draw(0.27, 0.4),
        eye_width=draw(0.13, 0.205),
        eye_height=draw(0.055, 0.105),
        eye_tilt=draw(-0.03, 0.05),
        iris_size=draw(0.062, 0.084),
        brow_lift=draw(0.16, 0.27),
        brow_thickness=draw(0.016, 0.058),
        brow_arch=draw(0.0, 0.075),
        brow_slope=draw(-0.03, 0.07),
        nose_length=draw(0.34, 0.52),
        nose_width=draw(0.11, 0.225),
        nose_bridge=draw(0.045, 0.08),
        mouth_y=draw(0.5, 0.64),
        mouth_width=draw(0.22, 0.36),
        upper_lip=draw(0.025, 0.085),
        lower_lip=draw(0.045, 0.11),
        cupid=draw(0.0, 0.03),
        ears=draw(0.12, 0.21),
        beard=str(rng.choice(BEARDS, p=(0.62, 0.12, 0.09, 0.07, 0.10))),
        glasses=str(rng.choice(GLASSES, p=(0.76, 0.12, 0.12))),
        age=float(rng.uniform() ** 1.6),
        freckles=int(rng.integers(6, 22)) if rng.uniform() < 0.15 else 0,
        mole=mole,
        **colours,
    )
