"""Batches of clips with sound for `facemae bench step`: made, not read, since only the step is measured."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator

from facemae.config import Recipe
from facemae.data.masks import draw_mask
from facemae.data.schema import Batch, SoundBatch, ViewBatch
from facemae.data.sound_masks import draw_sound_mask
from facemae.recipe_specs import sound_specs, view_specs
from facemae.rng import generator


def made_batches(recipe: Recipe, count: int) -> list[Batch]:
    """Batches as the loader would give them, of light and shade that change with time, with noise; all have sound.

    Args:
        recipe: A recipe with one view of clips and one sound, both masked.
        count: How many; their steps are 0, 1 and so on.
    """
    return [_made(recipe, step, generator(recipe.seed, "bench", "clips", step)) for step in range(count)]


def _made(recipe: Recipe, step: int, rng: Generator) -> Batch:
    size = recipe.optim.batch_size
    (view,), (sound,) = view_specs(recipe), sound_specs(recipe)
    assert view.clip is not None
    assert view.mask is not None
    assert sound.mask is not None
    side, shape = view.image_size, (size, view.channels, view.clip.frames)
    shades = _numbers(rng, (*shape[:2], 3, 4, 4))
    clips = F.interpolate(shades, size=(view.clip.frames, side, side), mode="trilinear", align_corners=True)
    clips = 0.8 * clips + 0.2 * _numbers(rng, (*shape, side, side))
    image = (255 * clips).to(torch.uint8).transpose(1, 2).contiguous()
    loud = F.interpolate(_numbers(rng, (size, 1, 8, 4)), size=(sound.frames, sound.mel.mels), mode="bilinear")[:, 0]
    mel = 2 * loud + 0.5 * _numbers(rng, (size, sound.frames, sound.mel.mels)) - 1
    seen, heard = (
        torch.from_numpy(np.stack([draw(mask, rng) for _ in range(size)]))
        for draw, mask in ((draw_mask, view.mask), (draw_sound_mask, sound.mask))
    )
    present = torch.ones(size, dtype=torch.bool)
    names = tuple(f"{step}-{slot}" for slot in range(size))
    views, sounds = {view.name: ViewBatch(image, seen)}, {sound.name: SoundBatch(mel, present, heard)}
    stream = recipe.data.streams[0].name
    return Batch(step, 0, names, (stream,) * size, views, ({},) * size, sounds=sounds)


def _numbers(rng: Generator, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(rng.random(shape, dtype=np.float32))
