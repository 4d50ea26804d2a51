"""Who becomes a clip: cuts, faces that come back, faces at the same time, and what is unusable."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facemae.data.clips.pack import pack_videos
from facemae.data.clips.people import MOST_PEOPLE, Choice, choose
from facemae.data.clips.settings import ClipSettings
from facemae.data.clips.survey import Person, Survey, survey
from facemae.data.index import ShardIndex
from facemae.data.material import Material
from facemae.data.reader import ShardReader
from facemae.faces.detector import Face, Frame
from facemae.faces.tracks import Track
from tests.data.clips.films import face, film, nobody

EMPTY = nobody()[:128, :128]


def packed(folder: Path, frames: Sequence[Frame], **settings: Any) -> tuple[dict[str, Material], list[str]]:
    """The samples of one film, and all that was said of it."""
    film(folder / "videos" / "a.mkv", frames)
    made = pack_videos(folder / "videos", folder / "out", settings=ClipSettings(size=32, **settings), workers=0)
    reader = ShardReader(ShardIndex.open(made.out))
    found = {reader.index.key(i): Material(reader.read(i)) for i in range(len(reader.index))}
    return found, [text for _, text in [*made.skipped, *made.remarks]]


def ranges(found: dict[str, Material]) -> dict[str, tuple[int, int]]:
    """First frame and number of frames of each sample."""
    clips = {key: sample.sample.meta["clip"] for key, sample in sorted(found.items())}
    return {key: (round(clip["start_s"] * 25), clip["frames"]) for key, clip in clips.items()}


def test_a_clip_never_spans_a_cut(tmp_path: Path) -> None:
    found, _ = packed(tmp_path, [face(0)] * 30 + [face(1)] * 31)
    assert ranges(found) == {"a-0-0000": (0, 30), "a-0-0001": (30, 31)}
    before, behind = (found[key].frames([0, count - 1], 3) for key, count in (("a-0-0000", 30), ("a-0-0001", 31)))
    for clip in (before, behind):
        assert np.abs(clip[0].astype(int) - clip[1]).mean() < 6
    assert np.abs(before[1].astype(int) - behind[0]).mean() > 12


def test_a_flash_ends_no_clip_and_repeated_frames_are_no_cuts(tmp_path: Path) -> None:
    flash = [face(0)] * 20 + [np.full_like(face(0), 255)] + [face(0)] * 20
    found, _ = packed(tmp_path / "flash", flash)
    assert ranges(found) == {"a-0-0000": (0, 41)}
    wide = np.concatenate([EMPTY, face(0), EMPTY], axis=1)
    shifts = np.round(128 + 12 * np.cos(np.arange(60)[::3] / 6)).astype(int)
    sways = [wide[:, shift : shift + 128] for shift in shifts for _ in range(3)]
    found, _ = packed(tmp_path / "sways", sways)
    assert ranges(found) == {"a-0-0000": (0, 60)}


class Swaying:
    """A detector that knows where a square face is that sways by more than its width."""

    name = "swaying"

    def detect(self, frame: Frame) -> list[Face]:
        (columns,) = np.nonzero(frame[64, :, 0] > 128)
        return [Face((float(columns[0]), 44.0, float(columns[-1] + 1), 84.0), 0.9)]


def test_a_face_that_sways_stays_in_its_crop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facemae.data.clips.job.open_detector", lambda _: Swaying())
    films = []
    for number in range(75):
        image = np.full((128, 256, 3), 16, np.uint8)
        left = round(108 + 48 * np.sin(2 * np.pi * 0.5 * number / 25))
        image[44:84, left : left + 40] = 240
        films.append(image)
    found, _ = packed(tmp_path, films)
    (sample,) = found.values()
    inside = sample.sample.meta["clip"]["inside"]
    assert 0.8 < inside["least"] <= inside["mean"] <= 1
    crops = sample.frames(list(range(75)), 3)
    # A face without margin fills 1 / 1.2^2 of the crop.
    shares = (crops[..., 0] > 128).mean(axis=(1, 2)) * 1.2**2
    assert shares.min() > 0.8
    assert shares.min() == pytest.approx(inside["least"], abs=0.1)


def test_cuts_are_counted_and_named(tmp_path: Path) -> None:
    films = [face(0)] * 20 + [face(1)] * 11 + [face(0)] * 20
    film(tmp_path / "videos" / "a.mkv", films)
    made = pack_videos(tmp_path / "videos", tmp_path / "out", settings=ClipSettings(size=32), workers=0)
    assert (made.written, made.cuts) == (2, 2)
    assert "2 cuts found in the videos; no clip goes across one" in made.lines()
    assert [text for _, text in made.skipped] == [
        "0.44 s with a face behind the cut at 0.80 s and before the cut at 1.24 s, shorter than 0.5 s"
    ]
    film(tmp_path / "b.mkv", [EMPTY] * 20 + [face(0)[::-1]] * 20)
    told = choose(survey(tmp_path / "b.mkv", Seen([]), ClipSettings()), ClipSettings()).skipped
    assert told == ["no face in 16 frames looked at, with 1 cut between them"]


@pytest.mark.parametrize("fps", [Fraction(50), Fraction(25, 2), Fraction(30)])
def test_a_cut_is_kept_apart_at_another_rate(tmp_path: Path, fps: Fraction) -> None:
    film(tmp_path / "a.mkv", [face(0)] * 31 + [face(1)] * 31, fps=fps)

    class Anywhere(Seen):
        def detect(self, frame: Frame) -> list[Face]:
            return [Face((30, 30, 90, 90), 0.9)]

    seen = survey(tmp_path / "a.mkv", Anywhere([]), ClipSettings(size=32))
    (cut,) = seen.cuts
    assert cut == pytest.approx(31 / fps, abs=0.002)
    chosen = choose(seen, ClipSettings(size=32)).numbered[0]
    (one,), (two,) = (appearance.pieces for appearance in chosen)
    assert one.first + one.count == two.first
    # Frames are shown by the nearest in time: the last before the cut is nearer to the old shot.
    half = 0.5 / float(fps)
    assert (two.first - 1) / 25 <= cut - half + 1e-3 < two.first / 25 + 2e-3


def test_a_face_that_comes_back_is_clips_of_the_same_number(tmp_path: Path) -> None:
    found, said = packed(tmp_path, [face(0)] * 30 + [EMPTY] * 20 + [face(0)] * 20, sound_rate=None)
    assert ranges(found) == {"a-0-0000": (0, 30), "a-0-0001": (50, 20)}
    assert said == []


def test_any_number_of_appearances_is_kept(tmp_path: Path) -> None:
    found, said = packed(tmp_path, ([face(0)] * 13 + [EMPTY] * 5) * 12, people="all", sound_rate=None)
    assert ranges(found) == {f"a-0-{piece:04d}": (18 * piece, 13) for piece in range(12)}
    assert said == []


class Seen:
    """A detector that was told in which of the looked-at frames a face is."""

    name = "told"

    def __init__(self, looks: Sequence[float]) -> None:
        self._scores = iter(looks)

    def detect(self, frame: Frame) -> list[Face]:
        score = next(self._scores, 0.0)
        return [Face((30, 30, 90, 90), score)] if score else []


def looked_through(folder: Path, looks: Sequence[float]) -> Survey:
    """A film without a cut, looked at five times a second."""
    film(folder / "a.mkv", [face(0)] * (5 * len(looks)))
    return survey(folder / "a.mkv", Seen(looks), ClipSettings(size=32, detections=5))


def test_frames_without_a_face_are_not_added_at_the_ends(tmp_path: Path) -> None:
    seen = looked_through(tmp_path, [0, 0, *[0.9] * 8, 0, 0])
    (person,) = seen.people
    assert (person.start, person.stop) == pytest.approx((0.4, 1.8))
    (whole,) = looked_through(tmp_path / "whole", [0.9] * 8).people
    assert (whole.start, whole.stop) == pytest.approx((0.0, 1.6))


@pytest.mark.parametrize(
    ("looks", "reason"),
    [
        ([0.0] * 8, "no face in 8 frames looked at"),
        ([0, 0, 0.9, *[0] * 8], "from 0.40 s on, 0.20 s, less than 0.4 s"),
        ([0.3, *[0] * 7], "a score of at most 0.30, below 0.4, starts no track"),
    ],
)
def test_a_face_that_was_dropped_is_not_called_none(tmp_path: Path, looks: list[float], reason: str) -> None:
    (told,) = choose(looked_through(tmp_path, looks), ClipSettings()).skipped
    assert reason in told
    assert f"{len(looks)} frames looked at" in told


def test_what_was_dropped_beside_a_face_is_told(tmp_path: Path) -> None:
    choice = choose(looked_through(tmp_path, [0.9] * 6 + [0.0] * 8 + [0.9] + [0.0] * 4), ClipSettings())
    assert choice.notes == ["detections too short to be a face are left out"]
    assert len(choice.numbered) == 1


def person(start: float, stop: float, share: float = 1.0) -> Person:
    nothing = Track(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 1)
    return Person(nothing, start, stop, share, (0.0, 0.0))


def chosen(template: Survey, faces: Sequence[Person], **settings: Any) -> tuple[list[list[tuple[int, int]]], Choice]:
    """Under each number first frame and end of each piece, of the most prominent first."""
    values = {**vars(template), "people": tuple(faces), "count": 1000, "fps": 10.0, "dropped": ()}
    choice = choose(Survey(**values), ClipSettings(**settings))
    pieces = [[piece for appearance in line for piece in appearance.pieces] for line in choice.numbered]
    return [[(piece.first, piece.first + piece.count) for piece in line] for line in pieces], choice


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    return looked_through(tmp_path_factory.mktemp("template"), [0.9] * 3)


def test_main_is_the_most_prominent_face_at_every_moment(template: Survey) -> None:
    people = [person(5, 10), person(8, 16), person(4, 11), person(20, 21), person(15.8, 16.2)]
    found, choice = chosen(template, people)
    assert found == [[(50, 100), (100, 160), (200, 210)]]
    assert choice.notes == ["another face at the same time, less prominent, is left out"]
    assert choice.skipped == ["0.40 s with a face, shorter than 0.5 s"]


def test_an_unusable_face_takes_nobodys_place(template: Survey) -> None:
    found, choice = chosen(template, [person(0, 10, share=0.45), person(0, 0.3), person(1, 9)])
    assert found == [[(10, 90)]]
    assert choice.notes == []
    assert choice.skipped == [
        "the face at 0.00 s is detected in 45% of the frames, less than 50%",
        "0.30 s with a face, shorter than 0.5 s",
    ]


def test_numbers_tell_faces_at_one_time_apart(template: Survey) -> None:
    found, choice = chosen(template, [person(0, 9), person(5, 12), person(10, 14), person(13, 20)], people="all")
    assert found == [[(0, 90), (100, 140)], [(50, 120), (130, 200)]]
    assert choice.notes == choice.skipped == []


def test_only_faces_at_the_same_time_are_too_many(template: Survey) -> None:
    rows = [person(0, 5)] * MOST_PEOPLE
    found, choice = chosen(template, [*rows, person(4, 8), *[person(6, 9)] * 2], people="all")
    assert len(found) == MOST_PEOPLE
    assert [line[1:] for line in found[:3]] == [[(60, 90)], [(60, 90)], []]
    assert choice.notes == ["more than 10 faces at the same time, the least prominent are left out"]
