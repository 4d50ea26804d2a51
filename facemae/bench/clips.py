"""`facemae bench clips`: ways to store clips and to read them, against frames read out of the original videos."""

import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from facemae.bench.report import BenchResult, compare_rates, machine
from facemae.data.synthetic import render, sample_params
from facemae.errors import DataError
from facemae.extras import needs_extra
from facemae.rng import generator
from facemae.video.library import pyav
from facemae.video.picture import Pixels
from facemae.video.read import Mp4Clip, open_clip
from facemae.video.source import VideoSource
from facemae.video.store import Storage, Written, write_clip

if TYPE_CHECKING:
    from types import ModuleType

SUFFIXES = (".mp4", ".mpg", ".mpeg", ".avi", ".mov", ".mkv", ".webm")
WANTED, STRIDE = 16, 4
STORAGES = {
    "mjpeg, quality 85": Storage("mjpeg", quality=85),
    "mjpeg, quality 90": Storage("mjpeg", quality=90),
    "mjpeg, quality 95, 4:4:4": Storage("mjpeg", quality=95, chroma="444"),
    "mp4, crf 18, key frame every 12": Storage("mp4", crf=18, gop=12),
    "mp4, crf 23, key frame every 12": Storage("mp4", crf=23, gop=12),
    "mp4, crf 18, key frame every 250": Storage("mp4", crf=18, gop=250),
}
_BOX = 2 / 3  # of the shorter side: a face and its surroundings, where a face fills the picture as people film it
_SOURCE = (288, 360)  # height and width of made videos, as in GRID
_MADE_FRAMES = 75
_GRAIN = 3.0
_FPS = 25


@dataclass(frozen=True)
class ClipsBenchSettings:
    """Size of the measurement.

    Attributes:
        clips: Videos to take or to make.
        size: Side of the crops in pixels; even.
        rounds: How often each way is measured, in turns.
        seed: Seed of what is made, and of where clips start.
    """

    clips: int = 24
    size: int = 160
    rounds: int = 5
    seed: int = 0


@dataclass(frozen=True)
class _Clip:
    """A video and its crop: the box (top, left, side) and uint8 [T, S, S, 3]."""

    path: Path
    box: tuple[int, int, int]
    crops: Pixels
    wanted: list[int]


Reader = Callable[[_Clip, bytes, Written], Pixels]
"""Decodes a clip's wanted frames out of its member."""


@dataclass(frozen=True)
class _Way:
    """One storage and one reader, with the stored clips and what storing took in ms a frame."""

    storage: str
    reader: str
    read: Reader
    members: list[tuple[bytes, Written]]
    cost: float


def bench_clips(
    folder: Path | None, settings: ClipsBenchSettings, *, tell: Callable[[str], None] = lambda _: None
) -> list[BenchResult]:
    """Measure clips a second of 16 frames at stride 4 for every way to store and to read them, in one thread.

    The bytes of stored clips are in memory, the original videos in the file cache: disks are not measured. The baseline
    decodes the wanted frames of the original video with decord, crops and resizes them.

    Args:
        folder: Videos, searched through; None makes some: procedural faces that sway, with film grain.
        settings: Size of the measurement.
        tell: Called with a line of progress now and then.

    Returns:
        A result for each way, with bytes a clip and the mean absolute error of a pixel.

    Raises:
        DataError: No video in the folder has frames enough.
        MissingExtraError: PyAV or decord is not installed.
    """
    decord = _decord()
    cv_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="facemae-bench-") as name:
            tell("reading and cropping videos")
            paths = _made(Path(name), settings) if folder is None else _found(folder, settings)
            clips = [clip for number, path in enumerate(paths) if (clip := _cropped(path, number, settings))]
            if not clips:
                raise DataError(f"no video of {folder} has {_needed()} frames", expected="longer videos")
            return _measured(clips, decord, settings, tell)
    finally:
        cv2.setNumThreads(cv_threads)


def _measured(
    clips: list[_Clip], decord: Any, settings: ClipsBenchSettings, tell: Callable[[str], None]
) -> list[BenchResult]:
    ways: list[_Way] = []
    for name, storage in STORAGES.items():
        tell(f"storing: {name}")
        start = time.perf_counter()
        members = [_stored(clip, storage) for clip in clips]
        cost = (time.perf_counter() - start) / sum(len(clip.crops) for clip in clips) * 1000
        ways += [_Way(name, kind, read, members, cost) for kind, read in _readers(storage, decord)]
    original: list[tuple[float, float]] = []
    rates: list[list[tuple[float, float]]] = [[] for _ in ways]
    for number in range(settings.rounds):
        tell(f"round {number + 1} of {settings.rounds}")
        original.append(_rate(lambda place: _original(clips[place], decord), len(clips)))
        for way, series in zip(ways, rates, strict=True):
            series.append(_rate(partial(_read, way, clips), len(clips)))
    here = _machine()
    results = []
    for way, series in zip(ways, rates, strict=True):
        mine, theirs, ratio = compare_rates([rate for rate, _ in series], [rate for rate, _ in original])
        cpu, cpu_baseline = (round(statistics.median(ms for _, ms in measured), 2) for measured in (series, original))
        used = {"cpu_ms_a_clip": cpu, "baseline_cpu_ms_a_clip": cpu_baseline}
        facts = {**_facts(way, clips), **used, "size": settings.size, "rounds": settings.rounds}
        name = f"clips, {way.storage} ({facts['bytes_a_clip'] / 1000:.0f} kB, error {facts['mean_error_of_255']})"
        results.append(BenchResult(f"{name}, {way.reader}", mine, theirs, "clips/s", ratio, facts, here))
    return results


def _facts(way: _Way, clips: list[_Clip]) -> dict[str, Any]:
    """What a way costs in bytes and in truth."""
    errors = [_read(way, clips, place).astype(np.int16) - clip.crops[clip.wanted] for place, clip in enumerate(clips)]
    return {
        "baseline": "decord on the original video, cropped and resized",
        "storage": way.storage,
        "reader": way.reader,
        "bytes_a_clip": round(sum(written.size for _, written in way.members) / len(clips)),
        "frames_a_clip": round(sum(written.count for _, written in way.members) / len(clips), 1),
        "mean_error_of_255": round(float(np.mean([np.abs(error).mean() for error in errors])), 2),
        "mean_shift_of_255": round(float(np.mean([error.mean() for error in errors])), 2),
        "storing_ms_a_frame": round(way.cost, 2),
        "clips": len(clips),
        "frames": f"{WANTED} at stride {STRIDE}",
    }


def _read(way: _Way, clips: list[_Clip], place: int) -> Pixels:
    return way.read(clips[place], *way.members[place])


def _readers(storage: Storage, decord: Any) -> list[tuple[str, Reader]]:
    """The readers of a storage, named."""
    if storage.kind == "mjpeg":
        return [
            ("simplejpeg", lambda clip, data, written: _ours(clip, data, "mjpeg", written.sizes)),
            ("simplejpeg, borders searched", lambda clip, data, _: _ours(clip, data, "mjpeg", None)),
        ]
    readers: list[tuple[str, Reader]] = [
        ("PyAV", lambda clip, data, _: _ours(clip, data, "mp4", None)),
        (
            "PyAV, fast colours",
            lambda clip, data, _: Mp4Clip(data, name=str(clip.path), exact=False).frames(clip.wanted),
        ),
        ("decord", lambda clip, data, _: _by_decord(decord, io.BytesIO(data), clip.wanted)),
    ]
    torchcodec = _torchcodec()
    if torchcodec is not None:
        readers.append(("torchcodec", lambda clip, data, _: torchcodec(data, clip.wanted)))
    return readers


def _ours(clip: _Clip, data: bytes, extension: str, sizes: Sequence[int] | None) -> Pixels:
    return open_clip(data, extension, sizes=sizes, name=str(clip.path)).frames(clip.wanted)


def _by_decord(decord: Any, source: Any, wanted: Sequence[int]) -> Pixels:
    frames: Pixels = decord.VideoReader(source, num_threads=1).get_batch(list(wanted)).asnumpy()
    return frames


def _original(clip: _Clip, decord: Any) -> Pixels:
    return np.stack([_crop(frame, clip) for frame in _by_decord(decord, str(clip.path), clip.wanted)])


def _crop(frame: Pixels, clip: _Clip) -> Pixels:
    return _resized(frame, clip.box, clip.crops.shape[1])


def _resized(frame: Pixels, box: tuple[int, int, int], size: int) -> Pixels:
    top, left, side = box
    part = frame[top : top + side, left : left + side]
    scaled = cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)
    return np.asarray(scaled, dtype=np.uint8)


def _rate(read: Callable[[int], Pixels], count: int) -> tuple[float, float]:
    """Clips a second, and milliseconds of the processor for a clip, which suffer less from others on the machine."""
    start, used = time.perf_counter(), time.process_time()
    for place in range(count):
        read(place)
    return count / (time.perf_counter() - start), (time.process_time() - used) / count * 1000


def _stored(clip: _Clip, storage: Storage) -> tuple[bytes, Written]:
    target = io.BytesIO()
    written = write_clip(clip.crops, target, fps=_FPS, storage=storage)
    return target.getvalue(), written


def _cropped(path: Path, number: int, settings: ClipsBenchSettings) -> _Clip | None:
    """A video's crops, from its middle; None where it is too short."""
    with VideoSource(path) as source:
        side = round(min(source.info.width, source.info.height) * _BOX)
        box = (source.info.height - side) // 2, (source.info.width - side) // 2, side
        crops = [_resized(frame.image, box, settings.size) for frame in source]
    if len(crops) < _needed():
        return None
    start = int(generator(settings.seed, "start", number).integers(len(crops) - _needed() + 1))
    return _Clip(path, box, np.stack(crops), list(range(start, start + _needed(), STRIDE)))


def _needed() -> int:
    return (WANTED - 1) * STRIDE + 1


def _found(folder: Path, settings: ClipsBenchSettings) -> list[Path]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"{folder} holds no videos", expected=", ".join(SUFFIXES))
    places = np.linspace(0, len(paths) - 1, min(settings.clips, len(paths))).round().astype(int)
    return [paths[place] for place in places]


def _made(folder: Path, settings: ClipsBenchSettings) -> list[Path]:
    """Write videos of procedural faces."""
    av = pyav()
    paths = []
    for number in range(settings.clips):
        path = folder / f"{number:04d}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=_FPS, options={"crf": "20"})
            (stream.height, stream.width), stream.pix_fmt = _SOURCE, "yuv420p"
            for place, image in enumerate(_swaying(settings.seed, number)):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = place, Fraction(1, _FPS)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        paths.append(path)
    return paths


def _swaying(seed: int, number: int) -> list[Pixels]:
    height, width = _SOURCE
    face = render(sample_params(seed, number, 0), width + 32).image
    rng = generator(seed, "sway", number)
    frames = []
    for place in range(_MADE_FRAMES):
        left, top = (round(16 + 12 * np.sin(place / period)) for period in (9, 14))
        part = face[top + 36 : top + 36 + height, left : left + width]
        grain = rng.normal(0, _GRAIN, (height, width, 1))
        frames.append(np.clip(part + grain, 0, 255).astype(np.uint8))
    return frames


def _machine() -> dict[str, Any]:
    from importlib.metadata import version

    return {**machine(), **{name: version(name) for name in ("av", "decord2", "simplejpeg")}}


def _decord() -> "ModuleType":
    with needs_extra("video", "the baseline"):
        import decord
    found: ModuleType = decord
    return found


def _torchcodec() -> Callable[[bytes, Sequence[int]], Pixels] | None:
    """torchcodec, where it is installed and finds the libraries of FFmpeg that it needs."""
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError):
        return None

    def read(data: bytes, wanted: Sequence[int]) -> Pixels:
        decoder = VideoDecoder(data, num_ffmpeg_threads=1, dimension_order="NHWC")
        frames: Pixels = decoder.get_frames_at(list(wanted)).data.numpy()
        return frames

    return read
