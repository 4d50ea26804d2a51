"""Where the time goes: throughput, the share spent waiting for data, and what remains."""

import contextlib
import time
from collections.abc import Iterable, Iterator

import torch

from facemae.data.schema import Batch
from facemae.train.hardware.resident import peak_resident_bytes
from facemae.train.hardware.work import Work
from facemae.train.optim.schedule import Lengths


class Clock:
    """Measures a running loop.

    Args:
        step: Steps already done.
        work: Counts the operations of the steps.
    """

    def __init__(self, step: int, work: Work) -> None:
        self.work = work
        self._begin = self._mark = time.perf_counter()
        self._first = self._last = step
        self._waited = self._aside = 0.0

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Do in the block what is no training: it counts for what remains, and not for the speed."""
        begin = time.perf_counter()
        yield
        self._aside += time.perf_counter() - begin

    def waiting(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass batches on and add up how long they were waited for."""
        iterator = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(iterator, None)
            self._waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def read(self, step: int, lengths: Lengths) -> dict[str, float]:
        """Numbers of the interval since the last reading.

        Args:
            step: Steps done.
            lengths: The run's lengths.

        Returns:
            `samples_per_s`; `data_wait`, share of the interval; `eta_s`, from the speed since this start; `memory_mb`,
            the highest this process had so far, and where there is a GPU `gpu_memory_mb`, the highest since batches
            last changed their shape; and what `Work.read` gives.
        """
        now = time.perf_counter()
        interval = max(now - self._mark - self._aside, 1e-9)
        per_step = (now - self._begin) / max(1, step - self._first)
        numbers = {
            "samples_per_s": round((step - self._last) * lengths.batch / interval, 2),
            "data_wait": round(self._waited / interval, 4),
            "eta_s": round((lengths.steps - step) * per_step, 1),
            "memory_mb": round(peak_resident_bytes() / 2**20, 1),
        }
        if torch.cuda.is_available():
            numbers["gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
        numbers |= self.work.read(interval)
        self._mark, self._last, self._waited, self._aside = now, step, 0.0, 0.0
        return numbers
