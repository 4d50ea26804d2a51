"""What a face does at one instant of a clip: an expression on its way, speech on top of it, and blinks."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from facemae.data.synthetic.action_units import EXPRESSIONS, Action, sample_action
from facemae.data.synthetic.talking.curve import Bump, ease
from facemae.rng import generator

_BLINK = 0.26
# Share that is left of an expression's unit while the mouth is needed for speech.
_WHILE_SPEAKING = {10: 0.7, 12: 0.75, 14: 0.75, 15: 0.75, 17: 0.1, 20: 0.5, 23: 0.15, 24: 0.05, 25: 0.15, 26: 0.15}
_PUCKER = 18


@dataclass(frozen=True)
class Mouth:
    """What speech asks of the mouth at one instant, from 0 to 1; see `Phone`."""

    opening: float
    spread: float
    rounding: float
    press: float
    speaking: float

    def units(self) -> dict[int, float]:
        """The action units that do it; the gap between the lips grows evenly with the opening."""
        return {
            _PUCKER: self.rounding,
            20: 0.35 * self.spread,
            24: 0.45 * self.press,
            25: self.opening,
            26: 0.85 * self.opening,
        }


def blink_level(blinks: tuple[float, ...], time: float) -> float:
    """How far the eyes are closed by blinks whose middles are at these times."""
    if not blinks:
        return 0.0
    distance = min(abs(time - middle) for middle in blinks)
    return float(ease(1.3 * (1 - 2 * distance / _BLINK)))


def act(apex: Action, level: float, mouth: Mouth | None, blink: float) -> Action:
    """The action at one instant.

    Args:
        apex: What the face does at the expression's top.
        level: How far the expression has come, from 0 to 1.
        mouth: What speech asks for; None where nobody speaks.
        blink: How far the eyes are closed.
    """
    return Action(apex.expression, *(_side(units, level, mouth, blink) for units in (apex.left, apex.right)))


def _side(apex: Mapping[int, float], level: float, mouth: Mouth | None, blink: float) -> dict[int, float]:
    units = {unit: level * value for unit, value in apex.items()} if level > 0 else {}
    if mouth is not None:
        for unit, share in _WHILE_SPEAKING.items():
            if unit in units:
                units[unit] *= 1 - (1 - share) * mouth.speaking
        for unit, value in mouth.units().items():
            already = units.get(unit, 0.0)
            units[unit] = min(1.0, already + (1 - already) * value)
    if blink > 0:
        units = {unit: value * (1 - blink) if unit in (5, 7) else value for unit, value in units.items()}
        units[43] = blink
    return {unit: value for unit, value in units.items() if value > 0}


def sample_apex(seed: int, identity: int, sample: int, emotion: str | None) -> Action:
    """What the face does at the top of a clip's expression: as in a still, but the eyes close for blinks only."""
    drawn = sample_action(seed, identity, sample, emotion)
    left, right = ({unit: value for unit, value in side.items() if unit != 43} for side in (drawn.left, drawn.right))
    return Action(drawn.expression, left, right)


def sample_micro_apex(seed: int, identity: int, sample: int, emotion: str | None) -> Action:
    """The faint pattern of a micro-expression: up to three units of an expression at 0.25 to 0.5, nothing else."""
    rng = generator(seed, "talking", "micro", identity, sample)
    drawn = str(rng.choice([name for name in EXPRESSIONS if name != "neutral"]))
    emotion = emotion or drawn
    units = EXPRESSIONS[emotion]
    chosen = sorted(rng.permutation(units).tolist()[:3])
    levels = {unit: float(rng.uniform(0.25, 0.5)) for unit in chosen}
    if emotion != "contempt":
        return Action.of(levels, emotion)
    return Action(emotion, levels, {}) if rng.uniform() < 0.5 else Action(emotion, {}, levels)


def sample_blinks(rng: np.random.Generator, seconds: float) -> tuple[float, ...]:
    """Middles of blinks: one every three seconds or so, never nearer than half a second."""
    times: list[float] = []
    time = float(rng.exponential(2.0)) - 0.5
    while time < seconds + 0.5:
        times.append(time)
        time += 0.5 + float(rng.exponential(2.5))
    return tuple(times)


def sample_bump(rng: np.random.Generator, seconds: float, *, sudden: bool) -> Bump:
    """An expression's curve: it comes quickly and goes slowly, or the other way round.

    The one is the other played backwards, with the same chance: the frames of both kinds, each by itself and all of
    them together, are spread alike, and only their order tells the kinds apart.
    """
    scale = min(1.0, seconds / 3)
    quick, slow = float(rng.uniform(0.12, 0.28)) * scale, float(rng.uniform(0.75, 1.05)) * scale
    rise, fall = (quick, slow) if sudden else (slow, quick)
    stay = float(rng.uniform(0.12, 0.25)) * seconds
    onset = float(rng.uniform(0.25, 0.75)) * (seconds - rise - stay - fall)
    return Bump(onset, onset + rise, onset + rise + stay, onset + rise + stay + fall)


def sample_micro_bump(rng: np.random.Generator, seconds: float) -> Bump:
    """A curve of 0.12 to 0.5 seconds in all, a frame of 25 a second long at its top."""
    stay = float(rng.uniform(0.04, 0.1))
    rise, fall = (float(rng.uniform(0.04, 0.2)) for _ in range(2))
    onset = float(rng.uniform(0.2, 0.8)) * (seconds - rise - stay - fall)
    return Bump(onset, onset + rise, onset + rise + stay, onset + rise + stay + fall)
