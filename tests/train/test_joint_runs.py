"""Runs of one transformer on clips and their sound: they resume exactly, and its weights are saved once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from facemae.checkpoint import find_checkpoint
from facemae.features.export import export_encoder
from facemae.features.weights import load_encoder
from facemae.objectives.pretraining import build_pretrain_model
from facemae.train.record.log import read_lines
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
  drop_path: 0.1
sound_encoder:
  {name: test_vit, blocks: shared, depth: 3, drop_path: 0.1, frames: 32, mels: 16, patch_size: 8, class_token: false}
fusion: {kind: joint}
objectives:
  - {kind: masked_video, fused: true, decoder: {width: 16, depth: 1, heads: 2}}
  - {kind: masked_audio, fused: true, decoder: {width: 16, depth: 1, heads: 2}}
  - {kind: contrastive, weight: 0.1}
"""
)
LOSSES = ("loss/masked_video", "loss/masked_audio", "loss/contrastive")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> clip_runs.Runs:
    folder = tmp_path_factory.mktemp("joint")
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


def test_the_blocks_are_saved_once_and_patches_of_sound_are_learned(whole: clip_runs.Runs) -> None:
    checkpoint = find_checkpoint(whole[1])
    model, state = (checkpoint.tensors(part) for part in ("model", "optimizer"))
    own = {name for name in model if name.startswith("sound_encoder.")}
    learned = {"sound_encoder.vit.patch_embed.proj.weight", "sound_encoder.vit.patch_embed.proj.bias"}
    assert own == learned | {"sound_encoder.vit.pos_embed"}
    assert not [name for name in model if name.startswith("fusion.")]
    for name in learned:
        assert bool(state[f"exp_avg/{name}"].any()), name
    for line in read_lines(whole[1] / "log/metrics.jsonl"):
        assert all(np.isfinite(line[name]) for name in LOSSES)


def test_an_export_hears_with_the_blocks_of_the_run(whole: clip_runs.Runs, tmp_path: Path) -> None:
    recipe, run = whole
    export_encoder(run, tmp_path / "exported", weights="model")
    model = build_pretrain_model(recipe)
    model.load_state_dict(find_checkpoint(run).tensors("model"))
    assert model.sound_encoder is not None
    mel = torch.randn(2, 32, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.sound_encoder(mel.unsqueeze(1)).tokens
    for where, options in ((run, {"weights": "model"}), (tmp_path / "exported", {})):
        sound = load_encoder(where, **options).sound  # type: ignore[arg-type]
        assert sound is not None
        with torch.no_grad():
            torch.testing.assert_close(sound.encoder(mel.unsqueeze(1)).tokens, expected)
    fresh = build_pretrain_model(recipe)
    untrained = load_encoder(run, random_init=recipe.seed).sound
    assert untrained is not None
    assert fresh.sound_encoder is not None
    with torch.no_grad():
        torch.testing.assert_close(
            untrained.encoder(mel.unsqueeze(1)).tokens, fresh.sound_encoder(mel.unsqueeze(1)).tokens
        )
