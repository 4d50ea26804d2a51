"""Features of clips of any length: pictures, sound or both, by window or by time step."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from facemae.data.clips.settings import People
from facemae.data.schema import Sample
from facemae.errors import UsageError
from facemae.features.clip_input import check_normalisation
from facemae.features.pooling import (
    clip_feature_shape,
    feature_shape,
    pool_clip_tokens,
    pool_step_tokens,
    pool_tokens,
    prefix_of,
    step_feature_shape,
)
from facemae.features.windows import Per, Window, plan_windows, real_share
from facemae.features.writers import TEXT, Column

if TYPE_CHECKING:
    from facemae.features.extractor import FeatureExtractor

_TINY = 1e-6

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ClipRows:
    """Features with their times, N rows in the order of time.

    Attributes:
        keys: Names, of clip and start.
        source: The file of each.
        clip: The clip of each; rows of one clip follow one another without a break.
        person: int32 [N], which face of a video; -1 where none is shown.
        start: float64 [N], seconds on the video's clock.
        end: float64 [N]; of a partial window where the clip ends.
        real: float32 [N], share of the window or step that the clip has.
        has_video: bool [N], whether a face is shown.
        video: float32 [N, …], NaN where none is.
        has_sound: bool [N], whether there is sound; None of a model that does not hear.
        sound: float32 [N, …], NaN where there is none; None of a model that does not hear.
    """

    keys: list[str]
    source: list[str]
    clip: list[str]
    person: NDArray[np.int32]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    real: Floats
    has_video: NDArray[np.bool_]
    video: Floats
    has_sound: NDArray[np.bool_] | None
    sound: Floats | None

    @property
    def partial(self) -> NDArray[np.bool_]:
        """Which rows reach beyond the clip's end."""
        return self.real < 1

    def columns(self) -> dict[str, Any]:
        """By the names that they have in a file; see `ClipExtractor.columns`."""
        names = ("keys", "source", "clip", "person", "start", "end", "partial", "real", "has_video", "video")
        found = {name: getattr(self, name) for name in names}
        return found if self.sound is None else {**found, "has_sound": self.has_sound, "sound": self.sound}


@dataclass(frozen=True)
class _Row:
    """Time and features of one row before they are put together; times from the clip's start."""

    window: Window
    start: float
    seconds: float
    video: Floats | None
    sound: Floats | None


class ClipExtractor:
    """Features of clips from a frozen model: `facemae.load(model).clips()`.

    Layer and pooling are those of the extractor of pictures, for both encoders; layers from the end suit encoders of
    any depth. Sound is read exactly beneath a window's frames, centred on them where the model hears another length.

    Args:
        extractor: The model, layer, pooling, batch size and device.
        window: Length of a window in seconds; None takes the encoder's own.
        stride: From one window's start to the next one's; None: they follow one another.
        fps: Pictures a second that an encoder of stills sees.
        per: `window`, a row each; or `step`, a row for each time step of it: of an encoder of clips a tubelet, of one
            of stills a picture.

    Raises:
        UsageError: What does not suit the model; see `facemae.features.windows.plan_windows`.
        CheckpointError: Clips were normalised otherwise than pictures.
    """

    def __init__(
        self,
        extractor: "FeatureExtractor",
        *,
        window: float | None = None,
        stride: float | None = None,
        fps: float | None = None,
        per: Per = "window",
    ) -> None:
        if per not in ("window", "step"):
            raise UsageError(f"per {per!r}", expected="window or step")
        self.extractor = extractor.fit()
        self.model = extractor.loaded
        self.per = per
        check_normalisation(self.model.clip, self.model.input)
        self.windows = plan_windows(self.model, window=window, stride=stride, fps=fps, per=per)
        self.video_shape = self._video_shape()
        self.sound_shape = self._sound_shape()

    @property
    def batch(self) -> int:
        """Windows in a forward pass: about as many pictures as the extractor's `batch_size`."""
        return max(1, self.extractor.batch_size // self.windows.frames)

    def columns(self) -> dict[str, Column]:
        """Columns of a file of such features."""
        found = {
            "keys": TEXT,
            "source": TEXT,
            "clip": TEXT,
            "person": Column("<i4"),
            "start": Column("<f8"),
            "end": Column("<f8"),
            "partial": Column("|b1"),
            "real": Column("<f4"),
            "has_video": Column("|b1"),
            "video": Column("<f4", self.video_shape),
        }
        if self.sound_shape is None:
            return found
        return {**found, "has_sound": Column("|b1"), "sound": Column("<f4", self.sound_shape)}

    # --- what clips come as --------------------------------------------------------------------------------------

    def of_sample(self, sample: Sample) -> ClipRows:
        """Features of a packed clip, with the sound beneath it.

        Args:
            sample: From `facemae.data.reader.ShardReader.read`.

        Raises:
            DecodeError: The sample has no clip, or is damaged.
        """
        from facemae.features.clip_sources import sample_windows

        return self.of_windows(sample_windows(sample, self.model, self.windows))

    def of_file(
        self,
        path: Path | str,
        *,
        sound: Path | str | None = None,
        people: People = "main",
        detector: str = "default",
        note: Callable[[str], None] = lambda _: None,
    ) -> Iterator[ClipRows]:
        """Features of a video or sound file of any length, a batch at a time; its faces are cut as in training.

        Args:
            path: The file.
            sound: A file with a video's sound; None takes its own.
            people: As for packing: `main`, or `all`.
            detector: As for packing.
            note: Told what is odd about the file.

        Raises:
            DataError: Nothing of the file can be used, such as a video without a face of a model that does not hear.
            StorageError: The file cannot be read.
        """
        from facemae.features.raw_videos import open_file

        yield from self.rows(open_file(path, self.model, self.windows, sound, people, detector, note))

    def of_arrays(
        self,
        frames: NDArray[np.uint8] | None,
        fps: float,
        *,
        wave: Floats | None = None,
        rate: int | None = None,
        name: str = "clip",
    ) -> ClipRows:
        """Features of a clip in memory.

        Args:
            frames: uint8 [N, H, W, C] of a face that is cut out already, RGB or grey; None of sound alone.
            fps: Frames a second.
            wave: float32 [M] in [-1, 1], mono, from the first frame on, rounded to 16 bits; None without sound.
            rate: Its samples a second.
            name: What it is called.

        Raises:
            DataError: Frames that are no pixels, samples that are no numbers or of another scale.
            UsageError: Neither frames nor sound, a wave without its rate, or sound for a model that does not hear.
        """
        from facemae.features.clip_sources import array_windows

        return self.of_windows(array_windows(frames, fps, wave, rate, name, self.model, self.windows))

    def of_windows(self, windows: Iterable[Window]) -> ClipRows:
        """Features of windows cut for this extractor, by its `model` and `windows`; of none, no rows."""
        return join_rows(list(self.rows(windows)), self)

    def rows(self, windows: Iterable[Window]) -> Iterator[ClipRows]:
        """Encode windows batch by batch, at constant memory.

        Args:
            windows: In any number; see `facemae.features.clip_sources` and `facemae.features.raw_videos`.
        """
        held: list[Window] = []
        for window in windows:
            held.append(window)
            if len(held) == self.batch:
                yield self._encoded(held)
                held = []
        if held:
            yield self._encoded(held)

    # --- encoding ------------------------------------------------------------------------------------------------

    def _encoded(self, windows: list[Window]) -> ClipRows:
        shown = dict(self._videos([(k, w.pictures) for k, w in enumerate(windows) if w.pictures is not None]))
        heard = dict(self._sounds([(k, w.mel) for k, w in enumerate(windows) if w.mel is not None]))
        rows: list[_Row] = []
        for number, window in enumerate(windows):
            make = self._whole if self.per == "window" else self._steps
            rows += make(window, shown.get(number), heard.get(number))
        return self._together(rows)

    def _videos(self, given: list[tuple[int, NDArray[np.uint8]]]) -> Iterator[tuple[int, Floats]]:
        """Pooled features by window: of one of stills and of time steps [T, …], else [...]."""
        if not given:
            return
        pictures = torch.from_numpy(np.stack([pixels for _, pixels in given]))
        extractor, encoder, pooling = self.extractor, self.model.encoder, self.extractor.pooling
        if self.model.config.tubelet is None:
            tokens = extractor.encode(pictures.flatten(0, 1))[extractor.layer]
            pooled = pool_tokens(tokens, prefix_of(encoder), encoder.grid, pooling)
            pooled = pooled.reshape(*pictures.shape[:2], *pooled.shape[1:])
        else:
            tokens = extractor.encode(pictures)[extractor.layer]
            pool = pool_clip_tokens if self.per == "window" else pool_step_tokens
            pooled = pool(tokens, prefix_of(encoder), self._grid, pooling)
        yield from zip([number for number, _ in given], pooled.cpu().numpy(), strict=True)

    def _sounds(self, given: list[tuple[int, Floats]]) -> Iterator[tuple[int, Floats]]:
        """Pooled features by window; of time steps [moments, …]."""
        if not given or self.model.sound is None:
            return
        encoder, pooling = self.model.sound.encoder, self.extractor.pooling
        mels = torch.from_numpy(np.stack([mel for _, mel in given]))
        tokens = self.extractor.encode_sound(mels)[self.extractor.layer]
        moments, bands = self._sound_grid
        if self.per == "window":
            pooled = pool_tokens(tokens, prefix_of(encoder), (moments, bands), pooling)
        else:
            pooled = pool_step_tokens(tokens, prefix_of(encoder), (moments, 1, bands), pooling)
        yield from zip([number for number, _ in given], pooled.cpu().numpy(), strict=True)

    def _whole(self, window: Window, video: Floats | None, sound: Floats | None) -> Iterator[_Row]:
        if video is not None and self.model.config.tubelet is None:
            # Pictures behind the clip's end repeat its last one, which would weigh more than others.
            plan, length = self.windows, window.place.length - window.start
            shown = sum(plan.lead + number * plan.period < length - _TINY for number in range(plan.frames))
            video = video[: max(1, shown)].mean(axis=0)
        yield _Row(window, window.start, self.windows.seconds, video, sound)

    def _steps(self, window: Window, video: Floats | None, sound: Floats | None) -> Iterator[_Row]:
        plan, begin = self.windows, 0.0
        heard_from, moment = self._moments()
        if video is not None:
            count, seconds = len(video), plan.step
        elif sound is not None:
            count, seconds, begin = len(sound), moment, heard_from
        else:
            return
        for number in range(count):
            start = window.start + begin + number * seconds
            if start >= window.place.length - _TINY:
                return
            beneath = None
            if sound is not None:
                share = _overlaps(begin + number * seconds, seconds, heard_from, moment, len(sound))
                beneath = np.tensordot(share, sound, axes=1)
            yield _Row(window, start, seconds, None if video is None else video[number], beneath)

    def _moments(self) -> tuple[float, float]:
        """Where the sound of a window begins, from the window's start, and how long one of its moments is."""
        if self.model.sound is None or self.windows.mel_frames is None or self.windows.moment is None:
            return 0.0, 1.0
        moments = self.windows.mel_frames // self.model.sound.input.patch
        return self.windows.sound(0.0, moments * self.windows.moment).start, self.windows.moment

    def _together(self, rows: list[_Row]) -> ClipRows:
        places = [row.window.place for row in rows]
        start = np.array([row.window.place.offset + row.start for row in rows], dtype=np.float64)
        ends = [row.window.place.offset + min(row.start + row.seconds, row.window.place.length) for row in rows]
        heard = self.sound_shape is not None
        return ClipRows(
            keys=[f"{place.clip}@{moment:.3f}" for place, moment in zip(places, start, strict=True)],
            source=[place.source for place in places],
            clip=[place.clip for place in places],
            person=np.array([place.person for place in places], dtype=np.int32),
            start=start,
            end=np.array(ends, dtype=np.float64),
            real=np.array([real_share(row.start, row.seconds, row.window.place.length) for row in rows], np.float32),
            has_video=np.array([row.video is not None for row in rows], dtype=bool),
            video=_filled([row.video for row in rows], self.video_shape),
            has_sound=np.array([row.sound is not None for row in rows], dtype=bool) if heard else None,
            sound=None if self.sound_shape is None else _filled([row.sound for row in rows], self.sound_shape),
        )

    # --- shapes --------------------------------------------------------------------------------------------------

    @property
    def _grid(self) -> tuple[int, int, int]:
        """Steps, rows and columns of a window."""
        rows, columns = self.model.encoder.grid
        return (self.windows.frames // self.windows.tubelet, rows, columns)

    @property
    def _sound_grid(self) -> tuple[int, int]:
        """Moments and bands of a window's spectrogram, in patches."""
        assert self.model.sound is not None
        assert self.windows.mel_frames is not None
        heard = self.model.sound.input
        return self.windows.mel_frames // heard.patch, heard.mel.mels // heard.patch

    def _video_shape(self) -> tuple[int, ...]:
        encoder, pooling = self.model.encoder, self.extractor.pooling
        if self.model.config.tubelet is None:
            return feature_shape(pooling, encoder.width, prefix_of(encoder), encoder.grid)
        if self.per == "window":
            return clip_feature_shape(pooling, encoder.width, prefix_of(encoder), self._grid)
        return step_feature_shape(pooling, encoder.width, self._grid)

    def _sound_shape(self) -> tuple[int, ...] | None:
        if self.model.sound is None:
            return None
        encoder, pooling = self.model.sound.encoder, self.extractor.pooling
        moments, bands = self._sound_grid
        if self.per == "window":
            return feature_shape(pooling, encoder.width, prefix_of(encoder), (moments, bands))
        return step_feature_shape(pooling, encoder.width, (moments, 1, bands))


def join_rows(parts: list[ClipRows], extractor: ClipExtractor) -> ClipRows:
    """Several parts as one; of none, no rows."""
    if not parts:
        return extractor._together([])  # noqa: SLF001 (the same room)
    joined: dict[str, Any] = {}
    for name in ClipRows.__dataclass_fields__:
        values = [getattr(part, name) for part in parts]
        if values[0] is None:
            joined[name] = None
        elif isinstance(values[0], list):
            joined[name] = [text for value in values for text in value]
        else:
            joined[name] = np.concatenate(values)
    return ClipRows(**joined)


def _overlaps(start: float, seconds: float, first: float, moment: float, count: int) -> Floats:
    """Share of each moment in a time step, float32 [count], in all 1; the nearest one where none reaches into it."""
    begins = first + moment * np.arange(count)
    shares = np.clip(np.minimum(begins + moment, start + seconds) - np.maximum(begins, start), 0, None)
    if shares.sum() <= _TINY:
        shares = np.zeros(count)
        shares[int(np.abs(begins + moment / 2 - (start + seconds / 2)).argmin())] = 1.0
    found: Floats = (shares / shares.sum()).astype(np.float32)
    return found


def _filled(values: list[Floats | None], shape: tuple[int, ...]) -> Floats:
    """float32 [N, …], NaN where there is none."""
    found = np.full((len(values), *shape), np.nan, dtype=np.float32)
    for number, value in enumerate(values):
        if value is not None:
            found[number] = value
    return found
