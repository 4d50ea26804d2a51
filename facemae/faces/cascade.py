"""The detector that needs no download: boosted cascades of Haar features, which come with OpenCV 4.

Viola and Jones, Rapid Object Detection using a Boosted Cascade of Simple Features (CVPR 2001); Lienhart and Maydt, An
Extended Set of Haar-like Features (ICIP 2002). Why this one: ``docs/decisions/0040-face-detector.md``.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facemae.errors import MissingExtraError
from facemae.faces.detector import Face, Frame, best_first, check_frame, scaled, shrunk

LONGEST = 480
"""Frames are shrunk to this longer side before the search."""

LEAST_FACE = 0.12
"""Smallest face that is looked for, as a share of the shorter side of the frame."""

_SCALE_STEP = 1.1
_LEAST_WINDOWS = 3
_LEAST_WINDOWS_OF_PROFILES = 6
"""Profiles are found in walls and clothes more often than faces from the front."""

_SURE_WINDOWS = 10.0


class CascadeDetector:
    """Faces by OpenCV's cascades: frontal ones, and where there is none, profiles to either side.

    Frames are searched in grey at a longer side of at most `LONGEST`. A cascade fires in many windows around a face and
    in few elsewhere; the score is n / (n + 10) for n windows that agree.

    Raises:
        MissingExtraError: The installed OpenCV has no cascades; version 5 dropped them.
    """

    def __init__(self, frontal: str = "haarcascade_frontalface_alt2", profile: str | None = "haarcascade_profileface"):
        self._frontal = _load(frontal)
        self._profile = None if profile is None else _load(profile)
        self._name = f"opencv-{cv2.__version__}/{frontal.removeprefix('haarcascade_')}"

    @property
    def name(self) -> str:
        """OpenCV's version and the cascade."""
        return self._name

    def detect(self, frame: Frame) -> list[Face]:
        """Faces of one frame, best first; see `Detector.detect`."""
        check_frame(frame)
        small, factor = shrunk(frame, LONGEST)
        grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
        faces = _search(self._frontal, grey, _LEAST_WINDOWS)
        if not faces and self._profile is not None:
            # The profile cascade knows faces that look to the image's left; a mirror shows it the others.
            turned = np.asarray(cv2.flip(grey, 1), np.uint8)
            faces = _search(self._profile, grey, _LEAST_WINDOWS_OF_PROFILES)
            others = _search(self._profile, turned, _LEAST_WINDOWS_OF_PROFILES)
            faces += [_mirrored(face, grey.shape[1]) for face in others]
        return [scaled(face, factor) for face in best_first(faces)]


def _load(name: str) -> Any:
    folder = getattr(getattr(cv2, "data", None), "haarcascades", None)
    path = None if folder is None else Path(folder) / f"{name}.xml"
    if path is None or not path.is_file() or not hasattr(cv2, "CascadeClassifier"):
        raise MissingExtraError(
            f"OpenCV {cv2.__version__} has no cascade {name}",
            expected="opencv-python-headless 4.10 or later, but before 5, which has none",
            fix="pip install 'opencv-python-headless>=4.10,<5', or name a model: yunet:PATH",
        )
    return cv2.CascadeClassifier(str(path))


def _search(cascade: Any, grey: NDArray[np.uint8], windows: int) -> list[Face]:
    least = max(round(LEAST_FACE * min(grey.shape)), 20)
    boxes, counts = cascade.detectMultiScale2(
        grey, scaleFactor=_SCALE_STEP, minNeighbors=windows, minSize=(least, least)
    )
    return [
        Face((float(x), float(y), float(x + w), float(y + h)), float(n / (n + _SURE_WINDOWS)))
        for (x, y, w, h), n in zip(np.reshape(boxes, (-1, 4)), np.ravel(counts), strict=True)
    ]


def _mirrored(face: Face, width: int) -> Face:
    left, top, right, bottom = face.box
    return Face((width - right, top, width - left, bottom), face.score)
