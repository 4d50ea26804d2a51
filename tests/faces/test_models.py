"""Models in files: pinned by hash, run by OpenCV with weights made here, decoded to where the made faces are."""

import hashlib
import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from facemae.errors import DataError, UsageError
from facemae.faces import open_detector
from facemae.faces.models import retinaface_anchors, retinaface_faces, row_faces, yunet_faces
from tests.faces.onnx_bytes import constant, linear_of_mean, write

SIZE = 64
RED = np.full((128, 128, 3), (255, 0, 0), np.uint8)
BLUE = RED[..., ::-1].copy()


@pytest.fixture
def rows_model(tmp_path: Path) -> Path:
    """One box, whose score is the mean of red in units of 255."""
    weight = np.zeros((3, 1, 5), np.float32)
    weight[0, 0, 4] = 1 / 255
    bias = np.array([[8, 10, 40, 50, 0]], np.float32)
    return write(tmp_path / "rows.onnx", linear_of_mean(SIZE, {"rows": (weight, bias)}))


def test_rows_of_any_model_are_boxes_in_pixels_of_the_frame(rows_model: Path) -> None:
    detector = open_detector(f"onnx:{rows_model}#size={SIZE}")
    (face,) = detector.detect(RED)
    assert face.box == pytest.approx((16, 20, 80, 100), abs=1e-3)
    assert face.score == pytest.approx(1, abs=1e-4)
    assert face.points is None
    assert detector.detect(BLUE) == []


def test_a_frame_that_is_not_square_lies_at_the_top_left(rows_model: Path) -> None:
    detector = open_detector(f"onnx:{rows_model}#size={SIZE}")
    (face,) = detector.detect(RED[:64])  # half of the input is black, so the score is half
    assert face.box == pytest.approx((16, 20, 80, 100), abs=1e-3)
    assert face.score == pytest.approx(0.5, abs=1e-3)


def test_the_name_carries_the_hash(rows_model: Path) -> None:
    digest = hashlib.sha256(rows_model.read_bytes()).hexdigest()
    assert open_detector(f"onnx:{rows_model}#sha256={digest.upper()}").name == f"onnx@{digest[:12]}"
    assert open_detector(f"onnx:{rows_model}#size=64&sha256={digest}").name == f"onnx@{digest[:12]}/64"


def test_an_unpinned_file_says_how_to_pin_it(rows_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    digest = hashlib.sha256(rows_model.read_bytes()).hexdigest()
    with caplog.at_level(logging.WARNING, "facemae.faces"):
        open_detector(f"onnx:{rows_model}")
        assert f"onnx:{rows_model}#sha256={digest}" in caplog.text
        caplog.clear()
        open_detector(f"onnx:{rows_model}#sha256={digest}")
        assert caplog.text == ""


def test_another_hash_is_an_error(rows_model: Path) -> None:
    digest = hashlib.sha256(rows_model.read_bytes()).hexdigest()
    with pytest.raises(DataError, match=f"rows.onnx has sha256 {digest}\n  expected: sha256 {'0' * 64}"):
        open_detector(f"onnx:{rows_model}#sha256={'0' * 64}")


def test_yunet_runs_in_opencv_and_finds_the_made_face(tmp_path: Path) -> None:
    outputs: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    for stride in (8, 16, 32):
        count = (SIZE // stride) ** 2
        scores, boxes = np.zeros((1, count, 1), np.float32), np.zeros((1, count, 4), np.float32)
        points = np.zeros((1, count, 10), np.float32)
        if stride == 16:  # the place in row 1, column 2: a face of 24 x 32 pixels around (40, 24)
            scores[0, 6] = 0.81
            boxes[0, 6] = 0.5, 0.5, np.log(24 / 16), np.log(32 / 16)
            points[0, 6] = np.arange(10) / 16
        outputs |= {f"cls_{stride}": constant(scores), f"obj_{stride}": constant(scores)}
        outputs |= {f"bbox_{stride}": constant(boxes), f"kps_{stride}": constant(points)}
    path = write(tmp_path / "yunet.onnx", linear_of_mean(SIZE, outputs))
    (face,) = open_detector(f"yunet:{path}#size={SIZE}").detect(RED)
    assert face.box == pytest.approx((2 * 28, 2 * 8, 2 * 52, 2 * 40), abs=1e-3)
    assert face.score == pytest.approx(0.81, abs=1e-4)
    assert face.points is not None
    np.testing.assert_allclose(face.points[0], (2 * 32, 2 * 17), atol=1e-3)
    np.testing.assert_allclose(face.points[4], (2 * 40, 2 * 25), atol=1e-3)


def test_rows_of_yunet_become_corners() -> None:
    row = np.array([10, 20, 30, 40, *range(10), 0.9], np.float32)
    (face,) = yunet_faces(row[None])
    assert list(face.box) == [10, 20, 40, 60]
    assert face.score == pytest.approx(0.9)
    assert yunet_faces(None) == []


def _retinaface(path: Path, place: int) -> Path:
    """A face at one anchor, as far as the frame is blue."""
    count = len(retinaface_anchors(SIZE))
    boxes, points = np.zeros((1, count, 4), np.float32), np.zeros((1, count, 10), np.float32)
    boxes[0, place] = 1, -2, 5 * np.log(2), 0
    points[0, place] = 1
    weight, bias = np.zeros((3, 1, count, 2), np.float32), np.zeros((1, count, 2), np.float32)
    bias[..., 0] = 1
    weight[0, 0, place] = -1 / (255 - 104), 1 / (255 - 104)
    outputs = {"boxes": constant(boxes), "scores": (weight, bias), "points": constant(points)}
    return write(path, linear_of_mean(SIZE, outputs))


def test_retinaface_is_decoded_from_its_anchors(tmp_path: Path) -> None:
    # Stride 8, row 3, column 2, the second side: 32 pixels around (20, 28).
    path = _retinaface(tmp_path / "retinaface.onnx", 2 * (3 * 8 + 2) + 1)
    detector = open_detector(f"retinaface:{path}#size={SIZE}")
    (face,) = detector.detect(BLUE)
    x, y = 20 + 0.1 * 32, 28 - 0.2 * 32
    assert face.box == pytest.approx((2 * (x - 32), 2 * (y - 16), 2 * (x + 32), 2 * (y + 16)), abs=1e-2)
    assert face.score == pytest.approx(1, abs=1e-3)
    assert face.points is not None
    np.testing.assert_allclose(face.points, np.tile((2 * 23.2, 2 * 31.2), (5, 1)), atol=1e-3)
    assert detector.detect(RED) == []


def test_retinaface_scores_before_the_softmax_count_as_well() -> None:
    anchors = retinaface_anchors(SIZE)
    scores = np.tile(np.array([[4.0, -4.0]], np.float32), (len(anchors), 1))
    scores[5] = -1, 1
    empty = np.zeros((len(anchors), 4), np.float32), np.zeros((len(anchors), 10), np.float32)
    (face,) = retinaface_faces([empty[0], scores, empty[1]], anchors, "retinaface")
    assert face.score == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-5)


def test_outputs_of_other_shapes_are_named() -> None:
    with pytest.raises(DataError, match=r"outputs of shapes \[\[1, 5, 4\]\]\n  expected: boxes \[1, 168, 4\]"):
        retinaface_faces([np.zeros((1, 5, 4), np.float32)], retinaface_anchors(SIZE), "retinaface@x")
    with pytest.raises(DataError, match=r"outputs of shapes \[\[7, 4\]\]\n  expected: one of shape \[N, 5 or more\]"):
        row_faces([np.zeros((7, 4), np.float32)], "onnx@x")


def test_rows_that_are_no_boxes_are_left_out() -> None:
    rows = np.array([[0, 0, 9, 9, 0.9], [5, 0, 5, 9, 0.9], [0, 0, np.nan, 9, 0.9], [0, 0, 9, 9, 0.1]], np.float32)
    assert [face.box for face in row_faces([rows], "onnx@x")] == [(0, 0, 9, 9)]


def test_a_model_for_another_size_says_so(rows_model: Path, tmp_path: Path) -> None:
    path = _retinaface(tmp_path / "retinaface.onnx", 0)
    with pytest.raises(DataError, match="give the input's side with #size=N"):
        open_detector(f"retinaface:{path}#size=96").detect(RED)


@pytest.mark.parametrize("kind", ["yunet", "retinaface", "onnx"])
def test_a_file_that_is_no_model_is_an_error(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "page.onnx", b"<!DOCTYPE html><html>not found</html>")
    with pytest.raises(DataError, match="cannot read the model"):
        open_detector(f"{kind}:{path}")
    with pytest.raises(DataError, match="is empty"):
        open_detector(f"{kind}:{write(tmp_path / 'empty.onnx', b'')}")
    with pytest.raises(DataError, match=f"{kind}: no file '/nowhere/model.onnx'"):
        open_detector(f"{kind}:/nowhere/model.onnx")


@pytest.mark.parametrize(
    ("fragment", "message"),
    [
        ("sha265=00", "unknown option 'sha265'\n  expected: one of sha256, size\n  to do:    did you mean 'sha256'?"),
        ("sha256=00", "'00' is no sha256\n  expected: 64 hexadecimal digits"),
        ("size=100", "size '100'\n  expected: pixels, a multiple of 32"),
        ("whatever", "unknown option 'whatever'\n  expected: one of sha256, size"),
    ],
)
def test_options_that_are_not_understood_are_errors(rows_model: Path, fragment: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        open_detector(f"onnx:{rows_model}#{fragment}")
    assert message in str(raised.value)
