"""Which frames of a clip a view or a window takes: training and use ask the same function, and see the same ones."""

import math


def nearest_frames(count: int, period: float, fps: float, lead: float = 0.0) -> list[int]:
    """Frames nearest to equally spaced times, counted from the first frame of the view.

    Halves go up, all of them: rounded to even numbers, every second of 25 frames a second at 12 a second would be
    unevenly spaced.

    Args:
        count: How many.
        period: Seconds from one time to the next.
        fps: Frames a second of the clip.
        lead: Seconds from the first frame to the first time.
    """
    return [math.floor((lead + step * period) * fps + 0.5) for step in range(count)]
