"""How much a step computes, and how much of what the hardware can do that is."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from facemae.data.schema import Batch
from facemae.train.hardware.blocks import uncompiled

PEAKS = {
    "A100": {"bf16": 312.0, "tf32": 156.0},
    "H100 PCIe": {"bf16": 756.0, "tf32": 378.0},
    "H100 NVL": {"bf16": 835.0, "tf32": 417.0},
    "H100": {"bf16": 989.0, "tf32": 494.0},
    "H200": {"bf16": 989.0, "tf32": 494.0},
    "L40S": {"bf16": 362.0, "tf32": 183.0},
    "RTX 3090": {"bf16": 71.0, "tf32": 35.6},
    "RTX 4090": {"bf16": 165.2, "tf32": 82.6},
}
"""TFLOP/s of dense matrix products by a part of the GPU's name, from the makers' data sheets; first match counts."""


def peak_flops(name: str, precision: str) -> float | None:
    """Operations a second that a GPU can do at most; None where it is not known.

    Args:
        name: The GPU's name.
        precision: `bf16`, `tf32` or `fp32`.
    """
    found = next((peaks for part, peaks in PEAKS.items() if part in name), {})
    peak = found.get(precision)
    return None if peak is None else peak * 1e12


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the operations of matrix products, convolutions and attention."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)  # noqa: SLF001 - the registry's key
        if formula is not None:
            self.total += int(formula(*args, **kwargs, out_val=out))
        return out


class Work:
    """Counts the operations of the steps of this process.

    A step is counted when its shapes are first seen; compiled blocks run uncompiled in it, since nothing can be counted
    inside them, and the memory that this takes on a GPU is not that of other steps. Recomputed blocks count twice, as
    the hardware does them twice: its share is then called `hfu`, the utilisation of the hardware, and not `mfu`, that
    of the model (Korthikanti et al., 2022, section 6.3).

    Args:
        peak: Operations a second that the hardware can do, or None.
        recomputed: Whether blocks are computed again in the backward pass.
        compiled: Whether blocks are compiled.
    """

    def __init__(self, peak: float | None = None, *, recomputed: bool = False, compiled: bool = False) -> None:
        self._peak, self._share, self._compiled = peak, "hfu" if recomputed else "mfu", compiled
        self._known: dict[tuple[Any, ...], int] = {}
        self._done = 0

    @contextlib.contextmanager
    def step(self, batch: Batch) -> Iterator[None]:
        """Count a step, done in the block, on this batch."""
        key = tuple(
            (name, *(tuple(tensor.shape) for tensor in part.tensors()))
            for parts in (batch.views, batch.sounds)
            for name, part in parts.items()
        )
        if key in self._known:
            yield
        else:
            with uncompiled(), _Counter() as counter:
                yield
            self._known[key] = counter.total
            if self._compiled and torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
        self._done += self._known[key]

    def read(self, seconds: float) -> dict[str, float]:
        """Numbers since the last reading.

        Args:
            seconds: How long that took.

        Returns:
            `gflops`, a second; and `mfu` or `hfu`, its share of what the hardware can do, where that is known.
        """
        rate, self._done = self._done / seconds, 0
        numbers = {"gflops": round(rate / 1e9, 2)}
        return numbers if self._peak is None else {**numbers, self._share: round(rate / self._peak, 4)}
