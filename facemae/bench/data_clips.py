"""`facemae bench data --clips`: packed clips through our loader against reading original videos sample by sample."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facemae.bench.report import BenchResult, compare_rates, machine
from facemae.config import DataConfig, MelSettings, StreamConfig
from facemae.data.clips.pack import pack_videos
from facemae.data.clips.settings import ClipSettings
from facemae.data.index import ShardIndex
from facemae.data.ingest.folder import VIDEOS
from facemae.data.loader import Loader, build_loader
from facemae.data.material import Material, draw_moment
from facemae.data.reader import ShardReader
from facemae.data.schema import ClipSpec, SoundSpec, ViewSpec
from facemae.errors import DataError
from facemae.extras import needs_extra
from facemae.sound.mel import log_mel, nominal_seconds
from facemae.sound.resample import resample

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

FRAMES, PERIOD, MEL_FRAMES = 16, 0.16, 256
MEL = MelSettings()
MOST_DIFFERENCE = 8.0
"""Grey levels by which frames of both sides may differ on average: ours went through JPEG and another filter."""
MOST_MEL_DIFFERENCE = 0.05
"""By which the spectrograms of both sides may differ on average, in units of the normalised values, of which all of
speech spans about three: ours went through 16 bits, and the baseline seeks to a whole packet and resamples it alone."""
_BEFORE = 0.1
"""Seconds in front of the window that the baseline decodes too, for the codec and for the resampler."""
_VIEW = "main"
_CLIP = ClipSpec(FRAMES, PERIOD)


@dataclass(frozen=True)
class ClipDataBenchSettings:
    """Size of the measurement.

    Attributes:
        clips: Videos to take.
        size: Side of the frames in pixels.
        batch: Samples in a batch.
        rounds: How often each side is measured, in turns.
    """

    clips: int = 24
    size: int = 160
    batch: int = 8
    rounds: int = 3


@dataclass(frozen=True)
class _Wanted:
    """One sample: its video, where its clip starts there, times of the frames in the clip, and the crop's box."""

    path: str
    start: float
    times: list[float]
    box: list[float]


def bench_clip_data(
    folder: Path, settings: ClipDataBenchSettings, *, tell: Callable[[str], None] = lambda _: None
) -> list[BenchResult]:
    """Measure clips a second of both ways, each in one process and one thread, in turns.

    A clip is 16 frames, 0.16 s apart, of a face crop, and the log-mel spectrogram of the 2.56 s of sound beneath. Ours
    come packed out of the loader. The baseline opens each original file anew, as published loaders do: decord reads the
    frames, which are cropped by the box that packing found and scaled; FFmpeg seeks to the window of sound and decodes
    it alone, soxr resamples it, and the same spectrogram is made of it.

    Args:
        folder: Videos with sound, at any depth.
        settings: Size of the measurement.
        tell: Called with a line of progress now and then.

    Raises:
        DataError: There are too few videos with a face and sound, or both sides do not show the same.
        MissingExtraError: The packages that read video are not installed.
    """
    videos = sorted(path for path in folder.rglob("*") if path.suffix.lower().lstrip(".") in VIDEOS.endings)
    if len(videos) < settings.batch:
        raise DataError(f"{folder} holds {len(videos)} videos", expected=f"{settings.batch} or more")
    with tempfile.TemporaryDirectory(prefix="facemae-bench-") as name:
        source = Path(name) / "videos"
        source.mkdir()
        for number, path in enumerate(videos[: settings.clips]):
            (source / f"{number:04d}{path.suffix}").symlink_to(path.resolve())
        tell(f"packing {min(len(videos), settings.clips)} videos")
        report = pack_videos(source, Path(name) / "shards", settings=ClipSettings(size=settings.size), workers=1)
        loader = _loader(report.out, settings, 0)
        pixels, mels = _differences(source, loader, _wanted(loader, report.out, 0), settings.size)
        ours, baseline = [], []
        for number in range(settings.rounds):
            tell(f"round {number + 1} of {settings.rounds}")
            loader = _loader(report.out, settings, number)
            ours.append(_ours(loader))
            baseline.append(_originals(source, _wanted(loader, report.out, number), settings.size))
    mine, theirs, ratio = compare_rates([rate for rate, _ in ours], [rate for rate, _ in baseline])
    cpu = statistics.median(b / a for (_, a), (_, b) in zip(ours, baseline, strict=True))
    facts = {
        "baseline": "decord and FFmpeg, which seek in the original files, crop and resize, soxr, the same log-mel",
        **{key: getattr(settings, key) for key in ("clips", "size", "batch", "rounds")},
        "frames": FRAMES,
        "sound_s": nominal_seconds(MEL_FRAMES, MEL),
        "workers": 0,
        "mean_difference_of_255": round(pixels, 2),
        "mean_difference_of_mel": round(mels, 4),
        "ratio_of_processor_time": round(cpu, 2),
    }
    return [BenchResult("data, clips with sound", mine, theirs, "clips/s", ratio, facts, machine())]


def _loader(shards: Path, settings: ClipDataBenchSettings, seed: int) -> Loader:
    view = ViewSpec(_VIEW, settings.size, 3, crop="resize", flip=False, clip=_CLIP)
    sound = SoundSpec("sound", _VIEW, MEL_FRAMES, MEL)
    data = DataConfig(streams=(StreamConfig(shards=str(shards)),), lanes=1)
    steps = max(1, settings.clips // settings.batch)
    return build_loader(data, [view], seed=seed, batch_size=settings.batch, stop_step=steps, workers=0, sounds=[sound])


def _wanted(loader: Loader, shards: Path, seed: int) -> list[_Wanted]:
    """What the loader reads, in its order."""
    reader = ShardReader(ShardIndex.open(shards))
    found = []
    for step in range(len(loader)):
        for slot in loader.plan.slots(step):
            material = Material(reader.read(slot.sample))
            at = draw_moment(seed, _CLIP.moment or _VIEW, (slot.stream, slot.epoch, slot.sample))
            times = [number / material.fps for number in material.numbers(_CLIP, at)]
            meta = material.sample.meta
            found.append(_Wanted(meta["path"], meta["clip"]["start_s"], times, meta["clip"]["box"]))
    return found


def _ours(loader: Loader) -> tuple[float, float]:
    """Clips a second, and processor seconds a clip."""
    start, cpu, count = time.perf_counter(), time.process_time(), 0
    for batch in loader:
        count += len(batch)
        if not bool(batch.sounds["sound"].present.all()):
            raise DataError("a clip has no sound", expected="videos with sound", fix="choose another folder")
    return count / (time.perf_counter() - start), (time.process_time() - cpu) / count


def _originals(source: Path, wanted: Sequence[_Wanted], size: int) -> tuple[float, float]:
    start, cpu = time.perf_counter(), time.process_time()
    for one in wanted:
        _original(source, one, size)
    return len(wanted) / (time.perf_counter() - start), (time.process_time() - cpu) / len(wanted)


def _original(source: Path, wanted: _Wanted, size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Frames uint8 [T, size, size, 3] and spectrogram of one sample, out of the file it was packed from."""
    with needs_extra("video", "reading videos by decord"):
        import decord

    path = source / wanted.path
    reader = decord.VideoReader(str(path), num_threads=1)
    fps, last = reader.get_avg_fps(), len(reader) - 1
    numbers = [min(round((wanted.start + time) * fps), last) for time in wanted.times]
    x, y, side = wanted.box
    left, top = max(0, round(x - side / 2)), max(0, round(y - side / 2))
    crops = reader.get_batch(numbers).asnumpy()[:, top : round(y + side / 2), left : round(x + side / 2)]
    frames = np.stack([cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA) for crop in crops])
    window = seek_sound(path, wanted.start + wanted.times[0], nominal_seconds(MEL_FRAMES, MEL))
    return frames, log_mel(window, MEL, MEL_FRAMES)


def seek_sound(path: Path, start: float, seconds: float) -> NDArray[np.float32]:
    """Sound of a file from a time after its first frame on, at the spectrogram's rate; no more of it is decoded."""
    with needs_extra("video", "reading sound by PyAV"):
        import av

        from facemae.sound.decoding import mono

    with av.open(str(path)) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert video.time_base is not None
        assert sound.time_base is not None
        origin, rate = float((video.start_time or 0) * video.time_base), sound.rate
        begin = origin + start
        container.seek(max(0, round((begin - _BEFORE) / sound.time_base)), stream=sound)
        total = round((seconds + _BEFORE) * rate)
        wave, first = np.zeros(total, np.float32), round((begin - _BEFORE) * rate)
        place: int | None = None
        for frame in _decoded(container, sound):
            if place is None:
                # Only the first stamp counts: Matroska rounds to milliseconds, and frames follow without a break.
                place = round((frame.time or 0.0) * rate) - first
            if place >= total:
                break
            values = mono(frame)
            kept = values[max(0, -place) : max(0, total - place)]
            wave[max(0, place) : max(0, place) + len(kept)] = kept
            place += len(values)
    resampled = resample(wave, rate, MEL.rate)
    skip = round(_BEFORE * MEL.rate)
    return resampled[skip : skip + round(seconds * MEL.rate)]


def _decoded(container: "InputContainer", stream: "AudioStream") -> "Iterator[AudioFrame]":
    """Frames of sound behind a seek, which may land in the middle of a packet: what does not decode is passed over."""
    with needs_extra("video", "reading sound by PyAV"):
        import av

    for packet in container.demux(stream):
        with contextlib.suppress(av.InvalidDataError):
            yield from packet.decode()


def _differences(source: Path, loader: Loader, wanted: Sequence[_Wanted], size: int) -> tuple[float, float]:
    """Mean absolute difference of the first batch's frames in grey levels, and of its spectrograms.

    Raises:
        DataError: Both sides do not show the same.
    """
    batch = next(iter(loader))
    ours = batch.views[_VIEW].image.permute(0, 1, 3, 4, 2).numpy().astype(np.float32)
    theirs = [_original(source, one, size) for one in wanted[: len(batch)]]
    pixels = _mean_difference(ours, [frames for frames, _ in theirs])
    mels = _mean_difference(batch.sounds["sound"].mel.numpy(), [mel for _, mel in theirs])
    if pixels > MOST_DIFFERENCE:
        raise DataError(
            f"frames of both sides differ by {pixels:.1f} grey levels on average",
            expected=f"at most {MOST_DIFFERENCE:g}: videos of faces that keep their place",
        )
    if mels > MOST_MEL_DIFFERENCE:
        raise DataError(
            f"spectrograms of both sides differ by {mels:.2f} on average",
            expected=f"at most {MOST_MEL_DIFFERENCE:g}: videos whose sound runs through, and is not digital silence",
        )
    return pixels, mels


def _mean_difference(ours: Iterable[NDArray[Any]], theirs: Iterable[NDArray[Any]]) -> float:
    return float(np.mean([np.abs(mine - other).mean() for mine, other in zip(ours, theirs, strict=True)]))
