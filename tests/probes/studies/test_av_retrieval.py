"""The retrieval study on made clips: a grey face whose brightness is the loudness of its sound."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from facemae.config import MelSettings
from facemae.data.index import ShardIndex, build_index
from facemae.data.schema import ClipSpec, SoundSpec, ViewSpec
from facemae.data.shard_writer import ShardWriter
from facemae.errors import DataError, FacemaeError, UsageError
from facemae.recipe import load_recipe
from facemae.rng import generator
from facemae.sound import store
from facemae.video.store import Storage, write_clip
from facemae_probes.studies.commands import app
from facemae_probes.studies.retrieval.linear import fit_linear
from facemae_probes.studies.retrieval.model import pair_of, untrained_embedder
from facemae_probes.studies.retrieval.parts import draw_parts
from facemae_probes.studies.retrieval.report import moved_verdict
from facemae_probes.studies.retrieval.scores import excludes_chance, score
from facemae_probes.studies.retrieval.windows import cut_windows

SIDE, FPS, RATE, SECONDS = 16, 10, 8000, 3
VIEW = ViewSpec("main", SIDE, 1, crop="random_resized", clip=ClipSpec(10, 0.1))
SOUND = SoundSpec("voice", "main", 96, MelSettings(rate=RATE, mels=16, pad="floor"))
TINY = [
    "encoder={name: test_vit, depth: 2, image_size: 16, patch_size: 8, channels: 1, tubelet: 2, frames: 10}",
    "sound_encoder={name: test_vit, depth: 2, mels: 16, patch_size: 16, frames: 80}",
    "views.main.clip={frames: 10, fps: 10}",
    "views.main.crop.part=[0, 0, 1, 1]",
    "sounds.voice.frames=80",
    "sounds.voice.mel={rate: 8000, mels: 16, pad: floor}",
    "objectives.0.decoder={width: 16, depth: 1, heads: 2}",
    "objectives.1.decoder={width: 16, depth: 1, heads: 2}",
    "objectives.2.levels=[{steps: 5, centre: true, head: {depth: 1, out: 8}}]",
    "optim.batch_size=4",
    "optim.total=8",
    "data.lanes=2",
    "efficiency={precision: fp32, workers: 0, threads: 1}",
    "log={loggers: [], keys: true}",
]


def members(number: int, subject: str | None, seconds: float = SECONDS, *, sound: bool = True) -> dict[str, bytes]:
    rng = generator(3, "made-clip", number)
    level = np.interp(np.arange(0, 1, 1 / 300), np.linspace(0, 1, 16), rng.random(16))
    times = np.arange(round(seconds * FPS)) / FPS
    frames = [np.full((SIDE, SIDE, 3), round(40 + 180 * level[round(100 * (t + 0.05))]), np.uint8) for t in times]
    target = io.BytesIO()
    written = write_clip(frames, target, fps=FPS, storage=Storage("mjpeg", quality=95))
    facts = {"fps": float(FPS), "frames": len(frames), "sizes": list(written.sizes or ())}
    meta: dict[str, Any] = {"clip": facts, "path": f"{number}.mp4"} | ({"subject": subject} if subject else {})
    found = {"mjpeg": target.getvalue(), "json": json.dumps(meta).encode()}
    at = np.arange(round(seconds * RATE)) / RATE
    noise = rng.standard_normal(len(at)) * np.interp(at, np.arange(300) / 100, 0.002 * 100**level)
    return found | ({"flac": store.encode(noise.astype(np.float32), RATE)} if sound else {})


def write(folder: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    folder.mkdir()
    writer = ShardWriter(folder, 100)
    for key, found in samples.items():
        writer.write(key, found)
    writer.close()
    build_index(folder)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips of Ann, three of others, one of nobody."""
    made = {f"ann{number:02d}": members(number, "ann") for number in range(12)}
    made |= {f"other{number}": members(20 + number, f"other{number}") for number in range(3)}
    return write(tmp_path_factory.mktemp("retrieval") / "shards", made | {"nobody": members(30, None)})


def test_parts_share_no_clip_and_tuning_leaves_the_held_out_ones_alone(shards: Path) -> None:
    index = ShardIndex.open(shards)
    parts = draw_parts(index, subject=None, held=4, seed=0)
    assert (parts.subject, len(parts.train), len(parts.held), len(parts.others)) == ("ann", 8, 4, 4)
    assert sorted([*parts.train, *parts.held, *parts.others]) == list(range(16))
    assert parts == draw_parts(index, subject="ann", held=4, seed=0)
    assert parts.held != draw_parts(index, subject="ann", held=4, seed=1).held
    tuning = draw_parts(index, subject=None, held=4, seed=0, tune=3)
    assert (len(tuning.train), len(tuning.held), tuning.others) == (5, 3, ())
    assert {*tuning.train, *tuning.held} == {*parts.train}


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"subject": "eve", "held": 2}, UsageError, r"no clip shows subject 'eve'\n.*one of ann, other0"),
        ({"subject": "ann", "held": 11}, UsageError, r"11 of 12 clips are to be held out\n.*from 2 to 10"),
        ({"subject": "other0", "held": 2}, UsageError, "2 of 1 clips"),
    ],
)
def test_parts_that_cannot_be_drawn_are_refused(
    shards: Path, asked: dict[str, Any], error: type[FacemaeError], message: str
) -> None:
    with pytest.raises(error, match=message):
        draw_parts(ShardIndex.open(shards), seed=0, **asked)


def test_clips_need_a_subject_sound_and_three_windows(tmp_path: Path) -> None:
    made = {"mute": members(1, None, sound=False), "short": members(2, None, 2.6)}
    index = ShardIndex.open(write(tmp_path / "s", made))
    with pytest.raises(DataError, match=r"names its subject\n.*\n.*--subject-column"):
        draw_parts(index, subject=None, held=2, seed=0)
    with pytest.raises(DataError, match="clip mute has no sound"):
        cut_windows(index, [0], VIEW, SOUND)
    with pytest.raises(DataError, match=r"clip short has 26 frames, 2.60 s\n.*3 windows of 1 s"):
        cut_windows(index, [1], VIEW, SOUND)
    with pytest.raises(DataError, match="none of 2 clips has sound and 3 windows of 1 s"):
        cut_windows(index, [0, 1], VIEW, SOUND, leave_out=True)


def test_clips_may_be_left_out(tmp_path: Path) -> None:
    index = ShardIndex.open(write(tmp_path / "s", {"mute": members(1, None, sound=False), "good": members(2, None)}))
    found = cut_windows(index, [0, 1], VIEW, SOUND, leave_out=True)
    assert found.clip.tolist() == [0, 0, 0]
    torch.testing.assert_close(found.pixels, cut_windows(index, [1], VIEW, SOUND).pixels)


def test_windows_follow_each_other_and_sounds_go_round(shards: Path) -> None:
    windows = cut_windows(ShardIndex.open(shards), [2, 5], VIEW, SOUND)
    assert windows.clip.tolist() == [0, 0, 0, 1, 1, 1]
    assert windows.part.tolist() == [0, 1, 2, 0, 1, 2]
    assert windows.pixels.shape == (6, 10, 1, SIDE, SIDE)
    # Whole pictures, neither cropped nor mirrored: brightness is the clip's own, second by second.
    whole = cut_windows(ShardIndex.open(shards), [2], VIEW, SOUND).pixels.float().mean(dim=(2, 3, 4)).flatten()
    rng = generator(3, "made-clip", 2)
    level = np.interp(np.arange(0, 1, 1 / 300), np.linspace(0, 1, 16), rng.random(16))
    expected = [40 + 180 * level[round(100 * (t / FPS + 0.05))] for t in range(30)]
    np.testing.assert_allclose(whole.numpy(), expected, atol=3)
    plain, moved = windows.mels(), windows.mels(1.0)
    assert plain.shape == (6, 96, 16)
    for part in range(3):
        torch.testing.assert_close(moved[3 + part], plain[3 + (part + 1) % 3])
    torch.testing.assert_close(windows.mels(3.0), plain)
    torch.testing.assert_close(windows.mels(-0.5), windows.mels(2.5))
    assert not torch.allclose(windows.mels(0.5), plain)


CLIP, PART = np.divmod(np.arange(12), 3)


def test_scores_of_a_perfect_and_a_shifted_similarity() -> None:
    perfect = score(np.eye(12), CLIP, PART, seed=0)
    assert perfect["chance"]["within"] == 1 / 3
    assert perfect["chance"]["top1"] == 1 / 12
    for name in ("video to sound", "sound to video", "both"):
        shares = {key: entry["value"] for key, entry in perfect[name].items()}
        assert shares == {"top1": 1, "top5": 1, "within": 1, "same_part": 1, "own_clip": 1, "median_rank": 1}
    assert excludes_chance(perfect, "top1")
    # Each finds the sound of the next window: of its own clip, and never the right one.
    shifted = np.roll(np.eye(3), 1, axis=1)
    found = score(np.kron(np.eye(4), shifted) + 0.5 * np.kron(np.eye(4), np.eye(3)), CLIP, PART, seed=0)
    assert found["both"]["within"]["value"] == found["both"]["top1"]["value"] == 0
    assert found["both"]["own_clip"]["value"] == found["both"]["top5"]["value"] == 1
    assert found["both"]["median_rank"]["value"] == 2
    assert not excludes_chance(found, "within")


def test_ties_count_as_misses_and_directions_differ() -> None:
    same = score(np.ones((12, 12)), CLIP, PART, seed=0)
    assert {same["both"][name]["value"] for name in ("top1", "top5", "within", "same_part", "own_clip")} == {0}
    # The first video is more like every other sound than its own: it alone misses, and all of them find it first.
    one_way = np.eye(12)
    one_way[0, 1:] = 2.0
    found = score(one_way, CLIP, PART, seed=0)
    assert found["video to sound"]["top1"]["value"] == pytest.approx(11 / 12)
    assert found["sound to video"]["top1"]["value"] == pytest.approx(1 / 12)


def test_intervals_are_over_clips() -> None:
    half = np.kron(np.diag([1.0, 1.0, 0, 0]), np.eye(3)) + np.kron(np.diag([0, 0, 1.0, 1.0]), 1 - np.eye(3))
    within = score(half, CLIP, PART, seed=0)["both"]["within"]
    # Four clips that are right or wrong as a whole: twelve independent windows would have a far narrower interval.
    assert (within["value"], within["low"], within["high"]) == (0.5, 0.0, 1.0)


def test_a_linear_map_finds_what_is_made_alike(shards: Path) -> None:
    index = ShardIndex.open(shards)
    linear = fit_linear(cut_windows(index, range(8), VIEW, SOUND))
    assert linear.correlation[0] > 0.8
    windows = cut_windows(index, range(8, 12), VIEW, SOUND)
    found = score(linear.similarity(windows), windows.clip, windows.part, seed=0)
    assert found["both"]["within"]["value"] > 0.8
    moved = score(linear.similarity(windows, 1.0), windows.clip, windows.part, seed=0)
    assert moved["both"]["within"]["value"] < 0.2


def test_the_verdict_names_the_times_at_which_the_sound_is_still_found() -> None:
    def point(seconds: float, value: float, low: float | None) -> dict[str, Any]:
        return {"seconds": seconds, "top1": {"value": value, "low": low}, "within": {"value": 1.0, "low": 1.0}}

    fallen = [point(-0.2, 0.04, 0.01), point(0.0, 1.0, 0.9), point(0.4, 0.01, None)]
    assert "moved by 0.2 s or more, the right window is first in at most 4.0%" in moved_verdict(fallen, 1 / 90)
    # An interval that begins at nothing is one, and holds chance.
    assert "is first in at most 4.0%" in moved_verdict([*fallen, point(0.2, 0.017, 0.0)], 1 / 90)
    kept = [*fallen, point(0.6, 0.3, 0.2), point(0.8, 0.1, None)]
    assert "**stays first above chance** at +0.6 s, +0.8 s" in moved_verdict(kept, 1 / 90)


def test_vectors_are_those_that_training_compares() -> None:
    recipe = load_recipe("sync_tiny", TINY)
    embedder = untrained_embedder(recipe)
    pixels = torch.from_numpy(generator(0, "pixels").integers(0, 255, (3, 10, 1, SIDE, SIDE), dtype=np.uint8))
    mels = torch.from_numpy(generator(0, "mels").standard_normal((3, 80, 16), dtype=np.float32))
    video, sound = embedder.video(pixels), embedder.sound(mels)
    torch.testing.assert_close(video.norm(dim=-1), torch.ones(3, 1))
    first = embedder.model.encoder((pixels / 255 - 0.6) / 0.1)
    assert embedder.model.sound_encoder is not None
    second = embedder.model.sound_encoder(mels.unsqueeze(1))
    with torch.no_grad():
        both = embedder.levels[0](first, second, (None, None), 3)
        compared = embedder.levels[0].similarity(both[:, 0], both[:, 1])
    torch.testing.assert_close(video[:, 0] @ sound[:, 0].T, compared, atol=1e-5, rtol=1e-4)
    assert embedder.video(pixels, "means").shape == (3, 1, 64)


def test_a_recipe_without_such_a_contrast_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"recipe av_tiny contrasts no clip with the sound beneath it\n.*in this order"
    ):
        pair_of(load_recipe("av_tiny"))


def test_one_command_trains_controls_and_reports(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    drawn = {"mute": members(1, None, sound=False), "a": members(2, None), "b": members(3, None)}
    shown = write(tmp_path / "drawn", drawn)
    arguments = ["av-retrieval", "--data", str(shards), "--out", str(out), "--held", "4", "--json", *TINY]
    arguments += ["--show", str(shown)]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)
    assert set(results["galleries"]) == {"ann", "other speakers"}
    own = results["galleries"]["ann"]
    assert set(own) == {
        *("trained", "sound shifted", "contrast off", "contrast off, means of tokens", "untrained", "linear")
    }
    assert (own["trained"]["gallery"], own["trained"]["clips"]) == (12, 4)
    assert results["galleries"]["other speakers"]["trained"]["gallery"] == 12
    for run in ("trained", "contrast-off"):
        lines = (out / "runs" / run / "log" / "keys.jsonl").read_text().splitlines()
        seen = {key for line in lines for key in json.loads(line)["keys"]}
        assert seen
        assert not seen & {*results["data"]["held"], "other0", "other1", "other2", "nobody"}
    assert len(set(results["weights"].values())) == 3
    assert [point["seconds"] for point in results["shifts"]][::5] == [-1.0, 0.0, 1.0]
    assert results["shifts"][5]["within"] == own["trained"]["both"]["within"]
    assert results["shifts"][10]["within"] == own["sound shifted"]["both"]["within"]
    assert results["how"]["command"].startswith(
        "facemae study av-retrieval --data shards --out study --recipe sync_tiny"
    )
    report = (out / "report" / "report.md").read_text()
    assert "Clips of drawn: masked, reconstructed, original" in report
    assert (out / "shown-keys.txt").read_text() == "a\nb\n"
    assert str(tmp_path) not in report + json.dumps(results)
    for name in ("reconstruction.png", "shifts.png", "similarity.png"):
        assert f"({name})" in report
        assert (out / "report" / name).stat().st_size > 0

    again = CliRunner().invoke(app, arguments, catch_exceptions=False)
    repeated = json.loads(again.stdout)
    assert (repeated["galleries"], repeated["weights"]) == (results["galleries"], results["weights"])
