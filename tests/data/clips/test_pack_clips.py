"""Folders of videos into shards of clips: what is kept, what is left out and named, what every sample says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from facemae.data.clips.pack import ClipPackReport, pack_videos
from facemae.data.clips.settings import ClipSettings
from facemae.data.index import ShardIndex
from facemae.data.material import Material
from facemae.data.reader import ShardReader
from facemae.errors import DataError, UsageError
from facemae.faces.detector import Face
from facemae.video.store import Storage
from tests.data.clips.films import face, film, nobody, noise

SETTINGS = ClipSettings(size=32, detections=5, longest=10)


def pack(source: Path, out: Path, **changes: Any) -> ClipPackReport:
    settings = ClipSettings(**{**vars(SETTINGS), **changes})
    return pack_videos(source, out, settings=settings, workers=0)


def samples(shards: Path) -> dict[str, Material]:
    reader = ShardReader(ShardIndex.open(shards))
    return {reader.index.key(i): Material(reader.read(i)) for i in range(len(reader.index))}


def reasons(report: ClipPackReport) -> dict[str, str]:
    return dict(report.skipped)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ClipPackReport]:
    """Everything that people put into folders, packed once."""
    source = tmp_path_factory.mktemp("mixed") / "videos"
    one, two = face(0), np.concatenate([face(0), face(1)], axis=1)
    film(source / "good.mp4", [one] * 30, wave=noise(1.2, 44100), rate=44100)
    film(source / "nobody.mp4", [nobody()] * 15)
    film(source / "two.mp4", [two] * 20)
    film(source / "silent.mkv", [one] * 20, wave=np.zeros(16000, np.float32))
    film(source / "short.mp4", [one] * 6)
    film(source / "really_mkv.avi", [one] * 20, container="matroska")
    film(source / "long_wav.mp4", [one] * 20)
    soundfile.write(source / "long_wav.wav", noise(3.0, 22050), 22050)
    film(source / "short_wav.mp4", [one] * 50)
    soundfile.write(source / "short_wav.wav", noise(0.5, 22050), 22050)
    whole = film(source / "broken.mkv", [one] * 50, wave=noise(2.0, 16000)).read_bytes()
    (source / "broken.mkv").write_bytes(whole[: len(whole) * 6 // 10])
    (source / "text.mp4").write_text("this is no video")
    (source / "empty.mov").write_bytes(b"")
    (source / "nowhere.mp4").symlink_to(source / "gone.mp4")
    film(source / "field.mp4", [one] * 20)
    soundfile.write(source / "field.WAV", noise(0.8, 22050), 22050, format="WAV")
    film(source / "appears.mp4", [nobody()[:128, :128]] * 25 + [one] * 50)
    return source, pack(source, source.parent / "shards")


def test_a_clip_says_how_it_was_made(mixed: tuple[Path, ClipPackReport]) -> None:
    sample = samples(mixed[1].out)["good-0-0000"]
    meta = sample.sample.meta
    assert (meta["path"], meta["width"], meta["height"]) == ("good.mp4", 32, 32)
    assert (meta["clip"]["fps"], meta["clip"]["frames"], meta["clip"]["start_s"]) == (25.0, 30, 0.0)
    assert meta["crop"]["detector"].startswith("opencv-")
    assert (meta["crop"]["size"], meta["crop"]["fps"], meta["crop"]["sound_rate"]) == (32, 25.0, 16000)
    assert meta["sound"]["rate"] == 16000
    assert meta["sound"]["samples"] == round(30 / 25 * 16000)
    assert sample.clip is not None
    assert sample.clip.count == 30
    assert sample.frames([0, 29], 3).shape == (2, 32, 32, 3)


def test_the_card_holds_the_crop_recipe(mixed: tuple[Path, ClipPackReport]) -> None:
    card = json.loads((mixed[1].out / "card.json").read_text())
    assert card["crop"]["fps"] == 25.0
    assert card["crop"]["smoothing"].startswith("1 s")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nobody.mp4", "no face in 3 frames looked at"),
        ("short.mp4", "0.24 s with a face, shorter than 0.5 s"),
        ("text.mp4", "no video"),
        ("empty.mov", "zero bytes"),
        ("nowhere.mp4", "the file is gone"),
    ],
)
def test_what_is_left_out_is_named(mixed: tuple[Path, ClipPackReport], name: str, reason: str) -> None:
    _source, report = mixed
    assert reason in reasons(report)[name]
    lines = [json.loads(line) for line in (report.out / "skipped.jsonl").read_text().splitlines()]
    assert {line["path"] for line in lines} == {"nobody.mp4", "short.mp4", "text.mp4", "empty.mov", "nowhere.mp4"}
    assert not any(key.startswith(name.split(".", maxsplit=1)[0] + "-") for key in samples(report.out))


@pytest.mark.parametrize(
    ("name", "remark"),
    [
        ("silent.mkv", "a silent track, stored without sound"),
        ("two.mp4", "another face at the same time, less prominent, is left out"),
        ("two.mp4", "no sound"),
        ("long_wav.mp4", "long_wav.wav lasts 3.00 s, the video 0.80 s"),
        ("short_wav.mp4", "short_wav.wav lasts 0.50 s, the video 2.00 s"),
    ],
)
def test_what_is_odd_and_kept_is_told(mixed: tuple[Path, ClipPackReport], name: str, remark: str) -> None:
    assert (name, remark) in mixed[1].remarks


def test_a_clip_without_sound_has_no_sound_member(mixed: tuple[Path, ClipPackReport]) -> None:
    found = samples(mixed[1].out)
    assert "flac" not in found["silent-0-0000"].sample.members
    assert "flac" not in found["two-0-0000"].sample.members
    assert "sound" not in found["two-0-0000"].sample.meta


def test_a_separate_sound_is_cut_or_filled_to_the_frames(mixed: tuple[Path, ClipPackReport]) -> None:
    found = samples(mixed[1].out)
    assert found["long_wav-0-0000"].sample.meta["sound"]["samples"] == 12800
    assert "missing_s" not in found["long_wav-0-0000"].sample.meta["sound"]
    assert found["short_wav-0-0000"].sample.meta["sound"]["missing_s"] == pytest.approx(1.5, abs=0.002)


def test_the_ending_of_a_sound_file_may_be_in_capitals(mixed: tuple[Path, ClipPackReport]) -> None:
    assert samples(mixed[1].out)["field-0-0000"].sample.meta["sound"]["level_db"] > -20


def test_a_huge_frame_costs_its_video_only(tmp_path: Path) -> None:
    """A header that claims 900 million pixels is refused before anything of that size is made."""
    source = tmp_path / "videos"
    film(source / "good.mp4", [face()] * 20)
    with (
        av.open(str(film(source / "small.mkv", [face()] * 5))) as file,
        av.open(str(source / "huge.avi"), "w") as other,
    ):
        stream: Any = other.add_stream("rawvideo", rate=25)
        stream.width = stream.height = 128
        stream.pix_fmt = "yuv420p"
        for frame in file.decode(video=0):
            other.mux(stream.encode(frame))
    huge = source / "huge.avi"
    side, claimed = (128).to_bytes(4, "little") * 2, (30000).to_bytes(4, "little") * 2
    huge.write_bytes(huge.read_bytes().replace(side, claimed))
    report = pack(source, tmp_path / "out")
    assert set(samples(report.out)) == {"good-0-0000"}
    assert "none of its frames decodes" in reasons(report)["huge.avi"]


def test_a_face_too_small_to_cut_costs_its_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tiny:
        name = "tiny"

        def detect(self, frame: np.ndarray) -> list[Face]:
            size = 4.0 if frame[0, 0, 0] > 128 else 40.0
            return [Face((10.0, 10.0, 10 + size, 10 + size), 0.9)]

    monkeypatch.setattr("facemae.data.clips.job.open_detector", lambda _: Tiny())
    film(tmp_path / "videos/tiny.mp4", [np.full((64, 64, 3), 250, np.uint8)] * 20)
    film(tmp_path / "videos/good.mp4", [np.full((64, 64, 3), 20, np.uint8)] * 20)
    report = pack(tmp_path / "videos", tmp_path / "out")
    assert set(samples(report.out)) == {"good-0-0000"}
    assert "a box of side" in reasons(report)["tiny.mp4"]


def test_a_broken_tail_keeps_what_was_before_it(mixed: tuple[Path, ClipPackReport]) -> None:
    sample = samples(mixed[1].out)["broken-0-0000"]
    assert sample.clip is not None
    assert 12 < sample.clip.count < 50
    assert any(name == "broken.mkv" for name, _ in mixed[1].remarks)


def test_the_content_decides_not_the_name(mixed: tuple[Path, ClipPackReport]) -> None:
    assert "really_mkv-0-0000" in samples(mixed[1].out)


def test_frames_before_a_face_appears_are_not_part_of_its_clip(mixed: tuple[Path, ClipPackReport]) -> None:
    clip = samples(mixed[1].out)["appears-0-0000"].sample.meta["clip"]
    assert clip["start_s"] == pytest.approx(1.0, abs=0.2)
    assert clip["start_s"] + clip["frames"] / 25 == pytest.approx(3.0)


def test_the_report_counts_faces_and_shake(mixed: tuple[Path, ClipPackReport]) -> None:
    report = mixed[1]
    assert 0 < report.found < report.looked
    assert report.shake is not None
    assert report.shake[1] == 0.0
    assert report.inside is not None
    assert 0.9 < report.inside[0] <= report.inside[1] <= 1
    assert report.outside == 0
    text = "\n".join(report.lines())
    assert "14 videos" in text
    assert "of the face is in its crop (mean; at least" in text
    assert "0 clips have frames with less than 70%" in text
    assert f"a face in {report.found / report.looked:.1%} of {report.looked} frames" in text


def test_remarks_that_differ_in_numbers_are_counted_together(mixed: tuple[Path, ClipPackReport]) -> None:
    lines = mixed[1].lines()
    (line,) = [line for line in lines if "lasts" in line]
    assert line.startswith("2 times, such as: ")
    assert any(line.endswith(" times: no sound") for line in lines)


def test_all_people_become_clips_of_their_own(tmp_path: Path) -> None:
    film(tmp_path / "videos/two.mp4", [np.concatenate([face(0), face(1)], axis=1)] * 20)
    found = samples(pack(tmp_path / "videos", tmp_path / "out", people="all").out)
    assert set(found) == {"two-0-0000", "two-1-0000"}
    left, right = (found[key].sample.meta["clip"]["box"][0] for key in ("two-0-0000", "two-1-0000"))
    assert abs(left - right) == pytest.approx(128, abs=12)


def test_long_videos_are_cut_into_equal_pieces_with_their_sound(tmp_path: Path) -> None:
    film(tmp_path / "videos/long.mkv", [face()] * 70, wave=noise(2.8, 16000))
    found = samples(pack(tmp_path / "videos", tmp_path / "out", longest=1.0).out)
    clips = [found[f"long-0-{piece:04d}"].sample.meta for piece in range(3)]
    assert [meta["clip"]["frames"] for meta in clips] == [23, 23, 24]
    assert [meta["clip"]["start_s"] for meta in clips] == pytest.approx([0, 0.92, 1.84])
    assert [meta["sound"]["samples"] for meta in clips] == [14720, 14720, 15360]


def test_frames_and_sound_may_be_stored_otherwise(tmp_path: Path) -> None:
    film(tmp_path / "videos/a.mp4", [face()] * 30, fps=30, wave=noise(1.0, 16000))
    found = samples(pack(tmp_path / "videos", tmp_path / "out", fps=None, sound_rate=None).out)["a-0-0000"]
    assert (found.fps, set(found.sample.members)) == (30.0, {"mjpeg", "json"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: film(folder / "a.mp4", [nobody()] * 5), "none of 1 videos gives a clip"),
        (lambda folder: folder.mkdir(), "holds no videos to pack"),
    ],
)
def test_nothing_usable_is_an_error(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / "videos")
    with pytest.raises(DataError, match=message):
        pack(tmp_path / "videos", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, "size 0"),
        ({"fps": -1.0}, "fps -1.0"),
        ({"seen": 2.0}, "seen 2.0"),
        ({"detections": float("inf")}, "detections inf"),
        ({"margin": float("nan")}, "margin nan"),
        ({"size": 33, "storage": Storage("mp4")}, "an even size"),
        ({"shortest": 20.0}, "shortest <= longest"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        ClipSettings(**{**vars(SETTINGS), **changes})
    assert message in str(caught.value)


def test_a_folder_of_sound_that_fits_no_video_is_refused(tmp_path: Path) -> None:
    film(tmp_path / "videos/a.mp4", [face()] * 5)
    (tmp_path / "sound").mkdir()
    with pytest.raises(DataError, match="the sound of none of 1 videos"):
        pack_videos(tmp_path / "videos", tmp_path / "out", sound=tmp_path / "sound", workers=0)
