"""Procedural talking faces: clips in which one track of parameters drives mouth, expression, head and voice.

`sample_talk(seed, identity, sample)` draws a clip; its pictures, its sound, its curves and its labels are read from it.
"""

from facemae.data.synthetic.talking.curve import Bump, Circle
from facemae.data.synthetic.talking.film import Film
from facemae.data.synthetic.talking.speech import Speech
from facemae.data.synthetic.talking.talk import KINDS, Kind, Talk, sample_talk
from facemae.data.synthetic.talking.voice import Melody, Voice, sample_voice

__all__ = [
    "KINDS",
    "Bump",
    "Circle",
    "Film",
    "Kind",
    "Melody",
    "Speech",
    "Talk",
    "Voice",
    "sample_talk",
    "sample_voice",
]
