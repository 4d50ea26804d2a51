"""The tensors of a batch before its samples are filled in."""

from collections.abc import Sequence

import torch
from torch.utils.data import get_worker_info

from facemae.data.plan import SlotRef
from facemae.data.schema import SoundBatch, SoundSpec, ViewBatch, ViewSpec


def rows_of(spec: ViewSpec, slots: Sequence[SlotRef]) -> torch.Tensor | None:
    """The slots whose samples a view is made of; None for all."""
    if spec.streams is None:
        return None
    return torch.tensor([place for place, slot in enumerate(slots) if slot.stream in spec.streams], dtype=torch.int64)


def empty_view(spec: ViewSpec, count: int, rows: torch.Tensor | None = None) -> ViewBatch:
    """A view without content, in shared memory where this is a worker.

    Args:
        spec: What it is.
        count: Samples of the batch.
        rows: Those it is made of, int64 [R]; None for all.
    """
    count = count if rows is None else len(rows)
    frames = () if spec.clip is None else (spec.clip.frames,)
    image = torch.empty((count, *frames, spec.channels, spec.image_size, spec.image_size), dtype=torch.uint8)
    _share(image)
    if spec.mask is None:
        return ViewBatch(image, None, rows=rows)
    masks = () if spec.mask.copies == 1 else (spec.mask.copies,)
    return ViewBatch(image, torch.empty((count, *masks, spec.mask.keep), dtype=torch.int64), rows=rows)


def empty_sound(spec: SoundSpec, count: int, rows: torch.Tensor | None = None) -> SoundBatch:
    """A sound without content; arguments as for `empty_view`."""
    count = count if rows is None else len(rows)
    mel = torch.empty((count, spec.frames, spec.mel.mels), dtype=torch.float32)
    _share(mel)
    visible = None if spec.mask is None else torch.empty((count, spec.mask.keep), dtype=torch.int64)
    return SoundBatch(mel, torch.empty(count, dtype=torch.bool), visible, rows=rows)


def _share(tensor: torch.Tensor) -> None:
    if get_worker_info() is not None:
        # Filled in shared memory, the batch is not copied again on its way to the training process.
        tensor.share_memory_()  # type: ignore[no-untyped-call]
