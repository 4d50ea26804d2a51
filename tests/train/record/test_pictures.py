"""Pictures of views of different sizes, with several masks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facemae.data.schema import Batch, ClipSpec, MaskSpec, ViewBatch, ViewSpec
from facemae.objectives.pretraining import build_pretrain_model
from facemae.recipe_specs import view_specs
from facemae.train.record.pictures import CAPTION_LINE, CLIPS, head, reconstruction_picture, save_picture, views_picture
from tests.objectives.examples import EXAMPLES, example_recipe, global_batch


def test_views_of_different_sizes_and_each_mask_have_a_row() -> None:
    specs = (ViewSpec("main", 8, 1, mask=MaskSpec("random", (2, 2), 1, copies=2)), ViewSpec("local/0", 4, 1))
    visible = torch.tensor([[[0], [3]], [[1], [1]], [[2], [0]]])
    views = {
        "main": ViewBatch(torch.full((3, 1, 8, 8), 200, dtype=torch.uint8), visible),
        "local/0": ViewBatch(torch.full((3, 1, 4, 4), 100, dtype=torch.uint8), None),
    }
    sheet = np.asarray(views_picture(Batch(0, 0, ("a", "b", "c"), ("s",) * 3, views, ({},) * 3), specs))
    assert sheet.shape == (3 * 10 + 6, 3 * 10)
    images = sheet[:10].reshape(10, 3, 10)[1:9, :, 1:9]
    assert (images == 200).all()
    for mask in range(2):
        row = sheet[10 + mask * 10 : 20 + mask * 10].reshape(10, 3, 10)[1:9, :, 1:9]
        for sample in range(3):
            patches = row[:, sample].reshape(2, 4, 2, 4).mean(axis=(1, 3)).flatten()
            assert (np.flatnonzero(patches == 200) == visible[sample, mask].numpy()).all()
            assert sorted(patches)[:3] == [50, 50, 50]
    local = sheet[30:, :18].reshape(6, 3, 6)[1:5, :, 1:5]
    assert (local == 100).all()
    assert (sheet[30:, 18:] == 0).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_written_picture_is_enlarged_with_its_caption_beneath(mode: str, tmp_path: Path) -> None:
    image = Image.new(mode, (100, 20), "gray")
    save_picture(image, tmp_path / "some.png", ("What it is,", "and how to read it."))
    with Image.open(tmp_path / "some.png") as written:
        found = np.asarray(written)
    assert found.shape[:2] == (200 + 2 * CAPTION_LINE, 1000)
    assert (found[:200] == 128).all()
    for line in range(2):
        assert found[200 + CAPTION_LINE * line :][:CAPTION_LINE].max() > 200
    long = "a caption that is wider than its picture, " * 8
    save_picture(image, tmp_path / "some.png", (long,))
    with Image.open(tmp_path / "some.png") as written:
        assert written.width > 1200


def test_a_clip_is_shown_as_strips_of_its_frames() -> None:
    mask = MaskSpec("frame", (2, 2), 2, steps=2)
    spec = ViewSpec("main", 8, 3, mask=mask, clip=ClipSpec(4, 0.16))
    visible = torch.tensor([[0, 7], [1, 6], [2, 5], [3, 4], [0, 4]])
    views = {"main": ViewBatch(torch.full((5, 4, 3, 8, 8), 200, dtype=torch.uint8), visible)}
    sheet = np.asarray(views_picture(Batch(0, 0, tuple("abcde"), ("s",) * 5, views, ({},) * 5), (spec,)))
    # Of the first samples, a row of four frames and one of what the mask leaves of them.
    assert sheet.shape == (CLIPS * 20, 40, 3)
    strips = sheet[..., 0].reshape(CLIPS, 2, 10, 4, 10)[:, :, 1:9, :, 1:9]
    assert (strips[:, 0] == 200).all()
    for sample in range(CLIPS):
        for frame in range(4):
            patches = strips[sample, 1, :, frame].reshape(2, 4, 2, 4).mean(axis=(1, 3)).flatten()
            step = frame // 2
            shown = [token - 4 * step for token in visible[sample].tolist() if token // 4 == step]
            assert np.flatnonzero(patches == 200).tolist() == shown
            assert sorted(patches)[:3] == [50, 50, 50]


def test_spectrograms_are_shown_masked_predicted_and_as_they_are() -> None:
    """Time runs to the right, high tones lie above; grey rows stand beside those of colour."""
    recipe = example_recipe(EXAMPLES["masked_audio"]["joint, beside pictures"])
    model, batch = build_pretrain_model(recipe), head(global_batch(recipe), 7)
    image = reconstruction_picture(model, batch, view_specs(recipe))
    assert image is not None
    sheet = np.asarray(image)
    # Three rows of pictures, 24 by 24, and three of spectrograms, 16 bands by 24 frames, each with a margin of one.
    assert sheet.shape == (3 * 26 + 3 * 18, 7 * 26)
    rows = [sheet[78 + 18 * row :][1:17].reshape(16, 7, 26)[:, :, 1:25] for row in range(3)]
    sound = batch.sounds["voice"]
    sample, visible = 5, sound.visible
    assert sound.present[sample]
    assert visible is not None
    # Samples that nobody hears are left out, so the others move up.
    count, place = int(sound.present.sum()), int(sound.present[:sample].sum())
    assert place < sample
    assert not any(row[:, count:].any() for row in rows)
    masked, predicted, original = (row[:, [place] * (sample + 1)] for row in rows)
    mel = sound.mel[sample]
    scaled = ((mel - mel.min()) / (mel.max() - mel.min()) * 255).round().numpy()
    assert (original[:, sample] == scaled.T[::-1]).all()
    shown = np.zeros(6, dtype=bool)
    shown[visible[sample].numpy()] = True
    places = shown.reshape(3, 2).repeat(8, axis=0).repeat(8, axis=1).T[::-1]
    assert (masked[:, sample][places] == original[:, sample][places]).all()
    assert (masked[:, sample][~places] == (original[:, sample][~places] * 0.25).astype(np.uint8)).all()
    assert (predicted[:, sample][places] == original[:, sample][places]).all()
    assert (predicted[:, sample][~places] != original[:, sample][~places]).any()
