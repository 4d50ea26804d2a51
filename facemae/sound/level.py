"""How loud a wave is."""

import math

import numpy as np

from facemae.sound.wave import Wave

SILENT = -60.0
"""dBFS under which a whole track counts as silent: no sample reaches a thousandth of full scale."""


def level(wave: Wave) -> float:
    """The peak of a wave in dB of full scale.

    The peak, not the mean power: one word in a minute of silence is sound. The level of a long sound is the largest of
    those of its blocks.

    Args:
        wave: float32 [N].

    Returns:
        20 log10 max |x|; 0 at full scale, -inf for an empty wave and for zeros.
    """
    peak = float(np.abs(wave).max(initial=0.0))
    return 20 * math.log10(peak) if peak > 0 else -math.inf
