"""Sound in blocks, read by the numbers of its samples."""

import numpy as np
import pytest

from facemae.rng import generator
from facemae.sound.blocks import BlockReader

WAVE = generator(0, "wave").random(100, dtype=np.float32)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_samples_of_a_stream_are_read_by_number(size: int) -> None:
    reader = BlockReader(WAVE[k : k + size] for k in range(0, 100, size))
    np.testing.assert_array_equal(reader.take(-3, 10), np.concatenate([np.zeros(3, np.float32), WAVE[:7]]))
    np.testing.assert_array_equal(reader.take(5, 50), WAVE[5:55])
    np.testing.assert_array_equal(reader.take(60, 30), WAVE[60:90])
    np.testing.assert_array_equal(reader.take(95, 10), np.pad(WAVE[95:], (0, 5)))
    np.testing.assert_array_equal(reader.take(200, 4), np.zeros(4))


def test_a_window_wholly_before_the_stream_is_silence_and_takes_none_of_it() -> None:
    reader = BlockReader([WAVE])
    np.testing.assert_array_equal(reader.take(-9, 4), np.zeros(4))
    np.testing.assert_array_equal(reader.take(0, 4), WAVE[:4])


@pytest.mark.parametrize("size", [1, 7, 100])
def test_without_silence_there_are_fewer_behind_the_end(size: int) -> None:
    reader = BlockReader(WAVE[k : k + size] for k in range(0, 100, size))
    np.testing.assert_array_equal(reader.between(5, 55), WAVE[5:55])
    np.testing.assert_array_equal(reader.between(95, 105), WAVE[95:])
    assert not len(reader.between(200, 204))
