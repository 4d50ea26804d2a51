"""The default detector on drawn faces, what all detectors share, and their names."""

import cv2
import numpy as np
import pytest

from facemae.errors import DataError, MissingExtraError, UsageError
from facemae.faces import Face, Frame, open_detector
from facemae.faces.cascade import CascadeDetector
from facemae.faces.detector import best_first, scaled, shrunk
from tests.faces.conftest import drawn_face, empty_frame


def _centre(face: Face) -> tuple[float, float]:
    return (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2


@pytest.mark.parametrize("kind", ["flat", "gradient", "clouds", "stripes", "lights"])
def test_no_face_gives_an_empty_list(detector: CascadeDetector, kind: str) -> None:
    assert detector.detect(empty_frame(0, kind)) == []


@pytest.mark.parametrize("person", range(4))
def test_a_face_is_found_where_it_is(detector: CascadeDetector, person: int) -> None:
    (face,) = detector.detect(drawn_face(person))
    assert np.hypot(_centre(face)[0] - 80, _centre(face)[1] - 84) < 15
    assert 80 < face.box[2] - face.box[0] < 140
    assert 0.5 < face.score < 1


def test_two_faces_are_two(detector: CascadeDetector, two_faces: Frame) -> None:
    faces = detector.detect(two_faces)
    assert sorted(_centre(face)[0] // 160 for face in faces) == [0, 1]
    assert faces[0].score >= faces[1].score


def test_a_large_frame_is_searched_smaller_and_answered_in_its_own_pixels(detector: CascadeDetector) -> None:
    frame = np.asarray(cv2.resize(drawn_face(0), (1440, 1440)), np.uint8)
    (face,) = detector.detect(frame)
    assert np.hypot(_centre(face)[0] - 720, _centre(face)[1] - 756) < 9 * 15


def test_what_is_found_does_not_depend_on_frames_before(detector: CascadeDetector, one_face: Frame) -> None:
    first = [(face.box, face.score) for face in CascadeDetector().detect(one_face)]
    detector.detect(empty_frame(1))
    assert [(face.box, face.score) for face in detector.detect(one_face)] == first


def test_profiles_are_searched_to_both_sides(detector: CascadeDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Frame] = []

    class Profile:
        def detectMultiScale2(self, grey: Frame, **_: object) -> tuple[list[list[int]], list[int]]:  # noqa: N802
            seen.append(grey)
            return ([[10, 20, 30, 40]], [30]) if len(seen) == 2 else ([], [])

    both = CascadeDetector()
    monkeypatch.setattr(both, "_profile", Profile())
    frame = empty_frame(0)
    (face,) = both.detect(frame)
    assert np.array_equal(seen[1], seen[0][:, ::-1])
    assert list(face.box) == [160 - 40, 20, 160 - 10, 60]
    assert face.score == pytest.approx(0.75)


def test_the_name_says_what_the_boxes_depend_on() -> None:
    assert open_detector().name == f"opencv-{cv2.__version__}/frontalface_alt2"
    assert open_detector("cascade").name == open_detector("default").name


def test_an_opencv_without_cascades_says_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cv2.data.haarcascades", "/nowhere")
    with pytest.raises(MissingExtraError, match="has no cascade haarcascade_frontalface_alt2") as raised:
        open_detector()
    assert "pip install 'opencv-python-headless>=4.10,<5'" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("yunett:model.onnx", "no face detector 'yunett:model.onnx'"),
        ("yunett:model.onnx", "did you mean 'yunet'?"),
        ("cascades", "did you mean 'cascade'?"),
        ("yunet", "face detector 'yunet' without a model\n  expected: yunet:PATH"),
        ("default:x", "which takes no path"),
    ],
)
def test_an_unknown_name_is_an_error_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        open_detector(name)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "frame", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8)]
)
def test_what_is_no_frame_is_refused(detector: CascadeDetector, frame: Frame) -> None:
    with pytest.raises(DataError, match=r"a frame of shape .*\n  expected: uint8 \[H, W, 3\], RGB"):
        detector.detect(frame)


def test_of_boxes_one_in_another_the_better_stays() -> None:
    large, inner, other = Face((0, 0, 100, 100), 0.6), Face((10, 10, 40, 40), 0.8), Face((90, 0, 190, 100), 0.7)
    assert best_first([large, inner, other]) == [inner, other]
    assert best_first([other, inner, large]) == [inner, other]


def test_shrinking_keeps_the_shape_and_gives_the_factor() -> None:
    small, factor = shrunk(np.zeros((100, 400, 3), np.uint8), 100)
    assert (small.shape, factor) == ((25, 100, 3), 4.0)
    assert shrunk(small, 100)[1] == 1.0
    face = scaled(Face((1, 2, 3, 4), 0.5, np.ones((5, 2), np.float32)), 4)
    assert list(face.box) == [4, 8, 12, 16]
    assert face.points is not None
    assert face.points[0].tolist() == [4, 4]
