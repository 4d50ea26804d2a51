"""What a drawn face does: FACS action units and the expressions they make up.

Intensities run from 0 to 1; a fifth is one FACS level, so 0.2 is A (trace) and 1 is E (maximum). An action unit counts
as present from `PRESENT` on. Combinations follow the usual prototypes (Ekman, Friesen and Hager, FACS Investigator's
Guide, 2002; contempt is one-sided).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from facemae.rng import generator

ACTION_UNITS: dict[int, str] = {
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    6: "cheek raiser",
    7: "lid tightener",
    9: "nose wrinkler",
    10: "upper lip raiser",
    12: "lip corner puller",
    14: "dimpler",
    15: "lip corner depressor",
    17: "chin raiser",
    20: "lip stretcher",
    23: "lip tightener",
    24: "lip pressor",
    25: "lips part",
    26: "jaw drop",
    43: "eye closure",
}
PRESENT = 0.2
"""Intensity from which an action unit counts as present."""

EXPRESSIONS: dict[str, tuple[int, ...]] = {
    "neutral": (),
    "happiness": (6, 12),
    "sadness": (1, 4, 15),
    "surprise": (1, 2, 5, 26),
    "fear": (1, 2, 4, 5, 7, 20, 26),
    "anger": (4, 5, 7, 23),
    "disgust": (9, 15, 17),
    "contempt": (12, 14),
}
"""Expression -> the action units that make it up."""

# Units that cannot act together.
_OPPOSED = ((5, 43), (7, 43), (24, 25), (24, 26), (23, 26), (12, 15), (17, 26))
_NOISE_RATE = 0.06
_BLINK_RATE = 0.04


@dataclass(frozen=True)
class Action:
    """Intensities of the action units of one image.

    Attributes:
        expression: The expression they were drawn for.
        left: Intensity by unit on the subject's left side; units that do not act are absent.
        right: The same on the subject's right side.
    """

    expression: str = "neutral"
    left: Mapping[int, float] = field(default_factory=dict)
    right: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, units: Mapping[int, float], expression: str = "neutral") -> "Action":
        """An action that is the same on both sides."""
        return cls(expression, dict(units), dict(units))

    def on(self, unit: int, side: int) -> float:
        """Intensity on one side: +1 is the subject's left (the image's right), -1 the subject's right."""
        return (self.left if side > 0 else self.right).get(unit, 0.0)

    def level(self, unit: int) -> float:
        """Intensity of the stronger side; this is what the labels say."""
        return max(self.left.get(unit, 0.0), self.right.get(unit, 0.0))

    def mean(self, unit: int) -> float:
        """Intensity averaged over both sides, for parts of the face on the middle line."""
        return (self.left.get(unit, 0.0) + self.right.get(unit, 0.0)) / 2

    def labels(self) -> dict[str, float]:
        """Of every unit the renderer knows: occurrence as `AU12: 1`, intensity as `intensity_AU12: 0.63`."""
        levels = {f"AU{unit:02d}": round(self.level(unit), 3) for unit in ACTION_UNITS}
        occurrence = {name: int(level >= PRESENT) for name, level in levels.items()}
        return {**occurrence, **{f"intensity_{name}": level for name, level in levels.items()}}


def _resolve(units: dict[int, float], kept: tuple[int, ...]) -> dict[int, float]:
    """Drop one of each opposed pair: never a unit of the expression, else the weaker."""
    for pair in _OPPOSED:
        if all(units.get(unit, 0.0) > 0 for unit in pair):
            del units[min(pair, key=lambda unit: (unit in kept, units[unit]))]
    return units


def sample_action(seed: int, identity: int, sample: int, expression: str | None = None) -> Action:
    """Draw what the face does in one image.

    The units of the expression act with a common strength and a spread of their own. Others act weakly now and then, so
    that no single unit gives the expression away.

    Args:
        seed: Seed of the data set.
        identity: Number of the person.
        sample: Number of the image of this person.
        expression: One of `EXPRESSIONS`; drawn uniformly where None.
    """
    rng = generator(seed, "synthetic", "action", identity, sample)
    drawn = str(rng.choice(list(EXPRESSIONS)))
    expression = expression or drawn
    strength = rng.uniform(0.55, 1.0)
    units: dict[int, float] = {}
    for unit in ACTION_UNITS:
        noise, level, spread = rng.uniform(size=3)
        if unit in EXPRESSIONS[expression]:
            units[unit] = strength * (0.7 + 0.3 * spread)
        elif noise < (_BLINK_RATE if unit == 43 else _NOISE_RATE):
            units[unit] = 0.8 + 0.2 * level if unit == 43 else 0.08 + 0.42 * level
    return _sided(expression, _resolve(units, EXPRESSIONS[expression]), rng)


def _sided(expression: str, units: dict[int, float], rng: np.random.Generator) -> Action:
    """Give both sides their intensities: nearly equal, except that contempt is one-sided."""
    tilt = rng.normal(0, 0.05, 2)
    stronger = bool(rng.uniform() < 0.5)
    left = {unit: float(np.clip(value * (1 + tilt[0]), 0, 1)) for unit, value in units.items()}
    right = {unit: float(np.clip(value * (1 + tilt[1]), 0, 1)) for unit, value in units.items()}
    if expression == "contempt":
        weaker = right if stronger else left
        for unit in EXPRESSIONS["contempt"]:
            weaker.pop(unit, None)
    return Action(expression, left, right)
