"""Moving batches to where the model is."""

import torch

from facemae.data.schema import Batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on a device; a copy from page-locked memory does not wait."""
    if device.type == "cpu":
        return batch
    return batch.map(lambda tensor: tensor.to(device, non_blocking=True))


class Mover:
    """Moves batches beside the computation: on a GPU copies have a stream of their own.

    The host is a step ahead of the GPU, so the bytes of a step travel while the step before it is computed.

    Args:
        device: Where the model is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __call__(self, batch: Batch) -> Batch:
        """The batch with its tensors on the device, ready for what is queued there next."""
        if self._copies is None:
            return to_device(batch, self._device)
        with torch.cuda.stream(self._copies):
            moved = to_device(batch, self._device)
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._copies)
        for tensor in moved.tensors():
            # Else the allocator might give the memory to the next copy while the computation still reads it.
            tensor.record_stream(current)
        return moved
