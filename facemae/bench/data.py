"""`facemae bench data`: shards through our loader against a folder through torchvision's."""

import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import functional as tv

from facemae.bench.report import BenchResult, compare_rates, machine, spread
from facemae.config import DataConfig, StreamConfig
from facemae.data.augment import random_box
from facemae.data.decode import Pixels
from facemae.data.loader import Loader, build_loader
from facemae.data.pack import PackItem, pack_samples
from facemae.data.preprocess import normalise
from facemae.data.schema import Batch, ViewSpec
from facemae.data.synthetic import render, sample_params
from facemae.errors import DataError
from facemae.rng import generator

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SOURCE_SIZE = 256
TOLERANCE = 2 / 255
_DRAWN = 24
_GRAIN = 4.0
_QUALITY = 90
_WHERE = "on the receiving process's core, as `facemae pretrain` does on a CPU"
_LANES = 8
_VIEW = ViewSpec("main", 224, 3, scale=(0.2, 1.0))


@dataclass(frozen=True)
class DataBenchSettings:
    """Size of the measurement.

    Attributes:
        images: JPEG files made and read in each round.
        size: Side of the views in pixels.
        batch: Samples in a batch; a multiple of 8.
        rounds: How often each side is measured, in turns.
        seed: Seed of the pictures.
    """

    images: int = 1024
    size: int = 224
    batch: int = 64
    rounds: int = 5
    seed: int = 0


def bench_data(settings: DataBenchSettings, *, tell: Callable[[str], None] = lambda _: None) -> list[BenchResult]:
    """Measure images a second of both pipelines with one worker each.

    Both read the same 256-pixel JPEG files, take a random resized crop, mirror half of them, and deliver batches. Rates
    count from the arrival of the first batch, so starting processes is not measured.

    Args:
        settings: Size of the measurement.
        tell: Called with a line of progress now and then.

    Returns:
        Two results: with batches normalised on the CPU by the receiving process, as a CPU trainer does, and with bytes
        left to be normalised on the device.

    Raises:
        DataError: The two pipelines do not deliver the same tensor for the same crop.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="facemae-bench-") as name:
            folder = Path(name)
            tell(f"making {settings.images} JPEG files")
            size = make_sources(folder, settings)
            difference = mean_difference(folder, settings)
            rates: dict[str, list[float]] = {"torchvision": [], "ours": [], "device": []}
            for number in range(settings.rounds):
                tell(f"round {number + 1} of {settings.rounds}")
                rates["torchvision"].append(_rate(_torchvision(folder / "images", settings), _take))
                rates["ours"].append(_rate(_ours(folder / "shards", settings, number), _receive))
                rates["device"].append(_rate(_ours(folder / "shards", settings, number), _take))
    finally:
        torch.set_num_threads(before)
    facts = {
        "baseline": "torchvision ImageFolder, PIL RandomResizedCrop, RandomHorizontalFlip, ToTensor, Normalize",
        "workers": 1,
        **{key: getattr(settings, key) for key in ("images", "size", "batch", "rounds")},
        "baseline_normalised": "in the worker, the only one of its pipeline's processes that computes",
        "source": f"{SOURCE_SIZE}-pixel JPEG of {size / 1000:.1f} kB on average",
        "mean_difference_of_255": round(difference * 255, 4),
    }
    return [
        _result("data", rates["ours"], rates["torchvision"], {**facts, "normalised": _WHERE}),
        _result(
            "data, normalisation on the device", rates["device"], rates["torchvision"], {**facts, "normalised": "no"}
        ),
    ]


def _result(name: str, ours: list[float], baseline: list[float], settings: dict[str, Any]) -> BenchResult:
    mine, theirs, ratio = compare_rates(ours, baseline)
    return BenchResult(name, mine, theirs, "images/s", ratio, {**settings, **spread(ours, baseline)}, machine())


def make_sources(folder: Path, settings: DataBenchSettings) -> float:
    """Write the same JPEG files as an image folder and as shards; gives their mean size in bytes.

    Procedural faces with film grain: at quality 90 they are about as large as photographs of this size.
    """
    faces = [render(sample_params(settings.seed, person, 0), SOURCE_SIZE).image for person in range(_DRAWN)]
    target = folder / "images" / "face"
    target.mkdir(parents=True)
    items, total = [], 0
    for number in range(settings.images):
        data = _photograph(faces[number % _DRAWN], settings.seed, number)
        (target / f"{number:06d}.jpg").write_bytes(data)
        items.append(PackItem(f"{number:06d}", data, "jpg", {}))
        total += len(data)
    pack_samples(items, folder / "shards", shard_size=max(settings.images // 4, 1))
    return total / settings.images


def _photograph(face: Pixels, seed: int, number: int) -> bytes:
    grain = generator(seed, "grain", number).normal(0, _GRAIN, (*face.shape[:2], 1))
    noisy = np.clip(face + grain, 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", noisy[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return bytes(data)


def mean_difference(folder: Path, settings: DataBenchSettings, count: int = 64) -> float:
    """Mean absolute difference of the two pipelines' tensors for the same crops, on the scale of pixels in [0, 1].

    Ours come out of the loader that is timed. torchvision is given the crops and flips that the loader drew.

    Args:
        folder: What `make_sources` wrote.
        settings: Size of the measurement.
        count: How many images to compare; a multiple of 8.

    Raises:
        DataError: It is larger than 2/255.
    """
    loader = _ours(folder / "shards", settings, settings.seed, batch=count, steps=1, workers=0)
    (batch,) = loader
    ours = _receive(batch)
    differences = []
    for place, slot in enumerate(loader.plan.slots(0)):
        rng = generator(settings.seed, "crop", _VIEW.name, slot.stream, slot.epoch, slot.sample)
        left, top, width, height = random_box(SOURCE_SIZE, SOURCE_SIZE, _VIEW.scale, _VIEW.ratio, rng)
        mirror = rng.random() < 0.5
        with Image.open(folder / "images" / "face" / f"{batch.keys[place]}.jpg") as image:
            theirs = tv.resized_crop(image.convert("RGB"), top, left, height, width, [settings.size, settings.size])
        theirs = tv.normalize(tv.to_tensor(tv.hflip(theirs) if mirror else theirs), MEAN, STD)
        differences.append(float(((ours[place] - theirs).abs() * torch.tensor(STD).view(3, 1, 1)).mean()))
    found = sum(differences) / len(differences)
    if found > TOLERANCE:
        raise DataError(
            f"the two pipelines differ by {found * 255:.2f}/255 on average for the same crops", expected="at most 2/255"
        )
    return found


def _torchvision(folder: Path, settings: DataBenchSettings) -> Iterable[Any]:
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(settings.size, scale=(0.2, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    dataset = ImageFolder(str(folder), transform)
    return DataLoader(dataset, settings.batch, shuffle=True, num_workers=1, drop_last=True)


def _ours(
    folder: Path,
    settings: DataBenchSettings,
    seed: int,
    *,
    batch: int | None = None,
    steps: int | None = None,
    workers: int = 1,
) -> Loader:
    data = DataConfig(streams=(StreamConfig(shards=str(folder)),), lanes=_LANES)
    batch = batch or settings.batch
    return build_loader(
        data,
        (replace(_VIEW, image_size=settings.size),),
        seed=seed,
        batch_size=batch,
        stop_step=steps or settings.images // batch,
        workers=workers,
    )


def _take(batch: Any) -> None:
    """Receive a batch and do nothing with it."""


def _receive(batch: Batch) -> torch.Tensor:
    """Receive a batch as the trainer does on a CPU."""
    return normalise(batch.views[_VIEW.name].image, MEAN, STD)


def _rate(batches: Iterable[Any], receive: Callable[[Any], object]) -> float:
    """Images a second from the arrival of the first batch to that of the last."""
    count, start = -1, 0.0
    size = 0
    for batch in batches:
        receive(batch)
        count += 1
        if count == 0:
            start = time.perf_counter()
            size = len(batch) if isinstance(batch, Batch) else len(batch[0])
    if count < 1:
        raise DataError("one batch cannot be timed", expected="at least two", fix="ask for more images")
    return count * size / (time.perf_counter() - start)
