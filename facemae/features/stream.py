"""A steady stream of model-ready batches: one thread reads, some decode, the caller computes meanwhile."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from facemae.data.preprocess import to_model_input
from facemae.data.schema import ModelInput
from facemae.errors import DecodeError
from facemae.features.pixels import to_pixels
from facemae.features.sources import Item, Source


@dataclass(frozen=True)
class Skip:
    """An image or clip that is left out, and why; or a clip that is left out from where it broke on."""

    key: str
    reason: str


@dataclass(frozen=True)
class ImageBatch:
    """Images ready for an encoder.

    Attributes:
        keys: Names, B of them.
        images: uint8 [B, C, S, S].
        sizes: (height, width) of each image before it was scaled.
    """

    keys: list[str]
    images: torch.Tensor
    sizes: list[tuple[int, int]]


@dataclass(frozen=True)
class _Ready:
    key: str
    pixels: np.ndarray
    size: tuple[int, int]


OnSkip = Callable[[Skip], None]


def stream_batches(
    source: Source, model_input: ModelInput, *, batch_size: int, workers: int, on_skip: OnSkip | None = None
) -> Iterator[ImageBatch]:
    """Read, decode and scale the images of a source, in its order.

    At most three batches are in memory, however long the source is.

    Args:
        source: The images.
        model_input: What the encoder expects.
        batch_size: Images in a batch; the last one may hold fewer.
        workers: Decoding threads.
        on_skip: Called for every image that does not decode, which is then left out. Without it, the first stops.

    Raises:
        DecodeError: An image does not decode and there is no `on_skip`.
        StorageError: Reading failed underneath.
    """
    ready: list[_Ready] = []
    for result in _in_order(source, model_input, depth=2 * batch_size, workers=workers):
        if isinstance(result, Skip):
            if on_skip is None:
                raise DecodeError(result.reason, fix="`facemae extract` leaves such images out and lists them")
            on_skip(result)
            continue
        ready.append(result)
        if len(ready) == batch_size:
            yield _batch(ready)
            ready = []
    if ready:
        yield _batch(ready)


def _in_order(source: Source, model_input: ModelInput, *, depth: int, workers: int) -> Iterator[_Ready | Skip]:
    items = iter(source)
    pending: deque[Future[_Ready | Skip]] = deque()
    with ThreadPoolExecutor(1, "facemae-read") as reader, ThreadPoolExecutor(workers, "facemae-decode") as decoders:

        def submit(item: Item) -> None:
            # One reader keeps access to disks and network shares sequential; decoding is where the time goes.
            data = reader.submit(item.read)
            pending.append(decoders.submit(_prepare, item.key, data, model_input))

        try:
            for item in islice(items, depth):
                submit(item)
            while pending:
                result = pending.popleft().result()
                for item in islice(items, 1):
                    submit(item)
                yield result
        finally:
            decoders.shutdown(wait=False, cancel_futures=True)
            reader.shutdown(wait=False, cancel_futures=True)


def _prepare(key: str, data: "Future[object]", model_input: ModelInput) -> _Ready | Skip:
    try:
        pixels = to_pixels(data.result(), model_input.channels, key)
    except DecodeError as error:
        return Skip(key, str(error).replace("\n", "; "))
    height, width = pixels.shape[:2]
    return _Ready(key, to_model_input(pixels, model_input), (height, width))


def _batch(ready: list[_Ready]) -> ImageBatch:
    images = torch.from_numpy(np.stack([item.pixels for item in ready]))
    return ImageBatch([item.key for item in ready], images, [item.size for item in ready])
