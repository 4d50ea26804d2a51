"""Which frames a view takes."""

from itertools import pairwise

import numpy as np
import pytest

from facemae.data.material import Material
from facemae.data.schema import ClipSpec, Sample
from facemae.features.windows import Windows
from facemae.video.sampling import nearest_frames


def test_the_nearest_frames_are_taken_and_halves_go_up() -> None:
    assert nearest_frames(6, 1 / 12.5, 25) == [0, 2, 4, 6, 8, 10]
    assert nearest_frames(3, 0.1, 25, lead=0.1) == [3, 5, 8]
    found = nearest_frames(25, 0.1, 25)
    assert [after - before for before, after in pairwise(found)] == [3, 2] * 12


@pytest.mark.parametrize(("count", "period", "fps"), [(12, 1 / 12, 25.0), (10, 0.1, 25.0), (8, 0.3, 29.97)])
def test_training_and_use_take_the_same_frames(count: int, period: float, fps: float) -> None:
    class Long:
        count = 10_000

    material = Material(Sample("a", 0, {}))
    vars(material).update(clip=Long(), fps=fps)  # what its properties would read from the members
    trained = material.numbers(ClipSpec(count, period), 0.0)
    used = Windows(count, period, 0.0, count * period, 1, None, None).numbers(0, fps, 10_000)
    np.testing.assert_array_equal(trained, used)
