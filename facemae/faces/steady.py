"""One steady box for a person in a clip, and how much a box shakes.

Boxes of a detector jump by pixels from frame to frame. Cropped by them, a still face shakes, and a model of motion
learns the detector's noise. So the boxes of a track are cleaned of outliers, smoothed without delay (a symmetric
kernel), and given one size.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d

from facemae.errors import DataError

if TYPE_CHECKING:
    from facemae.faces.tracks import Track

BoxPath = NDArray[np.float64]
"""float64 [T, 3]: x and y of the centre and the side of a square box, in pixels of the frame."""

Column = NDArray[np.float64]

STILL = 0.06
"""A face whose smoothed centre stays within this share of the box's side gets a box that does not move at all."""

GROWS = 1.25
"""A face whose smoothed size changes by more than this factor gets a box whose side follows."""

_SIZE_SLOWER = 3.0
"""A side is smoothed over this many times as long as a centre: heads turn and nod in place, and boxes breathe."""

_STEPS = 6
"""Steps of the grid that smoothing runs on, in a standard deviation of the kernel."""

_MOST_STEPS = 1_000_000

_BLOCK = 1_000_000
"""Values in memory at a time while outliers are looked for."""

_OUTLIER = 3 * 1.4826
"""Three standard deviations of a normal distribution, in median absolute deviations."""


def steady_path(track: "Track", times: ArrayLike, *, margin: float, smoothing: float) -> BoxPath:
    """The box to crop a person by, in every frame that is asked for.

    Outliers are replaced by the median of the `smoothing` seconds before and after. Centres are interpolated where
    nothing was detected and smoothed by a Gaussian of standard deviation `smoothing / 2`, symmetric in time, so that it
    does not lag behind. The side is the median over the clip, unless the face changes its size by more than `GROWS`:
    then it is smoothed like the centre, three times as slowly. A centre that stays within `STILL` of the side is
    constant, its median. Before the first detection and after the last the box stays where it was.

    Args:
        track: Detections of one person.
        times: float [T], times of the frames in seconds, ascending; any, also frames that were not looked at.
        margin: What is added on each side of the detected box, as a share of its longer side.
        smoothing: In seconds; 0 gives the detected boxes as they are, interpolated.

    Returns:
        float64 [T, 3]: x and y of the centre and the side, in pixels.

    Raises:
        DataError: The track is empty, times do not ascend, or margin or smoothing make no sense.
    """
    times = np.asarray(times, np.float64)
    _check(track, times, margin, smoothing)
    boxes = track.boxes.astype(np.float64)
    seen = np.column_stack(
        [
            (boxes[:, 0] + boxes[:, 2]) / 2,
            (boxes[:, 1] + boxes[:, 3]) / 2,
            np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) * (1 + 2 * margin),
        ]
    )
    if smoothing == 0:
        return np.column_stack([np.interp(times, track.times, column) for column in seen.T])
    curves = [_smooth(track.times, column, smoothing) for column in seen[:, :2].T]
    curves.append(_smooth(track.times, seen[:, 2], smoothing * _SIZE_SLOWER))
    # What stands still is decided for the whole track, so that the frames asked for do not change each other's boxes.
    usual = np.median(seen, axis=0)
    still = max(float(np.ptp(curve[1])) for curve in curves[:2]) <= STILL * usual[2]
    steps = curves[2][1]
    constant = (still, still, bool(steps.max() <= GROWS * steps.min()))
    path = np.empty((len(times), 3))
    for column, (grid, values) in enumerate(curves):
        path[:, column] = usual[column] if constant[column] else np.interp(times, grid, values)
    return path


def per_frame(track: "Track", *, margin: float) -> BoxPath:
    """The detected boxes as they are, as squares: what `steady_path` is compared with; float64 [n, 3]."""
    return steady_path(track, track.times, margin=margin, smoothing=0)


def jitter(path: BoxPath, size: int) -> float:
    """How far the corners of a crop shake, in pixels of the stored crop.

    For neighbouring frames t-1, t, t+1 the second difference of a corner c is c(t-1) - 2 c(t) + c(t+1): 0 where a box
    stands or moves at constant speed, so that following a face costs nothing. It is measured in pixels of the crop,
    that is multiplied by `size / side(t)`; the result is the root of the mean of its squared length over frames and all
    four corners.

    Args:
        path: float [T, 3]: centre x, centre y and side.
        size: Side of the stored crop in pixels.

    Returns:
        Pixels; 0 for fewer than three frames.
    """
    if len(path) < 3:
        return 0.0
    path = np.asarray(path, np.float64)
    x, y, half = path[:, 0], path[:, 1], path[:, 2] / 2
    corners = np.stack([x - half, y - half, x + half, y + half])
    bends = np.diff(corners, n=2, axis=1) * size / path[1:-1, 2]
    # Each edge belongs to two of the four corners, and a corner has two edges: the mean over corners of the squared
    # length is half the sum over edges.
    return float(np.sqrt((bends**2).sum(axis=0).mean() / 2))


def share_seen(track: "Track", frames: int | None = None) -> float:
    """Share of frames in which the face was detected, from 0 to 1.

    Args:
        track: Detections of one person.
        frames: Frames of the clip; those from the track's first detection to its last where None.
    """
    return len(track) / (track.looked if frames is None else frames)


def _check(track: "Track", times: Column, margin: float, smoothing: float) -> None:
    if len(track) == 0:
        raise DataError("a track without detections", expected="at least one", fix="leave out clips without a face")
    if times.ndim != 1 or np.any(np.diff(times) < 0) or not np.isfinite(times).all():
        raise DataError(f"times of shape {list(times.shape)} that do not ascend", expected="finite seconds in order")
    if not -0.5 < margin < 10 or not 0 <= smoothing < float("inf"):
        raise DataError(
            f"margin {margin} and smoothing {smoothing} s",
            expected="a margin between -0.5 and 10 box sides, smoothing from 0 s up",
        )


def _smooth(times: Column, values: Column, smoothing: float) -> tuple[Column, Column]:
    """Values cleaned and smoothed, as an even grid of times and the values there."""
    values = _without_outliers(times, values, smoothing)
    sigma = smoothing / 2
    steps = min(int(np.ceil((times[-1] - times[0]) / sigma * _STEPS)), _MOST_STEPS)
    if steps < 2:
        return times[:1], np.median(values, keepdims=True)
    # On an even grid of its own, so that gaps and a variable rate weigh no less than the rest.
    grid = np.linspace(times[0], times[-1], steps + 1)
    even = np.interp(grid, times, values)
    width = sigma * steps / (grid[-1] - grid[0])
    # Beyond the ends a movement goes on as it was (odd reflection): a flat continuation would hold a moving face back.
    pad = int(np.ceil(4 * width))
    padded = np.pad(even, pad, mode="reflect", reflect_type="odd")
    return grid, gaussian_filter1d(padded, width, truncate=4.0)[pad:-pad]


def _without_outliers(times: NDArray[np.float64], values: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """Values, with those far from the median within `reach` seconds replaced by it (Hampel's identifier).

    Far is three standard deviations, estimated from the median deviation. A plain median would hold a moving face back
    near the ends, where it sees one side only.
    """
    first = np.searchsorted(times, times - reach, side="left")
    last = np.searchsorted(times, times + reach, side="right")
    count = last - first
    cleaned = values.copy()
    # All windows of one length at once, in blocks: an hour of frames one by one takes half a minute.
    for length in np.unique(count):
        places = np.flatnonzero(count == length)
        for block in np.array_split(places, len(places) * length // _BLOCK + 1):
            near = values[first[block, None] + np.arange(length)]
            middle = np.median(near, axis=1)
            spread = np.median(np.abs(near - middle[:, None]), axis=1)
            cleaned[block] = np.where(np.abs(values[block] - middle) > _OUTLIER * spread, middle, values[block])
    return cleaned
