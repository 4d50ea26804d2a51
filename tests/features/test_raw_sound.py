"""The sound of a file, read by numbers from a stream of blocks."""

import numpy as np

from facemae.features.raw_sound import WaveReader
from facemae.rng import generator


def test_samples_of_a_stream_are_read_by_number() -> None:
    wave = generator(0, "wave").random(100, dtype=np.float32)
    for size in (1, 7, 100):
        reader = WaveReader(wave[k : k + size] for k in range(0, 100, size))
        np.testing.assert_array_equal(reader.take(-3, 10), np.concatenate([np.zeros(3, np.float32), wave[:7]]))
        np.testing.assert_array_equal(reader.take(5, 50), wave[5:55])
        np.testing.assert_array_equal(reader.take(60, 30), wave[60:90])
        np.testing.assert_array_equal(reader.take(95, 10), np.pad(wave[95:], (0, 5)))
        np.testing.assert_array_equal(reader.take(200, 4), np.zeros(4))
