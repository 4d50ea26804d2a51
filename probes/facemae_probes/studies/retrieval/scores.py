"""From similarities of clips and sounds to numbers: retrieval in a gallery, and the choice within a clip.

A window is found where its own sound is the most similar one; others that are as similar count against it. Windows of a
clip are not independent, so intervals draw whole clips with replacement; the gallery stays as it is.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae_probes.metrics.draws import bootstrap
from facemae_probes.metrics.intervals import summarise

REPLICATES = 2000
DIRECTIONS = ("video to sound", "sound to video")

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Found:
    """What became of the windows as queries in one direction.

    Attributes:
        rank: int64 [W], place of the own one in the gallery, from 1.
        within: bool [W], whether it is the first among the windows of its clip.
        same_part: bool [W], whether it is the first among the windows at its place in all clips.
        own_clip: bool [W], whether the first in the gallery is of the own clip, be it the right window or not.
    """

    rank: NDArray[np.int64]
    within: Bools
    same_part: Bools
    own_clip: Bools


def search(similarity: NDArray[np.float64], clip: NDArray[np.int64], part: NDArray[np.int64]) -> Found:
    """Look every query up.

    Args:
        similarity: [W, W], of queries and what is looked for; the diagonal belongs together.
        clip: [W], number of each window's clip.
        part: [W], place of the window in its clip.
    """
    # A tie is no hit: of encoders that give everything one vector nothing may be found.
    before = similarity >= np.diag(similarity)[:, None]
    same_clip, same_part = clip[:, None] == clip, part[:, None] == part
    others = np.where(same_clip, -np.inf, similarity).max(axis=1)
    return Found(
        rank=before.sum(axis=1),
        within=(before & same_clip).sum(axis=1) == 1,
        same_part=(before & same_part).sum(axis=1) == 1,
        own_clip=np.where(same_clip, similarity, -np.inf).max(axis=1) > others,
    )


def score(
    similarity: NDArray[np.float64], clip: NDArray[np.int64], part: NDArray[np.int64], *, seed: int
) -> dict[str, Any]:
    """Numbers of a gallery: by direction, and of both together.

    Args:
        similarity: [W, W] of clips (rows) and sounds (columns).
        clip: As in `search`.
        part: As in `search`.
        seed: Of the bootstrap.

    Returns:
        `gallery`, `clips`, `chance` by measure; and for each direction and `both` the measures `top1`, `top5`,
        `within`, `same_part`, `own_clip` and `median_rank`, each with `value`, `low` and `high`.
    """
    windows, clips = len(clip), len(np.unique(clip))
    directions = dict(zip(DIRECTIONS, (search(s, clip, part) for s in (similarity, similarity.T)), strict=True))
    parts = windows // clips
    return {
        "gallery": windows,
        "clips": clips,
        "chance": {
            "top1": 1 / windows,
            "top5": 5 / windows,
            "within": 1 / parts,
            "same_part": 1 / clips,
            "own_clip": parts / windows,
            "median_rank": (windows + 1) / 2,
        },
        **{name: _numbers([found], clip, seed) for name, found in directions.items()},
        "both": _numbers(list(directions.values()), clip, seed),
    }


def _numbers(found: list[Found], clip: NDArray[np.int64], seed: int) -> dict[str, Any]:
    rank = np.stack([each.rank for each in found])
    shares = {
        "top1": rank == 1,
        "top5": rank <= 5,
        "within": np.stack([each.within for each in found]),
        "same_part": np.stack([each.same_part for each in found]),
        "own_clip": np.stack([each.own_clip for each in found]),
    }
    _, unit = np.unique(clip, return_inverse=True)
    units = int(unit.max()) + 1
    members = np.bincount(unit)
    counts = np.concatenate(list(bootstrap(units, REPLICATES, seed, samples=len(clip))), axis=1)
    numbers = {}
    for name, hits in shares.items():
        sums = np.bincount(unit, weights=hits.mean(axis=0))
        drawn = (sums @ counts) / (members @ counts)
        numbers[name] = _interval(name, float(hits.mean()), drawn, units)
    drawn = np.array([np.median(np.repeat(rank, draw[unit].astype(int), axis=1)) for draw in counts.T])
    numbers["median_rank"] = _interval("median_rank", float(np.median(rank)), drawn, units)
    return numbers


def _interval(name: str, value: float, drawn: NDArray[np.float64], units: int) -> dict[str, float | None]:
    found = summarise(name, [value], drawn, level=0.95, unit="clip", units=units)
    return {"value": found.value, "low": found.low, "high": found.high}


def excludes_chance(scores: dict[str, Any], measure: str) -> bool:
    """Whether both directions' intervals of a share lie above chance."""
    lows = [scores[name][measure]["low"] for name in DIRECTIONS]
    return all(low is not None and low > scores["chance"][measure] for low in lows)
