"""Seconds of clips: windows that follow each other without overlap, as the encoders of a recipe see and hear them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from facemae.data.augment import make_clip_view
from facemae.data.index import ShardIndex
from facemae.data.material import Material, sound_extension
from facemae.data.reader import ShardReader
from facemae.data.schema import SoundSpec, ViewSpec
from facemae.errors import DataError
from facemae.sound.mel import log_mel, nominal_seconds
from facemae.sound.store import read_window
from facemae.video.sampling import nearest_frames

PER_CLIP = 3
"""Windows of a clip."""
_MISSING = 0.1
"""Share of a clip's windows that may lie beyond its end: trackers lose a frame or two there."""


@dataclass(frozen=True)
class Windows:
    """Windows of some clips; those of a clip follow each other.

    Attributes:
        clip: int64 [W], number of the clip.
        part: int64 [W], number of the window in its clip.
        pixels: uint8 [W, T, C, S, S].
        waves: Of each clip the sound beneath its windows, float32 [N].
        sound: What is made of it.
        seconds: Length of a window.
    """

    clip: NDArray[np.int64]
    part: NDArray[np.int64]
    pixels: torch.Tensor
    waves: tuple[NDArray[np.float32], ...]
    sound: SoundSpec
    seconds: float

    def __len__(self) -> int:
        return len(self.clip)

    def mels(self, later: float = 0.0) -> torch.Tensor:
        """Log-mel spectrograms, float32 [W, frames, mels].

        Args:
            later: Take the sound so many seconds after the window's. A clip is a ring, so that every window has sound
                of its own clip however far it is moved, and all sounds together stay the same.
        """
        mel = self.sound.mel
        nominal = nominal_seconds(self.sound.frames, mel)
        found = []
        for clip, part in zip(self.clip, self.part, strict=True):
            # A spectrogram of another length than the window keeps its centre, as in training.
            first = round((part * self.seconds + later + (self.seconds - nominal) / 2) * mel.rate)
            wave = np.take(self.waves[clip], first + np.arange(round(nominal * mel.rate)), mode="wrap")
            found.append(log_mel(wave, mel, self.sound.frames))
        return torch.from_numpy(np.stack(found))


def cut_windows(
    index: ShardIndex, places: Sequence[int], view: ViewSpec, sound: SoundSpec, *, leave_out: bool = False
) -> Windows:
    """Windows of clips, with the whole of what training's views are cut from, neither mirrored nor changed.

    Args:
        index: The shard set.
        places: The clips, by their position in it.
        view: A view of clips.
        sound: The sound beneath it.
        leave_out: Pass over clips that are too short or have no sound.

    Raises:
        DataError: A clip is too short, or has no sound; or all that are not passed over.
        DecodeError: A clip is damaged.
    """
    assert view.clip is not None, "checked with the run"
    plain = replace(view, crop="resize", flip=False, photometric=None, mask=None, stages=())
    seconds = view.clip.frames * view.clip.period
    reader, pixels, waves = ShardReader(index), [], []
    for place in places:
        material = Material(reader.read(place))
        try:
            _check(material, seconds)
        except DataError:
            if leave_out:
                continue
            raise
        pixels += _pictures(material, view, plain, seconds)
        waves.append(_wave(material, PER_CLIP * seconds, sound.mel.rate))
    if not waves:
        raise DataError(
            f"none of {len(places)} clips has sound and {PER_CLIP} windows of {seconds:g} s",
            fix="take clips that are longer, and were packed with their sound",
        )
    clips, parts = np.divmod(np.arange(PER_CLIP * len(waves)), PER_CLIP)
    return Windows(clips, parts, torch.from_numpy(np.stack(pixels)), tuple(waves), sound, seconds)


def _check(material: Material, seconds: float) -> None:
    """Raise DataError where a clip has no three windows, or no sound."""
    key, count = material.sample.key, 0 if material.clip is None else material.clip.count
    if count < (PER_CLIP - _MISSING) * seconds * material.fps:
        raise DataError(
            f"clip {key} has {count} frames, {count / material.fps:.2f} s",
            expected=f"{PER_CLIP} windows of {seconds:g} s",
            fix="pack longer clips, or choose a recipe with a shorter view",
        )
    if sound_extension(material.sample.members) is None:
        raise DataError(f"clip {key} has no sound", expected="clips with sound, for retrieval between both")


def _pictures(material: Material, view: ViewSpec, plain: ViewSpec, seconds: float) -> list[NDArray[np.uint8]]:
    """The windows of a clip, each uint8 [T, C, S, S]."""
    assert view.clip is not None, "checked with the run"
    assert material.clip is not None, "checked"
    found = []
    for part in range(PER_CLIP):
        first = round(part * seconds * material.fps)
        offsets = nearest_frames(view.clip.frames, view.clip.period, material.fps)
        numbers = [min(first + offset, material.clip.count - 1) for offset in offsets]
        out = np.empty((view.clip.frames, view.channels, view.image_size, view.image_size), np.uint8)
        frames = material.frames(numbers, view.channels)
        make_clip_view(frames, plain, 0, "windows", 0, material.sample.index, out=out)
        found.append(out)
    return found


def _wave(material: Material, seconds: float, rate: int) -> NDArray[np.float32]:
    extension = sound_extension(material.sample.members)
    assert extension is not None, "checked"
    member, key = material.sample.members[extension], material.sample.key
    return read_window(member, 0.0, seconds, rate=rate, name=key).wave
