"""Encoded image bytes to upright uint8 pixels.

One function, `decode_image`, is the only decoder of the library: the training loader, `facemae data verify`, the
feature extractor and the demo all see the same pixels for the same bytes. The choice of decoders and what each costs is
recorded in ``docs/decisions/0010-image-decoding.md``.
"""

import io
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from facemae.errors import DecodeError

MAX_PIXELS = 64_000_000
"""Largest image that is decoded. A face crop has thousands of times fewer; a few bytes can claim far more."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
"""What Pillow may take bytes for. By default it asks all plugins, and that of EPS hands the bytes to Ghostscript."""

_JPEG_MAGIC = b"\xff\xd8\xff"
_EXIF_MAGIC = b"Exif\x00\x00"
_ORIENTATION_TAG = 0x0112
_DAMAGE = ("premature end", "corrupt jpeg data", "bad huffman", "truncated")
_HARMLESS = "extraneous bytes before marker"

Pixels = NDArray[np.uint8]


def decode_image(data: bytes, *, channels: int, name: str) -> Pixels:
    """Decode one still image.

    The image is turned upright by its EXIF orientation. CMYK, palette, bilevel and 16-bit images are converted;
    16-bit values are scaled, not clipped. Transparent parts are shown on white, as a browser would. Of an animation the
    first frame is taken. Grey is the luma of ITU-R 601.

    Args:
        data: The encoded bytes, in one of `FORMATS`.
        channels: 3 for RGB, 1 for grey.
        name: What the image is called in error messages: a path or a key.

    Returns:
        uint8 [H, W, channels], contiguous.

    Raises:
        DecodeError: The bytes are empty, damaged, truncated, of an unknown format, or claim more than `MAX_PIXELS`.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels}; an image is decoded to 1 (grey) or 3 (RGB)")
    if not data:
        raise DecodeError(f"{name}: the image has zero bytes", expected="an encoded JPEG, PNG or WebP image")
    if data.startswith(_JPEG_MAGIC):
        pixels = _decode_jpeg(data, channels, name)
        if pixels is not None:
            return pixels
    return _decode_general(data, channels, name)


def image_size(data: bytes, *, name: str) -> tuple[int, int]:
    """Width and height of an encoded image in pixels, from its header, before any turn by EXIF.

    Raises:
        DecodeError: The header cannot be read.
    """
    if data.startswith(_JPEG_MAGIC):
        try:
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
        except ValueError:
            pass  # an uncommon kind of JPEG: Pillow decides
        else:
            return int(width), int(height)
    image = _open(data, name)
    return image.width, image.height


def _decode_jpeg(data: bytes, channels: int, name: str) -> Pixels | None:
    """Pixels by libjpeg-turbo; None where the file is a kind of JPEG only Pillow reads."""
    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_pixels(width, height, name)
    if colour in ("CMYK", "YCCK"):
        return None
    wanted = "RGB" if channels == 3 else "GRAY"
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, wanted, strict=True)
    except ValueError as error:
        reason = str(error)
        if _HARMLESS not in reason and any(sign in reason.lower() for sign in _DAMAGE):
            # Without `strict` the missing part would come back as plain grey: half a face, and no error.
            raise _damaged(name, reason, len(data)) from error
        return None
    # Reading EXIF costs a tenth of a decode; files without the marker skip it.
    orientation = _orientation(_open(data, name)) if _EXIF_MAGIC in data else 1
    return _upright(pixels, orientation)


def _decode_general(data: bytes, channels: int, name: str) -> Pixels:
    image = _open(data, name)
    try:
        if image.format == "PNG":
            # Loading does not look at the checksums of a PNG, so damaged pixels would pass for a picture.
            image.verify()
            image = _open(data, name)
        image.load()
        orientation = _orientation(image)
        pixels = _to_8_bit(image, channels)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, zlib.error, struct.error, ...
        raise _damaged(name, str(error), len(data)) from error
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] != channels:
        pixels = np.repeat(pixels, channels, axis=2)
    return _upright(pixels, orientation)


def _open(data: bytes, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise DecodeError(
            f"{name}: not an image (starts with {data[:8]!r}, {len(data)} bytes)", expected="a JPEG, PNG or WebP image"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # see _decode_general; also Pillow's own guard against decompression bombs
        raise _damaged(name, str(error), len(data)) from error
    _check_pixels(image.width, image.height, name)
    return image


def _to_8_bit(image: Image.Image, channels: int) -> Pixels:
    if image.mode.startswith("I"):  # 16-bit grey: `I;16`, or `I` from older Pillow and other formats
        wide = np.asarray(image).astype(np.int64)
        if wide.min(initial=0) < 0 or wide.max(initial=0) > 65535:
            raise ValueError(f"grey values from {wide.min()} to {wide.max()} are outside 16 bits")
        return ((wide + 128) // 257).astype(np.uint8)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB" if channels == 3 else "L"))


def _orientation(image: Image.Image) -> int:
    try:
        value: Any = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 - Pillow raises many kinds; broken EXIF says nothing about the pixels: as stored
        return 1
    return value if value in range(1, 9) else 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo the camera's turn; the numbers are those of the EXIF standard."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _check_pixels(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise DecodeError(
            f"{name}: the header claims {width} x {height} pixels",
            expected=f"at most {MAX_PIXELS} pixels",
            fix="crop or shrink the image before packing",
        )


def _damaged(name: str, reason: str, size: int) -> DecodeError:
    return DecodeError(f"{name}: the image does not decode: {reason} ({size} bytes)", expected="a whole image")
