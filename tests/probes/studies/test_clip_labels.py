"""The study of labels that need motion or sound, on made clips that get brighter or darker, loud or quiet."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from facemae.errors import UsageError
from facemae.rng import generator
from facemae.sound import store
from facemae.video.store import Storage, write_clip
from facemae_probes.studies.clip_labels import Answer, Asked, answer, compare, compare_two, run_study
from facemae_probes.studies.clip_labels_data import open_clips, parts
from facemae_probes.studies.commands import app
from facemae_probes.tasks.columns import Columns, read_columns
from tests.data.test_loader_clips import write

SIDE, FPS, RATE, SECONDS = 16, 12.5, 8000, 2.56
TINY = [
    "encoder={name: test_vit, image_size: 16, patch_size: 8, channels: 1, tubelet: 2, frames: 16, class_token: false}",
    "sound_encoder={name: test_vit, frames: 64, mels: 16, patch_size: 16, class_token: false}",
    "fusion.depth=1",
    "fusion.heads=2",
    "sounds.voice.frames=64",
    "sounds.voice.mel={rate: 8000, mels: 16}",
    "views.main.mask.ratio=0.75",
    "sounds.voice.mask.ratio=0.5",
    "objectives.0.decoder={kind: joint, width: 16, depth: 1, heads: 2, embed_bias: false}",
    "objectives.1.decoder={kind: joint, width: 16, depth: 1, heads: 2, embed_bias: false}",
]
SHORT = [
    *("optim.batch_size=4", "optim.total=8", "optim.ema=null", "data.lanes=2", "log={loggers: [], keys: true}"),
    "efficiency={precision: fp32, workers: 0, threads: 1}",
]
STILL = ["encoder={name: test_vit, image_size: 16, patch_size: 8, channels: 1}", "objectives.0.decoder.width=16"]


def members(number: int) -> dict[str, bytes]:
    rng = generator(4, "made-clip", number)
    rising, loud = rng.random() < 0.5, rng.random() < 0.5
    count = round(SECONDS * FPS)
    ramp = np.linspace(60, 200, count)[:: 1 if rising else -1]
    frames = [np.full((SIDE, SIDE, 3), round(level), np.uint8) for level in ramp]
    target = io.BytesIO()
    written = write_clip(frames, target, fps=FPS, storage=Storage("mjpeg", quality=95))
    labels = {"circling": "clockwise" if rising else "anticlockwise"}
    labels |= {} if number % 5 == 0 else {"register": "high" if loud else "low"}
    meta = {
        "clip": {"fps": FPS, "frames": count, "sizes": list(written.sizes or ())},
        "path": f"{number}.mov",
        "subject": f"id{number}",
        "split": ("train", "train", "valid", "test")[number % 4],
        "labels": labels,
    }
    found = {"mjpeg": target.getvalue(), "json": json.dumps(meta).encode()}
    if number % 5 == 0:
        return found
    wave = rng.standard_normal(round(SECONDS * RATE)) * (0.2 if loud else 0.002)
    return found | {"flac": store.encode(wave.astype(np.float32), RATE)}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = {f"clip{number:02d}": members(number) for number in range(40)}
    return write(tmp_path_factory.mktemp("labels") / "shards", made)


def test_a_probe_answers_what_its_features_know_and_nothing_else(shards: Path) -> None:
    columns = read_columns(shards)
    rising = np.array([text == "clockwise" for text in columns.text("circling")], dtype=np.float32)
    noise = generator(0, "noise").standard_normal((40, 3), dtype=np.float32)
    found = answer({-1: np.column_stack([rising, noise])}, columns, ["circling", "register"])
    assert found.hit.shape == (10, 2)
    assert (found.hit[:, 0] == 1).all()
    missing = [
        text is None
        for text, split in zip(columns.text("register"), columns.text("split"), strict=True)
        if split == "test"
    ]
    assert np.isnan(found.hit[:, 1]).tolist() == missing
    assert 0 < sum(missing) < 10


def test_a_class_that_did_not_train_is_a_miss() -> None:
    values = {"split": ["train"] * 4 + ["valid"] * 2 + ["test"] * 3, "tempo": [*"abab", *"ab", *"abc"]}
    columns = Columns(np.arange(9), {name: list(texts) for name, texts in values.items()})
    features = np.array([[ord(text)] for text in values["tempo"]], dtype=np.float32)
    assert answer({-1: features}, columns, ["tempo"]).hit[:, 0].tolist() == [1, 1, 0]


def test_the_block_is_chosen_on_valid_and_what_is_missing_is_the_mean_of_what_trains() -> None:
    values = {"split": ["train"] * 6 + ["valid"] * 3 + ["test"] * 3, "tempo": [*"ababab", *"abb", *"abb"]}
    columns = Columns(np.arange(12), {name: list(texts) for name, texts in values.items()})
    told = np.array([[float(text == "b")] for text in values["tempo"]], dtype=np.float32)
    tested_only = np.where(np.arange(12)[:, None] < 9, 0.5, told).astype(np.float32)
    found = answer({0: tested_only, 1: told}, columns, ["tempo"])
    assert found.chosen["tempo"][0] == 1
    assert found.hit[:, 0].tolist() == [1, 1, 1]
    # The last is missing. Most that train are a's, so it is taken for one, whatever the others that are tested are.
    values["tempo"] = [*"aabaab", *"aab", *"abb"]
    columns = Columns(np.arange(12), {name: list(texts) for name, texts in values.items()})
    for outlier in (1.0, 1e6):
        held = np.array([[float(text == "b")] for text in values["tempo"]], dtype=np.float32)
        held[[10, 11]] = [[outlier], [np.nan]]
        assert answer({0: held}, columns, ["tempo"]).hit[:, 0].tolist() == [1, 1, 0]


def test_intervals_draw_persons_and_pairs_share_the_draws() -> None:
    one = Answer(np.array([[1, 1.0, 0], [1, np.nan, 0], [0, 1, 1], [0, 0, 1]]), {})
    other = Answer(one.hit - np.array([[0, 0, 0.0]]), {})
    units, labels = np.array(["a", "a", "b", "b"]), ["circling", "register", "emotion"]
    line = compare({"one": one}, labels, units, 0)["one"]
    assert (line["circling"]["value"], line["circling"]["low"], line["circling"]["high"]) == (0.5, 0.0, 1.0)
    assert line["register"]["value"] == pytest.approx(2 / 3)
    assert line["register"]["clips"] == 3
    # Emotion, which a frame tells, is no part of the mean.
    assert line["mean of motion and sound"]["value"] == pytest.approx((0.5 + 2 / 3) / 2)
    same = compare_two(one, other, labels, units, 0)["mean of motion and sound"]
    assert (same["value"], same["low"], same["high"]) == (0, 0, 0)


def test_a_label_that_nobody_can_learn_or_be_asked_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    def changed(number: int, **meta: object) -> dict[str, bytes]:
        made = members(number)
        return made | {"json": json.dumps({**json.loads(made["json"]), **meta}).encode()}

    same = {f"c{number}": changed(number, labels={"tempo": "sudden"}) for number in range(4)}
    with pytest.raises(UsageError, match=r"label 'tempo' has 1 values in .* split 'train'\n  expected: at least 2"):
        run_study(write(tmp_path / "same", same), tmp_path / "out", Asked())
    unasked = {f"c{number}": changed(number, **({"labels": {}} if number % 4 == 3 else {})) for number in range(12)}
    with pytest.raises(UsageError, match=r"label 'circling' has 0 values in the clips of split 'test'"):
        run_study(write(tmp_path / "unasked", unasked), tmp_path / "out", Asked())
    untold = {f"c{number}": changed(number, split="train") for number in range(4)}
    with pytest.raises(UsageError, match=r"no clips of split 'valid' in untold"):
        run_study(write(tmp_path / "untold", untold), tmp_path / "out", Asked())
    assert not (tmp_path / "out").exists()


def test_another_set_is_tested_instead_all_of_it_and_never_the_same_clips(shards: Path, tmp_path: Path) -> None:
    fresh = write(tmp_path / "fresh", {f"clip{number}": members(number) for number in range(40, 46)})
    clips = open_clips(shards, fresh)
    assert [len(part) for part in parts(clips.columns)] == [20, 10, 6]
    assert [(folder, len(columns)) for folder, columns in clips.sets] == [(shards, 30), (fresh, 6)]
    tested = clips.columns.take(parts(clips.columns)[2])
    assert sorted(str(name) for name in tested.text("subject")) == [f"id{number}" for number in range(40, 46)]
    with pytest.raises(UsageError, match=r"the same clips train and are tested: shards\n.*\n.*--seed S"):
        open_clips(shards, shards)


def test_clips_without_such_labels_are_refused(tmp_path: Path) -> None:
    made = members(1)
    made["json"] = json.dumps({**json.loads(made["json"]), "labels": {"mood": "calm"}}).encode()
    with pytest.raises(UsageError, match=r"without labels\n.*circling, tempo, .*\n.*facemae data synth OUT --clips N"):
        run_study(write(tmp_path / "bare", {"a": made}), tmp_path / "out", Asked())


def test_one_command_trains_extracts_probes_and_reports(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    still = [word for text in (*STILL, *SHORT) for word in ("--still-set", text)]
    fresh = write(tmp_path / "fresh", {f"clip{number}": members(number) for number in range(40, 56)})
    arguments = ["clip-labels", "--data", str(shards), "--out", str(out), "--json", "--layers=-2,-1"]
    arguments += ["--test", str(fresh)]
    arguments += [*still, *TINY, *SHORT]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)
    assert set(results["lines"]) == {
        "hicmae_tiny", "hicmae_tiny, frames alone", "hicmae_tiny, sound alone", "fmae_tiny",
        "hicmae_tiny, untrained", "hicmae_tiny, untrained, frames alone", "hicmae_tiny, untrained, sound alone",
    }  # fmt: skip
    assert set(results["against"]) == {"hicmae_tiny, untrained", "fmae_tiny"}
    assert results["data"]["clips"] == {"train": 20, "valid": 10, "test": 16}
    assert results["data"]["test"]["name"] == "fresh"
    assert list(results["labels"]) == ["circling", "register"]
    chosen = results["lines"]["hicmae_tiny, sound alone"]["chosen"]["register"]
    assert chosen["layer"] in (-2, -1)
    # Loudness is plain in any features of the sound, and never in the frames.
    assert results["lines"]["hicmae_tiny, sound alone"]["register"]["value"] > 0.8
    for run in ("clips", "stills"):
        lines = (out / "runs" / run / "log" / "keys.jsonl").read_text().splitlines()
        seen = {int(key.removeprefix("clip")) for line in lines for key in json.loads(line)["keys"]}
        assert seen
        assert all(number % 4 < 2 for number in seen)
    report = (out / "report" / "report.md").read_text()
    assert "| *needs* | order of frames | sound | |" in report.replace("|  |", "| |")
    assert str(tmp_path) not in report + json.dumps(results)
