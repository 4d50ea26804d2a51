"""Photometric changes: torchvision's definitions within rounding, drawn from the sample alone."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as reference

from facemae.data.augment import make_view
from facemae.data.photometric import brightness, contrast, draw_change, gaussian_blur, hue, saturation, solarised
from facemae.data.preprocess import Pixels
from facemae.data.schema import MaskSpec, PhotometricSpec, ViewSpec
from facemae.rng import generator

NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
SMOOTH = np.stack(np.meshgrid(np.arange(32) * 8, np.arange(32) * 5), axis=-1) @ np.array([[1, 0, 0.5], [0, 1, 0.3]])
IMAGES = {"noise": NOISE, "smooth": SMOOTH.clip(0, 255).astype(np.uint8), "grey": NOISE[:, :, :1].copy()}
EVERYTHING = PhotometricSpec(
    colour=1.0, brightness=(0.6, 1.4), contrast=(0.6, 1.4), saturation=(0.8, 1.2), hue=(-0.1, 0.1),
    grey=0.2, blur=0.5, sigma=(0.1, 2.0), solarise=0.3,
)  # fmt: skip


def theirs(function: Callable[..., torch.Tensor], image: Pixels, *arguments: object) -> Pixels:
    pixels = function(torch.from_numpy(image).permute(2, 0, 1), *arguments)
    made: Pixels = pixels.permute(1, 2, 0).numpy()
    return made


def largest_difference(one: Pixels, other: Pixels) -> int:
    assert one.shape == other.shape
    assert one.dtype == other.dtype == np.uint8
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
@pytest.mark.parametrize(
    ("ours", "function"), [(brightness, reference.adjust_brightness), (contrast, reference.adjust_contrast)]
)
def test_brightness_and_contrast(
    ours: Callable[[Pixels, float], Pixels], function: Callable[..., torch.Tensor], factor: float, name: str
) -> None:
    image = IMAGES[name]
    assert largest_difference(ours(image, factor), theirs(function, image, factor)) <= 1


@pytest.mark.parametrize("name", ["noise", "smooth"])
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_saturation(factor: float, name: str) -> None:
    image = IMAGES[name]
    assert largest_difference(saturation(image, factor), theirs(reference.adjust_saturation, image, factor)) <= 2


def test_grey_is_saturation_zero() -> None:
    grey = saturation(NOISE, 0.0)
    assert (grey == grey[:, :, :1]).all()
    assert largest_difference(grey, theirs(reference.rgb_to_grayscale, NOISE, 3)) <= 1


@pytest.mark.parametrize("name", ["noise", "smooth"])
@pytest.mark.parametrize("shift", [-0.5, -0.17, 0.0, 0.1, 0.5])
def test_hue(shift: float, name: str) -> None:
    image = IMAGES[name]
    assert largest_difference(hue(image, shift), theirs(reference.adjust_hue, image, shift)) <= 1


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur(sigma: float, name: str) -> None:
    image = IMAGES[name]
    side = 2 * int(np.ceil(3 * sigma)) + 1
    expected = theirs(reference.gaussian_blur, image, [side, side], [sigma, sigma])
    assert largest_difference(gaussian_blur(image, sigma), expected) <= 1


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("threshold", [0, 100, 128, 255])
def test_solarise(threshold: int, name: str) -> None:
    image = IMAGES[name]
    assert largest_difference(solarised(image, threshold), theirs(reference.solarize, image, float(threshold))) == 0


def test_each_happens_as_often_as_asked() -> None:
    for spec in (
        PhotometricSpec(colour=0.3, brightness=(0.5, 0.9)),
        PhotometricSpec(grey=0.3),
        PhotometricSpec(blur=0.3, sigma=(1.0, 2.0)),
        PhotometricSpec(solarise=0.3),
    ):
        changed = sum(not np.array_equal(draw_change(spec, generator(0, i))(NOISE), NOISE) for i in range(400))
        assert abs(changed - 120) < 45  # five deviations


def test_factors_fill_their_range_evenly() -> None:
    flat = np.full((4, 4, 1), 100, np.uint8)
    spec = PhotometricSpec(colour=1.0, brightness=(0.5, 1.5))
    levels = np.array([draw_change(spec, generator(0, i))(flat)[0, 0, 0] for i in range(600)])
    assert 50 <= levels.min() < 56
    assert 144 < levels.max() <= 150
    assert abs(levels.mean() - 100) < 6


def test_the_order_of_colour_changes_is_drawn() -> None:
    # Brightness first saturates the pixels, contrast first does not: the two orders give different pixels.
    spec = PhotometricSpec(colour=1.0, brightness=(1.9, 1.9 + 1e-12), contrast=(0.3, 0.3 + 1e-12))
    results = {draw_change(spec, generator(0, i))(NOISE).tobytes() for i in range(40)}
    assert len(results) == 2


def test_switching_one_off_changes_no_other() -> None:
    for i in range(20):
        alone = draw_change(replace(EVERYTHING, grey=0.0, blur=0.0, solarise=0.0), generator(0, i))(NOISE)
        with_blur = draw_change(replace(EVERYTHING, grey=0.0, blur=1.0, solarise=0.0), generator(0, i))(NOISE)
        sigma = 0.1 + 1.9 * generator_numbers(i)[7]
        np.testing.assert_array_equal(with_blur, gaussian_blur(alone, sigma))


def generator_numbers(i: int) -> list[float]:
    rng = generator(0, i)
    rng.permutation(4)
    numbers: list[float] = rng.random(9).tolist()
    return numbers


def test_the_input_is_never_written() -> None:
    image = NOISE.copy()
    for i in range(30):
        draw_change(EVERYTHING, generator(0, i))(image)
    np.testing.assert_array_equal(image, NOISE)


@pytest.mark.parametrize("channels", [1, 3])
def test_crop_flip_and_mask_are_drawn_as_without(channels: int) -> None:
    image = np.ascontiguousarray(NOISE[:, :, :channels])
    mask = MaskSpec("random", (4, 4), 4)
    plain = ViewSpec("main", 16, channels, mask=mask)
    nothing = replace(plain, photometric=PhotometricSpec())
    solar = replace(plain, photometric=PhotometricSpec(solarise=1.0, threshold=0))
    for sample in range(10):
        pixels, visible = make_view(image, plain, 0, "faces", 0, sample)
        same, same_visible = make_view(image, nothing, 0, "faces", 0, sample)
        inverted, inverted_visible = make_view(image, solar, 0, "faces", 0, sample)
        assert visible is not None
        assert same_visible is not None
        assert inverted_visible is not None
        np.testing.assert_array_equal(pixels, same)
        np.testing.assert_array_equal(pixels, 255 - inverted)
        assert visible.tolist() == same_visible.tolist() == inverted_visible.tolist()
