"""One steady box for a person in a clip, how much of the face is in it, and how much it shakes.

Boxes of a detector jump by pixels from frame to frame. Cropped by them, a still face shakes, and a model of motion
learns the detector's noise. So the boxes of a track are cleaned of outliers, smoothed without delay (a symmetric
kernel), and given one size. Where the face moves faster than that follows, it is smoothed less: a crop that leaves the
face shows a wall.
"""

import functools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, uniform_filter1d

from facemae.errors import DataError

if TYPE_CHECKING:
    from facemae.faces.tracks import Track

BoxPath = NDArray[np.float64]
"""float64 [T, 3]: x and y of the centre and the side of a square box, in pixels of the frame."""

Column = NDArray[np.float64]

STILL = 0.06
"""A face whose smoothed centre stays within this share of the box's side gets a box that does not move at all."""

GROWS = 1.25
"""A face whose smoothed size changes by more than this factor gets a box whose side follows, and no box is smaller than
the face with its margin by more than that."""

HELD = 0.9
"""Least share of a detected box, across and down, that lies in the crop; of a crop smaller than the face, of the crop
that lies in the face."""

_SIZE_SLOWER = 3.0
"""A side is smoothed over this many times as long as a centre: heads turn and nod in place, and boxes breathe."""

_STEPS = 6
"""Steps of the grid that smoothing runs on, in a standard deviation of the kernel."""

_FINE = 2
"""Steps of the grid that boxes are held against detections on, in the usual time between detections."""

_MOST_STEPS = 1_000_000

_BLOCK = 1_000_000
"""Values in memory at a time while outliers are looked for."""

_OUTLIER = 3 * 1.4826
"""Three standard deviations of a normal distribution, in median absolute deviations."""

_LASTS = 0.075
"""Seconds. Detections far from the others that agree with each other for so long are the face: at ten looks a second,
two of them. A detector's slips do not last."""

_AGREE = 0.4
"""Least intersection over union of neighbouring detections that agree."""


def steady_path(track: "Track", times: ArrayLike, *, margin: float, smoothing: float) -> BoxPath:
    """The box to crop a person by, in every frame that is asked for.

    Outliers are left out (see `agreed`). Centres are interpolated where nothing was detected and smoothed by a Gaussian
    of standard deviation `smoothing / 2`, symmetric in time, so that it does not lag behind. The side is the median
    over the clip, unless the face changes its size by more than `GROWS`: then it is smoothed like the centre, three
    times as slowly. A centre that stays within `STILL` of the side is constant, its median. Before the first detection
    and after the last the box stays where it was.

    The path is then held against the detections it was made from. Where less than `HELD` of one lies in the crop, or
    the side is smaller than 1 / `GROWS` of the detected one, the path passes over to one smoothed by half the standard
    deviation, within two of them before and after; where that does not do, by a quarter, and so on down to the
    detections themselves. So the box gets no more of the detector's noise than it takes to follow.

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
    seen = _squares(track) * (1, 1, 1 + 2 * margin)
    if smoothing == 0:
        return _at(times, track.times, seen)
    kept = agreed(track, smoothing)
    known, seen = track.times[kept], seen[kept]
    # What stands still is decided for the whole track, so that the frames asked for do not change each other's boxes.
    usual = np.median(seen, axis=0)
    grid = _fine_grid(known)
    even = _at(grid, known, seen)
    sides, least = even[:, 2], even[:, 2:] / GROWS
    grown = _smooth(known, seen[:, 2:], grid, smoothing / 2 * _SIZE_SLOWER)
    if grown.max() <= GROWS * grown.min() and usual[2] >= least.max():
        side = np.full_like(sides, usual[2])
    else:
        side = _held(known, seen[:, 2:], grid, smoothing / 2 * _SIZE_SLOWER, (least, np.full_like(least, np.inf)))[:, 0]
    face = sides / (1 + 2 * margin)
    room = (np.abs(side - face) / 2 + (1 - HELD) * np.minimum(side, face))[:, None]
    tube = (even[:, :2] - room, even[:, :2] + room)
    moved = np.ptp(_smooth(known, seen[:, :2], grid, smoothing / 2), axis=0).max()
    if moved <= STILL * usual[2] and not _outside(usual[None, :2], tube).any():
        centre = np.broadcast_to(usual[:2], (len(grid), 2))
    else:
        centre = _held(known, seen[:, :2], grid, smoothing / 2, tube)
    return _at(times, grid, np.column_stack([centre, side]))


@functools.lru_cache(maxsize=4)  # asked for each piece of a long track anew
def agreed(track: "Track", smoothing: float) -> NDArray[np.bool_]:
    """Which detections a steady box is made from, bool [n]: all but those that stand alone.

    One stands alone whose centre or side is far from the median within `smoothing` seconds before and after (Hampel's
    identifier: three standard deviations, estimated from the median deviation), unless neighbours that are far too
    overlap each other by `_AGREE` or more (intersection over union) for `_LASTS` seconds: a head that leans aside and
    comes back is far from the median, and is the face nevertheless. The first and the last of a track, which look far
    where a face moves, need overlap but their neighbour. All agree where `smoothing` is 0.
    """
    if smoothing == 0:
        return np.ones(len(track), bool)
    far = np.any([_is_far(track.times, column, smoothing) for column in _squares(track).T], axis=0)
    boxes = track.boxes.astype(np.float64)
    overlap = _union_shares(boxes[:-1], boxes[1:]) >= _AGREE
    joined = far[1:] & far[:-1] & overlap
    starts = np.flatnonzero(np.append(True, ~joined))
    ends = np.append(starts[1:], len(far)) - 1
    lasts = track.times[ends] - track.times[starts] >= _LASTS
    if len(far) > 1:
        lasts[[0, -1]] |= overlap[[0, -1]]
    kept = ~far | np.repeat(lasts, ends - starts + 1)
    return kept if kept.any() else np.ones(len(track), bool)


def share_inside(track: "Track", times: ArrayLike, path: BoxPath, *, smoothing: float) -> Column:
    """Share of the face that lies in the crop, float64 [T] from 0 to 1.

    The face is its detected box, interpolated between the detections that agree (see `agreed`).

    Args:
        track: Detections of one person.
        times: float [T], times of the frames in seconds, ascending.
        path: float64 [T, 3], the box in each: centre and side in pixels.
        smoothing: What the path was made with, in seconds.
    """
    kept = agreed(track, smoothing)
    faces = _at(np.asarray(times, np.float64), track.times[kept], track.boxes[kept].astype(np.float64))
    half = path[:, 2:] / 2
    crops = np.hstack([path[:, :2] - half, path[:, :2] + half])
    return _shared(faces, crops) / np.maximum(_areas(faces), 1e-9)


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


def _squares(track: "Track") -> BoxPath:
    """Centre and longer side of each detected box."""
    boxes = track.boxes.astype(np.float64)
    corner, other = boxes[:, :2], boxes[:, 2:]
    return np.column_stack([(corner + other) / 2, (other - corner).max(axis=1)])


def _at(times: Column, known: Column, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns of values interpolated; the first and the last hold beyond the ends."""
    return np.column_stack([np.interp(times, known, column) for column in values.T])


def _fine_grid(times: Column) -> Column:
    """Even times on which neither a detection nor a bend of a smoothed path is missed."""
    if len(times) < 2 or times[-1] <= times[0]:
        return times[:1]
    span = times[-1] - times[0]
    usual = max(float(np.median(np.diff(times))), span / _MOST_STEPS * _FINE)
    return np.linspace(times[0], times[-1], int(np.ceil(span / usual * _FINE)) + 1)


def _held(
    times: Column,
    values: NDArray[np.float64],
    grid: Column,
    sigma: float,
    tube: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Values smoothed as much as leaves them within the tube on the grid; float64 [G, C] as the tube's two sides.

    A blend of two paths within the tube is within it, so what a passage to the next smoother breaks, the one after
    mends; the last is the values themselves.
    """
    path = _smooth(times, values, grid, sigma)
    step = (grid[-1] - grid[0]) / max(len(grid) - 1, 1)
    while (out := _outside(path, tube)).any():
        # Gaussians narrower than the grid smooth nothing.
        last = sigma / 2 < step
        finer = _at(grid, times, values) if last else _smooth(times, values, grid, sigma / 2)
        path = path + _passage(out, 2 * sigma / step if step else 1.0)[:, None] * (finer - path)
        if last:
            break
        sigma /= 2
    return path


def _outside(path: NDArray[np.float64], tube: tuple[NDArray[np.float64], NDArray[np.float64]]) -> NDArray[np.bool_]:
    """Where a path leaves the tube, bool [G]."""
    low, high = tube
    beyond: Column = np.maximum(low - path, path - high).max(axis=1)
    return beyond > 1e-6


def _passage(where: NDArray[np.bool_], reach: float) -> Column:
    """Weights that are 1 there, 0 beyond `reach` steps, and smooth between: a spline of three boxes."""
    width = 2 * int(np.clip(np.ceil(reach / 3), 1, len(where))) + 1
    weights = maximum_filter1d(where.astype(np.float64), 3 * (width - 1) + 1)
    for _ in range(3):
        weights = uniform_filter1d(weights, width, mode="nearest")
    return np.clip(weights, 0, 1)


def _smooth(times: Column, values: NDArray[np.float64], grid: Column, sigma: float) -> NDArray[np.float64]:
    """Columns of values smoothed by a Gaussian of `sigma` seconds, at the times of the grid."""
    steps = min(int(np.ceil((times[-1] - times[0]) / sigma * _STEPS)), _MOST_STEPS)
    if steps < 2:
        return np.tile(np.median(values, axis=0), (len(grid), 1))
    # On an even grid of its own, so that gaps and a variable rate weigh no less than the rest.
    own = np.linspace(times[0], times[-1], steps + 1)
    width = sigma * steps / (own[-1] - own[0])
    # Beyond the ends a movement goes on as it was (odd reflection): a flat continuation would hold a moving face back.
    pad = int(np.ceil(4 * width))
    padded = np.pad(_at(own, times, values), ((pad, pad), (0, 0)), mode="reflect", reflect_type="odd")
    return _at(grid, own, gaussian_filter1d(padded, width, axis=0, truncate=4.0)[pad:-pad])


def _is_far(times: Column, values: Column, reach: float) -> NDArray[np.bool_]:
    """Which values are far from the median within `reach` seconds: three standard deviations (Hampel's identifier)."""
    first = np.searchsorted(times, times - reach, side="left")
    last = np.searchsorted(times, times + reach, side="right")
    count = last - first
    far = np.zeros(len(values), bool)
    # All windows of one length at once, in blocks: an hour of frames one by one takes half a minute.
    for length in np.unique(count):
        places = np.flatnonzero(count == length)
        for block in np.array_split(places, len(places) * length // _BLOCK + 1):
            near = values[first[block, None] + np.arange(length)]
            middle = np.median(near, axis=1)
            spread = np.median(np.abs(near - middle[:, None]), axis=1)
            far[block] = np.abs(values[block] - middle) > _OUTLIER * spread
    return far


def _areas(boxes: NDArray[np.float64]) -> Column:
    area: Column = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    return area


def _shared(one: NDArray[np.float64], two: NDArray[np.float64]) -> Column:
    """Shared areas of boxes [n, 4] pair by pair."""
    return _areas(np.hstack([np.maximum(one[:, :2], two[:, :2]), np.minimum(one[:, 2:], two[:, 2:])]))


def _union_shares(one: NDArray[np.float64], two: NDArray[np.float64]) -> Column:
    """Intersections over unions of boxes [n, 4] pair by pair."""
    shared = _shared(one, two)
    return shared / np.maximum(_areas(one) + _areas(two) - shared, 1e-9)
