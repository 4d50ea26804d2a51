"""Drawn faces before a background, and frames that show none."""

from dataclasses import replace

import numpy as np
import pytest

from facemae.data.synthetic import Light, Pose, Scene, render, sample_params
from facemae.data.synthetic.props import draw_background
from facemae.faces.cascade import CascadeDetector
from facemae.faces.detector import Frame
from facemae.rng import generator


def drawn_face(person: int, size: int = 160, *, x: float = 0.0, scale: float = 0.38) -> Frame:
    """One person from the front, uint8 [size, size, 3]."""
    params = sample_params(3, person, 0, expression="neutral")
    scene = Scene(pose=Pose(scale=scale, x=x), light=Light(), background="gradient")
    who = replace(params.identity, glasses="none")
    return render(replace(params, scene=scene, identity=who), size).image


def empty_frame(number: int, kind: str = "clouds") -> Frame:
    """A background and nothing else, uint8 [160, 160, 3]."""
    return draw_background(kind, 160, generator(0, "empty", number))


@pytest.fixture(scope="session")
def detector() -> CascadeDetector:
    return CascadeDetector()


@pytest.fixture(scope="session")
def one_face() -> Frame:
    return drawn_face(0)


@pytest.fixture(scope="session")
def two_faces(one_face: Frame) -> Frame:
    """Two persons side by side, uint8 [160, 320, 3]."""
    return np.concatenate([one_face, drawn_face(1)], axis=1)
