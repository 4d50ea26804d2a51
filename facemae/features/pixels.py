"""What an image may be given as, to upright pixels."""

import io
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from facemae.data.decode import Pixels, decode_image
from facemae.errors import DataError, DecodeError


def to_pixels(value: Any, channels: int, name: str) -> Pixels:
    """Upright uint8 pixels from what an item holds.

    Args:
        value: Encoded bytes, a PIL image, or a uint8 array [H, W], [H, W, 1] or [H, W, 3] (RGB).
        channels: 1 grey or 3 RGB. Grey is repeated; colour becomes its luma.
        name: For messages.

    Returns:
        uint8 [H, W, channels].

    Raises:
        DecodeError: The bytes are not an image.
        DataError: An array whose layout or range is not that of pixels.
    """
    if isinstance(value, bytes):
        return decode_image(value, channels=channels, name=name)
    if isinstance(value, Image.Image):
        return _from_pil(value, channels, name)
    if isinstance(value, np.ndarray):
        return _from_array(value, channels, name)
    raise DataError(f"image {name} is of type {type(value).__name__}", expected="a path, a uint8 array or a PIL image")


def _from_pil(image: Image.Image, channels: int, name: str) -> Pixels:
    # Through lossless PNG, so that palettes, alpha and 16 bits are read by the one decoder.
    buffer = io.BytesIO()
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode not in {"1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"}:
            upright = upright.convert("RGB")
        upright.save(buffer, "PNG", compress_level=1)
    except (OSError, SyntaxError, ValueError) as error:
        raise DecodeError(f"image {name} does not decode: {error}") from error
    return decode_image(buffer.getvalue(), channels=channels, name=name)


def _from_array(array: np.ndarray, channels: int, name: str) -> Pixels:
    if array.dtype != np.uint8:
        span = f", values {array.min():.3g} to {array.max():.3g}" if array.size and array.dtype.kind in "fiu" else ""
        raise DataError(
            f"image {name} is an array of {array.dtype}{span}",
            expected="uint8 pixels, 0 to 255, not normalised: the model's own normalisation is applied here",
            fix="for floats in [0, 1]: (image * 255).round().astype('uint8')",
        )
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape:
        first = array.ndim == 3 and array.shape[0] in (1, 3)
        raise DataError(
            f"image {name} is an array of shape {array.shape}" + (", channels first" if first else ""),
            expected="[H, W], [H, W, 1] grey or [H, W, 3] RGB",
            fix="image.transpose(1, 2, 0)" if first else None,
        )
    if array.shape[2] == channels:
        # torch wants memory it could write to; read-only maps and views are copied.
        return np.require(array, requirements=["C", "W"])
    if channels == 3:
        return np.repeat(array, 3, axis=2)
    return np.array(Image.fromarray(array).convert("L"))[:, :, None]
