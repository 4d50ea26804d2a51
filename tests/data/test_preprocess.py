"""Resize, normalise and model input: Pillow's antialiasing, torchvision's numbers."""

import numpy as np
import pytest
import torch
from PIL import Image

from facemae.data.preprocess import normalise, resize, to_model_input
from facemae.data.schema import ModelInput

NOISE = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "kind"), [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)]
)
@pytest.mark.parametrize("size", [17, 64, 224])
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_agrees_with_pillow(name: str, kind: Image.Resampling, size: int, channels: int) -> None:
    image = NOISE[:, :, :channels]
    left, top, width, height = 11, 5, 70, 81
    part = Image.fromarray(image.squeeze()).crop((left, top, left + width, top + height))
    expected = np.asarray(part.resize((size, size), kind)).reshape(size, size, channels)
    found = resize(image, size, box=(left, top, width, height), interpolation=name)
    assert found.shape == (size, size, channels)
    difference = np.abs(found.astype(int) - expected)
    assert difference.mean() < 0.5
    # Bicubic overshoots are clipped after each pass, which shows on single pixels of white noise.
    assert difference.max() <= (1 if name == "bilinear" else 16)


def test_strong_reduction_averages_instead_of_skipping() -> None:
    stripes = np.zeros((256, 256, 1), np.uint8)
    stripes[:, ::2] = 255
    inside = resize(stripes, 16)[2:-2, 2:-2].astype(int)
    assert np.abs(inside - 127).max() <= 2


def test_resize_never_gives_back_its_input() -> None:
    image = NOISE[:64, :64].copy()
    same = resize(image, 64)
    same[:] = 0
    assert image.any()


def test_model_input_is_planes_of_the_whole_image() -> None:
    model_input = ModelInput(image_size=32, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    found = to_model_input(NOISE, model_input)
    np.testing.assert_array_equal(found, resize(NOISE, 32).transpose(2, 0, 1))
    assert found.flags["C_CONTIGUOUS"]
    with pytest.raises(ValueError, match=r"expected \[H, W, 3\]"):
        to_model_input(NOISE[:, :, :1], model_input)


def test_model_input_may_be_a_part_of_the_image() -> None:
    height, width = NOISE.shape[:2]
    model_input = ModelInput(image_size=32, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3, part=(0.0, 0.5, 0.5, 1.0))
    left = np.ascontiguousarray(NOISE[round(height / 2) :, : round(width / 2)])
    np.testing.assert_array_equal(to_model_input(NOISE, model_input), resize(left, 32).transpose(2, 0, 1))


@pytest.mark.parametrize("channels", [1, 3])
def test_normalise_agrees_with_torchvision(channels: int) -> None:
    from torchvision.transforms.functional import normalize, to_tensor

    image = NOISE[:, :, :channels]
    mean, std = (0.485, 0.456, 0.406)[:channels], (0.229, 0.224, 0.225)[:channels]
    expected = normalize(to_tensor(np.ascontiguousarray(image)), mean, std)
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    torch.testing.assert_close(normalise(pixels, mean, std)[0], expected, atol=1e-5, rtol=0)
    assert normalise(pixels, mean, std, torch.bfloat16).dtype == torch.bfloat16
    assert pixels.dtype == torch.uint8


def test_normalise_refuses_what_is_normalised_already() -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        normalise(torch.zeros(1, 3, 4, 4), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ValueError, match="do not match"):
        normalise(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), (0.5,) * 3, (0.5,) * 3)
