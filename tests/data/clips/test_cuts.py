"""Cuts are found between drawn faces, and not where a head nods, light goes on, or the camera sways."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from facemae.data.clips.cuts import CutFinder
from facemae.rng import generator
from tests.data.clips.films import Pixels, brighter, face
from tests.faces.conftest import drawn_face


def cuts(frames: Sequence[Pixels]) -> list[int]:
    finder = CutFinder()
    return [number for number, frame in enumerate(frames) if finder.is_cut(frame)]


def lamp(image: Pixels) -> Pixels:
    """Light from one side."""
    lit: Pixels = np.clip(image * np.linspace(0.6, 1.5, image.shape[1])[None, :, None], 0, 255).astype(np.uint8)
    return lit


def noisy(image: Pixels, number: int) -> Pixels:
    drawn = generator(0, "noise", number).normal(0, 20, image.shape)
    out: Pixels = np.clip(image + drawn, 0, 255).astype(np.uint8)
    return out


def test_a_cut_from_one_face_to_another_at_the_same_place() -> None:
    assert cuts([face(0)] * 3 + [face(1)] * 3 + [face(2)] * 3) == [3, 6]
    faces = [face(person) for person in range(8)]
    pairs = [(one, two) for one in range(8) for two in range(one)]
    assert sum(cuts([faces[one], faces[two]]) == [1] for one, two in pairs) >= 0.9 * len(pairs)


@pytest.mark.parametrize("light", [brighter, lamp])
def test_light_that_goes_on_is_no_cut(light: Callable[[Pixels], Pixels]) -> None:
    assert cuts([face(0)] * 3 + [light(face(0))] * 3) == []


def test_noise_is_no_cut() -> None:
    assert cuts([noisy(face(0), number) for number in range(6)]) == []
    dark = (face(0) * 0.05).astype(np.uint8)
    assert cuts([noisy(dark, number) for number in range(6)])[1:] == []


def test_a_head_that_moves_is_no_cut() -> None:
    nod = [drawn_face(0, 128, x=0.15 * float(np.sin(number / 4))) for number in range(13)]
    assert cuts(nod) == []


def test_a_camera_that_pans_is_no_cut() -> None:
    wide = np.concatenate([face(0), face(1), face(2)], axis=1)
    place = np.cumsum([0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4])
    panned = [wide[:, shift : shift + 128] for shift in place]
    assert cuts(panned) == []


def test_a_finder_needs_a_frame_before() -> None:
    assert cuts([face(0)]) == []
