"""Masks of spectrograms: which patches of a grid of time by frequency an encoder hears.

The number of visible patches is the same in every sample, so that a batch is a rectangular tensor.
"""

import numpy as np
from numpy.typing import NDArray

from facemae.data.schema import MaskSpec
from facemae.errors import UsageError

KINDS = ("random", "time", "frequency", "time_frequency")


def draw_sound_mask(spec: MaskSpec, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw one mask of a spectrogram.

    Kinds `time` and `frequency` hide whole moments or bands; `time_frequency` hides as large a share of the moments as
    of the bands, so that a share (1 - s)^2 stays visible, as AudioMAE does when it is fine-tuned (Huang et al., "Masked
    Autoencoders that Listen", 2022). There the count follows from two rates; here it is given, and of one moment or
    band a part is hidden to meet it.

    Args:
        spec: Kind, grid of moments and bands, and number of visible patches.
        rng: The sample's own generator.

    Returns:
        int64 [keep], ascending indices of the visible patches, moment by moment.

    Raises:
        UsageError: Unknown kind, or a keep count that the grid does not allow.
    """
    moments, bands = spec.grid
    patches = moments * bands
    if not 0 < spec.keep <= patches:
        raise UsageError(f"a mask keeps {spec.keep} patches", expected=f"1 to {patches} on a grid of {moments}x{bands}")
    levels = _levels(spec.kind, moments, bands, rng)
    # Hiding a prefix of this order hides whole moments and bands and, to meet an exact count, a part of the last one.
    order = np.lexsort((rng.random(patches), levels.flatten()))
    return np.sort(order[patches - spec.keep :]).astype(np.int64)


def _levels(kind: str, moments: int, bands: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """What patches are hidden by, the lowest first, [moments, bands]."""
    in_time, in_frequency = _spread(moments, rng)[:, None], _spread(bands, rng)[None, :]
    if kind == "time":
        return np.repeat(in_time, bands, axis=1)
    if kind == "frequency":
        return np.repeat(in_frequency, moments, axis=0)
    if kind == "time_frequency":
        return np.minimum(in_time, in_frequency)
    if kind == "random":
        return np.zeros((moments, bands))
    raise UsageError(f"mask kind {kind!r} is unknown", expected=f"one of {', '.join(KINDS)}")


def _spread(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Numbers in [0, 1) in random order, one in each of so many equal parts: below any s lie as many as s of them."""
    return (rng.permutation(count) + rng.random(count)) / count
