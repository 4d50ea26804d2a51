"""Better detectors, from a model file that the user has; OpenCV runs them, so nothing more is installed."""

from collections.abc import Sequence
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from facemae.errors import DataError, MissingExtraError
from facemae.faces.detector import Face, Frame, best_first, check_frame, scaled, shrunk
from facemae.faces.modelfile import ModelFile

LEAST_SCORE = 0.3
"""Weaker detections are not given; a tracker starts none with those below its own limit."""

_MOST = 1000

Rows = NDArray[np.float32]


class YuNetDetector:
    """YuNet by OpenCV's `FaceDetectorYN`; five points a face.

    Wu, Peng and Yu, YuNet: A Tiny Millisecond-level Face Detector (Machine Intelligence Research 2023).

    Args:
        model: An ONNX file such as OpenCV's `face_detection_yunet_2023mar.onnx`.

    Raises:
        DataError: OpenCV cannot read the file.
        MissingExtraError: This OpenCV was built without the detector.
    """

    def __init__(self, model: ModelFile) -> None:
        self.name = model.name
        self._size = model.size
        if not hasattr(cv2, "FaceDetectorYN"):
            raise MissingExtraError(
                f"OpenCV {cv2.__version__} has no FaceDetectorYN", fix="pip install 'opencv-python-headless>=4.10,<5'"
            )
        try:
            # An all-empty configuration: an ONNX file describes itself.
            self._net: Any = cv2.FaceDetectorYN.create(
                "onnx", model.data, np.empty(0, np.uint8), (model.size, model.size), LEAST_SCORE, 0.3, _MOST
            )
        except cv2.error as error:
            raise _unreadable(model, error) from error

    def detect(self, frame: Frame) -> list[Face]:
        """Faces of one frame, best first; see `Detector.detect`."""
        check_frame(frame)
        small, factor = shrunk(frame, self._size)
        self._net.setInputSize((small.shape[1], small.shape[0]))
        _, rows = self._net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        return best_first(scaled(face, factor) for face in yunet_faces(rows))


def yunet_faces(rows: Rows | None) -> list[Face]:
    """What `FaceDetectorYN.detect` gives: float32 [N, 15], left, top, width, height, five points, score."""
    return [
        Face((float(x), float(y), float(x + w), float(y + h)), float(score), np.array(points, np.float32).reshape(5, 2))
        for x, y, w, h, *points, score in ([] if rows is None else rows)
    ]


class RetinaFaceDetector:
    """RetinaFace (Deng et al., CVPR 2020) as its common PyTorch port exports it.

    Input: float32 [1, 3, S, S], BGR from 0 to 255 less (104, 117, 123). Outputs, told apart by their last dimension:
    boxes [1, N, 4], scores [1, N, 2] (background, face) and points [1, N, 10], all relative to anchors.

    Args:
        model: The ONNX file, exported for S x S pixels.

    Raises:
        DataError: OpenCV cannot read the file.
    """

    def __init__(self, model: ModelFile) -> None:
        self.name = model.name
        self._size = model.size
        self._net = _network(model)
        self._anchors = retinaface_anchors(model.size)

    def detect(self, frame: Frame) -> list[Face]:
        """Faces of one frame, best first; see `Detector.detect`.

        Raises:
            DataError: The outputs are not those of this kind of model.
        """
        check_frame(frame)
        image, factor = _square(frame, self._size)
        # The mean is given in the order of the channels that come out, blue first.
        blob = cv2.dnn.blobFromImage(image, 1.0, mean=(104, 117, 123), swapRB=True)
        outputs = _run(self._net, blob, self.name)
        return best_first(scaled(face, factor) for face in retinaface_faces(outputs, self._anchors, self.name))


def retinaface_anchors(size: int) -> Rows:
    """Centre x, centre y and side of the anchors of an S x S input, in pixels: float32 [N, 3].

    Two square anchors at each place of three maps: 16 and 32 pixels at stride 8, 64 and 128 at 16, 256 and 512 at 32.
    """
    parts = []
    for stride, sides in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512))):
        count = -(-size // stride)
        centres = (np.arange(count) + 0.5) * stride
        y, x, side = np.meshgrid(centres, centres, sides, indexing="ij")
        parts.append(np.column_stack([x.ravel(), y.ravel(), side.ravel()]))
    return np.concatenate(parts).astype(np.float32)


def retinaface_faces(outputs: Sequence[Rows], anchors: Rows, name: str) -> list[Face]:
    """Decode the three outputs; offsets are in tenths of an anchor, sizes in fifths of a logarithm.

    Raises:
        DataError: They have other shapes.
    """
    count = len(anchors)
    by_width = {output.shape[-1]: output.reshape(-1, output.shape[-1]) for output in outputs if output.ndim}
    if any(by_width.get(width, np.empty(0)).shape != (count, width) for width in (2, 4, 10)):
        raise DataError(
            f"{name}: outputs of shapes {[list(output.shape) for output in outputs]}",
            expected=f"boxes [1, {count}, 4], scores [1, {count}, 2] and points [1, {count}, 10]",
            fix="give the input's side with #size=N; other layouts can be exported with boxes as rows: onnx:PATH",
        )
    scores = by_width[2]
    if not np.allclose(scores[:16].sum(axis=1), 1, atol=1e-3):  # exported before the softmax
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    likely = np.flatnonzero(scores[:, 1] >= LEAST_SCORE)
    likely = likely[np.argsort(-scores[likely, 1], kind="stable")][:_MOST]
    near, side = anchors[likely, :2], anchors[likely, 2:]
    boxes, points = by_width[4][likely], by_width[10][likely].reshape(-1, 5, 2)
    centres = near + boxes[:, :2] * 0.1 * side
    halves = side * np.exp(boxes[:, 2:] * 0.2) / 2
    places = near[:, None] + points * 0.1 * side[:, None]
    corners = np.column_stack([centres - halves, centres + halves])
    return _faces(corners, scores[likely, 1], places.astype(np.float32))


class OnnxDetector:
    """Any ONNX model that gives boxes.

    Input: float32 [1, 3, S, S], RGB from 0 to 255; the frame is scaled to fit and lies at the top left, the rest is 0.
    Output: one, [N, 5 or more] or [1, N, 5 or more], rows of left, top, right, bottom in pixels of the input and score;
    ten more columns are taken as five points. What the model does to pixels otherwise belongs into the model.

    Args:
        model: The ONNX file, exported for S x S pixels.

    Raises:
        DataError: OpenCV cannot read the file.
    """

    def __init__(self, model: ModelFile) -> None:
        self.name = model.name
        self._size = model.size
        self._net = _network(model)

    def detect(self, frame: Frame) -> list[Face]:
        """Faces of one frame, best first; see `Detector.detect`.

        Raises:
            DataError: The output has no rows of boxes.
        """
        check_frame(frame)
        image, factor = _square(frame, self._size)
        outputs = _run(self._net, cv2.dnn.blobFromImage(image), self.name)
        return best_first(scaled(face, factor) for face in row_faces(outputs, self.name))


def row_faces(outputs: Sequence[Rows], name: str) -> list[Face]:
    """Faces from rows of left, top, right, bottom, score and, where there are ten columns more, five points.

    Raises:
        DataError: There is not one output, or it has no such rows.
    """
    rows = outputs[0] if len(outputs) == 1 else np.empty(0, np.float32)
    rows = rows[0] if rows.ndim == 3 and len(rows) == 1 else rows
    if rows.ndim != 2 or rows.shape[1] < 5:
        raise DataError(
            f"{name}: outputs of shapes {[list(output.shape) for output in outputs]}",
            expected="one of shape [N, 5 or more]: left, top, right, bottom and score",
            fix="export the model with its decoding, or use a kind that facemae decodes: yunet, retinaface",
        )
    rows = rows[np.isfinite(rows).all(axis=1)]
    rows = rows[(rows[:, 4] >= LEAST_SCORE) & (rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])]
    rows = rows[np.argsort(-rows[:, 4], kind="stable")][:_MOST]
    points = rows[:, 5:15].reshape(-1, 5, 2) if rows.shape[1] == 15 else None
    return _faces(rows[:, :4], rows[:, 4], points)


def _faces(corners: Rows, scores: Rows, points: Rows | None) -> list[Face]:
    return [
        Face((row[0], row[1], row[2], row[3]), score, None if points is None else np.array(points[place], np.float32))
        for place, (row, score) in enumerate(zip(corners.tolist(), scores.tolist(), strict=True))
    ]


def _square(frame: Frame, size: int) -> tuple[Frame, float]:
    """The frame scaled to fit into a square, at the top left, and how many of its pixels one of the square's covers."""
    small, factor = shrunk(frame, size)
    out = np.zeros((size, size, 3), np.uint8)
    out[: small.shape[0], : small.shape[1]] = small
    return out, factor


class _Network(Protocol):
    def setInput(self, blob: Any) -> None: ...  # noqa: N802 - OpenCV's name

    def forward(self, names: Sequence[str]) -> Sequence[Rows]: ...

    def getUnconnectedOutLayersNames(self) -> Sequence[str]: ...  # noqa: N802 - OpenCV's name


def _network(model: ModelFile) -> _Network:
    try:
        net: _Network = cv2.dnn.readNetFromONNX(model.data)
    except cv2.error as error:
        raise _unreadable(model, error) from error
    return net


def _run(net: _Network, blob: Any, name: str) -> list[Rows]:
    try:
        net.setInput(blob)
        outputs = net.forward(net.getUnconnectedOutLayersNames())
    except cv2.error as error:
        raise DataError(
            f"{name}: the model does not run on an input of shape {list(blob.shape)}: {_reason(error)}",
            expected="a model exported for this size that OpenCV can run",
            fix="give the side of its input with #size=N",
        ) from error
    return [np.asarray(output, np.float32) for output in outputs]


def _unreadable(model: ModelFile, error: cv2.error) -> DataError:
    return DataError(
        f"{model.name}: OpenCV {cv2.__version__} cannot read the model: {_reason(error)}",
        expected=f"an ONNX file of a {model.kind} model" if model.kind != "onnx" else "an ONNX file",
        fix="check that the file is whole, and not a page or a pointer that was saved in its place",
    )


def _reason(error: cv2.error) -> str:
    return " ".join(str(error).split())[:200]
