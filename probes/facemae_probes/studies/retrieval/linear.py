"""What a linear map finds without any network: the floor that a trained run has to be seen against.

Frames and the sound beneath each are reduced by principal components and rotated to what varies together (canonical
correlation, Hotelling 1936), fitted on training clips. Windows are compared frame by frame.
"""

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from facemae_probes.studies.retrieval.windows import Windows

SIDE = 24
"""Pixels of a frame's side that are left."""
COMPONENTS = (40, 20, 8)
"""Principal components of frames and of sounds, and how many pairs of directions are compared."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Linear:
    """A fitted map of both sides into one space.

    Attributes:
        video: Mean [1, V] and map [V, D] of a frame.
        sound: Mean [1, A] and map [A, D] of the sound beneath a frame.
        correlation: Of the D pairs of directions, on the clips it was fitted on.
    """

    video: tuple[Floats, Floats]
    sound: tuple[Floats, Floats]
    correlation: tuple[float, ...]

    def similarity(self, windows: Windows, later: float = 0.0) -> Floats:
        """Cosines [W, W] of clips and sounds."""
        a = _projected(_frames(windows), self.video)
        b = _projected(_beneath(windows, later), self.sound)
        return np.asarray(a @ b.T)


def fit_linear(windows: Windows) -> Linear:
    """Fit on the windows of training clips."""
    frames, sounds = _frames(windows), _beneath(windows, 0.0)
    x, y = frames.reshape(-1, frames.shape[-1]), sounds.reshape(-1, sounds.shape[-1])
    wide, narrow, pairs = COMPONENTS
    (mean_x, whiten_x), (mean_y, whiten_y) = _whitening(x, wide), _whitening(y, narrow)
    left, strength, right = np.linalg.svd(((x - mean_x) @ whiten_x).T @ ((y - mean_y) @ whiten_y) / len(x))
    pairs = min(pairs, len(strength))
    # Directions count by how much they have in common.
    return Linear(
        (mean_x, whiten_x @ left[:, :pairs] * strength[:pairs]),
        (mean_y, whiten_y @ right[:pairs].T),
        tuple(float(value) for value in strength[:pairs]),
    )


def _frames(windows: Windows) -> Floats:
    """Small grey frames less the mean of their window, [W, T, values]."""
    pixels = windows.pixels.float().mean(dim=2) / 255
    size = min(SIDE, pixels.shape[-1])
    small = F.interpolate(pixels, (size, size), mode="area").flatten(2)
    return np.asarray((small - small.mean(dim=1, keepdim=True)).double())


def _beneath(windows: Windows, later: float) -> Floats:
    """The log-mel frames beneath each frame, less the mean of their window, [W, T, values]."""
    mels, count = windows.mels(later), windows.pixels.shape[1]
    each = mels.shape[1] // count
    parts = mels[:, : count * each].reshape(len(mels), count, -1)
    return np.asarray((parts - parts.mean(dim=1, keepdim=True)).double())


def _whitening(rows: Floats, components: int) -> tuple[Floats, Floats]:
    """Mean [1, V], and the map [V, K] to K uncorrelated components of variance one."""
    mean = rows.mean(axis=0, keepdims=True)
    variances, directions = np.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    keep = np.argsort(variances)[::-1][:components]
    keep = keep[variances[keep] > variances.max() * 1e-9]
    return mean, directions[:, keep] / np.sqrt(variances[keep])


def _projected(rows: Floats, to: tuple[Floats, Floats]) -> Floats:
    mean, directions = to
    vectors = ((rows - mean) @ directions).reshape(len(rows), -1)
    length: Floats = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12))
