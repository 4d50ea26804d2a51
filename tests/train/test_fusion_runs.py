"""Runs on clips and sounds that are fused: they resume exactly, in one process and in two, and are drawn."""

from pathlib import Path

import numpy as np
import pytest

from facemae.checkpoint import find_checkpoint
from facemae.train.record.log import read_lines
from facemae.train.saving.folder import RunFolder
from tests.train import clip_runs

RECIPE = (
    clip_runs.CLIPS
    + clip_runs.VOICES
    + """\
encoder:
  name: test_vit
  depth: 3
  image_size: 16
  patch_size: 4
  channels: 1
  tubelet: 2
  frames: 4
  class_token: false
  position: sequence
  drop_path: 0.1
sound_encoder: {name: test_vit, width: 32, depth: 2, heads: 2, frames: 32, mels: 16, patch_size: 8, position: sequence}
fusion: {depth: 2, heads: 4, drop_path: 0.2}
objectives:
  - kind: masked_video
    fused: true
    difference: true
    decoder: {width: 16, depth: 2, heads: 2, embed_bias: false, skips: [2]}
  - {kind: masked_audio, fused: true, target: norm_pix, decoder: {width: 16, depth: 3, heads: 2, skips: [1, 0]}}
  - {kind: contrastive, weight: 0.1, levels: [{blocks: [1, 0], head: {depth: 1, hidden: 16, out: 8}}]}
"""
)
LOSSES = ("loss/masked_video", "loss/masked_audio", "loss/contrastive")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> clip_runs.Runs:
    folder = tmp_path_factory.mktemp("fusion")
    return clip_runs.finished(
        clip_runs.tiny_recipe(RECIPE, clip_runs.voiced(), folder, "optim.layer_decay=0.9"), folder
    )


def test_a_run_resumes_exactly(whole: clip_runs.Runs, tmp_path: Path) -> None:
    clip_runs.check_resume(whole, tmp_path)


@pytest.mark.slow
def test_a_run_of_two_processes_resumes_exactly_and_learns_the_same(whole: clip_runs.Runs, tmp_path: Path) -> None:
    clip_runs.check_two_processes(whole, tmp_path, LOSSES)


def test_recomputed_blocks_learn_the_same(whole: clip_runs.Runs, tmp_path: Path) -> None:
    run = clip_runs.run_with(whole, tmp_path, checkpointing=True)
    clip_runs.check_losses(run, whole[1], LOSSES, rel=1e-4)


def test_fusion_is_learned_averaged_and_saved_under_its_name(whole: clip_runs.Runs) -> None:
    checkpoint = find_checkpoint(whole[1])
    model, ema, state = (checkpoint.tensors(part) for part in ("model", "ema", "optimizer"))
    own = [name for name in model if name.startswith("fusion.")]
    assert len(own) == 2 * (2 * 22 + 2)
    for name in own:
        assert bool(state[f"exp_avg/{name}"].any()), name
        assert not np.array_equal(model[name].numpy(), ema[name].numpy()), name


def test_losses_are_logged_and_both_sides_are_drawn(whole: clip_runs.Runs) -> None:
    for line in read_lines(whole[1] / "log/metrics.jsonl"):
        assert all(np.isfinite(line[name]) and line[name] >= 0 for name in LOSSES)
        parts = line["loss/masked_video"] + line["loss/masked_audio"] + 0.1 * line["loss/contrastive"]
        assert line["loss"] == pytest.approx(parts, rel=1e-4)
    assert (RunFolder(whole[1]).pictures / "reconstruction-step-6.png").is_file()
