"""Clips that lie in a shard set as stills."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from facemae.data.pack import PackItem, pack_folder, pack_samples
from facemae.data.schema import CropRecipe, DatasetCard, ModelInput
from facemae.errors import ProbeError
from facemae.rng import generator
from facemae_probes.choosing.plan import ProbePlan
from facemae_probes.commands import app
from facemae_probes.features.sources import PixelSource
from facemae_probes.heads.temporal import TemporalSetting
from facemae_probes.protocols.folds import KFold
from facemae_probes.runner import run_probe
from facemae_probes.tasks.clips import ClipColumns, as_clips
from facemae_probes.tasks.columns import Columns, read_columns
from facemae_probes.tasks.task import make_task

PIXELS = PixelSource(ModelInput(image_size=16, channels=1, mean=(0.5,), std=(0.5,)))
HOW = ClipColumns("clip", "time")


def _columns(**changes: list[Any]) -> Columns:
    values: dict[str, list[Any]] = {
        "key": [f"k{i}" for i in range(6)],
        "clip": ["a", "b", "a", "b", None, "a"],
        "time": [2, 10, 1, 9, 3, 0],
        "split": ["train", "test", "train", "test", "train", "train"],
        "emotion": ["happy", "sad", "happy", "sad", "sad", "happy"],
    }
    return Columns(np.arange(50, 56), {**values, **changes})


def test_frames_of_a_clip_come_in_their_order_and_stand_for_one_sample() -> None:
    columns, frames = as_clips(_columns(), HOW, ["emotion"])
    assert columns.values["key"] == ["b", "a"] or columns.values["key"] == ["a", "b"]
    assert columns.values["emotion"] == ["sad" if key == "b" else "happy" for key in columns.values["key"]]
    by_name = dict(zip(columns.values["key"], columns.samples.tolist(), strict=True))
    assert frames[by_name["a"]].tolist() == [55, 52, 50]
    assert frames[by_name["b"]].tolist() == [53, 51]
    _, by_key = as_clips(_columns(), ClipColumns("clip"), ["emotion"])
    assert sorted(run.tolist() for run in by_key.values()) == [[50, 52, 55], [51, 53]]


def test_keys_are_read_as_people_number_frames() -> None:
    order = [10, 2, 0, 1, 11, 9]
    columns = Columns(
        np.arange(6),
        {"key": [f"v7_{i}.5" for i in order], "clip": ["v7"] * 6, "split": ["test"] * 6, "emotion": ["a"] * 6},
    )
    _, frames = as_clips(columns, ClipColumns("clip"), ["emotion"])
    assert [order[place] for place in next(iter(frames.values()))] == sorted(order)
    # Leading zeros and keys that begin with a number or a letter.
    mixed = ["b", "9", "010", "a2", "a10", "a"]
    _, frames = as_clips(Columns(np.arange(6), {**columns.values, "key": mixed}), ClipColumns("clip"), ["emotion"])
    assert [mixed[place] for place in next(iter(frames.values()))] == ["9", "010", "a", "a2", "a10", "b"]


def test_equal_numbers_of_different_clips_or_of_none_are_no_repeat() -> None:
    _, frames = as_clips(_columns(time=[0, 0, 1, 1, 0, 2]), HOW, ["emotion"])
    assert sorted(run.tolist() for run in frames.values()) == [[50, 52, 55], [51, 53]]


@pytest.mark.parametrize(
    ("changes", "how", "message"),
    [
        ({"emotion": ["happy", "sad", "sad", "sad", "sad", "happy"]}, HOW, "clip 'a' has several values of 'emotion'"),
        ({"split": ["train", "test", "test", "test", "train", "train"]}, HOW, "several values of 'split': test, train"),
        ({"time": [2, 10, "late", 9, 3, 0]}, HOW, "sample k2 has the frame 'late'"),
        ({"time": [2, 10, "nan", 9, 3, 0]}, HOW, "sample k2 has the frame 'nan'"),
        ({"time": [2, 10, "-inf", 9, 3, 0]}, HOW, "sample k2 has the frame '-inf'"),
        ({"time": [2, 10, "2.0", 9, 3, 0]}, HOW, "clip 'a' has 2 frames with 2 in 'time'"),
        ({}, ClipColumns("video"), "no column 'video' of clips"),
        ({"source": list("vvwwvv")}, HOW, "clip 'a' has several values of 'source': v, w"),
        ({"clip": [None] * 6}, HOW, "column 'clip' has no value"),
    ],
)
def test_what_is_wrong_with_clips_is_said(changes: dict[str, list[Any]], how: ClipColumns, message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        as_clips(_columns(**changes), how, ["emotion"])


@pytest.fixture(scope="module")
def clip_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 clips of four or five frames, shuffled: a bar moves right or left, so that only time tells the label."""
    frames = []
    for clip in range(90):
        count, forward = 4 + clip % 2, clip % 2 if clip < 2 else int(generator(3, "clip", clip).integers(2))
        for place in range(count):
            pixels = generator(3, "pixels", clip, place).integers(0, 60, size=(16, 16), dtype=np.uint8)
            at = place if forward else count - 1 - place
            pixels[:, 3 * at : 3 * at + 3] += 150
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, format="png")
            labels = {"direction": "right" if forward else "left", "clip": f"c{clip}", "frame": place}
            split = ("train", "train", "valid", "test")[clip % 4]
            meta = {"split": split, "subject": f"s{clip // 2}", "labels": labels}
            frames.append((buffer.getvalue(), meta))
    order = generator(3, "order").permutation(len(frames))
    items = [PackItem(f"f{n:04d}", frames[i][0], "png", frames[i][1]) for n, i in enumerate(order)]
    out = tmp_path_factory.mktemp("clips") / "shards"
    card = DatasetCard(name="bars", crop=CropRecipe(detector="none", size=16, colour="grey"))
    pack_samples(items, out, card=card, shard_size=150)
    return out


def _frames(folder: Path, clips: int, header: str, row: str) -> Path:
    """A folder of three frames a clip with its labels.csv; `row` is filled with the clip's number, time and split."""
    lines = [header]
    for clip in range(clips):
        for time in range(3):
            pixels = generator(4, "frame", clip, time).integers(0, 60, size=(16, 16), dtype=np.uint8)
            pixels[:, 8 * (clip % 2) : 8 * (clip % 2) + 8] += 150
            (folder / "img").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"img/{clip}-{time}.png")
            split, side = ("train", "train", "train", "test")[clip // 2 % 4], "rl"[clip % 2]
            lines.append(f"img/{clip}-{time}.png," + row.format(clip=clip, time=time, split=split, side=side))
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("sourced", [False, True])
def test_clips_of_a_set_packed_from_a_table(tmp_path: Path, sourced: bool) -> None:
    header, row = "path,video,time,split,side", "v{clip},{time},{split},{side}"
    if sourced:
        header, row = header + ",source", row + ",v{clip}.mp4"
    pack_folder(_frames(tmp_path / "frames", 24, header, row), tmp_path / "shards")
    how = ClipColumns("video", "time")
    result = run_probe(tmp_path / "shards", PIXELS, "side", plan=replace(PLAN, probes=("knn",)), clips=how)
    assert result.data["task"]["unit"] == "sample"
    assert result.data["task"]["counts"]["test"]["samples"] == 6


def test_frames_of_one_source_are_one_unit(tmp_path: Path) -> None:
    header, row = "path,source,side", "v{clip}.mp4,{side}"
    pack_folder(_frames(tmp_path / "frames", 24, header, row), tmp_path / "shards")
    plan = replace(PLAN, probes=("knn",))
    result = run_probe(tmp_path / "shards", PIXELS, "side", plan=plan, protocol=KFold(4))
    assert result.data["task"]["unit"] == "source"
    assert result.data["results"]["knn"]["test"]["intervals"]["accuracy"]["units"] == 24
    task = make_task(read_columns(tmp_path / "shards"), "side", protocol=KFold(4))
    for fold in task.splits.repeats[0]:
        apart = [(fold.train, fold.test), *((way.fit, way.judge) for way in fold.inner)]
        assert not any(set(task.units[one]) & set(task.units[other]) for one, other in apart)
    # A set packed before has it as a label.
    values = read_columns(tmp_path / "shards").values
    old = {**values, "source": values["path"], "label_source": values["source"]}
    assert make_task(Columns(np.arange(72), old), "side", protocol=KFold(4)).unit == "label_source"


PLAN = ProbePlan(
    strengths=(0.1, 0.01),
    neighbours=(1, 5),
    temporal=(TemporalSetting(lr=1e-2, epochs=8, batch_size=16),),
    replicates=100,
)


def test_only_the_temporal_probe_sees_what_only_order_tells(clip_shards: Path, tmp_path: Path) -> None:
    how = ClipColumns("clip", "frame")
    result = run_probe(clip_shards, PIXELS, "direction", plan=PLAN, clips=how, unit="sample", out=tmp_path)
    assert set(result.scores) == {"linear", "knn", "temporal"}
    found = {probe: entry["test"]["accuracy"] for probe, entry in result.data["results"].items()}
    assert found["temporal"] > 0.9
    assert found["linear"] < 0.8
    assert len(result.keys) == result.data["results"]["linear"]["test"]["count"] == 22
    assert result.data["task"]["counts"]["train"]["samples"] == 46

    folds = run_probe(
        clip_shards, PIXELS, "direction", plan=PLAN, clips=how, unit="sample", protocol=KFold(2), cache=tmp_path
    )
    assert folds.data["results"]["temporal"]["test"]["count"] == 90
    assert folds.data["results"]["temporal"]["test"]["accuracy"] > 0.9


def test_the_command_takes_clips_and_explains_probes_that_do_not_fit(clip_shards: Path, tmp_path: Path) -> None:
    start = ["run", "--data", str(clip_shards), "--model", "pixels", "--label", "direction", "--unit", "sample"]
    start += ["--out", str(tmp_path / "out")]
    clips = ["--clip", "clip", "--frame", "frame"]
    done = CliRunner().invoke(app, [*start, *clips, "--probe", "knn", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["results"]["knn"]["test"]["count"] == 22
    stills = CliRunner().invoke(app, [*start, "--probe", "temporal"])
    assert "--clip COLUMN" in str(stills.exception)
    tokens = CliRunner().invoke(app, [*start, *clips, "--probe", "attentive"])
    assert "needs an encoder's tokens of stills" in str(tokens.exception)
