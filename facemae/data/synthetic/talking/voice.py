"""Whose voice it is, and the melody of one clip."""

from dataclasses import dataclass

import numpy as np

from facemae.data.synthetic.identity import Identity, sample_identity
from facemae.data.synthetic.talking.phones import Phrase
from facemae.rng import generator

# What an expression does to the voice at its top: semitones of pitch, decibels of loudness, share of speed.
PROSODY: dict[str, tuple[float, float, float]] = {
    "neutral": (0.0, 0.0, 0.0),
    "happiness": (2.0, 2.0, 0.06),
    "sadness": (-2.0, -5.0, -0.12),
    "surprise": (2.5, 3.0, 0.04),
    "fear": (2.0, 0.0, 0.1),
    "anger": (1.0, 4.0, 0.08),
    "disgust": (-1.0, -1.0, -0.06),
    "contempt": (-1.0, -2.0, -0.04),
}


@dataclass(frozen=True)
class Voice:
    """The lasting traits of one person's voice.

    Attributes:
        base: Usual pitch in Hz.
        tract: Factor of all formants; 1 is a vocal tract of 17.5 cm, more is shorter.
        breath: Share of breath in the voice, from 0 to 1.
        tilt: Open part of a vibration of the vocal folds; more is softer.
    """

    base: float
    tract: float
    breath: float
    tilt: float


def sample_voice(seed: int, identity: int) -> Voice:
    """Draw the voice of one person; the same for the same two numbers.

    A larger head has a longer vocal tract, and a longer tract goes with a lower pitch, each with a spread of its own:
    faces tell something of voices, also of persons not met before, and never all of it.

    Args:
        seed: Seed of the data set.
        identity: Number of the person.
    """
    rng = generator(seed, "talking", "voice", identity)
    size = _head_size(sample_identity(seed, identity))
    tract = float(np.clip(1.03 - 0.055 * size + 0.035 * rng.normal(), 0.87, 1.18))
    base = 132 * tract**4 * 2 ** (1.2 * rng.normal() / 12)
    return Voice(
        base=float(np.clip(base, 75, 280)),
        tract=tract,
        breath=float(rng.uniform(0.02, 0.25)),
        tilt=float(rng.uniform(0.5, 0.75)),
    )


def _head_size(who: Identity) -> float:
    """Height and width of the face in standard deviations over persons."""
    return ((who.chin - 1.02) / 0.049 + (who.width - 0.74) / 0.049) / 2**0.5


@dataclass(frozen=True)
class Melody:
    """How one clip is intoned; nothing of it is seen.

    Attributes:
        register: Semitones above the person's usual pitch.
        glide: Semitones that the pitch rises over a phrase; negative where it falls.
    """

    register: float = 0.0
    glide: float = 0.0


def sample_melody(seed: int, identity: int, sample: int) -> Melody:
    """Draw the melody of one clip: high or low, rising or falling, each by a coin of its own."""
    rng = generator(seed, "talking", "melody", identity, sample)
    high, rising = (1 if coin < 0.5 else -1 for coin in rng.uniform(size=2))
    return Melody(register=high * float(rng.uniform(2.5, 4)), glide=rising * float(rng.uniform(4, 7)))


def phrase_share(phrases: tuple[Phrase, ...], times: np.ndarray) -> np.ndarray:
    """How far through its phrase each time is, from -0.5 to 0.5; in a pause the way back from one to the next."""
    places, values = [], []
    for phrase in phrases:
        places += [phrase.start, phrase.end]
        values += [-0.5, 0.5]
    return np.asarray(np.interp(times, places, values))
