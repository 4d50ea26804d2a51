"""Sound as a member of a shard: FLAC is written, FLAC and WAV are read, a window at a time."""

import io
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from facemae.errors import DataError, DecodeError
from facemae.extras import needs_extra
from facemae.sound.resample import resample, shared_grid
from facemae.sound.wave import Wave, to_int16

with needs_extra("video", "sound in shards"):
    import soundfile

LEVEL = 0.5
"""FLAC's effort, 0 to 1; decision 0042 has sizes and times."""


_BLOCK = 1 << 16


class SoundWindow(NamedTuple):
    """Part of a stored sound."""

    wave: Wave
    """float32 [N], silence where the sound had none."""
    rate: int
    """Samples a second."""
    missing: float
    """Seconds of the window in front of the sound's start and behind its end."""


def encode(wave: Wave, rate: int) -> bytes:
    """A wave as FLAC of 16 bits; the same wave gives the same bytes under one version of libsndfile.

    Args:
        wave: float32 [N]; beyond [-1, 1] it is clipped. Multiples of 1/32768 are kept exactly; nothing is dithered.
        rate: Samples a second.

    Raises:
        DataError: The wave has no samples.
    """
    file = io.BytesIO()
    write([wave], rate, file)
    return file.getvalue()


def write(blocks: Iterable[Wave], rate: int, file: BinaryIO) -> int:
    """Write a long sound block by block, as `encode` does; the blocks' lengths do not change the bytes.

    Args:
        blocks: float32 [N] each.
        rate: Samples a second.
        file: Open for writing; must be able to seek.

    Returns:
        Samples written.

    Raises:
        DataError: There is not one sample; a FLAC file of none has no header either.
    """
    samples = 0
    with soundfile.SoundFile(
        file, "w", samplerate=rate, channels=1, format="FLAC", subtype="PCM_16", compression_level=LEVEL
    ) as flac:
        for wave in blocks:
            flac.write(to_int16(wave))
            samples += len(wave)
    if not samples:
        raise DataError(
            "a sound of no samples", expected="at least one", fix="leave the member out: a clip without sound"
        )
    return samples


def read_window(data: bytes, start: float, seconds: float, *, rate: int | None = None, name: str) -> SoundWindow:
    """Part of a stored sound; only that part is decoded.

    The window's first sample is that of the wanted rate nearest to `start`, so it is at most half a sample away.

    Args:
        data: FLAC or WAV bytes, of any number of channels; their mean is taken.
        start: Seconds after the sound's start; may be negative.
        seconds: Length of the window.
        rate: Samples a second of the result; None: as stored. Another rate is resampled, with some sound from beyond
            the window for the filter: the window equals that part of the whole sound resampled.
        name: What the sound is called in error messages.

    Returns:
        The window, round(seconds * rate) samples, and how much of it the sound does not have.

    Raises:
        DecodeError: The bytes are no FLAC or WAV, or the window's part of them is damaged.
    """
    if seconds < 0:
        raise ValueError(f"a window of {seconds} seconds")
    with _open(data, name) as file:
        rate = rate or file.samplerate
        first, count = round(start * rate), round(seconds * rate)
        present = max(0.0, min((first + count) / rate, file.frames / file.samplerate) - max(first / rate, 0.0))
        missing = max(0.0, count / rate - present)
        if rate == file.samplerate:
            return SoundWindow(_read(file, first, count, name), rate, missing)
        return SoundWindow(_resampled(file, first, count, rate, name), rate, missing)


def read_blocks(data: bytes, *, name: str) -> Iterator[Wave]:
    """A whole stored sound in blocks of bounded length.

    Args:
        data: FLAC or WAV bytes.
        name: What the sound is called in error messages.

    Yields:
        float32 [N], mono at the stored rate.

    Raises:
        DecodeError: The bytes are no FLAC or WAV, or damaged.
    """
    with _open(data, name) as file:
        for first in range(0, file.frames, _BLOCK):
            yield _read(file, first, min(_BLOCK, file.frames - first), name)


def _resampled(file: "soundfile.SoundFile", first: int, count: int, rate: int, name: str) -> Wave:
    """Samples [first, first + count) of the whole sound resampled, made from what is near them."""
    stored, made = shared_grid(file.samplerate, rate)
    begin = first // made - 1
    end = -((first + count) // -made) + 1
    wave = resample(_read(file, begin * stored, (end - begin) * stored, name), file.samplerate, rate)
    skip = first - begin * made
    return wave[skip : skip + count].copy()


def _read(file: "soundfile.SoundFile", first: int, count: int, name: str) -> Wave:
    """Samples [first, first + count), silence where there are none."""
    wave = np.zeros(count, np.float32)
    begin, end = max(first, 0), min(first + count, file.frames)
    if begin >= end:
        return wave
    try:
        file.seek(begin)
        read = file.read(end - begin, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise _damaged(name, error.error_string) from error
    if len(read) != end - begin:
        raise _damaged(name, f"{len(read)} of {end - begin} samples from sample {begin} on")
    if not np.isfinite(read).all():
        raise _damaged(name, f"samples that are no numbers between {begin} and {end}")
    wave[begin - first : end - first] = read[:, 0] if read.shape[1] == 1 else read.mean(axis=1)
    return np.clip(wave, -1, 1, out=wave)


def _open(data: bytes, name: str) -> "soundfile.SoundFile":
    if data[:4] not in (b"fLaC", b"RIFF", b"RF64"):
        raise DecodeError(
            f"{name}: not FLAC or WAV (starts with {data[:8]!r}, {len(data)} bytes)",
            expected="a sound that facemae packed, or a wav",
            fix="pack the shards anew; other kinds of sound cannot be cut to the sample",
        )
    try:
        return soundfile.SoundFile(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        raise _damaged(name, error.error_string) from error


def _damaged(name: str, reason: str) -> DecodeError:
    return DecodeError(f"{name}: the sound does not decode: {reason}", expected="a whole FLAC or WAV")
