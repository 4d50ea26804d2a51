"""Detectors that `facemae bench faces` compares the default with; none needs a download."""

import difflib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from facemae.errors import MissingExtraError, UsageError
from facemae.faces.cascade import LEAST_FACE, LONGEST, CascadeDetector
from facemae.faces.detector import Detector, Face, Frame, best_first, scaled, shrunk
from facemae.faces.registry import KINDS, open_detector


class LbpDetector:
    """scikit-image's cascade of local binary patterns."""

    name = "lbp"

    def __init__(self) -> None:
        try:
            from skimage.data import lbp_frontal_face_cascade_filename
            from skimage.feature import Cascade
        except ImportError as error:
            raise MissingExtraError(
                "scikit-image is not installed", expected="the extra `study`", fix="pip install 'facemae[study]'"
            ) from error
        self._cascade: Any = Cascade(lbp_frontal_face_cascade_filename())

    def detect(self, frame: Frame) -> list[Face]:
        """Faces, all with the same score."""
        small, factor = shrunk(frame, LONGEST)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        least, most = round(LEAST_FACE * min(grey.shape)), min(grey.shape)
        found = self._cascade.detect_multi_scale(grey, 1.1, 1, (least, least), (most, most))
        boxes = [(box["c"], box["r"], box["c"] + box["width"], box["r"] + box["height"]) for box in found]
        return best_first(scaled(Face((float(a), float(b), float(c), float(d)), 0.5), factor) for a, b, c, d in boxes)


class HogDetector:
    """dlib's histogram of oriented gradients."""

    name = "hog"

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError as error:
            raise MissingExtraError("dlib is not installed", fix="pip install dlib-bin") from error
        self._find: Any = dlib.get_frontal_face_detector()

    def detect(self, frame: Frame) -> list[Face]:
        """Faces; the score is the margin, squeezed into 0 to 1."""
        small, factor = shrunk(frame, LONGEST)
        boxes, margins, _ = self._find.run(small, 0, 0.0)
        return best_first(
            scaled(
                Face((box.left(), box.top(), box.right() + 1, box.bottom() + 1), float(1 / (1 + np.exp(-margin)))),
                factor,
            )
            for box, margin in zip(boxes, margins, strict=True)
        )


CANDIDATES: dict[str, Callable[[], Detector]] = {
    "haar-alt2": lambda: CascadeDetector("haarcascade_frontalface_alt2", None),
    "haar-alt": lambda: CascadeDetector("haarcascade_frontalface_alt", None),
    "haar-default": lambda: CascadeDetector("haarcascade_frontalface_default", None),
    "lbp": LbpDetector,
    "hog": HogDetector,
}
"""By the name that `--detector` takes, beside all that `open_detector` takes."""


def open_candidate(name: str) -> Detector:
    """A detector to compare with.

    Raises:
        UsageError: Neither a candidate nor a name for `open_detector`.
        MissingExtraError: Its package is not installed.
    """
    if name in CANDIDATES:
        return CANDIDATES[name]()
    if name.partition(":")[0] in KINDS:
        return open_detector(name)
    near = difflib.get_close_matches(name, [*CANDIDATES, *KINDS], n=1, cutoff=0.4)
    raise UsageError(
        f"no detector {name!r} to compare with",
        expected=f"one of {', '.join(CANDIDATES)}, or a name that packing takes",
        fix=f"did you mean {near[0]!r}?" if near else None,
    )
