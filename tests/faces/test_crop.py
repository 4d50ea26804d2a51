"""Cutting: the right place to a fraction of a pixel, antialiased, upright, never a corner passed off as a face."""

import numpy as np
import pytest

from facemae.errors import DataError
from facemae.faces import Frame, cut
from facemae.rng import generator


@pytest.fixture(scope="module")
def frame() -> Frame:
    return generator(0, "crop").integers(0, 256, (90, 120, 3)).astype(np.uint8)


def _ramp(slope: float) -> Frame:
    """Red grows to the right and green downwards; pixel k has its centre at k + 0.5."""
    x, y = np.arange(120) + 0.5, np.arange(90) + 0.5
    out = np.zeros((90, 120, 3), np.uint8)
    out[..., 0], out[..., 1] = np.round(slope * x)[None, :], np.round(slope * y)[:, None]
    return out


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_at_its_own_size_a_crop_is_the_pixels_themselves(frame: Frame, interpolation: str) -> None:
    crop = cut(frame, 60, 40, 32, 32, interpolation=interpolation)  # type: ignore[arg-type]
    np.testing.assert_array_equal(crop, frame[24:56, 44:76])


def test_half_a_pixel_is_the_mean_of_neighbours(frame: Frame) -> None:
    crop = cut(frame, 60.5, 40, 32, 32).astype(int)
    mean = (frame[24:56, 44:76].astype(float) + frame[24:56, 45:77]) / 2
    np.testing.assert_allclose(crop, mean, atol=1)


@pytest.mark.parametrize(("size", "side"), [(20, 40.0), (64, 40.0), (33, 47.3)])
def test_every_pixel_is_where_it_belongs(size: int, side: float) -> None:
    crop = cut(_ramp(2.0), 61.3, 44.7, side, size).astype(float)
    place = (np.arange(size) + 0.5) * side / size - side / 2
    np.testing.assert_allclose(crop[..., 0], np.tile(2 * (61.3 + place), (size, 1)), atol=1.01)
    np.testing.assert_allclose(crop[..., 1].T, np.tile(2 * (44.7 + place), (size, 1)), atol=1.01)


def test_shrinking_is_antialiased() -> None:
    checks = np.indices((90, 120)).sum(axis=0) % 2 * 255
    frame = np.repeat(checks[..., None], 3, axis=2).astype(np.uint8)
    crop = cut(frame, 60, 45, 64, 16)
    assert np.abs(crop.astype(int) - 127.5).max() < 12


def test_beyond_the_border_the_last_pixels_are_repeated() -> None:
    frame = _ramp(2.0)
    crop = cut(frame, 2, 3, 40, 40)
    padded = np.pad(frame, ((17, 0), (18, 0), (0, 0)), mode="edge")
    np.testing.assert_array_equal(crop, padded[:40, :40])
    assert cut(frame, 119, 89, 40, 40)[-1, -1].tolist() == frame[-1, -1].tolist()


def test_a_crop_is_the_same_part_of_a_larger_frame(frame: Frame) -> None:
    """Pixels around the box take part, whether or not it touches a border of the array."""
    whole = cut(frame, 60.2, 45.1, 40, 17)
    np.testing.assert_array_equal(cut(frame[10:80, 20:100], 40.2, 35.1, 40, 17), whole)


def test_nothing_is_turned_or_mirrored() -> None:
    frame = np.zeros((60, 60, 3), np.uint8)
    frame[:30, :30] = 255, 0, 0
    crop = cut(frame, 30, 30, 60, 20)
    assert crop[2, 2].tolist() == [255, 0, 0]
    assert crop[2, -3].tolist() == crop[-3, 2].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "box", [(-1, 40, 30), (60, 91, 30), (60, 40, 2), (60, 40, 400), (float("nan"), 40, 30), (60, 40, float("nan"))]
)
def test_what_can_be_no_face_is_refused(frame: Frame, box: tuple[float, float, float]) -> None:
    with pytest.raises(DataError, match=r"a box of side .* in a frame of 120 x 90 pixels\n  expected: a centre within"):
        cut(frame, *box, 32)


def test_unknown_interpolation_is_an_error(frame: Frame) -> None:
    with pytest.raises(DataError, match=r"size 32, interpolation 'nearest'\n  expected: .*bilinear, bicubic"):
        cut(frame, 60, 40, 32, 32, interpolation="nearest")  # type: ignore[arg-type]
