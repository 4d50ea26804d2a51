"""Made targets of every kind, for features whose columns say something about them."""

import numpy as np

from facemae.rng import generator
from facemae_probes.tasks.targets import MISSING, Kind, Targets


def features(samples: int = 240, dimensions: int = 12) -> np.ndarray:
    """Correlated features of very different scales, with an offset."""
    rng = generator(0, "heads", "features", samples, dimensions)
    mixing = rng.normal(size=(dimensions, dimensions))
    return (rng.normal(size=(samples, dimensions)) @ mixing * rng.uniform(0.1, 30, size=dimensions) + 5).astype(
        np.float32
    )


def targets(kind: Kind, x: np.ndarray, *, width: int = 4, missing: bool = False) -> Targets:
    """Noisy targets; with `missing`, some labels of columns are not known."""
    rng = generator(0, "heads", "targets", kind)
    unit = (x - x.mean(axis=0)) / x.std(axis=0)
    raw = unit @ rng.normal(size=(x.shape[1], width)) / np.sqrt(x.shape[1]) + 0.7 * rng.normal(size=(len(x), width))
    names = tuple("abcdefgh"[:width])
    holes = (np.arange(len(x))[:, None] + 2 * np.arange(width)) % 5 == 0
    if kind == "classes":
        return Targets(kind, names, raw.argmax(axis=1))
    if kind == "multilabel":
        return Targets(kind, names, np.where(holes & missing, MISSING, raw > 0.5).astype(np.int64))
    if kind == "distribution":
        shares = np.exp(2 * raw)
        return Targets(kind, names, shares / shares.sum(axis=1, keepdims=True))
    return Targets(kind, names, np.where(holes & missing, np.nan, raw * [1, 30, 0.01, 5][:width] + 100))
