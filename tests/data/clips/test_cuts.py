"""Cuts are found between drawn faces, and not where a head nods, light goes on, or the camera sways."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from facemae.data.clips.cuts import AWAY, CutFinder
from facemae.rng import generator
from facemae.video.source import Frame
from tests.data.clips.films import Pixels, brighter, face
from tests.faces.conftest import drawn_face


def cuts(frames: Sequence[Pixels]) -> list[int]:
    film = [Frame(number, number / 25, image) for number, image in enumerate(frames)]
    marked = list(CutFinder().mark(film))
    assert [frame for frame, _ in marked] == film
    return [frame.number for frame, cut in marked if cut]


def lamp(image: Pixels) -> Pixels:
    """Light from one side."""
    lit: Pixels = np.clip(image * np.linspace(0.6, 1.5, image.shape[1])[None, :, None], 0, 255).astype(np.uint8)
    return lit


def noisy(image: Pixels, number: int) -> Pixels:
    drawn = generator(0, "noise", number).normal(0, 20, image.shape)
    out: Pixels = np.clip(image + drawn, 0, 255).astype(np.uint8)
    return out


def test_a_cut_from_one_face_to_another_at_the_same_place() -> None:
    assert cuts([face(0)] * 10 + [face(1)] * 10 + [face(2)] * 10) == [10, 20]
    faces = [face(person) for person in range(8)]
    pairs = [(one, two) for one in range(8) for two in range(one)]
    found = [cuts([faces[one]] * 10 + [faces[two]] * 10) for one, two in pairs]
    assert found.count([10]) >= 0.9 * len(pairs)
    assert found.count([]) == len(pairs) - found.count([10])


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


def swaying(step: float, count: int = 60) -> list[Pixels]:
    """A camera that sways by at most so many of 128 pixels a frame before three faces."""
    wide = np.concatenate([face(0), face(1), face(2)], axis=1)
    shifts = np.round(128 + 6 * step * np.cos(np.arange(count) / 6)).astype(int)
    return [wide[:, shift : shift + 128] for shift in shifts]


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("still", [0, 20])
def test_frames_shown_twice_or_thrice_are_no_cuts(times: int, still: int) -> None:
    """Eight frames a second in a file of twenty-five: of every step the camera's whole movement in three frames."""
    frames = swaying(2)[::times]
    assert cuts([*[frames[0]] * still, *(frame for frame in frames for _ in range(times))]) == []


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_cut_between_frames_shown_twice_or_thrice_is_found(times: int) -> None:
    nod = [drawn_face(0, 128, x=0.1 * float(np.sin(number / 4))) for number in range(12)]
    other = [drawn_face(1, 128, x=0.1 * float(np.sin(number / 4))) for number in range(12)]
    assert cuts([frame for frame in [*nod, *other] for _ in range(times)]) == [12 * times]


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("length", [1, 3])
def test_a_flash_or_a_lost_frame_is_no_cut(level: int, length: int) -> None:
    blank = [np.full_like(face(0), level)] * length
    nod = [drawn_face(0, 128, x=0.1 * float(np.sin(number / 4))) for number in range(20)]
    assert cuts([*nod[:10], *blank, *nod[10:]]) == []
    assert cuts([*nod[:10], *blank, *[face(1)] * 10]) == [10, 10 + length]
    assert cuts([*nod[:10], *blank * 4, *nod[10:]]) == [10, 10 + 4 * length]


def test_movement_long_past_hides_no_cut() -> None:
    frames = swaying(2)[::2]
    assert cuts([*frames, *[frames[-1]] * 10, *[face(4)] * 5]) == [len(frames) + 10]


def test_few_frames_are_held() -> None:
    read = []

    def film() -> Iterator[Frame]:
        for number in range(40):
            read.append(number)
            yield Frame(number, number / 25, face(number // 10 % 2))

    held = [len(read) - 1 - frame.number for frame, _ in CutFinder().mark(film())]
    assert max(held) == AWAY


def test_a_finder_needs_a_frame_before() -> None:
    assert cuts([face(0)]) == []
    assert cuts([]) == []
