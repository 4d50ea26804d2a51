"""The sounds of made-up speech: what the mouth does for each of them, and what is heard.

Formants of vowels are the means of men in Peterson and Barney, "Control methods used in a study of the vowels"
(JASA 24, 1952, table II). Openings follow their first formant; lips are rounded for the rounded vowels of English.
"""

from dataclasses import dataclass

import numpy as np

from facemae.data.synthetic.talking.curve import Bump


@dataclass(frozen=True)
class Phone:
    """One speech sound as a target for mouth and voice; from 0 to 1 unless a unit is given.

    Attributes:
        name: ARPAbet symbol, `_` for a pause.
        opening: How far the jaw is dropped.
        spread: How far the lips are stretched; `rounding` how far they are puckered; `press` how hard they are closed.
        voicing: Loudness of the voice at full opening; what is heard also grows with the opening.
        hiss: Loudness of noise made in the mouth; `burst` of the noise at a closure's end.
        hiss_at: Centre of that noise in Hz.
        formants: F1, F2 and F3 in Hz of a vocal tract of 17.5 cm.
    """

    name: str
    opening: float
    formants: tuple[float, float, float]
    spread: float = 0.0
    rounding: float = 0.0
    press: float = 0.0
    voicing: float = 1.0
    hiss: float = 0.0
    burst: float = 0.0
    hiss_at: float = 4000.0


PAUSE = Phone("_", 0.0, (500, 1400, 2450), voicing=0.0)

VOWELS = (
    Phone("iy", 0.16, (270, 2290, 3010), spread=1.0),
    Phone("ih", 0.32, (390, 1990, 2550), spread=0.6),
    Phone("eh", 0.55, (530, 1840, 2480), spread=0.5),
    Phone("ae", 0.82, (660, 1720, 2410), spread=0.6),
    Phone("aa", 1.0, (730, 1090, 2440)),
    Phone("ah", 0.74, (640, 1190, 2390)),
    Phone("ao", 0.62, (570, 840, 2410), rounding=0.6),
    Phone("uh", 0.36, (440, 1020, 2240), rounding=0.7),
    Phone("uw", 0.2, (300, 870, 2240), rounding=1.0),
)

CONSONANTS = (
    Phone("p", 0.0, (350, 1100, 2300), press=0.7, voicing=0.0, burst=0.25, hiss_at=1200),
    Phone("b", 0.0, (300, 1100, 2300), press=0.6, voicing=0.06, burst=0.1, hiss_at=1200),
    Phone("m", 0.0, (260, 1100, 2300), press=0.5, voicing=0.25),
    Phone("t", 0.08, (350, 1700, 2600), spread=0.2, voicing=0.0, burst=0.35, hiss_at=4500),
    Phone("n", 0.1, (280, 1600, 2500), spread=0.2, voicing=0.25),
    Phone("f", 0.03, (350, 1200, 2400), voicing=0.0, hiss=0.09, hiss_at=5200),
    Phone("s", 0.08, (350, 1650, 2600), spread=0.4, voicing=0.0, hiss=0.2, hiss_at=6000),
    Phone("sh", 0.1, (350, 1500, 2400), rounding=0.4, voicing=0.0, hiss=0.24, hiss_at=3200),
    Phone("l", 0.24, (360, 1300, 2600), voicing=0.5),
    Phone("w", 0.1, (300, 700, 2200), rounding=1.0, voicing=0.5),
)


@dataclass(frozen=True)
class Segment:
    """One phone in time.

    Attributes:
        phone: Which.
        start: Seconds from the clip's start; may lie before it. `end` likewise.
        stress: Factor of opening and loudness.
        phrase: Number of the phrase it belongs to; -1 for a pause.
    """

    phone: Phone
    start: float
    end: float
    stress: float = 1.0
    phrase: int = -1


@dataclass(frozen=True)
class Phrase:
    """A stretch of speech between two pauses, in seconds."""

    start: float
    end: float


def sample_speech(
    rng: np.random.Generator, *, rate: float, start: float, end: float, expression: Bump, hurry: float
) -> tuple[tuple[Segment, ...], tuple[Phrase, ...]]:
    """Draw phrases of syllables that cover a stretch of time.

    Every duration is in proportion to one syllable's, so that faster speech is the same in less time, and mouth shapes
    are spread alike over the frames of fast and slow speech.

    Args:
        rng: Where draws come from.
        rate: Syllables a second.
        start: Where speech begins, in seconds; it begins somewhere in a phrase or a pause.
        end: Where it may end.
        expression: The expression's curve; speech is quicker by a share of `hurry` at its top.
        hurry: See there.

    Returns:
        Segments without gaps, and phrases.
    """
    segments: list[Segment] = []
    phrases: list[Phrase] = []
    # Where the talking is cut into must not tell how fast it is: the first phrase begins up to a few syllables earlier.
    time = start - float(rng.uniform(0, 7)) / rate
    while time < end:
        begin = time
        for _ in range(int(rng.integers(4, 9))):
            length = float(rng.uniform(0.8, 1.2)) / rate / (1 + hurry * float(expression.level(time)))
            syllable = _syllable(rng, time, length, len(phrases))
            segments += syllable
            time = syllable[-1].end
        phrases.append(Phrase(begin, time))
        pause = float(rng.uniform(0.7, 1.4)) / rate
        segments.append(Segment(PAUSE, time, time + pause))
        time += pause
    return tuple(segments), tuple(phrases)


def _syllable(rng: np.random.Generator, start: float, length: float, phrase: int) -> list[Segment]:
    consonant = CONSONANTS[int(rng.integers(len(CONSONANTS)))]
    vowel = VOWELS[int(rng.integers(len(VOWELS)))]
    stress = float(rng.uniform(0.7, 1.0))
    turn = start + length * float(rng.uniform(0.34, 0.42))
    return [
        Segment(consonant, start, turn, stress, phrase),
        Segment(vowel, turn, start + length, stress, phrase),
    ]
