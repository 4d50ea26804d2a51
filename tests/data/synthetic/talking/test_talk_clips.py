"""Talking faces as a folder of videos: what is in the files, splits, going on after a stop, the command."""

import csv
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from facemae.data.ingest.labels import read_labels
from facemae.data.synth_command import register
from facemae.data.synthetic.talking import Film, sample_talk
from facemae.data.synthetic.talking.dataset import make_clips
from facemae.data.synthetic.talking.sheet import write_sheet
from facemae.data.synthetic.talking.video import write_clip
from facemae.data.synthetic.talking.worker import TalkSettings
from facemae.errors import DataError, StorageError, UsageError

av = pytest.importorskip("av")

SMALL = TalkSettings(count=8, identities=4, size=48, seconds=0.8, kinds={"talk": 0.6, "silent": 0.4}, late=0.4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("talking") / "clips"
    make_clips(out, SMALL, workers=1)
    return out


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def decoded(path: Path) -> tuple[list[float], np.ndarray, np.ndarray | None]:
    """Times and pictures of the frames, and the sound from time 0 on."""
    with av.open(str(path)) as file:
        frames = [(float(frame.time or 0), frame.to_ndarray(format="rgb24")) for frame in file.decode(video=0)]
    with av.open(str(path)) as file:
        parts = [(part.time, part.to_ndarray()) for part in file.decode(audio=0)] if file.streams.audio else []
    sound = np.concatenate([part for _, part in parts], axis=1)[0] / 32767 if parts else None
    assert not parts or parts[0][0] == 0
    return [time for time, _ in frames], np.stack([picture for _, picture in frames]), sound


def test_a_file_holds_the_clips_frames_and_its_sound_to_the_sample(folder: Path) -> None:
    spoken = set()
    for number in range(SMALL.count):
        path, talk = SMALL.clip(number)
        times, pictures, sound = decoded(folder / path)
        assert times == pytest.approx([k / 25 for k in range(20)])
        drawn = np.stack(list(Film(talk, 48).frames(25)))
        assert np.abs(pictures.astype(float) - drawn).mean() < 8
        nearest = [np.abs(pictures[7].astype(float) - frame).mean() for frame in drawn]
        assert nearest[7] <= min(nearest) + 0.01
        spoken.add(talk.speech is not None)
        if talk.speech is None:
            assert sound is None
        else:
            assert sound is not None
            assert sound.shape == (12800,)
            assert np.abs(sound - talk.wave(16000)).max() < 1e-4
    assert spoken == {True, False}


def test_the_table_lists_every_clip_with_its_labels(folder: Path) -> None:
    table = rows(folder)
    assert len(table) == 8
    for number, row in enumerate(table):
        path, talk = SMALL.clip(number)
        assert row["path"] == path
        labels = talk.labels(25)
        for name, value in labels.items():
            assert row[name] == str(value)
        known = {name for name, value in row.items() if value} - {"path", "subject", "split", "identity_split"}
        assert known == set(labels)
    listed = read_labels(folder / "labels.csv").rows
    assert [row.path for row in listed] == [row["path"] for row in table]
    assert {row.split for row in listed} == {"train", "valid", "test"}
    assert listed[0].labels["intensity_AU12"] == SMALL.clip(0)[1].labels()["intensity_AU12"]


def test_splits_share_no_person(folder: Path) -> None:
    splits: dict[str, set[str]] = {}
    for row in rows(folder):
        splits.setdefault(row["subject"], set()).add(row["split"])
        assert bool(row["identity_split"]) == (row["split"] == "train")
    assert len(splits) == 4
    assert all(len(names) == 1 for names in splits.values())


def test_a_share_of_the_sounds_is_late() -> None:
    settings = TalkSettings(count=300, identities=20, kinds={"talk": 0.5, "micro": 0.5}, late=0.5)
    labels = [settings.clip(number)[1].labels() for number in range(300)]
    talking = [row for row in labels if row["kind"] == "talk"]
    assert 110 < len(talking) < 190
    late = [abs(float(row["sound_lag"])) for row in talking if row["synchronous"] == "no"]
    assert 0.3 < len(late) / len(talking) < 0.7
    assert 0.3 <= min(late) <= max(late) <= 0.8


def test_a_stopped_call_goes_on_and_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """In two processes instead of one, with a file missing and one half-written, as a kill leaves them."""
    out = tmp_path / "clips"
    assert make_clips(out, SMALL, workers=2).drawn == 8
    missing, kept = out / SMALL.clip(3)[0], out / SMALL.clip(0)[0]
    whole, before = missing.read_bytes(), kept.stat().st_mtime_ns
    missing.with_name(f".0123.tmp.{missing.name}").write_bytes(whole[:500])
    missing.unlink()
    (out / "labels.csv").rename(out / ".4567.tmp.labels.csv")
    report = make_clips(out, SMALL, workers=1)
    assert (report.clips, report.drawn, report.frames) == (8, 1, 160)
    assert kept.stat().st_mtime_ns == before
    made = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert made == {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_other_settings_and_other_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    other = TalkSettings(count=3, identities=3, size=32, seconds=0.8, seed=1)
    with pytest.raises(DataError, match="other settings") as raised:
        make_clips(folder, other, workers=1)
    assert "--overwrite" in str(raised.value)
    assert len(rows(folder)) == 8
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="not a folder of procedural clips"):
        make_clips(tmp_path, other, workers=1, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(DataError, match=r"letter\.txt is a file"):
        make_clips(tmp_path / "letter.txt", other, workers=1)


def test_overwrite_replaces_clips_of_other_settings(tmp_path: Path) -> None:
    out = tmp_path / "clips"
    make_clips(out, TalkSettings(count=4, identities=4, size=32, seconds=0.8), workers=1)
    make_clips(out, TalkSettings(count=3, identities=3, size=32, seconds=0.8), workers=1, overwrite=True)
    assert len(rows(out)) == 3
    assert len(list(out.rglob("*.mov"))) == 3


def test_what_is_not_a_clip_outlives_overwriting(tmp_path: Path) -> None:
    make_clips(tmp_path, TalkSettings(count=3, identities=3, size=32, seconds=0.8), workers=1)
    (tmp_path / "letter.txt").write_text("dear")
    other = TalkSettings(count=3, identities=3, size=32, seconds=0.8, seed=1)
    make_clips(tmp_path, other, workers=1, overwrite=True)
    assert (tmp_path / "letter.txt").read_text() == "dear"
    assert [row["emotion"] for row in rows(tmp_path)] == [other.clip(k)[1].labels()["emotion"] for k in range(3)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 3, "identities": 4}, "3 clips of 4 identities"),
        ({"size": 63}, "size 63"),
        ({"fps": 0.5}, "0.5 frames a second"),
        ({"kinds": {"song": 1.0}}, "song"),
        ({"kinds": {"talk": 0.0}}, "kinds"),
        ({"late": 1.5}, "1.5"),
    ],
)
def test_wrong_settings_are_named(wrong: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(UsageError, match=message) as raised:
        TalkSettings(**wrong)
    assert raised.value.expected


def test_silence_on_demand_and_other_rates(tmp_path: Path) -> None:
    talk = sample_talk(0, 0, 0, kind="silent", seconds=1)
    write_clip(tmp_path / "silent.mov", talk, size=32, fps=29.97, silent_track=True)
    times, _, sound = decoded(tmp_path / "silent.mov")
    assert sound is not None
    assert len(sound) == 16000
    assert not sound.any()
    assert times == pytest.approx([k * 1001 / 30000 for k in range(30)], abs=1e-6)
    with av.open(str(tmp_path / "silent.mov")) as file:
        assert file.streams.video[0].average_rate == Fraction(30000, 1001)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        write_clip(tmp_path / "file" / "clip.mov", sample_talk(0, 0, 0, seconds=0.8), size=32)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("kind", ["talk", "micro"])
def test_a_sheet_shows_something(kind: str, tmp_path: Path) -> None:
    import cv2

    write_sheet(tmp_path / "sheet.png", sample_talk(0, 1, 0, kind=kind, seconds=1), size=48)  # type: ignore[arg-type]
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    assert picture is not None
    assert picture.shape[1] > 800
    assert picture.std() > 30


def test_the_command(tmp_path: Path) -> None:
    app = typer.Typer()
    register(app)
    out = tmp_path / "clips"
    arguments = [str(out), "--clips", "3", "--identities", "3", "--size", "32", "--seconds", "0.8", "--workers", "1"]
    result = CliRunner().invoke(app, [*arguments, "--sheet", str(tmp_path / "sheet.png"), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["clips"], report["drawn"], report["frames"]) == (3, 3, 60)
    assert len(rows(out)) == 3
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    again = CliRunner().invoke(app, arguments)
    assert "3 clips of 3 identities, 3 of which were there" in again.stdout
    assert f"next: facemae data pack {out} --out SHARDS" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "found", "told"),
    [
        (["--late", "0.5"], "--late for faces", "add --clips N"),
        (["--fps", "25", "--seconds", "1"], "--seconds, --fps for faces", "add --clips N"),
        (["--clips", "3", "--count", "9", "--shard-size", "9"], "--count, --shard-size for clips", "--clips N says"),
    ],
)
def test_options_that_would_do_nothing_are_refused(tmp_path: Path, arguments: list[str], found: str, told: str) -> None:
    app = typer.Typer()
    register(app)
    result = CliRunner().invoke(app, [str(tmp_path / "faces"), *arguments])
    assert isinstance(result.exception, UsageError)
    assert result.exception.found == found
    assert told in str(result.exception)
    assert not (tmp_path / "faces").exists()
