"""Taking what is drawn or read on the host to the device of the model."""

import torch


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host on a device, without waiting for what is queued there.

    To a GPU only copies from page-locked memory do not wait, whatever `non_blocking` says.
    """
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
