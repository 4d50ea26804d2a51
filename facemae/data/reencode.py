"""Encoding images anew at pack time, where that was asked for or the format is one that shard readers do not know."""

import io

from PIL import Image, ImageOps

from facemae.data.decode import FORMATS, decode_image
from facemae.errors import DecodeError

INTERPOLATION = "bicubic"
"""How `shrink` resamples, for the dataset card."""

_JPEG_QUALITY = 95


def shrink(data: bytes, side: int, extension: str, name: str) -> bytes:
    """The image with its shorter side scaled down to `side` pixels; smaller images come back as they are.

    The result is upright RGB: PNG stays PNG, JPEG and WebP are written at quality 95.

    Args:
        data: The encoded image.
        side: Target length of the shorter side in pixels.
        extension: `jpg`, `png` or `webp`: what to write.
        name: What to call the image in messages.

    Raises:
        DecodeError: The bytes do not decode.
    """
    image = Image.fromarray(decode_image(data, channels=3, name=name))
    scale = side / min(image.size)
    if scale >= 1:
        return data
    width, height = (max(side, round(length * scale)) for length in image.size)
    small = image.resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    if extension == "png":
        small.save(buffer, "png")
    else:
        small.save(buffer, {"jpg": "jpeg", "webp": "webp"}[extension], quality=_JPEG_QUALITY)
    return buffer.getvalue()


def to_png(data: bytes, name: str) -> bytes:
    """A bitmap or TIFF as PNG, upright and without loss; CMYK becomes RGB, which PNG can hold.

    Raises:
        DecodeError: The bytes do not decode.
    """
    if not data:
        raise DecodeError(f"{name}: the image has zero bytes", expected="an encoded image")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            upright = ImageOps.exif_transpose(image)
            kept = (
                upright if upright.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I") else upright.convert("RGB")
            )
            buffer = io.BytesIO()
            kept.save(buffer, "png")
    except (OSError, ValueError, SyntaxError) as error:
        raise DecodeError(f"{name}: damaged image ({error})", expected="an image that decodes") from error
    return buffer.getvalue()
