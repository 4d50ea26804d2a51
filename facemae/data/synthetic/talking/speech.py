"""What is said in one clip, how fast, how it is intoned, and whether the sound is in time."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from facemae.data.synthetic.action_units import Action
from facemae.data.synthetic.params import FaceParams, Label
from facemae.data.synthetic.talking.articulation import MARGIN, TRACK_RATE, Tracks, articulate, track_times
from facemae.data.synthetic.talking.curve import Bump, Floats
from facemae.data.synthetic.talking.moving import Mouth
from facemae.data.synthetic.talking.phones import Phrase, Segment, sample_speech
from facemae.data.synthetic.talking.sound import Sounding
from facemae.data.synthetic.talking.voice import (
    PROSODY,
    Melody,
    Voice,
    phrase_share,
    sample_melody,
    sample_voice,
)
from facemae.rng import generator

MAX_LAG = 0.8
"""Seconds by which a sound may be late or early."""

_SLOW, _FAST = (2.4, 3.0), (4.6, 5.4)
_LEVEL = 0.19
_WANDER = 0.25


@dataclass(frozen=True)
class Speech:
    """Speech of one clip.

    Attributes:
        seed: Seed of the data set; `number` of the identity, `sample` of the clip: they key breath and hiss.
        rate: Syllables a second.
        segments: Phones in time, from before the clip's start to after its end.
        phrases: Stretches between pauses.
        voice: Whose voice.
        melody: How it is intoned.
        seconds: Length of the clip.
        lag: Seconds by which the sound is late.
    """

    seed: int
    number: int
    sample: int
    rate: float
    segments: tuple[Segment, ...]
    phrases: tuple[Phrase, ...]
    voice: Voice
    melody: Melody
    seconds: float
    lag: float = 0.0

    @cached_property
    def tracks(self) -> Tracks:
        """How mouth and voice move."""
        return articulate(self.segments, self.seconds, self.rate)

    @cached_property
    def _lips(self) -> Floats:
        moved = self.tracks
        return np.stack([moved.opening, moved.spread, moved.rounding, moved.press, moved.speaking])

    def mouth(self, time: float) -> Mouth:
        """What the mouth does at a time of the picture."""
        place = min(max((time + MARGIN) * TRACK_RATE, 0.0), self._lips.shape[1] - 1.001)
        before, after = self._lips[:, int(place) : int(place) + 2].T
        return Mouth(*(before + (place % 1) * (after - before)).tolist())

    def sounding(self, seconds: float, expression: Bump, apex: Action) -> Sounding:
        """The tracks of the sound, at the times they are heard."""
        times, tracks = track_times(seconds), self.tracks
        level = expression.level(times)
        semitones, decibels, _ = PROSODY[apex.expression]
        wander = generator(self.seed, "talking", "wander", self.number, self.sample)
        slow = sum(
            _WANDER * np.sin(2 * np.pi * (float(wander.uniform(0.5, 3)) * times + float(wander.uniform())))
            for _ in range(3)
        )
        over = self.melody.register + self.melody.glide * phrase_share(self.phrases, times) + semitones * level + slow
        gain = _LEVEL * 10 ** (decibels * level / 20)
        # Drawn lip corners make the tract shorter, so a smile is heard.
        smile = 1 + 0.06 * apex.mean(12) * level
        heard = Sounding(
            pitch=self.voice.base * 2 ** (over / 12),
            voiced=tracks.voiced * gain,
            hiss=tracks.hiss * gain,
            hiss_at=tracks.hiss_at * self.voice.tract**0.5,
            formants=tracks.formants * self.voice.tract * smile,
            voice=self.voice,
            noise_key=(self.seed, self.number, self.sample),
        )
        return heard.later(self.lag)

    def labels(self, pitch: float | None) -> dict[str, Label]:
        """Labels of the speech; `pitch` is the clip's in Hz, None where no voice is heard."""
        labels: dict[str, Label] = {
            "rate": "fast" if self.rate > (_SLOW[1] + _FAST[0]) / 2 else "slow",
            "syllables_per_second": round(self.rate, 3),
            "register": "high" if self.melody.register > 0 else "low",
            "intonation": "rising" if self.melody.glide > 0 else "falling",
            "base_pitch": round(self.voice.base, 2),
            "synchronous": "no" if self.lag else "yes",
            "sound_lag": round(self.lag, 3),
        }
        if pitch is not None:
            labels["pitch"] = round(pitch, 2)
        return labels


def sample_talking(rest: FaceParams, expression: Bump, seconds: float, lag: float) -> Speech:
    """Draw the speech of one clip.

    Args:
        rest: The clip's face at the expression's top.
        expression: The expression's curve, which speech follows in speed.
        seconds: Length of the clip.
        lag: Seconds by which the sound is late.
    """
    rng = generator(rest.seed, "talking", "speech", rest.number, rest.sample)
    fast = bool(rng.uniform() < 0.5)
    rate = float(rng.uniform(*(_FAST if fast else _SLOW)))
    hurry = PROSODY[rest.action.expression][2]
    segments, phrases = sample_speech(
        rng, rate=rate, start=-MARGIN, end=seconds + MARGIN, expression=expression, hurry=hurry
    )
    return Speech(
        seed=rest.seed,
        number=rest.number,
        sample=rest.sample,
        rate=rate,
        segments=segments,
        phrases=phrases,
        voice=sample_voice(rest.seed, rest.number),
        melody=sample_melody(rest.seed, rest.number, rest.sample),
        seconds=seconds,
        lag=lag,
    )
