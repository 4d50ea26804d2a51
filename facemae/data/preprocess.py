"""From upright pixels to what an encoder eats: the one resize and the one normalisation of the library.

Training views, the feature extractor, the probes and the demo all go through here, so that a frozen encoder sees pixels
made the way it was trained on.
"""

import functools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from facemae.data.schema import WHOLE, ModelInput, Part

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]
"""Left, top, width, height in pixels."""


def resize(image: Pixels, size: int, *, box: Box | None = None, interpolation: str = "bilinear") -> Pixels:
    """Scale an image, or a box of it, to a square, with antialiasing.

    The filter widens with the reduction, as in Pillow; results agree with Pillow's within rounding.

    Args:
        image: uint8 [H, W, C].
        size: Side of the result in pixels.
        box: The part to scale; the whole image by default. Pixels outside the box do not bleed in.
        interpolation: `bilinear` or `bicubic`.

    Returns:
        uint8 [size, size, C], contiguous; a copy, never a view of the input.
    """
    scaled: Pixels = resize_frames(image[None], size, box=box, interpolation=interpolation)[0]
    return scaled


def resize_frames(frames: Pixels, size: int, *, box: Box | None = None, interpolation: str = "bilinear") -> Pixels:
    """As `resize`, each frame of a clip: uint8 [T, H, W, C] to [T, size, size, C], to the bit what one by one gives."""
    if box is not None:
        left, top, width, height = box
        frames = frames[:, top : top + height, left : left + width]
    if frames.shape[1:3] == (size, size):
        return frames.copy()
    # The batch axis comes first, else torch does not see that channels are innermost and misses its fast uint8 kernel.
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    scaled = F.interpolate(pixels, (size, size), mode=interpolation, antialias=True)
    return np.ascontiguousarray(scaled.permute(0, 2, 3, 1).numpy())


def part_box(part: Part, width: int, height: int) -> Box:
    """A part of a picture in whole pixels, at least one in each direction."""
    left, top = min(round(part[0] * width), width - 1), min(round(part[1] * height), height - 1)
    return left, top, max(1, round(part[2] * width) - left), max(1, round(part[3] * height) - top)


def to_model_input(image: Pixels, model_input: ModelInput) -> Pixels:
    """The deterministic preprocessing of evaluation: the whole image, or the model's part of it, scaled to a square.

    It is what crop kind `resize` does in training. The aspect ratio is not kept; face crops are square by convention.

    Args:
        image: uint8 [H, W, C], upright, with the encoder's number of channels (see `decode_image`).
        model_input: What the encoder expects.

    Returns:
        uint8 [C, S, S], contiguous, not yet normalised.
    """
    if image.ndim != 3 or image.shape[2] != model_input.channels:
        raise ValueError(f"image has shape {image.shape}; expected [H, W, {model_input.channels}]")
    box = None if model_input.part == WHOLE else part_box(model_input.part, image.shape[1], image.shape[0])
    scaled = resize(image, model_input.image_size, box=box, interpolation=model_input.interpolation)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def normalise(
    images: torch.Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Pixels to zero mean and unit variance by channel, on the device the pixels are on.

    Args:
        images: uint8 [B, C, H, W], or clips [B, T, C, H, W].
        mean: Per channel, of pixels in [0, 1].
        std: Per channel, of pixels in [0, 1].
        dtype: Type of the result; the arithmetic is in fp32.

    Returns:
        (images / 255 - mean) / std, of the same shape and of `dtype`.
    """
    if images.dtype != torch.uint8 or images.ndim not in (4, 5):
        raise ValueError(f"pixels are {images.dtype} {tuple(images.shape)}; expected uint8 [B, C, H, W]")
    if not images.shape[-3] == len(mean) == len(std):
        raise ValueError(f"{images.shape[-3]} channels, {len(mean)} means and {len(std)} deviations do not match")
    shift, scale = _shift_and_scale(tuple(mean), tuple(std), images.device)
    return images.to(torch.float32).add_(shift).mul_(scale).to(dtype)


# A tensor made from numbers on a GPU waits for all that is queued there.
@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)
def _shift_and_scale(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    shift = torch.tensor(mean, dtype=torch.float32, device=device).mul(-255).view(-1, 1, 1)
    return shift, torch.tensor(std, dtype=torch.float32, device=device).mul(255).reciprocal().view(-1, 1, 1)
