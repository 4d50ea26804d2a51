"""Runs on clips: they resume exactly, draw strips, are exported, and say what cannot be done with them yet."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facemae.bench.step import StepBenchSettings, bench_recipe
from facemae.config import Recipe
from facemae.errors import UsageError
from facemae.features.export import export_encoder, verify_export
from facemae.features.extractor import load
from facemae.prediction import load_predictor
from facemae.train.record.log import read_lines
from facemae.train.record.pictures import CAPTION_LINE, RECONSTRUCTION, VIEWS
from facemae.train.saving.folder import RunFolder
from facemae.train.trainer import pretrain
from tests.data.test_loader_clips import LONG, members, write
from tests.train import clip_runs
from tests.train.conftest import result_files

RECIPE = (
    clip_runs.CLIPS
    + """\
encoder:
  {name: test_vit, image_size: 16, patch_size: 4, channels: 1, tubelet: 2, frames: 4, class_token: false}
objectives:
  - {kind: masked_video, decoder: {width: 16, depth: 1, heads: 2, embed_bias: false}}
"""
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> clip_runs.Runs:
    folder = tmp_path_factory.mktemp("clips")
    return clip_runs.finished(clip_runs.tiny_recipe(RECIPE, clip_runs.silent(), folder), folder)


def test_a_run_on_clips_resumes_exactly(whole: clip_runs.Runs, tmp_path: Path) -> None:
    clip_runs.check_resume(whole, tmp_path)


def test_a_view_longer_than_its_clips_is_told_once(whole: clip_runs.Runs, tmp_path: Path) -> None:
    _, run = whole
    assert [line for line in read_lines(RunFolder(run).events) if line["event"] == "clips"] == []
    made = {f"clip{number}": members(6 if number < 4 else LONG) for number in range(8)}
    clip_runs.finished(clip_runs.tiny_recipe(RECIPE, made, tmp_path), tmp_path)
    (line,) = [line for line in read_lines(RunFolder(tmp_path / "run").events) if line["event"] == "clips"]
    said, _, rest = line["text"].partition(" of the 4 clips of this batch: their last frame is held ")
    assert said in [f"view 'main' is longer than {count}" for count in (1, 2, 3, 4)]
    assert rest == "(views.main.clip.short)"


def test_several_micro_batches_see_the_same(whole: clip_runs.Runs, tmp_path: Path) -> None:
    run = clip_runs.run_with(whole, tmp_path, micro_batch=2, workers=1)
    assert result_files(run, clip_runs.STEPS)["keys"] == result_files(whole[1], clip_runs.STEPS)["keys"]


def test_pictures_are_strips_of_what_is_masked_made_and_given(whole: clip_runs.Runs) -> None:
    pictures = RunFolder(whole[1]).pictures
    # Three clips of four frames of 16 pixels with a border of one: rows of what is masked, made and given.
    for name, rows, caption in (("reconstruction-step-6.png", 9, RECONSTRUCTION), ("views-step-0.png", 6, VIEWS)):
        with Image.open(pictures / name) as image:
            assert image.width * rows == (image.height - CAPTION_LINE * len(caption)) * 4


def test_an_export_loads_and_takes_pictures_with_a_warning(whole: clip_runs.Runs, tmp_path: Path) -> None:
    out = export_encoder(whole[1], tmp_path / "exported")
    verify_export(out)
    assert json.loads((out / "encoder.json").read_text())["timm"] is None
    extractor = load(out, device="cpu", pooling="grid2")
    face = np.random.default_rng(0).integers(0, 256, (16, 16)).astype(np.uint8)
    with pytest.warns(UserWarning, match="trained on clips alone; a picture is to it a clip of one step in which"):
        assert extractor.transform([face]).shape == (1, 4 * 64)
    pixels = torch.from_numpy(face)[None, None]
    still = (pixels.float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        expected = extractor.encoder(still.unsqueeze(1).repeat(1, 2, 1, 1, 1)).tokens
    torch.testing.assert_close(extractor.encode(pixels)[-1], expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(UsageError, match=r"uint8 pixels \('B', 1, 16, 16\)"):
        extractor.encode(pixels[None].repeat(1, 3, 1, 1, 1))


def test_what_cannot_be_done_with_clips_yet_is_said(whole: clip_runs.Runs, tmp_path: Path) -> None:
    _, run = whole
    with pytest.raises(UsageError, match="0 objectives that learn from labels"):
        load_predictor(run)
    with pytest.raises(UsageError, match="the baseline cannot follow recipe video_tiny"):
        bench_recipe(StepBenchSettings(recipe="video_tiny"), tmp_path)


def test_labels_of_clips_are_learned_and_not_predicted_yet(whole: clip_runs.Runs, tmp_path: Path) -> None:
    recipe, _ = whole
    tree = recipe.model_dump(mode="json", by_alias=True)
    tree["views"]["main"] |= {"mask": None, "mixup": {"alpha": 0.8}}
    tree["objectives"] = [{"kind": "supervised", "labels": "expression", "classes": ["calm", "glad"], "pool": "mean"}]
    folder = tmp_path / "labelled"
    made = clip_runs.silent()
    for number, sample in enumerate(made.values()):
        meta = json.loads(sample["json"]) | {"labels": {"expression": ("calm", "glad")[number % 2]}}
        sample["json"] = json.dumps(meta).encode()
    tree["data"]["streams"][0]["shards"] = str(write(folder, made))
    assert pretrain(Recipe.model_validate(tree), tmp_path / "run").stopped == "finished"
    with pytest.raises(UsageError, match="clips cannot be predicted on yet"):
        load_predictor(tmp_path / "run")
