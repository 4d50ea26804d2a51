"""`facemae extract` of videos, sounds and packed clips: the same features either way, and bad input named."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from facemae.data.clips.pack import pack_videos
from facemae.data.clips.settings import ClipSettings
from facemae.data.index import ShardIndex, build_index
from facemae.data.reader import ShardReader
from facemae.data.schema import CropRecipe
from facemae.data.shard_writer import ShardWriter
from facemae.errors import DataError, UsageError
from facemae.features.clip_extraction import extract_clips, plan_clips
from facemae.features.clip_listing import FilesPart, kind_of, open_clips
from facemae.features.extractor import load
from facemae.features.sources import open_paths
from facemae.features.writers import ClipFeatureFile, read_clip_features, read_features
from facemae.sound.store import encode
from facemae.video.store import Storage, write_clip
from tests.data.clips.films import brighter, face, film, nobody
from tests.features.clip_models import RATE, crop_recipe, save, voice
from tests.features.conftest import picture, png
from tests.features.test_extract import extract

JPEG = 0.02
"""Largest difference of a feature between a video and its packed clip, of features of about one: what JPEG changes."""


@pytest.fixture(scope="module")
def run(clip_run: Path) -> Path:
    return clip_run


def frames(count: int) -> list[np.ndarray]:
    """A face in light that changes."""
    return [brighter(face(), 2 * k) for k in range(count)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with sound, one without, one whose sound lies beside it, in a subfolder."""
    folder = tmp_path_factory.mktemp("videos")
    film(folder / "a.mp4", frames(40), wave=voice(1.6))
    film(folder / "b.mkv", frames(20))
    film(folder / "more/c.mp4", frames(30))
    soundfile.write(folder / "more/c.wav", voice(1.2), RATE)
    return folder


@pytest.fixture(scope="module")
def packed(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "shards"
    settings = ClipSettings(size=48, detections=5, storage=Storage(quality=100, chroma="444"))
    pack_videos(videos, out, settings=settings, workers=0)
    return out


def features(path: Path, run: Path, out: Path, *more: str | Path) -> ClipFeatureFile:
    extract(path, "--model", run, "--out", out, "--device", "cpu", *more)
    return read_clip_features(out)


@pytest.mark.parametrize("per", ["window", "step"])
def test_a_video_and_its_packed_clip_have_the_same_features(
    tmp_path: Path, run: Path, videos: Path, packed: Path, per: str
) -> None:
    raw = features(videos, run, tmp_path / "raw.parquet", "--per", per)
    stored = features(packed, run, tmp_path / "stored.npz", "--per", per)
    # Shards are in drawn order; a row is known by its video and its time.
    places = [list(zip(file.columns["source"], file.columns["start"].round(3), strict=True)) for file in (raw, stored)]
    assert sorted(places[0]) == sorted(places[1])
    order = [places[1].index(place) for place in places[0]]
    for name in ("person", "end", "partial", "real", "has_video", "has_sound"):
        np.testing.assert_allclose(stored.columns[name][order].astype(float), raw.columns[name].astype(float))
    np.testing.assert_allclose(stored.columns["video"][order], raw.columns["video"], atol=JPEG)
    np.testing.assert_allclose(stored.columns["sound"][order], raw.columns["sound"], atol=1e-4)
    spread = raw.columns["video"].std(axis=0).max()
    assert spread > 3 * JPEG, "features that are all alike would show nothing"
    heard = {
        str(source): bool(has) for source, has in zip(raw.columns["source"], raw.columns["has_sound"], strict=True)
    }
    assert heard == {"a.mp4": True, "b.mkv": False, "more/c.mp4": True}


def test_rows_have_times_on_the_videos_clock_and_papers(tmp_path: Path, run: Path, videos: Path) -> None:
    found = features(videos / "a.mp4", run, tmp_path / "f.npz")
    columns = found.columns
    assert columns["start"].round(2).tolist() == [0.0, 0.64, 1.28]
    assert columns["end"].round(2).tolist() == [0.64, 1.28, 1.6]
    assert columns["partial"].tolist() == [False, False, True]
    assert columns["real"].tolist() == [1.0, 1.0, 0.5]
    assert columns["person"].tolist() == [0, 0, 0]
    assert set(columns["source"]) == {str(videos / "a.mp4")}
    assert columns["keys"][1] == f"{videos / 'a.mp4'}#0.0@0.640"
    meta = found.meta
    assert (meta["kind"], meta["per"], meta["clips"], meta["rows"]) == ("clip features", "window", 1, 3)
    assert meta["windows"]["seconds"] == pytest.approx(0.64)
    assert meta["sound"]["mel"]["mels"] == 32
    assert meta["sources"][0]["crop"] == crop_recipe().model_dump()
    assert meta["warnings"] == []
    with pytest.raises(UsageError, match="read_clip_features"):
        read_features(tmp_path / "f.npz")


def test_a_packed_sample_gives_its_features_alone(tmp_path: Path, run: Path, packed: Path) -> None:
    """The call that probes of packed clips use."""
    stored = features(packed, run, tmp_path / "f.npz")
    reader = ShardReader(ShardIndex.open(packed))
    extractor = load(run, device="cpu").clips()
    for number in range(len(reader.index)):
        sample = reader.read(number)
        rows = extractor.of_sample(sample)
        here = stored.columns["clip"] == sample.key
        np.testing.assert_allclose(rows.video, stored.columns["video"][here], atol=1e-5)
        assert rows.start.tolist() == stored.columns["start"][here].tolist()


def test_names_of_several_paths_are_told_apart(tmp_path: Path, run: Path, videos: Path, packed: Path) -> None:
    copy = Path(shutil.copytree(packed, tmp_path / "copy"))
    out = tmp_path / "f.npz"
    extract(packed, copy, videos / "a.mp4", "--model", run, "--out", out, "--device", "cpu")
    columns = read_clip_features(out).columns
    assert len(set(columns["keys"])) == len(columns["keys"])
    sources = {str(source) for source in columns["source"]}
    names = ("a.mp4", "b.mkv", "more/c.mp4")
    assert sources == {*(f"{folder}/{name}" for folder in (packed, copy) for name in names), str(videos / "a.mp4")}


def test_what_breaks_in_the_middle_keeps_its_rows(tmp_path: Path, run: Path) -> None:
    """A JPEG of a packed clip that does not decode: windows before it stay, and the sample is named."""
    written = io.BytesIO()
    facts = write_clip(frames(48), written, fps=25, storage=Storage())
    data = bytearray(written.getvalue())
    assert facts.sizes is not None
    start = sum(facts.sizes[:40])
    data[start : start + 300] = bytes(300)
    clip = {"fps": 25.0, "frames": 48, "sizes": list(facts.sizes), "start_s": 2.0, "person": 3}
    good = written.getvalue()
    (tmp_path / "set").mkdir()
    writer = ShardWriter(tmp_path / "set", 10)
    writer.write("broken", {"mjpeg": bytes(data), "json": json.dumps({"clip": clip, "path": "x.mp4"}).encode()})
    writer.write("good", {"mjpeg": good, "json": json.dumps({"clip": clip, "path": "y.mp4"}).encode()})
    writer.close()
    build_index(tmp_path / "set")
    found = features(tmp_path / "set", run, tmp_path / "f.npz")
    (skip,) = found.meta["skipped"]
    assert skip["key"] == "broken"
    assert skip["reason"].startswith("from 2.64 s on: ")
    here = found.columns["clip"] == "broken"
    assert found.columns["start"][here].round(2).tolist() == [2.0, 2.64]
    assert found.columns["person"].tolist() == [3] * 5


def test_a_file_gives_its_features_in_python(tmp_path: Path, run: Path, videos: Path) -> None:
    said: list[str] = []
    extractor = load(run, device="cpu", batch_size=8).clips()
    parts = list(extractor.of_file(videos / "a.mp4", sound=videos / "more/c.wav", note=said.append))
    assert [len(part.keys) for part in parts] == [1, 1, 1]
    stored = features(videos / "a.mp4", run, tmp_path / "f.npz")
    np.testing.assert_allclose(np.concatenate([part.video for part in parts]), stored.columns["video"], atol=1e-5)
    assert said == []
    (alone,) = load(run, device="cpu").clips().of_file(videos / "more/c.wav")
    assert not alone.has_video.any()
    assert alone.person.tolist() == [-1, -1]
    unknown = save(tmp_path / "unknown", crop=CropRecipe())
    next(load(unknown, device="cpu").clips().of_file(videos / "b.mkv", note=said.append))
    assert said[0].startswith("how the model's faces were cut is unknown in size, fps, margin, smoothing, detector")
    with pytest.raises(DataError, match="no video file"):
        list(extractor.of_file(Path(__file__)))


def test_several_people_and_stretches_are_told_apart(tmp_path: Path, run: Path) -> None:
    both = np.concatenate([face(0), face(1)], axis=1)
    film(tmp_path / "v/two.mp4", [both] * 30)
    found = features(tmp_path / "v", run, tmp_path / "all.npz", "--people", "all")
    assert sorted(set(found.columns["person"].tolist())) == [0, 1]
    assert set(features(tmp_path / "v", run, tmp_path / "main.npz").columns["person"].tolist()) == {0}
    empty = np.pad(nobody()[:128, :128], ((0, 0), (0, 0), (0, 0)))
    film(tmp_path / "w/gap.mp4", [*frames(25), *[empty] * 40, *frames(25)], wave=voice(3.6))
    gap = features(tmp_path / "w", run, tmp_path / "gap.npz").columns
    assert sorted(set(gap["clip"])) == ["gap.mp4#0.0", "gap.mp4#0.1"]
    assert not ((gap["start"] > 1.1) & (gap["end"] < 2.5)).any()
    second = gap["start"][gap["clip"] == "gap.mp4#0.1"]
    assert second[0] == pytest.approx(2.6, abs=0.25)


def test_bad_input_is_counted_and_named(tmp_path: Path, run: Path, deaf: Path) -> None:
    folder = tmp_path / "bad"
    whole = film(folder / "1 good.avi", frames(30), container="mp4")
    film(folder / "2 nobody.mp4", [nobody()] * 20)
    film(folder / "3 broken.mkv", frames(60))
    data = (folder / "3 broken.mkv").read_bytes()
    (folder / "3 broken.mkv").write_bytes(data[: len(data) * 2 // 3])
    (folder / "4 text.mp4").write_bytes(b"this is no video\n" * 100)
    (folder / "5 empty.mov").write_bytes(b"")
    film(folder / "6 short.mp4", frames(14))
    film(folder / "7 silent.mp4", frames(30), wave=np.zeros(RATE, np.float32))
    (folder / "notes.txt").write_text("x")
    assert whole.is_file()
    result = extract(folder, "--model", run, "--out", tmp_path / "f.npz", "--json", "--device", "cpu")
    report = json.loads(result.stdout)
    skipped = {skip["key"]: skip["reason"] for skip in report["skipped"]}
    assert set(skipped) == {"2 nobody.mp4", "4 text.mp4", "5 empty.mov"}
    assert "no face in" in skipped["2 nobody.mp4"]
    assert "no video file" in skipped["4 text.mp4"]
    assert "zero bytes" in skipped["5 empty.mov"]
    assert (report["clips"], result.exit_code) == (4, 0)
    notes = {(note["key"], note["note"]) for note in report["notes"]}
    assert any(key == "3 broken.mkv" and "ends at" in text for key, text in notes)
    assert ("6 short.mp4", "no sound") in notes
    assert ("7 silent.mp4", "a silent track, which counts as none") in notes
    columns = read_clip_features(tmp_path / "f.npz").columns
    assert set(columns["source"]) == {"1 good.avi", "3 broken.mkv", "6 short.mp4", "7 silent.mp4"}
    assert not columns["has_sound"].any()
    short = columns["source"] == "6 short.mp4"
    assert columns["real"][short].tolist() == [pytest.approx(0.56 / 0.64)]
    assert report["meta"]["sources"][0]["other_files"] == {".txt": 1}
    text = extract(folder, "--model", deaf, "--out", tmp_path / "g.npz", "--device", "cpu").stdout
    assert "3 clips were left out" in text
    partial = int(columns["partial"].sum())
    assert report["partial"] == partial > 0
    assert f"wrote {len(columns['partial'])} rows ({partial} of them of partial windows) of 4 clips" in text
    assert "2 nobody.mp4" in text


def test_a_video_without_a_face_has_features_of_its_sound_alone(tmp_path: Path, run: Path, deaf: Path) -> None:
    film(tmp_path / "v/nobody.mp4", [nobody()] * 32, wave=voice(1.28))
    found = features(tmp_path / "v", run, tmp_path / "f.npz")
    assert not found.columns["has_video"].any()
    assert found.columns["has_sound"].all()
    assert found.columns["person"].tolist() == [-1] * len(found.columns["keys"])
    assert any("no face: features of its sound alone" in note["note"] for note in found.meta["notes"])
    with pytest.raises(DataError, match=r"none of 1 clips gives features; the first: .*no face in"):
        features(tmp_path / "v", deaf, tmp_path / "g.npz")
    assert not (tmp_path / "g.npz").exists()


def test_sound_files_have_features_of_their_own(tmp_path: Path, run: Path, deaf: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "a.flac").write_bytes(encode(voice(1.6), RATE))
    soundfile.write(folder / "b.flac", voice(0.5, 8000), 8000)
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    # The name says video, the content sound.
    soundfile.write(folder / "x.wav", voice(0.64), RATE)
    (folder / "x.wav").rename(folder / "wrong.mp4")
    found = features(folder, run, tmp_path / "f.npz")
    columns = found.columns
    assert set(columns["source"]) == {"a.flac", "b.flac", "wrong.mp4"}
    assert [skip["key"] for skip in found.meta["skipped"]] == ["silent.wav"]
    assert "a silent track" in found.meta["skipped"][0]["reason"]
    (note,) = [note["note"] for note in found.meta["notes"] if note["key"] == "wrong.mp4"]
    assert "features of its sound alone" in note
    here = columns["source"] == "a.flac"
    array = load(run, device="cpu").clips().of_arrays(None, 25, wave=voice(1.6), rate=RATE)
    assert array.sound is not None
    np.testing.assert_allclose(columns["sound"][here], array.sound, atol=1e-4)
    assert columns["partial"][here].tolist() == [False, False, True]
    (folder / "wrong.mp4").unlink()
    with pytest.raises(UsageError, match="hears nothing"):
        features(folder, deaf, tmp_path / "g.npz")


def test_a_sound_of_another_length_is_said(tmp_path: Path, run: Path) -> None:
    film(tmp_path / "v/a.mp4", frames(25), wave=voice(1.0))
    (tmp_path / "s").mkdir()
    soundfile.write(tmp_path / "s/a.wav", voice(3.0), RATE)
    found = features(tmp_path / "v", run, tmp_path / "f.npz", "--sound", tmp_path / "s")
    assert any("a.wav lasts 3.00 s, the video 1.00 s" in note["note"] for note in found.meta["notes"])
    own = features(tmp_path / "v", run, tmp_path / "g.npz")
    assert own.meta["notes"] == []
    (tmp_path / "v/a.wav").write_bytes(b"no sound at all")
    instead = features(tmp_path / "v", run, tmp_path / "h.npz")
    (note,) = [note["note"] for note in instead.meta["notes"]]
    assert "the video's own sound is taken" in note
    np.testing.assert_allclose(instead.columns["sound"], own.columns["sound"], atol=1e-6)


def test_how_a_model_was_trained_is_unknown_or_other(tmp_path: Path, videos: Path, packed: Path) -> None:
    unknown = save(tmp_path / "unknown", sound=False, crop=crop_recipe().model_copy(update={"margin": "unknown"}))
    result = extract(videos / "b.mkv", "--model", unknown, "--out", tmp_path / "f.npz", "--device", "cpu")
    assert "warning: how the model's faces were cut is unknown in margin" in result.stderr
    other = save(tmp_path / "other", crop=crop_recipe(margin=0.3, size=64, fps=12.5, sound_rate=8000))
    result = extract(packed, "--model", other, "--out", tmp_path / "g.npz", "--device", "cpu")
    assert "margin is '0.1 of the longer side" in result.stderr
    assert "faces of 48 pixels are scaled to the model's 32" in result.stdout
    # Of a video they are cut as in training.
    meta = features(videos / "b.mkv", other, tmp_path / "h.npz").meta
    assert meta["sources"][0]["crop"]["margin"].startswith("0.3 of")
    assert (meta["sources"][0]["crop"]["size"], meta["warnings"]) == (64, [])
    assert "sound of 8000 Hz is resampled to the model's 16000" in meta["converted"]


def test_what_paths_hold(tmp_path: Path, videos: Path, packed: Path, shards: Path) -> None:
    assert kind_of([videos]) == kind_of([packed, videos / "a.mp4"]) == "videos"
    assert kind_of([shards]) == "images"
    (tmp_path / "both").mkdir()
    (tmp_path / "both/x.png").write_bytes(png(picture(0)))
    (tmp_path / "both/x.mp4").write_bytes(b"")
    with pytest.raises(UsageError, match="holds images and videos"):
        kind_of([tmp_path / "both"])
    assert kind_of([tmp_path / "both"], "images") == "images"
    (part,) = open_clips([videos])
    assert isinstance(part, FilesPart)
    assert [(file.name, file.sound) for file in part.files] == [
        ("a.mp4", None),
        ("b.mkv", None),
        ("more/c.mp4", videos / "more/c.wav"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["VIDEOS", "--workers", "2"], "--workers with videos or clips"),
        (["PICTURE", "--window", "1"], "--window with images"),
        (["VIDEOS", "--where", "split=test"], "facemae data pack"),
        (["VIDEOS", "VIDEOS"], "given twice"),
        (["PACKED", "--where", "split=none"], "no sample|no video"),
        (["VIDEOS", "--detector", "yunnet"], "did you mean 'yunet'"),
        (["NOTHING", "--files", "videos"], "no video, sound or clip in"),
        (["TEXT", "--files", "videos"], "no ending of a video or a sound"),
    ],
)
def test_wrong_usage_is_refused(
    tmp_path: Path, run: Path, videos: Path, packed: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "x.png").write_bytes(png(picture(0)))
    (tmp_path / "x.txt").write_text("x")
    places = {
        "VIDEOS": videos,
        "PACKED": packed,
        "NOTHING": tmp_path / "nothing",
        "PICTURE": tmp_path / "x.png",
        "TEXT": tmp_path / "x.txt",
    }
    given = [str(places.get(argument, argument)) for argument in arguments]
    with pytest.raises(UsageError, match=message):
        extract(*given, "--model", run, "--out", tmp_path / "f.npz", "--device", "cpu")


@pytest.mark.parametrize("open_all", [open_clips, open_paths])
def test_no_path_is_refused(open_all: Callable[..., object]) -> None:
    with pytest.raises(UsageError, match="no path is given") as caught:
        open_all([])
    assert "files, folders or shard sets" in str(caught.value)


def test_dry_run_and_progress(tmp_path: Path, run: Path, videos: Path) -> None:
    out = tmp_path / "f.npz"
    plan = json.loads(extract(videos, "--model", run, "--out", out, "--dry-run", "--json").stdout)
    assert (plan["clips"], plan["video_shape"], plan["sound_shape"]) == (3, [192], [192])
    assert "would write features of 3 clips" in extract(videos, "--model", run, "--out", out, "--dry-run").stdout
    assert not out.exists()
    extractor = load(run, device="cpu").clips()
    said: list[tuple[int, int]] = []
    extract_clips(extractor, open_clips([videos]), out, progress=lambda *done: said.append(done))
    assert said == [(1, 3), (2, 3), (3, 3)]
    said.clear()
    parts = open_clips([videos / "a.mp4"])
    plan = plan_clips(extractor, parts)
    extract_clips(extractor, parts, out, plan=plan, overwrite=True, progress=lambda *done: said.append(done))
    assert said[-1] == (1, 2)
