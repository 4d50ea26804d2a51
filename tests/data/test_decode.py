"""Decoding: upright, eight bits, the asked channels; damage of every kind is an error that says what it is."""

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from facemae.data.decode import Pixels, decode_image, image_size
from facemae.data.reencode import to_png
from facemae.errors import DecodeError


def picture(height: int = 40, width: int = 56) -> Pixels:
    small = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def encode(image: Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


JPEG = encode(Image.fromarray(picture()), "JPEG", quality=95)
PNG = encode(Image.fromarray(picture()), "PNG")


def rgb(data: bytes) -> Pixels:
    return decode_image(data, channels=3, name="x")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_is_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(picture()), kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    pixels = rgb(data)
    assert pixels.shape == ((56, 40, 3) if orientation >= 5 else (40, 56, 3))
    assert pixels.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_what_pillow_decodes(channels: int) -> None:
    expected = np.asarray(Image.open(io.BytesIO(JPEG)).convert("RGB" if channels == 3 else "L")).reshape(
        40, 56, channels
    )
    pixels = decode_image(JPEG, channels=channels, name="x")
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGBA", "RGB"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_gives_the_asked_channels(mode: str, channels: int) -> None:
    image = Image.fromarray(picture()).convert(mode)
    pixels = decode_image(encode(image, "PNG"), channels=channels, name="x")
    expected = np.asarray(image.convert("RGB" if channels == 3 else "L")).reshape(40, 56, channels)
    np.testing.assert_array_equal(pixels, expected)


def test_cmyk_has_the_colours_of_the_picture() -> None:
    pixels = rgb(encode(Image.fromarray(picture()).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - picture()).mean() < 4


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 3)])
def test_sixteen_bits_are_scaled_and_not_clipped(shape: tuple[int, ...]) -> None:
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    wide = ramp if len(shape) == 2 else np.repeat(ramp[:, :, None], 3, axis=2)
    _, data = cv2.imencode(".png", wide)
    for channels in (1, 3):
        pixels = decode_image(data.tobytes(), channels=channels, name="x")
        np.testing.assert_array_equal(pixels[:, :, 0].ravel(), np.arange(256))


def test_transparency_is_shown_on_white() -> None:
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[0, 0] = (10, 20, 30, 255)
    clear[1, 1] = (0, 0, 0, 128)
    pixels = rgb(encode(Image.fromarray(clear, "RGBA"), "PNG"))
    assert pixels[0, 0].tolist() == [10, 20, 30]
    assert pixels[1, 1].tolist() == [127, 127, 127]
    assert pixels[3, 3].tolist() == [255, 255, 255]


def test_zero_bytes_are_named() -> None:
    with pytest.raises(DecodeError, match="face_7: the image has zero bytes"):
        decode_image(b"", channels=3, name="face_7")


@pytest.mark.parametrize("data", [JPEG, PNG])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.99])
def test_a_cut_file_is_an_error_and_not_half_a_face(data: bytes, share: float) -> None:
    with pytest.raises(DecodeError, match="x: "):
        rgb(data[: int(len(data) * share)])


def test_a_flipped_bit_in_a_png_is_found() -> None:
    data = bytearray(PNG)
    data[len(data) // 2] ^= 16
    with pytest.raises(DecodeError):
        rgb(bytes(data))


def test_harmless_bytes_around_a_jpeg_are_forgiven() -> None:
    for data in (JPEG + b"trailer", JPEG[:-2] + b"\x00\x11" + JPEG[-2:]):
        np.testing.assert_array_equal(rgb(data), rgb(JPEG))


def test_what_is_no_image_is_said_to_be_none() -> None:
    with pytest.raises(DecodeError, match="not an image"):
        rgb(b"<html>not found</html>")


def bomb_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_few_bytes_that_claim_many_pixels_are_refused_from_the_header() -> None:
    with pytest.raises(DecodeError, match="10000 x 9000 pixels"):
        rgb(bomb_png(10_000, 9_000))
    with pytest.raises(DecodeError):
        rgb(bomb_png(60_000, 60_000))
    start = JPEG.index(b"\xff\xc0") + 5
    with pytest.raises(DecodeError, match="60000 x 60000 pixels"):
        rgb(JPEG[:start] + struct.pack(">HH", 60_000, 60_000) + JPEG[start + 4 :])


def test_size_comes_from_the_header() -> None:
    assert image_size(JPEG, name="x") == image_size(PNG, name="x") == (56, 40)
    with pytest.raises(DecodeError):
        image_size(b"nothing", name="x")


@pytest.mark.parametrize(
    "data", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n", b"\xc5\xd0\xd3\xc6" + bytes(40)]
)
def test_postscript_reaches_no_interpreter(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def ran(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was asked")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", ran)
    with pytest.raises(DecodeError, match="not an image"):
        decode_image(data, channels=3, name="face.jpg")
    with pytest.raises(DecodeError):
        to_png(data, "face.bmp")
    with pytest.raises(DecodeError):
        image_size(data, name="face.jpg")
