"""Pictures of a run: what the model is shown, and what it predicts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from facemae.data.schema import Batch, MaskSpec, ViewSpec
from facemae.files import atomic_path
from facemae.objectives.base import Objective
from facemae.objectives.pretraining import PretrainModel

EXAMPLES = 8
"""Samples shown in a picture."""
CLIPS = 3
"""Samples shown of a view of clips, each in rows of all its frames."""

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
        mean, std = (made.pixels.new_tensor(values).view(-1, 1, 1) for values in (settings.mean, settings.std))
        predicted = ((made.pixels * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        original, shown = _channels_last(given.image), []
        mask = by_name[made.view].mask
        if mask is not None and given.visible is not None:
            shown.append(_darken(original, _masks(given.visible)[0], mask))
        rows += _rows([*shown, _channels_last(predicted), original])
    return _sheet(rows) if rows else None


def views_picture(batch: Batch, specs: Sequence[ViewSpec]) -> Image.Image:
    """Example views: for each view a row of images and, for each of its masks, a row with hidden patches darkened.

    Of a view of clips, such rows of the frames of a sample, sample by sample.
    """
    rows = []
    for spec in specs:
        view = batch.views[spec.name]
        images = _channels_last(view.image)
        shown = [images]
        if spec.mask is not None and view.visible is not None:
            shown += [_darken(images, visible, spec.mask) for visible in _masks(view.visible)]
        rows += _rows(shown)
    return _sheet(rows)


def save_picture(image: Image.Image, path: Path) -> None:
    """Write a PNG, enlarged to a size people can see."""
    scale = max(1, round(1024 / image.width))
    with atomic_path(path) as temporary:
        image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(temporary)


def _channels_last(images: torch.Tensor) -> Pixels:
    """[B, H, W, C] of images, [B, T, H, W, C] of clips."""
    return images.cpu().movedim(-3, -1).numpy()


def _rows(shown: Sequence[Pixels]) -> list[Pixels]:
    """Rows of pictures: images of all samples; of clips the frames of one sample after another."""
    if shown[0].ndim == 4:
        return list(shown)
    return [images[sample] for sample in range(min(CLIPS, len(shown[0]))) for images in shown]


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


def _darken(images: Pixels, visible: torch.Tensor, mask: MaskSpec) -> Pixels:
    """Images [B, H, W, C], or clips [B, T, H, W, C], with what the mask hides darkened."""
    rows, columns = mask.grid
    seen = torch.zeros(len(images), mask.steps * rows * columns, dtype=torch.bool).scatter_(1, visible, True).numpy()
    frames = images if images.ndim == 5 else images[:, None]
    sizes = (frames.shape[1] // mask.steps, frames.shape[2] // rows, frames.shape[3] // columns)
    places = seen.reshape(-1, mask.steps, rows, columns)
    for axis, size in enumerate(sizes, start=1):
        places = places.repeat(size, axis=axis)
    dark: Pixels = np.where(places[..., None], frames, (frames * _HIDDEN).astype(np.uint8))
    return dark.reshape(images.shape)
