"""Runs on clips and stills by share: killed, they go on exactly; processes and micro-batches change nothing."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facemae.config import Recipe
from facemae.data.quarantine import Quarantine
from facemae.data.schema import Batch
from facemae.errors import DataError
from facemae.recipe import load_recipe
from facemae.train.processes.process_group import Processes
from facemae.train.record.log import read_lines
from facemae.train.record.pictures import CAPTION_LINE, RECONSTRUCTION, VIEWS
from facemae.train.saving.folder import RunFolder
from facemae.train.trainer import pretrain
from tests.data.test_loader_clips import LONG, members, write
from tests.spawn import RankError, run_in_processes
from tests.train.conftest import result_files, run_until
from tests.train.test_worlds import check_close, train

RECIPE = """\
schema: 1
name: tiny_mixed
seed: 3
data: {lanes: 4, streams: [{name: clips, shards: CLIPS}, {name: stills, shards: STILLS, share: 2}]}
views:
  clips:
    streams: [clips]
    clip: {frames: 4, fps: 6.25}
    copies: 2
    normalise: {mean: [0.5], std: [0.25]}
    mask: {kind: random, ratio: 0.9}
  stills:
    streams: [stills]
    crop: {scale: [0.5, 1.0]}
    normalise: {mean: [0.4], std: [0.2]}
    mask: {kind: random, ratio: 0.5}
encoder:
  name: test_vit
  image_size: 16
  patch_size: 4
  channels: 1
  tubelet: 2
  frames: 4
  class_token: false
  drop_path: 0.2
objectives:
  - {kind: masked_video, weight: 0.8, view: clips, decoder: {width: 16, depth: 1, heads: 2, kind: cross, fraction: 0.5}}
  - {kind: masked_video, weight: 0.2, view: stills, decoder: {width: 16, depth: 1, heads: 2}}
optim: {batch_size: 12, total: 72 samples, warmup: 24 samples, base_lr: 0.02, clip: 1.0, ema: 24 samples}
checkpoint: {every: 24 samples}
efficiency: {device: cpu, precision: fp32, threads: 1, workers: 0}
log: {every_steps: 2, loggers: [], keys: true, pictures: 36 samples}
"""
LOSSES = ("loss", "loss/masked_video_0", "loss/masked_video_1", "loss/masked_video_1/stills")
STEPS = 6

Load = Callable[..., Recipe]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Load:
    """The recipe with overrides."""
    folder = tmp_path_factory.mktemp("mixed")
    clips = write(folder / "clips", {f"clip{number}": members(LONG - number, sound=False) for number in range(8)})
    (folder / "tiny.yaml").write_text(RECIPE.replace("CLIPS", str(clips)).replace("STILLS", str(shards)))
    return lambda *overrides: load_recipe(folder / "tiny.yaml", overrides)


@pytest.fixture(scope="module")
def whole(mixed: Load, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    result = pretrain(mixed(), out)
    assert (result.step, result.stopped) == (STEPS, "finished")
    return out


def die(group: Processes, recipe: Recipe, out: Path, step: int) -> Any:
    """Train until this process is killed in a step."""
    record = Quarantine.record

    def dying(self: Quarantine, batch: Batch, *rest: Any, **more: Any) -> None:
        if batch.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        record(self, batch, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Quarantine, "record", dying)
        return train(group, recipe, out)


def test_a_stopped_run_goes_on_exactly(mixed: Load, whole: Path, tmp_path: Path) -> None:
    run_until(mixed(), tmp_path / "run", 3)
    assert pretrain(mixed(), tmp_path / "run").stopped == "finished"
    assert result_files(tmp_path / "run", STEPS) == result_files(whole, STEPS)


def check_same(ours: Path, theirs: Path) -> None:
    """The same samples and views, and nearly the same losses and weights."""
    assert result_files(ours, STEPS)["keys"] == result_files(theirs, STEPS)["keys"]
    one, two = (read_lines(folder / "log/metrics.jsonl") for folder in (ours, theirs))
    for mine, other in zip(one, two, strict=True):
        assert [mine[name] for name in LOSSES] == pytest.approx([other[name] for name in LOSSES], rel=1e-3)
    check_close(ours, theirs, 1e-3)


@pytest.mark.parametrize(("world", "micro"), [(1, 1), (2, 3), (4, 1)], ids=str)
def test_processes_and_micro_batches_train_as_one_does(
    mixed: Load, whole: Path, tmp_path: Path, world: int, micro: int
) -> None:
    """Micro-batches of one sample have rows of one view and none of the other."""
    run_in_processes(train, world, mixed(f"efficiency.micro_batch={micro}"), tmp_path / "run")
    check_same(tmp_path / "run", whole)


@pytest.mark.parametrize("world", [1, 2])
def test_a_killed_run_goes_on_with_the_same_samples_views_masks_and_weights(
    mixed: Load, whole: Path, tmp_path: Path, world: int
) -> None:
    run_in_processes(train, world, mixed(), tmp_path / "whole")
    for step in (3, 5):
        with pytest.raises(RankError):
            run_in_processes(die, world, mixed(), tmp_path / "run", step)
    run_in_processes(train, world, mixed(), tmp_path / "run")
    assert result_files(tmp_path / "run", STEPS) == result_files(tmp_path / "whole", STEPS)
    check_same(tmp_path / "run", whole)


def test_each_loss_is_a_mean_over_the_samples_of_its_stream(whole: Path) -> None:
    for line in read_lines(whole / "log/metrics.jsonl"):
        parts = 0.8 * line["loss/masked_video_0"] + 0.2 * line["loss/masked_video_1"]
        assert line["loss"] == pytest.approx(parts, rel=1e-4)
        assert line["loss/masked_video_0/clips"] == pytest.approx(line["loss/masked_video_0"], rel=1e-5)
        assert line["loss/masked_video_1/stills"] == pytest.approx(line["loss/masked_video_1"], rel=1e-5)
        # Neither view is made of the other stream: a 0 would look like one that has learnt.
        assert line["loss/masked_video_0/stills"] is None
        assert line["loss/masked_video_1/clips"] is None
        assert np.isfinite(line["grad_norm"])


def test_pictures_show_each_view(whole: Path) -> None:
    pictures = RunFolder(whole).pictures
    # Three clips of four frames, in two copies masked and given; stills masked and given: eight of them are wider.
    shown = (("views-step-0.png", 2 * 3 * 2 + 2, VIEWS), ("reconstruction-step-6.png", 3 * 3 + 3, RECONSTRUCTION))
    for name, rows, caption in shown:
        with Image.open(pictures / name) as image:
            assert image.width * rows == (image.height - CAPTION_LINE * len(caption)) * 8


def test_a_stream_of_stills_gives_no_clips(mixed: Load, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="view 'clips' is made of stream 'stills', whose samples have only json, png"):
        pretrain(mixed("views.clips.streams=null"), tmp_path / "run")
