"""One change of the sample rate for the whole library: soxr, high quality, without delay.

Decision 0042 says why, with measurements.
"""

import math

import numpy as np

from facemae.extras import needs_extra
from facemae.sound.wave import Wave

with needs_extra("video", "resampling sound"):
    import soxr

QUALITY = "HQ"
"""soxr's name: 20 bits, linear phase, flat to 0.91 of the lower Nyquist frequency, stop band below it."""

MARGIN = 0.05
"""Seconds of sound beyond a cut that the filter is given, so that a cut in the sound is not a click in the result."""


def shared_grid(source: int, rate: int, seconds: float = MARGIN) -> tuple[int, int]:
    """Counts of samples at two rates that last exactly equally long, and at least as long as asked.

    A resampled sound starts on the grid of the new rate only if what is in front of zero is a whole number of samples
    at both.

    Args:
        source: Samples a second.
        rate: Samples a second.
        seconds: The least duration.

    Returns:
        Samples at `source` and samples at `rate`.
    """
    common = math.gcd(source, rate)
    periods = math.ceil(seconds * common)
    return periods * (source // common), periods * (rate // common)


class StreamResampler:
    """Resamples a sound that comes in blocks; the blocks' lengths do not change the result.

    Output sample m stands at m / rate seconds after the first input sample: the filter has linear phase, and soxr
    leaves its delay out of the output.

    Args:
        source: Samples a second of the input.
        rate: Samples a second of the output; equal rates pass the input through.
    """

    def __init__(self, source: int, rate: int) -> None:
        self._stream = (
            None if source == rate else soxr.ResampleStream(source, rate, 1, dtype="float32", quality=QUALITY)
        )

    def feed(self, wave: Wave) -> Wave:
        """The output that the input so far determines.

        Args:
            wave: float32 [N], any N.

        Returns:
            float32 [M]; about N rate / source samples less what the filter still holds, often none.
        """
        return wave if self._stream is None else self._chunk(wave, last=False)

    def flush(self) -> Wave:
        """What the filter still holds. The stream has ended."""
        empty = np.zeros(0, np.float32)
        return empty if self._stream is None else self._chunk(empty, last=True)

    def _chunk(self, wave: Wave, *, last: bool) -> Wave:
        assert self._stream is not None
        made: Wave = self._stream.resample_chunk(np.ascontiguousarray(wave), last=last)
        return made


def resample(wave: Wave, source: int, rate: int) -> Wave:
    """Resample a whole wave; sample m of the result stands at m / rate, as `StreamResampler` has it.

    Args:
        wave: float32 [N].
        source: Samples a second of the wave.
        rate: Samples a second of the result.

    Returns:
        float32 [about N rate / source].
    """
    stream = StreamResampler(source, rate)
    return np.concatenate([stream.feed(wave), stream.flush()])
