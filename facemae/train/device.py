"""Moving batches to where the model is."""

from dataclasses import replace

import torch

from facemae.data.schema import Batch, ViewBatch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on a device; a copy from page-locked memory does not wait."""
    if device.type == "cpu":
        return batch
    views = {
        name: ViewBatch(
            view.image.to(device, non_blocking=True),
            None if view.visible is None else view.visible.to(device, non_blocking=True),
        )
        for name, view in batch.views.items()
    }
    return replace(batch, views=views)
