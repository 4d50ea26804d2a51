"""Features for measurements, shaped like those of an encoder."""

import numpy as np
from numpy.typing import NDArray

from facemae.rng import generator

SAID = (
    "made: normal factors of variance 1/rank about a mean for each class, mixed at random into all dimensions, with a "
    "little noise; 15 % of labels are drawn at random"
)


def made_features(
    samples: int, dimensions: int, classes: int, *, seed: int = 0, first: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Correlated features whose covariance has a decaying spectrum, and their classes.

    What is drawn once, such as the mixing, depends on the seed alone; `first` numbers the block of samples, so that a
    large set can be made block by block.

    Returns:
        [N, D] not standardised, and [N].
    """
    shared = generator(seed, "bench", "probe", dimensions, classes)
    spectrum = np.arange(1, dimensions + 1) ** -0.5
    mixing = spectrum[:, None] * shared.normal(size=(dimensions, dimensions)) / np.sqrt(dimensions)
    means = 0.35 * shared.normal(size=(classes, dimensions))
    offset = shared.normal(size=dimensions)
    rng = generator(seed, "bench", "probe", "block", first)
    labels = rng.integers(classes, size=samples)
    factors = rng.standard_normal((samples, dimensions), dtype=np.float32) + means[labels].astype(np.float32)
    features = factors @ mixing.astype(np.float32) + offset.astype(np.float32)
    features += np.float32(0.02) * rng.standard_normal((samples, dimensions), dtype=np.float32)
    noisy = rng.random(samples) < 0.15
    labels[noisy] = rng.integers(classes, size=int(noisy.sum()))
    return features, labels
