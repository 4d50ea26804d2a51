"""Pictures of a run: what the model is shown, and what it predicts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from facemae.data.schema import Batch, MaskSpec, SoundBatch, ViewSpec
from facemae.files import atomic_path
from facemae.objectives.base import Objective
from facemae.objectives.pretraining import PretrainModel

CAPTION_LINE = 18
"""Height of a line of a caption, in pixels."""
EXAMPLES = 8
"""Samples shown in a picture."""
CLIPS = 3
"""Samples shown of a view of clips, each in rows of all its frames."""
VIEWS = ("The views; below a masked one, what masks hide of it is dark.",)
"""Caption of `views_picture`."""
RECONSTRUCTION = (
    "Rows: where a view is masked, what is seen of it (the hidden is dark); what the model predicts; the original.",
    "Where the target is normalised, as norm_pix is, a predicted patch has the original's mean and contrast.",
)
"""Caption of `reconstruction_picture`."""

Pixels = NDArray[np.uint8]

_HIDDEN = 0.25
"""Brightness that hidden patches keep."""
_WIDTH = 1024
"""Width of a written picture in pixels, about."""


def head(batch: Batch, count: int = EXAMPLES) -> Batch:
    """The first samples of a batch; the first of each view, where views are made of some samples only."""
    made = [*batch.views.values(), *batch.sounds.values()]
    if all(part.rows is None for part in made):
        return replace(batch.part(slice(0, count)), replaced=())
    first = torch.arange(len(batch))
    return batch.of(sorted({s for part in made for s in (first if part.rows is None else part.rows)[:count].tolist()}))


@torch.no_grad()
def reconstruction_picture(model: PretrainModel, batch: Batch, specs: Sequence[ViewSpec]) -> Image.Image | None:
    """For each objective that predicts pixels or sound: what the model is given, what it makes of it, the original.

    Args:
        model: The model.
        batch: Samples on the model's device.
        specs: The views.

    Returns:
        The picture, or None where no objective predicts either.
    """
    by_name = {spec.name: spec for spec in specs}
    pixels, encodings = model.encode(batch)
    rows = []
    for objective in model.objectives:
        assert isinstance(objective, Objective)
        made = objective.reconstruct(encodings, pixels)
        if made is None:
            continue
        if made.view in batch.sounds:
            rows += _sound_rows(batch.sounds[made.view], made.pixels, encodings[made.view].grid)
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


def _sound_rows(sound: SoundBatch, predicted: torch.Tensor, grid: tuple[int, ...] | None) -> list[Pixels]:
    """Masked, predicted and original spectrograms, time from left to right, high tones above.

    Each sample's range of values is that of its original. Samples without sound are left out.

    Args:
        sound: What was given.
        predicted: [B, 1, frames, mels].
        grid: Moments and bands of patches.
    """
    original = sound.mel.unsqueeze(-1)
    low, high = original.amin(dim=(1, 2), keepdim=True), original.amax(dim=(1, 2), keepdim=True)
    shown = [
        ((values - low) / (high - low).clamp(min=1e-6) * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        for values in (predicted.movedim(1, -1), original)
    ]
    if sound.visible is not None and grid is not None:
        mask = MaskSpec("random", (grid[0], grid[1]), sound.visible.shape[1])
        shown.insert(0, _darken(shown[-1], sound.visible.cpu(), mask))
    heard = sound.present.cpu().numpy()
    return [np.flip(np.swapaxes(images[heard][:EXAMPLES], 1, 2), axis=1) for images in shown] if heard.any() else []


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


def save_picture(image: Image.Image, path: Path, caption: Sequence[str]) -> None:
    """Write a PNG, enlarged to a size people can see, with lines beneath that say what is seen."""
    scale = max(1, round(_WIDTH / image.width))
    large = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    font = ImageFont.load_default(12)
    width = max([large.width, *(int(font.getlength(line)) + 8 for line in caption)])
    sheet = Image.new(large.mode, (width, large.height + CAPTION_LINE * len(caption)))
    sheet.paste(large)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(caption):
        draw.text((4, large.height + CAPTION_LINE * number + 2), line, font=font, fill="white")
    with atomic_path(path) as temporary:
        sheet.save(temporary)


def _channels_last(images: torch.Tensor) -> Pixels:
    """[B, H, W, C] of images, [B, T, H, W, C] of clips."""
    return images.cpu().movedim(-3, -1).numpy()


def _rows(shown: Sequence[Pixels]) -> list[Pixels]:
    """Rows of pictures: images of all samples; of clips the frames of one sample after another."""
    if shown[0].ndim == 4:
        return [images[:EXAMPLES] for images in shown]
    return [images[sample] for sample in range(min(CLIPS, len(shown[0]))) for images in shown]


def _sheet(rows: Sequence[Pixels]) -> Image.Image:
    """Rows of images [B, H, W, C] as one picture, with a thin gap between images; rows may differ in size."""
    channels = max(row.shape[-1] for row in rows)
    rows = [row if row.shape[-1] == channels else np.repeat(row, channels, axis=-1) for row in rows]
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
