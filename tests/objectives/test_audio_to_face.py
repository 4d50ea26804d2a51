"""The face from its sound: the loss by hand, what counts, what cannot be told apart, and that sound is listened to."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from facemae.config import Recipe
from facemae.data.schema import Batch, SoundBatch, ViewBatch
from facemae.errors import ConfigError
from facemae.models.tubelets import tubeletify
from facemae.objectives.audio_to_face import AudioToFace
from facemae.objectives.pretraining import PretrainModel, build_pretrain_model
from tests.objectives.examples import CLIP, CLIP_ENCODER, DECODER, HEARS, example_recipe, global_batch

CROSS = {**DECODER, "kind": "cross"}
VIEWS = {"main": {"clip": CLIP, "mask": None}, "still": {"mask": None}}
SOUNDS = {"voice": {"frames": 24, "mel": {"mels": 16}}}


def recipe(views: dict[str, Any] = VIEWS, sounds: dict[str, Any] = SOUNDS, **settings: Any) -> Recipe:
    blocks = {"encoder": CLIP_ENCODER, "views": views, "sounds": sounds, "sound_encoder": HEARS}
    return example_recipe({**blocks, "objectives": [{"kind": "audio_to_face", "decoder": CROSS, **settings}]})


def loss_of(model: PretrainModel, batch: Batch) -> torch.Tensor:
    return model(batch, 0, model.counts(batch))[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_the_loss_is_the_mean_error_of_the_frames_of_samples_with_sound(loss: str) -> None:
    chosen = recipe(loss=loss)
    model, batch = build_pretrain_model(chosen), global_batch(chosen)
    pixels, encodings = model.encode(batch, 0)
    (objective,) = model.objectives
    assert isinstance(objective, AudioToFace)
    predicted = objective.decoder([encodings["voice"].tokens, encodings["still"].tokens], (2, 3, 3))
    present = batch.sounds["voice"].present
    difference = (predicted - tubeletify(pixels["main"], 2, 8))[present]
    expected = difference.abs().mean() if loss == "l1" else difference.square().mean()
    assert model.counts(batch)[0] == int(present.sum())
    torch.testing.assert_close(loss_of(model, batch), expected)


def test_the_frames_themselves_are_not_encoded() -> None:
    chosen = recipe()
    model, batch = build_pretrain_model(chosen), global_batch(chosen)
    pixels, encodings = model.encode(batch, 0)
    assert (sorted(pixels), sorted(encodings)) == (["main", "still", "voice"], ["still", "voice"])


def test_what_stands_for_missing_sound_changes_nothing() -> None:
    chosen = recipe(decoder={**CROSS, "fraction": 0.5})
    model, batch = build_pretrain_model(chosen), global_batch(chosen)
    sound = batch.sounds["voice"]
    noise = torch.where(sound.present[:, None, None], sound.mel, 5.0)
    loud = replace(batch, sounds={"voice": SoundBatch(noise, sound.present)})
    assert torch.equal(loss_of(model, batch), loss_of(model, loud))
    silent = replace(batch, sounds={"voice": SoundBatch(sound.mel, torch.zeros_like(sound.present))})
    assert (model.counts(silent)[0], loss_of(model, silent).item()) == (0, 0)


def test_it_learns_to_listen() -> None:
    """Frames are as bright as their sound is loud: with the sounds of others the error is larger."""
    chosen = recipe(views={"main": VIEWS["main"]}, still=None)
    model = build_pretrain_model(chosen)
    batch = global_batch(chosen)
    level = torch.linspace(0, 1, 32)
    clips = (level * 255).to(torch.uint8).view(32, 1, 1, 1, 1).expand(32, 4, 1, 24, 24)
    mel = (2 * level - 1).view(32, 1, 1).expand(32, 24, 16).contiguous()
    heard = torch.ones(32, dtype=torch.bool)
    made = replace(batch, views={"main": ViewBatch(clips.contiguous(), None)}, sounds={"voice": SoundBatch(mel, heard)})
    shifted = replace(made, sounds={"voice": SoundBatch(mel.roll(16, dims=0), heard)})
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss_of(model, made).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        right, wrong = loss_of(model, made).item(), loss_of(model, shifted).item()
    assert right < 0.5 * wrong, (right, wrong)


@pytest.mark.parametrize(
    ("views", "sounds", "message"),
    [
        (VIEWS, {"voice": {**SOUNDS["voice"], "beneath": "still"}}, "sounds.voice.beneath is 'still'"),
        ({**VIEWS, "still": {"mask": None, "copies": 2}}, SOUNDS, "views.still.copies is 2"),
        ({**VIEWS, "still": {"mask": None, "clip": CLIP}}, SOUNDS, "takes view 'still' as a still and it is of clips"),
        ({**VIEWS, "still": {"mask": None, "streams": ["wild"]}}, SOUNDS, "which are of different streams"),
    ],
)
def test_what_does_not_belong_together_is_named(views: dict[str, Any], sounds: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_pretrain_model(recipe(views, sounds))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"still": "main"}, "still is 'main', the view to be predicted, which would be copied"),
        ({"decoder": DECODER}, "decodes with decoder.kind=cross and no decoder.mix_layers"),
        ({"still": "face"}, "objective 'audio_to_face' needs view 'face'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**settings)
