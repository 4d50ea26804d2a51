"""Detectors by name."""

import difflib
from collections.abc import Callable

from facemae.errors import UsageError
from facemae.faces.detector import Detector

KINDS = ("default", "cascade", "yunet", "retinaface", "onnx")
"""What a name starts with. Another detector is a class with `name` and `detect`, and a line here and in `_makers`."""


def open_detector(name: str = "default") -> Detector:
    """The detector of a name.

    Args:
        name: `default` or `cascade`, which need no download; or a model in a file: `yunet:PATH`, `retinaface:PATH` or
            `onnx:PATH`, with `#sha256=HEX` to pin it and `#size=N` for the side of its input.

    Raises:
        UsageError: No detector has this name, or a path is missing or too much; the nearest name is given.
        DataError: The model's file is not there, not what was pinned, or cannot be read.
        MissingExtraError: The installed OpenCV cannot run it.
    """
    kind, colon, place = name.partition(":")
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0.4)
        raise UsageError(
            f"no face detector {name!r}",
            expected="default, cascade, yunet:PATH, retinaface:PATH or onnx:PATH",
            fix=f"did you mean {near[0]!r}?" if near else None,
        )
    if kind in ("default", "cascade"):
        if colon:
            raise UsageError(f"face detector {name!r}", expected=f"{kind}, which takes no path")
        from facemae.faces.cascade import CascadeDetector

        return CascadeDetector()
    if not place:
        raise UsageError(
            f"face detector {name!r} without a model", expected=f"{kind}:PATH, a file that you have downloaded"
        )
    from facemae.faces.modelfile import read_model

    return _makers()[kind](read_model(kind, place))


def _makers() -> dict[str, Callable[..., Detector]]:
    from facemae.faces.models import OnnxDetector, RetinaFaceDetector, YuNetDetector

    return {"yunet": YuNetDetector, "retinaface": RetinaFaceDetector, "onnx": OnnxDetector}
