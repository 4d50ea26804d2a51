"""Pictures of a run: what the model is shown, and what it predicts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from facemae.data.schema import Batch, ViewSpec
from facemae.files import atomic_path
from facemae.objectives.base import Objective
from facemae.objectives.pretraining import PretrainModel

EXAMPLES = 8
"""Samples shown in a picture."""

Pixels = NDArray[np.uint8]

_HIDDEN = 0.25
"""Brightness that hidden patches keep."""


def head(batch: Batch, count: int = EXAMPLES) -> Batch:
    """The first samples of a batch."""
    return replace(batch.part(slice(0, count)), replaced=())


@torch.no_grad()
def reconstruction_picture(model: PretrainModel, batch: Batch, specs: Sequence[ViewSpec]) -> Image.Image | None:
    """For each objective that predicts pixels: what the model sees, what it makes of it, and the original.

    Args:
        model: The model.
        batch: Samples on the model's device.
        specs: The views.

    Returns:
        The picture, or None where no objective predicts pixels.
    """
    by_name = {spec.name: spec for spec in specs}
    pixels, encodings = model.encode(batch)
    rows = []
    for objective in model.objectives:
        assert isinstance(objective, Objective)
        made = objective.reconstruct(encodings, pixels)
        if made is None:
            continue
        given, settings = batch.views[made.view], model.normalisation[made.view]
        mean, std = (made.pixels.new_tensor(values).view(1, -1, 1, 1) for values in (settings.mean, settings.std))
        predicted = ((made.pixels * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        original = _channels_last(given.image)
        mask = by_name[made.view].mask
        if mask is not None and given.visible is not None:
            rows.append(_darken(original, _masks(given.visible)[0], mask.grid))
        rows += [_channels_last(predicted), original]
    return _sheet(rows) if rows else None


def views_picture(batch: Batch, specs: Sequence[ViewSpec]) -> Image.Image:
    """Example views: for each view a row of images and, for each of its masks, a row with hidden patches darkened."""
    rows = []
    for spec in specs:
        view = batch.views[spec.name]
        images = _channels_last(view.image)
        rows.append(images)
        if spec.mask is not None and view.visible is not None:
            rows += [_darken(images, visible, spec.mask.grid) for visible in _masks(view.visible)]
    return _sheet(rows)


def save_picture(image: Image.Image, path: Path) -> None:
    """Write a PNG, enlarged to a size people can see."""
    scale = max(1, round(1024 / image.width))
    with atomic_path(path) as temporary:
        image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(temporary)


def _channels_last(images: torch.Tensor) -> Pixels:
    return images.cpu().permute(0, 2, 3, 1).numpy()


def _sheet(rows: Sequence[Pixels]) -> Image.Image:
    """Rows of images [B, H, W, C] as one picture, with a thin gap between images; rows may differ in size."""
    strips = [np.concatenate(list(np.pad(row, ((0, 0), (1, 1), (1, 1), (0, 0)))), axis=1) for row in rows]
    width = max(strip.shape[1] for strip in strips)
    sheet = np.concatenate([np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0))) for strip in strips], axis=0)
    return Image.fromarray(sheet[:, :, 0] if sheet.shape[2] == 1 else sheet)


def _masks(visible: torch.Tensor) -> list[torch.Tensor]:
    """The masks of a view one by one, each [B, keep], on the CPU."""
    visible = visible.cpu()
    return [visible] if visible.ndim == 2 else list(visible.unbind(dim=1))


def _darken(images: Pixels, visible: torch.Tensor, grid: tuple[int, int]) -> Pixels:
    rows, columns = grid
    seen = torch.zeros(len(images), rows * columns, dtype=torch.bool).scatter_(1, visible, True).numpy()
    height, width = images.shape[1] // rows, images.shape[2] // columns
    pixels = seen.reshape(-1, rows, columns).repeat(height, axis=1).repeat(width, axis=2)[..., None]
    dark: Pixels = np.where(pixels, images, (images * _HIDDEN).astype(np.uint8))
    return dark
