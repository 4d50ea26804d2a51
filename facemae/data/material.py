"""A sample as views see it: a still or a clip, with or without sound, decoded as far as somebody asks."""

import functools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae.data.decode import Pixels, decode_image
from facemae.data.reader import image_extension
from facemae.data.regions import MEMBER, Map, RegionMaps
from facemae.data.schema import ClipSpec, Sample, SoundSpec, ViewSpec
from facemae.errors import DataError, DecodeError
from facemae.rng import generator
from facemae.sound.align import beneath
from facemae.sound.level import SILENT, level
from facemae.sound.mel import log_mel, nominal_seconds
from facemae.video.read import StoredClip, open_clip
from facemae.video.sampling import nearest_frames

CLIP_EXTENSIONS = ("mjpeg", "mp4")
"""Extensions of a sample's clip, in the order in which they are looked for."""
SOUND_EXTENSIONS = ("flac", "wav")
"""Likewise of its sound."""

_USUAL_FPS = 25.0
_LEAST_FPS, _MOST_FPS = 0.01, 10_000.0
_SHOWN = 60


def clip_extension(members: Collection[str]) -> str | None:
    """Extension of a sample's clip, or None."""
    return next((name for name in CLIP_EXTENSIONS if name in members), None)


def sound_extension(members: Collection[str]) -> str | None:
    """Extension of a sample's sound, or None."""
    return next((name for name in SOUND_EXTENSIONS if name in members), None)


def check_views(stream: str, extensions: Collection[str], specs: Iterable[ViewSpec]) -> None:
    """Refuse views of a stream that none of its samples can give, before a run rather than in its first step.

    Args:
        stream: Its name.
        extensions: Of all members of its shard set.
        specs: The views made of it.

    Raises:
        DataError: Its set has no clips, or no pictures; says which view asks for them.
    """
    moving = clip_extension(extensions) is not None
    for spec in specs:
        if spec.clip is not None and not moving:
            needed, fix = "clips, mjpeg or mp4", "pack a folder of videos, take `clip` out of the view"
        elif spec.clip is None and not moving and image_extension(extensions) is None:
            needed, fix = "pictures, jpg, png or webp, or clips", "pack a folder of images or videos"
        else:
            continue
        name = spec.name.partition("/")[0]
        raise DataError(
            f"view {name!r} is made of stream {stream!r}, whose samples have only "
            f"{', '.join(sorted(extensions)) or 'no members'}",
            expected=f"a set of {needed}",
            fix=f"{fix}, or name in views.{name}.streams those that it can be made of",
        )


def check_heard(sound: SoundSpec, specs: Iterable[ViewSpec], extensions: Mapping[str, Collection[str]]) -> None:
    """Refuse a sound that no sample of any stream has: it would be trained on nothing, from the first step to the last.

    Args:
        sound: The sound.
        specs: All views; it lies beneath one of them.
        extensions: Of all members of each stream's shard set, by the stream's name.

    Raises:
        DataError: Of the streams that the view is made of, none has sound.
    """
    made = next(spec.streams for spec in specs if spec.name == sound.beneath)
    names = [name for name in extensions if made is None or name in made]
    if any(sound_extension(extensions[name]) is not None for name in names):
        return
    heard, view = (name.partition("/")[0] for name in (sound.name, sound.beneath))
    raise DataError(
        f"sound {heard!r} is heard beneath view {view!r}, and no sample of {', '.join(map(repr, names))} has sound",
        expected=f"samples with a {' or '.join(SOUND_EXTENSIONS)} member",
        fix="pack videos whose sound is kept, or take a recipe that hears nothing, such as video_tiny",
    )


def draw_moment(seed: int, name: str, path: tuple[str, int, int]) -> float:
    """Where in a clip a view begins, from 0 to 1.

    Args:
        seed: The run's seed.
        name: The view's moment; of a view of one picture its name.
        path: Stream, epoch and index of the sample.
    """
    return float(generator(seed, "moment", name, *path).random())


class Material:
    """What views are made of.

    Args:
        sample: The sample.
    """

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self._stills: dict[tuple[int, int | None], Pixels] = {}

    @functools.cached_property
    def clip(self) -> StoredClip | None:
        """The sample's clip; None for a still.

        Raises:
            DecodeError: It is damaged, or the metadata's sizes of its frames are none.
        """
        extension = clip_extension(self.sample.members)
        if extension is None:
            return None
        sizes = self.facts.get("sizes")
        if sizes is not None and not (isinstance(sizes, list) and all(type(size) is int for size in sizes)):
            raise self._malformed("sizes", sizes, "the bytes of each frame, whole numbers")
        return open_clip(self.sample.members[extension], extension, sizes=sizes, name=self.sample.key)

    @functools.cached_property
    def fps(self) -> float:
        """Frames a second of the clip: by the metadata, else by the clip's header; 25 where neither says it.

        Raises:
            DecodeError: What the metadata says is no rate.
        """
        stated = self.facts.get("fps")
        if stated is None:
            return (self.clip and self.clip.fps) or _USUAL_FPS
        if type(stated) not in (int, float) or not _LEAST_FPS <= stated <= _MOST_FPS:
            raise self._malformed("fps", stated, f"a number from {_LEAST_FPS:g} to {_MOST_FPS:g}")
        return float(stated)

    def _malformed(self, field: str, value: object, expected: str) -> DecodeError:
        text = repr(value)
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        return DecodeError(f"{self.sample.key}: clip.{field} of its metadata is {shown}", expected=expected)

    @property
    def facts(self) -> dict[str, Any]:
        """What the metadata says of the clip, each field as it was written; empty where it says nothing."""
        facts = self.sample.meta.get("clip")
        return facts if isinstance(facts, dict) else {}

    def moment(self, at: Callable[[], float]) -> int | None:
        """Which stored frame a view of one picture shows: that at a share of the clip's length; None of a still.

        Args:
            at: Gives the share, from 0 to 1; asked of clips only.

        Raises:
            DecodeError: The clip is damaged.
        """
        if image_extension(self.sample.members) is not None or self.clip is None:
            return None
        return min(int(at() * self.clip.count), self.clip.count - 1)

    def still(self, channels: int, place: int | None) -> Pixels:
        """One picture, uint8 [H, W, C]: the still, or a frame of the clip.

        Args:
            channels: 1 or 3.
            place: The frame, see `moment`.

        Raises:
            DataError: The sample has neither.
            DecodeError: It is damaged.
        """
        if (channels, place) not in self._stills:
            self._stills[channels, place] = self._picture(image_extension(self.sample.members), place, channels)
        return self._stills[channels, place]

    def _picture(self, extension: str | None, place: int | None, channels: int) -> Pixels:
        if extension is not None:
            return decode_image(self.sample.members[extension], channels=channels, name=self.sample.key)
        if self.clip is not None and place is not None:
            return self.clip.frames([place], channels)[0]  # type: ignore[no-any-return]
        raise DataError(
            f"sample {self.sample.key} has no picture, only {', '.join(self.sample.members) or 'no member'}",
            expected="a jpg, png or webp member, or a clip (mjpeg, mp4)",
            fix="restrict the stream with `where`, or pack a set of images or videos",
        )

    def numbers(self, spec: ClipSpec, at: float) -> list[int]:
        """Which stored frames a clip view takes: those nearest to its times.

        Args:
            spec: The view.
            at: Where it begins, from 0 to 1: at 1 its window ends with the clip.

        Raises:
            DataError: The sample has no clip.
            DecodeError: It is damaged, or shorter than the window and the view does not hold its last frame.
        """
        if self.clip is None:
            raise DataError(
                f"sample {self.sample.key} has no clip, only {', '.join(self.sample.members) or 'no member'}",
                expected="an mjpeg or mp4 member for a view of clips",
                fix="pack a folder of videos, or take `clip` out of the view",
            )
        count = self.clip.count
        window = spec.frames * spec.period * self.fps
        last = max(0, math.floor(count - window + 1e-6))
        first = min(int(at * (last + 1)), last)
        found = [first + step for step in nearest_frames(spec.frames, spec.period, self.fps)]
        if found[-1] >= count and not spec.hold:
            needed = (spec.frames - 1) * spec.period + 1 / self.fps
            raise DecodeError(
                f"{self.sample.key}: a clip of {count / self.fps:.2f} s, and a view of {needed:.2f} s that does not "
                "hold its last frame",
                expected="clips at least as long as the view",
            )
        return [min(number, count - 1) for number in found]

    def held(self, spec: ClipSpec) -> bool:
        """Whether the clip is so short that a view ends with its last frame repeated; asked after `numbers`."""
        last = nearest_frames(spec.frames, spec.period, self.fps)[-1]
        return self.clip is not None and last >= self.clip.count

    def frames(self, numbers: Sequence[int], channels: int) -> NDArray[np.uint8]:
        """Some frames of the clip, uint8 [T, H, W, C].

        Raises:
            DecodeError: One of them is damaged.
        """
        assert self.clip is not None
        return self.clip.frames(numbers, channels)

    def regions(self, numbers: Sequence[int]) -> Map:
        """Region maps of some frames, uint8 [T, h, w]; of a still its only one, for number 0.

        Raises:
            DecodeError: There are none, they are damaged, or they are neither one nor as many as the frames.
        """
        maps, frames = self._maps, 1 if self.clip is None else self.clip.count
        if maps is None:
            raise DecodeError(
                f"{self.sample.key} has no region map",
                expected=f"a {MEMBER} member in every sample of a set whose views have masks of kind region",
            )
        if maps.count not in (1, frames):
            raise DecodeError(
                f"{self.sample.key}: {maps.count} region maps of {frames} frames", expected="1, or as many"
            )
        return maps.read([0 if maps.count == 1 else number for number in numbers])

    @functools.cached_property
    def _maps(self) -> RegionMaps | None:
        data = self.sample.members.get(MEMBER)
        return None if data is None else RegionMaps(data, name=self.sample.key)

    def check(self) -> Iterator[NDArray[np.uint8]]:
        """Decode all there is, frame by frame: a still, each frame of a clip; also sound and maps, which are not given.

        Yields:
            uint8 [H, W, 3].

        Raises:
            DecodeError: Something does not decode.
            MissingExtraError: The packages that read sound or mp4 are not installed.
        """
        if image_extension(self.sample.members) is not None:
            yield self.still(3, None)
        if self.clip is not None:
            _ = self.fps
            yield from self.clip.every()
        if MEMBER in self.sample.members:
            # One at a time, each against the first: a long clip has thousands.
            for number in range(1 if self._maps is None else self._maps.count):
                self.regions([0, number])
        extension = sound_extension(self.sample.members)
        if extension is not None:
            from facemae.sound.store import read_blocks

            for _ in read_blocks(self.sample.members[extension], name=self.sample.key):
                pass

    def mel(self, spec: SoundSpec, first: int | None, clip: ClipSpec | None) -> NDArray[np.float32] | None:
        """The sound beneath a view, [frames, mels]; None where there is none or silence, or the view shows a still.

        Args:
            spec: The sound.
            first: The view's first frame; None of a still, beneath which there is no sound.
            clip: The view's frames; None for one frame, on which the window is centred.

        Raises:
            DecodeError: The sound is damaged.
            MissingExtraError: The packages that read sound are not installed.
        """
        extension = sound_extension(self.sample.members)
        if extension is None or first is None:
            return None
        from facemae.sound.store import read_window

        start = first / self.fps
        frames, period = (1, 1 / self.fps) if clip is None else (clip.frames, clip.period)
        last = start + (frames - 1) * period
        window = beneath(start, last, period, seconds=nominal_seconds(spec.frames, spec.mel))
        found = read_window(
            self.sample.members[extension], window.start, window.seconds, rate=spec.mel.rate, name=self.sample.key
        )
        # A pause says nothing of a face: it is no sound, as in the features of a clip.
        return None if level(found.wave) < SILENT else log_mel(found.wave, spec.mel, spec.frames)
