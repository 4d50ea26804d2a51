"""Runs on faces and voices: they resume exactly, in one process and in two, and log and draw what they hear."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facemae.train.record.log import read_lines
from facemae.train.record.pictures import CAPTION_LINE, RECONSTRUCTION
from facemae.train.saving.folder import RunFolder
from tests.train import clip_runs
from tests.train.conftest import result_files

RECIPE = """\
views:
  main:
    crop: {scale: [0.5, 1.0]}
    normalise: {mean: [0.5], std: [0.25]}
sounds:
  voice: {frames: 32, mel: {rate: 8000, mels: 16}, mask: {kind: time_frequency, ratio: 0.75}}
encoder: {name: test_vit, image_size: 16, patch_size: 4, channels: 1, drop_path: 0.1}
sound_encoder: {name: test_vit, frames: 32, mels: 16, patch_size: 8, drop_path: 0.1}
objectives:
  - {kind: masked_image, decoder: {width: 16, depth: 1, heads: 2}}
  - {kind: masked_audio, decoder: {width: 16, depth: 1, heads: 2, kind: cross, fraction: 0.5}}
  - {kind: contrastive, weight: 0.1, levels: [{blocks: [2, 3]}, {}], exclude: [source]}
"""
LOSSES = ("loss/masked_image", "loss/masked_audio", "loss/contrastive", "positive_top1_1/contrastive")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> clip_runs.Runs:
    folder = tmp_path_factory.mktemp("voices")
    return clip_runs.finished(
        clip_runs.tiny_recipe(RECIPE, clip_runs.voiced(), folder, "optim.layer_decay=0.9"), folder
    )


def test_a_run_resumes_exactly(whole: clip_runs.Runs, tmp_path: Path) -> None:
    clip_runs.check_resume(whole, tmp_path)


def test_a_run_of_two_processes_resumes_exactly_and_hears_the_same(whole: clip_runs.Runs, tmp_path: Path) -> None:
    clip_runs.check_two_processes(whole, tmp_path, LOSSES)


def test_workers_and_recomputed_blocks_hear_the_same(whole: clip_runs.Runs, tmp_path: Path) -> None:
    run = clip_runs.run_with(whole, tmp_path, workers=1, checkpointing=True)
    assert result_files(run, clip_runs.STEPS)["keys"] == result_files(whole[1], clip_runs.STEPS)["keys"]


def test_each_loss_is_logged_and_spectrograms_are_drawn(whole: clip_runs.Runs) -> None:
    for line in read_lines(whole[1] / "log/metrics.jsonl"):
        assert all(np.isfinite(line[name]) and line[name] >= 0 for name in LOSSES)
        parts = line["loss/masked_image"] + line["loss/masked_audio"] + 0.1 * line["loss/contrastive"]
        assert line["loss"] == pytest.approx(parts, rel=1e-4)
    with Image.open(RunFolder(whole[1]).pictures / "reconstruction-step-6.png") as image:
        # Three rows of pictures of 16 by 16, of four samples; three of spectrograms of 16 bands by 32 frames, of the
        # three samples that are heard.
        height = image.height - CAPTION_LINE * len(RECONSTRUCTION)
        assert image.width * (3 * 18 + 3 * 18) == height * 3 * 34
