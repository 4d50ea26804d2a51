"""bench faces: what counts as right, results for each detector and set, and names that are none."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from facemae.bench import faces as bench
from facemae.bench.commands import app
from facemae.bench.faces_candidates import open_candidate
from facemae.bench.faces_clips import BenchClip, procedural_clips
from facemae.errors import UsageError
from facemae.faces import Face, Frame


class Known:
    """Finds the same boxes in every frame."""

    def __init__(self, name: str, *boxes: tuple[float, float, float, float]) -> None:
        self.name = name
        self.boxes = boxes

    def detect(self, frame: Frame) -> list[Face]:
        return [Face(box, 0.9) for box in self.boxes]


def test_a_box_is_right_by_place_and_size() -> None:
    truth = (100.0, 100.0, 160.0, 160.0)
    assert bench.is_right((105, 95, 165, 150), truth)
    assert not bench.is_right((125, 100, 185, 160), truth)
    assert not bench.is_right((118, 118, 142, 142), truth)
    assert not bench.is_right((60, 60, 200, 200), truth)


def test_counts_are_those_of_known_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    face, wall = (10.0, 10.0, 50.0, 50.0), (60.0, 60.0, 80.0, 80.0)
    monkeypatch.setattr(bench, "open_detector", lambda: Known("ours", face))
    monkeypatch.setattr(bench, "open_candidate", lambda name: Known(name, wall, face) if name == "two" else Known(name))
    frame = np.zeros((90, 90, 3), np.uint8)
    clips = [BenchClip("still", lambda: ((number / 25, frame, face) for number in range(20)))]
    monkeypatch.setattr(bench, "procedural_clips", lambda *_: clips)
    settings = bench.FacesBenchSettings(detectors=("two", "none"))
    results = {(r.bench.split(", ", 2)[2], r.settings["baseline"]): r for r in bench.bench_faces(None, settings)}
    assert results["frames with the face found", "two"].baseline == 100
    assert results["frames with the face found", "none"].baseline == 0
    assert results["wrong boxes in 1,000 frames", "two"].baseline == 1000
    assert results["wrong boxes in 1,000 frames", "none"].ours == 0
    assert ("shake of the crop by per-frame boxes", "none") not in results
    steady = results["shake of the crop by a steady box", "the detected box of each frame"]
    assert (steady.ours, steady.settings["clips_with_one_track"]) == (0, 1)


def test_the_drawn_face_is_where_it_is_said_to_be() -> None:
    (clip,) = procedural_clips(1, 2, 0)
    (_, first, truth), (at, second, moved) = clip.frames()
    assert first.shape == second.shape == (288, 360, 3)
    assert at == 0.04
    assert truth is not None
    assert moved != truth
    assert 100 < truth[2] - truth[0] < 200
    assert abs((truth[0] + truth[2]) / 2 - 180) < 40


def test_the_command_prints_one_object_a_line() -> None:
    args = ["faces", "--limit", "1", "--frames", "3", "--detector", "haar-default", "--json"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert {entry["settings"]["baseline"] for entry in found} >= {"haar-default"}
    assert all(entry["settings"]["frames"] == 3 for entry in found)


def test_an_unknown_candidate_is_an_error_with_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"no detector 'har-default' to compare with(.|\n)*did you mean 'haar-default'\?"
    ):
        open_candidate("har-default")
    assert open_candidate("default").name.startswith("opencv-")
