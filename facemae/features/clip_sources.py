"""Windows of clips whose faces are cut already: packed samples, and arrays."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from facemae.data.material import Material, sound_extension
from facemae.data.preprocess import to_model_input
from facemae.data.schema import ModelInput, Sample
from facemae.errors import DataError, DecodeError, UsageError
from facemae.features.pixels import to_pixels
from facemae.features.weights import LoadedEncoder
from facemae.features.windows import Place, Waves, Window, Windows, cut_windows
from facemae.sound.wave import Wave, rounded_to_16_bits

_LOUDEST = 8.0
"""Peaks above it are no overshoot of a resampler or a mix, but another scale."""


def sample_windows(sample: Sample, model: LoadedEncoder, windows: Windows, *, prefix: str = "") -> Iterator[Window]:
    """Windows of a packed clip; frames and sound are decoded window by window.

    Times are those of the video that the clip was packed from, where its metadata says them.

    Args:
        sample: From `facemae.data.reader.ShardReader.read`.
        model: What they are made for.
        windows: How.
        prefix: Put before the names of video and clip, to tell several shard sets apart.

    Raises:
        DecodeError: It has no clip, or is damaged.
        MissingExtraError: The packages that read sound are not installed.
    """
    material = Material(sample)
    clip = material.clip
    if clip is None:
        held = ", ".join(sorted(sample.members)) or "none"
        raise DecodeError(f"{sample.key}: no clip among the members ({held})", expected="an mjpeg or mp4 member")
    offset, person = material.facts.get("start_s", 0.0), material.facts.get("person", 0)
    place = Place(
        source=prefix + str(sample.meta.get("path", sample.key)),
        clip=prefix + sample.key,
        person=person if type(person) is int else 0,
        offset=float(offset) if type(offset) in (int, float) else 0.0,
        length=clip.count / material.fps,
    )

    def pictures(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        channels = model.input.channels
        return ready(clip.frames([int(number) for number in numbers], channels), model.input)

    extension = sound_extension(sample.members)
    waves = None
    if model.sound is not None and extension is not None:
        waves = _stored(sample.members[extension], model.sound.input.mel.rate, sample.key)
    mel = None if model.sound is None else model.sound.input.mel
    yield from cut_windows(place, windows, rate=material.fps, pictures=pictures, waves=waves, mel=mel)


def _stored(data: bytes, rate: int, name: str) -> Waves:
    from facemae.sound.store import read_window

    return lambda first, count: read_window(data, first / rate, count / rate, rate=rate, name=name).wave


def array_windows(
    frames: NDArray[np.uint8] | None,
    fps: float,
    wave: Wave | None,
    rate: int | None,
    name: str,
    model: LoadedEncoder,
    windows: Windows,
) -> Iterator[Window]:
    """Windows of a clip in memory; see `facemae.features.clips.ClipExtractor.of_arrays`."""
    waves, seconds = _given_sound(wave, rate, model)
    mel = None if model.sound is None else model.sound.input.mel
    if frames is None:
        if waves is None or mel is None:
            raise UsageError("neither frames nor sound are given", expected="one of them")
        place = Place(name, name, -1, 0.0, seconds)
        yield from cut_windows(place, windows, rate=mel.rate, waves=waves, mel=mel)
        return
    if frames.ndim != 4 or not len(frames):
        raise DataError(f"frames of shape {frames.shape}", expected="[N, H, W, C], at least one")
    if not 0 < fps < np.inf:
        raise UsageError(f"fps {fps}", expected="frames a second, above zero")
    shown = frames

    def pictures(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        pixels = [to_pixels(shown[number], model.input.channels, f"{name}, frame {number}") for number in numbers]
        return ready(pixels, model.input)

    place = Place(name, name, 0, 0.0, len(frames) / fps)
    yield from cut_windows(place, windows, rate=fps, pictures=pictures, waves=waves, mel=mel)


def _given_sound(wave: Wave | None, rate: int | None, model: LoadedEncoder) -> tuple[Waves | None, float]:
    """Samples by number at the rate that the model hears, and how many seconds there are."""
    if wave is None:
        return None, 0.0
    if rate is None or rate <= 0 or wave.ndim != 1 or wave.dtype != np.float32:
        raise UsageError(
            f"a wave of {wave.dtype} {wave.shape} at rate {rate}", expected="float32 [M] and its samples a second"
        )
    if model.sound is None:
        raise UsageError("sound for a model without a sound_encoder", expected="frames alone")
    if not np.isfinite(wave).all():
        raise DataError(
            f"{int((~np.isfinite(wave)).sum())} samples of a wave are no numbers", expected="finite samples"
        )
    if (peak := float(np.abs(wave).max(initial=0.0))) > _LOUDEST:
        raise DataError(
            f"a wave as loud as {peak:g}",
            expected="samples in [-1, 1]; a little more is cut off",
            fix="divide samples of 16 bits by 32768",
        )
    heard, wave = model.sound.input.mel.rate, rounded_to_16_bits(wave)
    if heard != rate:
        from facemae.sound.resample import resample

        return padded(resample(wave, rate, heard)), len(wave) / rate
    return padded(wave), len(wave) / rate


def padded(wave: Wave) -> Waves:
    """Samples of a wave by number, silence where it has none."""

    def take(first: int, count: int) -> Wave:
        found = np.zeros(count, np.float32)
        begin, end = max(first, 0), min(first + count, len(wave))
        if begin < end:
            found[begin - first : end - first] = wave[begin:end]
        return found

    return take


def ready(frames: "list[NDArray[np.uint8]] | NDArray[np.uint8]", model_input: ModelInput) -> NDArray[np.uint8]:
    """Frames [H, W, C] scaled to the model's square: uint8 [T, C, S, S]."""
    return np.stack([to_model_input(frame, model_input) for frame in frames])
