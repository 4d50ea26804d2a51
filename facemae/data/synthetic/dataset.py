"""Drawing thousands of faces on several cores and packing them into a shard set."""

import errno
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from facemae.data.pack import SHARD_SIZE, PackItem, PackReport, pack_samples
from facemae.data.regions import MEMBER
from facemae.data.schema import CropRecipe, DatasetCard
from facemae.data.synthetic.worker import draw_samples
from facemae.errors import UsageError
from facemae.files import storage_errors
from facemae.parallel import usable_cores
from facemae.rng import generator

_CHUNK = 32
Progress = Callable[[int, int], None]


def subject_splits(seed: int, identities: int) -> list[str]:
    """The split of every identity: about 70 % train, 10 % valid, 20 % test, and at least one each.

    Raises:
        UsageError: Fewer than three identities.
    """
    if identities < 3:
        raise UsageError(f"{identities} identities", expected="at least 3: train, valid and test share no person")
    valid, test = max(1, round(0.1 * identities)), max(1, round(0.2 * identities))
    names = ["valid"] * valid + ["test"] * test + ["train"] * (identities - valid - test)
    order = generator(seed, "synthetic", "split").permutation(identities)
    splits = [""] * identities
    for place, name in zip(order.tolist(), names, strict=True):
        splits[place] = name
    return splits


@contextmanager
def process_map(processes: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """A `map` over so many processes, in order; with one, the ordinary `map`."""
    if processes == 1:
        yield map
        return
    # Spawned, not forked: the caller may have threads of torch or OpenCV running.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield pool.map


class _Spool:
    """Encoded samples on disk until they are packed, so that memory does not grow with their number."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._end = 0

    def add(self, data: bytes) -> Callable[[], bytes]:
        """Append bytes; the function returned reads them back and may be called from any thread."""
        size = len(data)
        if os.pwrite(self._file.fileno(), data, self._end) != size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        start, self._end = self._end, self._end + size
        return partial(self._read, start, size)

    def _read(self, start: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, start)

    def close(self) -> None:
        """Remove the file."""
        self._file.close()


def make_dataset(
    out: Path | str,
    *,
    count: int = 4000,
    identities: int = 160,
    size: int = 64,
    seed: int = 0,
    workers: int | None = None,
    shard_size: int = SHARD_SIZE,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PackReport:
    """Draw faces and pack them into a new, indexed shard set.

    Every sample has its picture (`jpg`), its region map (`region.png`, values of `Region`) and its labels. Splits share
    no person. The label `identity_split` cuts the images of the training persons a second time, for probing identity.

    Args:
        out: Folder to make.
        count: Faces to draw.
        identities: Persons among them; the faces are dealt to them in turn.
        size: Side of the pictures in pixels; even.
        seed: Seed of everything.
        workers: Worker processes; None takes one a core. Never changes the result.
        shard_size: Samples a shard.
        overwrite: Replace an older shard set under `out`.
        progress: Called with (faces drawn, faces in all).

    Returns:
        What was written.

    Raises:
        UsageError: Fewer faces than identities, fewer than three identities, or an odd or tiny size.
        DataError: `out` is not empty.
        StorageError: Writing failed underneath; nothing is left behind.
    """
    out = Path(out)
    if count < identities:
        raise UsageError(f"{count} faces of {identities} identities", expected="at least one face of each identity")
    if size < 16 or size % 2:
        raise UsageError(f"size {size}", expected="an even number of pixels from 16 up")
    splits = subject_splits(seed, identities)
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    workers = min(workers or usable_cores(), len(chunks))
    items: list[PackItem] = []
    with ExitStack() as stack:
        with storage_errors(out):
            out.absolute().parent.mkdir(parents=True, exist_ok=True)
            spool = _Spool(out.absolute().parent)
            stack.callback(spool.close)
        run = stack.enter_context(process_map(workers))
        for drawn in run(partial(draw_samples, seed, identities, size, splits), chunks):
            with storage_errors(out):
                items.extend(_item(spool, *sample) for sample in drawn)
            if progress is not None:
                progress(len(items), count)
        card = _card(count, identities, size, seed)
        return pack_samples(items, out, card=card, shard_size=shard_size, seed=seed, overwrite=overwrite)


def _item(spool: _Spool, key: str, meta: dict[str, Any], image: bytes, regions: bytes) -> PackItem:
    read_regions = spool.add(regions)
    return PackItem(key=key, image=spool.add(image), extension="jpg", meta=meta, more=lambda: {MEMBER: read_regions()})


def _card(count: int, identities: int, size: int, seed: int) -> DatasetCard:
    return DatasetCard(
        name="facemae procedural faces",
        source="procedural: drawn by facemae.data.synthetic; no photograph is behind them",
        licence="CC0-1.0",
        consent="not needed: no person is shown",
        terms="none",
        redistributable=True,
        packed={
            "command": f"facemae data synth --count {count} --identities {identities} --size {size} --seed {seed}",
            "identities": str(identities),
        },
        crop=CropRecipe(
            detector="none", margin="drawn", alignment="none", size=size, colour="rgb", interpolation="area"
        ),
    )
