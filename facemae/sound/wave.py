"""What a sound is in memory, and as whole numbers in files."""

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float32]
"""float32 [N] in [-1, 1], mono."""

_SCALE = np.float32(1 << 15)


def to_int16(wave: Wave) -> NDArray[np.int16]:
    """The nearest of 16 bits, without dither; beyond [-1, 1] it is clipped. Multiples of 1/32768 are kept exactly."""
    found: NDArray[np.int16] = np.rint(np.clip(wave * _SCALE, -_SCALE, _SCALE - 1)).astype(np.int16)
    return found


def rounded_to_16_bits(wave: Wave) -> Wave:
    """What comes back when a wave has been stored in a shard.

    Models learn from packed sound. In bands without any sound the logarithm of what is below these 16 bits would make
    a spectrogram that none of them has seen.
    """
    found: Wave = to_int16(wave).astype(np.float32) / _SCALE
    return found
