"""Clips that `facemae bench faces` looks for faces in: video files, and procedural faces in motion."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facemae.data.synthetic import Region, render, sample_params
from facemae.errors import DataError
from facemae.faces.detector import Box, Frame
from facemae.rng import generator
from facemae.video.source import VideoSource

SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".mpg", ".webm")
WIDTH, HEIGHT, RATE = 360, 288, 25.0
_FACE = (
    *(Region.SKIN, Region.LEFT_BROW, Region.RIGHT_BROW, Region.LEFT_EYE, Region.RIGHT_EYE, Region.NOSE),
    *(Region.UPPER_LIP, Region.LOWER_LIP, Region.MOUTH, Region.BEARD, Region.GLASSES),
)


@dataclass(frozen=True)
class BenchClip:
    """One clip with one face in every frame.

    Attributes:
        name: For messages.
        frames: Gives each frame with its time in seconds and, where it is known, the box of the face.
    """

    name: str
    frames: Callable[[], Iterator[tuple[float, Frame, Box | None]]]


def video_clips(folder: Path, limit: int) -> list[BenchClip]:
    """Clips of a folder and those below it, evenly chosen.

    Raises:
        DataError: There is no video.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"no video in {folder}", expected=f"files ending in {', '.join(SUFFIXES)}")
    chosen = sorted({round(place) for place in np.linspace(0, len(paths) - 1, min(limit, len(paths)))})
    return [BenchClip(paths[place].name, lambda path=paths[place]: _decoded(path)) for place in chosen]  # type: ignore[misc]


def _decoded(path: Path) -> Iterator[tuple[float, Frame, None]]:
    with VideoSource(path) as source:
        for frame in source:
            yield frame.time, frame.image, None


def procedural_clips(count: int, frames: int, seed: int) -> list[BenchClip]:
    """Drawn persons who sway and nod before their background, 360 x 288 pixels at 25 frames a second."""
    return [
        BenchClip(f"procedural {person}", lambda person=person: _drawn(seed, person, frames))  # type: ignore[misc]
        for person in range(count)
    ]


def _drawn(seed: int, person: int, frames: int) -> Iterator[tuple[float, Frame, Box | None]]:
    params = sample_params(seed, person, 0)
    pose = replace(params.scene.pose, scale=0.8 * params.scene.pose.scale)
    sway = generator(seed, "bench", "faces", person).uniform(0, 2 * np.pi, 4)
    side = (WIDTH - HEIGHT) // 2
    for number in range(frames):
        time = number / RATE
        turn = np.sin(2 * np.pi * time * np.array([0.4, 0.55, 0.3, 0.45]) + sway)
        moved = replace(
            pose,
            x=pose.x + 0.02 * turn[0],
            y=pose.y + 0.015 * turn[1],
            yaw=pose.yaw + 5 * turn[2],
            pitch=pose.pitch + 4 * turn[3],
        )
        drawn = render(replace(params, scene=replace(params.scene, pose=moved)), HEIGHT)
        frame = np.pad(drawn.image, ((0, 0), (side, side), (0, 0)), mode="edge")
        yield time, frame, _bounds(drawn.regions, side)


def _bounds(regions: NDArray[np.uint8], shift: int) -> Box:
    """Around what is the face itself: no hair, ears or neck."""
    rows, columns = np.nonzero(np.isin(regions, _FACE))
    return float(columns.min() + shift), float(rows.min()), float(columns.max() + 1 + shift), float(rows.max() + 1)
