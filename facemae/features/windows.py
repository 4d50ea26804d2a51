"""How a clip of any length is cut into windows and time steps: arithmetic alone."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from facemae.config import MelSettings
from facemae.errors import UsageError
from facemae.features.weights import LoadedEncoder
from facemae.sound.align import Beneath, beneath
from facemae.sound.level import SILENT, level
from facemae.sound.mel import log_mel, nominal_seconds
from facemae.video.sampling import nearest_frames

Per = Literal["window", "step"]

STILLS_FPS = 5.0
"""Pictures a second that an encoder of stills sees of a video, unless asked otherwise."""
STILLS_SECONDS = 1.0
"""Length of its windows, unless asked otherwise or a sound encoder beside it has one of its own."""

_TINY = 1e-6

_Plan = tuple[int, float, int, list[str]]
"""Frames, period, tubelet, notes."""


@dataclass(frozen=True)
class Windows:
    """How clips are cut into windows, and windows into time steps.

    Attributes:
        frames: Pictures of a window.
        period: Seconds from one to the next.
        lead: Seconds from a window's start to its first picture.
        stride: Seconds from one window's start to the next one's.
        tubelet: Pictures of a time step.
        mel_frames: Frames of the spectrogram beneath a window; None of a model that does not hear.
        moment: Seconds of a time step where there is sound alone.
        notes: What differs from how the model was trained.
    """

    frames: int
    period: float
    lead: float
    stride: float
    tubelet: int
    mel_frames: int | None
    moment: float | None
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Length of a window."""
        return self.frames * self.period

    @property
    def step(self) -> float:
        """Length of a time step of pictures."""
        return self.tubelet * self.period

    def numbers(self, first: int, fps: float, count: int) -> NDArray[np.int64]:
        """Which stored frames a window shows that begins with `first`, of a clip of `count`; the last is held."""
        offsets = np.array(nearest_frames(self.frames, self.period, fps, self.lead), dtype=np.int64)
        return np.minimum(first + offsets, count - 1)

    def sound(self, start: float, mel_seconds: float) -> Beneath:
        """The sound of a window, in seconds from the clip's start: its centre is the window's."""
        return beneath(start, start + (self.frames - 1) * self.period, self.period, seconds=mel_seconds)


@dataclass(frozen=True)
class Span:
    """One window of a clip.

    Attributes:
        first: Number of its first stored frame or sample.
        start: Seconds from the clip's start.
        real: Share of the window that the clip has; below 1 it is a partial one.
    """

    first: int
    start: float
    real: float


def spans(length: float, windows: Windows, rate: float) -> Iterator[Span]:
    """The windows of a clip, as many as it takes to cover it; the last one may be partial.

    Args:
        length: Seconds of the clip.
        windows: How.
        rate: Stored frames, or samples, a second: windows begin with one of them. Those that follow one another never
            overlap: where they are no whole number of frames long, less than a frame between them is in none.

    Raises:
        UsageError: The stride is shorter than a frame, so that windows would repeat each other.
    """
    if windows.stride * rate < 1 - _TINY:
        raise UsageError(
            f"a stride of {windows.stride:g} s in a clip with {rate:g} frames a second",
            expected=f"at least {1 / rate:g}",
        )
    apart = windows.stride >= windows.seconds - _TINY
    end = 0.0
    for number in range(math.ceil(length / windows.stride + 1)):
        whole = math.ceil(windows.stride * rate - _TINY)
        first = number * whole if apart else round(number * windows.stride * rate)
        start = first / rate
        if start >= length - _TINY or (number and end >= length - _TINY):
            return
        end = start + windows.seconds
        yield Span(first, start, real_share(start, windows.seconds, length))


def real_share(start: float, seconds: float, length: float) -> float:
    """Which share of a stretch lies before the clip's end; 1.0 exactly where all does."""
    return 1.0 if start + seconds <= length + _TINY else max(0.0, (length - start) / seconds)


def plan_windows(
    loaded: LoadedEncoder,
    *,
    window: float | None = None,
    stride: float | None = None,
    fps: float | None = None,
    per: Per = "window",
) -> Windows:
    """Windows that suit a model.

    An encoder of clips keeps the rate it was trained at: a longer window has more frames, and positions are scaled. An
    encoder of stills sees `fps` pictures a second, each by itself, the first half a period after the window's start.

    Args:
        loaded: The model.
        window: Seconds; None takes the encoder's own.
        stride: Seconds; None: windows follow one another without overlap.
        fps: Pictures a second, for encoders of stills.
        per: `step`: windows are cut into time steps, so they may not overlap.

    Raises:
        UsageError: Lengths that make no sense, a rate for an encoder of clips, or one that was trained on no clips.
    """
    for name, value in (("window", window), ("stride", stride), ("fps", fps)):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{name} {value}", expected="a number above zero")
    plan = _of_stills if loaded.config.tubelet is None else _of_clips
    frames, period, tubelet, notes = plan(loaded, window, fps)
    seconds, stride = frames * period, stride or frames * period
    mel_frames, moment = None, None
    if loaded.sound is not None:
        heard = loaded.sound.input
        hop = heard.mel.hop_samples / heard.mel.rate
        moment, mel_frames = heard.patch * hop, heard.frames
        if window is not None:
            mel_frames = max(1, round(seconds / hop / heard.patch)) * heard.patch
        if mel_frames != heard.frames:
            notes.append(_other(f"{mel_frames} frames of sound", f"{heard.frames}"))
        if window is not None and abs(nominal_seconds(mel_frames, heard.mel) - seconds) > _TINY:
            heard_s = nominal_seconds(mel_frames, heard.mel)
            if per == "step":
                raise UsageError(
                    f"windows of {seconds:g} s by time step, of which the sound encoder hears {heard_s:g} s",
                    expected=f"a multiple of the {moment:g} s of its patches",
                    fix=f"--window {heard_s:g}",
                )
            notes.append(f"windows of {seconds:g} s with {heard_s:g} s of sound around their middle")
    if per == "step" and stride < seconds - _TINY:
        raise UsageError(
            f"windows of {seconds:g} s every {stride:g} s overlap, so a time step has several features",
            expected=f"--stride of at least {seconds:g} for features by time step",
            fix="leave --stride out, or take features by window",
        )
    lead = period / 2 if loaded.config.tubelet is None else 0.0
    return Windows(frames, period, lead, stride, tubelet, mel_frames, moment, tuple(notes))


def _of_stills(loaded: LoadedEncoder, window: float | None, fps: float | None) -> _Plan:
    own = STILLS_SECONDS if loaded.sound is None else loaded.sound.input.seconds
    seconds = window or own
    frames = max(1, round(seconds * (fps or STILLS_FPS)))
    return frames, seconds / frames, 1, []


def _of_clips(loaded: LoadedEncoder, window: float | None, fps: float | None) -> _Plan:
    clip, tubelet = loaded.clip, loaded.config.tubelet or 1
    if clip is None:
        raise UsageError(
            "the model has an encoder of clips, and its recipe no view of clips that tells their rate",
            expected="a recipe with views.NAME.clip",
        )
    if fps is not None:
        raise UsageError(
            f"fps {fps:g} for an encoder of clips", expected=f"none: it was trained on {clip.fps:g} frames a second"
        )
    frames = clip.frames if window is None else max(1, round(window * clip.fps / tubelet)) * tubelet
    notes = []
    if not clip.encoded:
        notes.append("the encoder of pictures saw stills alone in training: its features of clips are a guess")
    if window is not None and abs(frames / clip.fps - window) > _TINY:
        notes.append(f"windows of {frames / clip.fps:g} s, not {window:g}: {frames} frames are whole time steps")
    if frames != clip.frames:
        notes.append(_other(f"{frames} frames", f"{clip.frames}"))
    return frames, 1 / clip.fps, tubelet, notes


def _other(found: str, trained: str) -> str:
    return f"windows of {found}; the model was trained on {trained}, positions are scaled"


@dataclass(frozen=True)
class Place:
    """Where a clip comes from.

    Attributes:
        source: The file.
        clip: Name of the clip: of one face's unbroken stretch of a video, of a packed sample, or of a sound.
        person: Tells faces at one time apart, as in packing; -1 where no face is shown.
        offset: Seconds on the video's clock at which the clip begins.
        length: Seconds of the clip.
    """

    source: str
    clip: str
    person: int
    offset: float
    length: float


@dataclass(frozen=True, eq=False)
class Window:
    """A window, ready for encoders.

    Attributes:
        place: Whose.
        start: Seconds from the clip's start.
        real: See `Span`.
        pictures: uint8 [T, C, S, S]; None where no face is shown.
        mel: float32 [frames, mels], normalised; None where there is no sound, or nobody who hears it.
    """

    place: Place
    start: float
    real: float
    pictures: NDArray[np.uint8] | None
    mel: NDArray[np.float32] | None


Pictures = Callable[[NDArray[np.int64]], NDArray[np.uint8]]
"""From numbers of stored frames to model-ready pictures uint8 [T, C, S, S]."""
Waves = Callable[[int, int], NDArray[np.float32]]
"""From the first sample, which may be negative, and a count, at the rate of the mel, to the wave; silence beyond it."""


def cut_windows(
    place: Place,
    windows: Windows,
    *,
    rate: float,
    pictures: Pictures | None = None,
    waves: Waves | None = None,
    mel: MelSettings | None = None,
) -> Iterator[Window]:
    """The windows of one clip, in order. One in which the sound is silent has none.

    Args:
        place: The clip.
        windows: How it is cut.
        rate: Stored frames a second; of sound alone its samples.
        pictures: Gives the pictures; None where there are none.
        waves: Gives the sound; None where there is none.
        mel: What is made of the sound.
    """
    count = round(place.length * rate)
    for span in spans(place.length, windows, rate):
        shown = None if pictures is None else pictures(windows.numbers(span.first, rate, count))
        heard = None
        if waves is not None and mel is not None and windows.mel_frames is not None:
            below = windows.sound(span.start, nominal_seconds(windows.mel_frames, mel))
            wave = waves(round(below.start * mel.rate), round(below.seconds * mel.rate))
            heard = None if level(wave) < SILENT else log_mel(wave, mel, windows.mel_frames)
        yield Window(place, span.start, span.real, shown, heard)
