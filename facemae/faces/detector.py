"""What a face detector is, and what all of them share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from facemae.errors import DataError

Frame = NDArray[np.uint8]
"""uint8 [H, W, 3], RGB, upright."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels. Pixel k covers [k, k + 1), so a whole frame is (0, 0, W, H)."""


@dataclass(frozen=True, eq=False)
class Face:
    """One detection.

    Attributes:
        box: Left, top, right, bottom in pixels of the frame; may reach beyond its border.
        score: Confidence from 0 to 1; comparable within one detector only.
        points: float32 [5, 2], x and y of the eye, the other eye, nose tip and both corners of the mouth, those on the
            image's left first; None where the detector finds none.
    """

    box: Box
    score: float
    points: NDArray[np.float32] | None = None


class Detector(Protocol):
    """Finds faces in one frame, knowing nothing of the frames before it."""

    @property
    def name(self) -> str:
        """What the crop recipe calls it: the method and all that its boxes depend on, such as a version or hash."""
        ...

    def detect(self, frame: Frame) -> list[Face]:
        """Faces of one frame, best first.

        Args:
            frame: uint8 [H, W, 3], RGB.

        Returns:
            The faces; empty where there is none.
        """
        ...


def check_frame(frame: Frame) -> None:
    """Refuse what is no RGB frame.

    Raises:
        DataError: Not uint8 [H, W, 3], or empty.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise DataError(
            f"a frame of shape {list(frame.shape)} and type {frame.dtype}", expected="uint8 [H, W, 3], RGB, not empty"
        )


def shrunk(frame: Frame, longest: int) -> tuple[Frame, float]:
    """A frame whose longer side is at most `longest`, antialiased, and how many pixels of the frame one of it covers.

    A detector's cost grows with the pixels, and faces worth packing are found at a fraction of full HD.
    """
    height, width = frame.shape[:2]
    factor = max(height, width) / longest
    if factor <= 1:
        return frame, 1.0
    size = (max(round(width / factor), 1), max(round(height / factor), 1))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8), factor


def scaled(face: Face, factor: float) -> Face:
    """A face found in a smaller picture, in pixels of the larger one."""
    left, top, right, bottom = face.box
    points = None if face.points is None else (face.points * factor).astype(np.float32)
    return replace(face, box=(left * factor, top * factor, right * factor, bottom * factor), points=points)


def best_first(faces: Iterable[Face], *, overlap: float = 0.5) -> list[Face]:
    """Sort by score and drop whatever mostly covers a better one.

    Args:
        faces: Detections in any order.
        overlap: Shared area as a share of the smaller box, from which on two boxes are one face. The smaller box
            counts, since cascades like to find a small face within a large one.

    Returns:
        The rest; the order does not depend on the order given.
    """
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: (-face.score, face.box)):
        if all(shared_area(face.box, other.box) < overlap * min(area(face.box), area(other.box)) for other in kept):
            kept.append(face)
    return kept


def area(box: Sequence[float]) -> float:
    """Square pixels of a box; 0 where right is left of left."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def shared_area(one: Sequence[float], two: Sequence[float]) -> float:
    """Square pixels that two boxes have in common."""
    return area((max(one[0], two[0]), max(one[1], two[1]), min(one[2], two[2]), min(one[3], two[3])))
