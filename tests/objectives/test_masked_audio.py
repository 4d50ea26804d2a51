"""The masked-audio objective against AudioMAE's loss written out in loops, on given predictions."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from facemae.config import Recipe
from facemae.data.schema import Batch, SoundBatch
from facemae.errors import ConfigError
from facemae.objectives.masked_audio import MaskedAudio
from facemae.objectives.pretraining import PretrainModel, build_pretrain_model
from tests.objectives.examples import BATCH, DECODER, EXAMPLES, HEARS, MASKED, VOICE, example_recipe, global_batch

PATCH, COLUMNS = 8, 2


def recipe(sounds: Any = VOICE, **settings: Any) -> Recipe:
    blocks = {
        "views": {"main": MASKED},
        "sounds": {"voice": sounds},
        "sound_encoder": HEARS,
        "objectives": [{"kind": "masked_audio", "decoder": DECODER, **settings}],
    }
    return example_recipe(blocks)


def objective(model: PretrainModel) -> MaskedAudio:
    found = model.objectives[0]
    assert isinstance(found, MaskedAudio)
    return found


def reference(mel: torch.Tensor, visible: list[int], predicted: torch.Tensor, target: str) -> torch.Tensor:
    """The mean over the hidden patches of one spectrogram [frames, mels], in the order of the grid."""
    losses = []
    hidden = [patch for patch in range(6) if patch not in visible]
    for row, patch in zip(predicted, hidden, strict=True):
        top, left = patch // COLUMNS * PATCH, patch % COLUMNS * PATCH
        values = mel[top : top + PATCH, left : left + PATCH].flatten()
        if target != "values":
            mean = values.sum() / len(values)
            variance = ((values - mean) ** 2).sum() / (len(values) - 1)
            deviation = (variance + 1e-6) ** 0.5 if target == "norm_patch" else variance**0.5 + 1e-6
            values = (values - mean) / deviation
        losses.append(((row - values) ** 2).sum() / len(values))
    return torch.stack(losses).sum() / len(losses)


@pytest.mark.parametrize("target", ["norm_patch", "norm_pix", "values"])
@pytest.mark.parametrize("kind", ["joint", "cross"])
def test_the_loss_is_audiomaes_over_samples_with_sound(target: str, kind: str) -> None:
    asked = recipe(target=target, decoder={**DECODER, "kind": kind})
    model, batch = build_pretrain_model(asked), global_batch(asked)
    sound = batch.sounds["voice"]
    assert sound.visible is not None
    pixels, encodings = model.encode(batch)
    assert torch.equal(pixels["voice"][:, 0], sound.mel)
    predicted = objective(model).decoder(encodings["voice"])
    here = sound.present.nonzero().flatten().tolist()
    assert 0 < len(here) < BATCH
    expected = torch.stack(
        [reference(sound.mel[i], sound.visible[i].tolist(), predicted[i], target) for i in here]
    ).sum()
    found = objective(model).term(encodings, pixels, batch, 0)
    torch.testing.assert_close(found.sum, expected, rtol=1e-5, atol=1e-5)
    assert objective(model).count(batch) == len(here)
    assert found.samples is not None
    assert not found.samples[~sound.present].any()
    mine, theirs = (
        torch.autograd.grad(loss, list(objective(model).decoder.parameters()), retain_graph=True)
        for loss in (found.sum, expected)
    )
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_samples_without_sound_change_nothing() -> None:
    asked = recipe()
    model, batch = build_pretrain_model(asked), global_batch(asked)
    sound = batch.sounds["voice"]
    noise = torch.where(sound.present[:, None, None], sound.mel, 100.0)
    loud = replace(batch, sounds={"voice": SoundBatch(noise, sound.present, sound.visible)})
    gradients = []
    for given in (batch, loud):
        model.zero_grad()
        loss, metrics = model(given, 0, model.counts(given))
        loss.backward()
        gradients.append([value.grad.clone() for value in model.parameters() if value.grad is not None])
        assert float(metrics["loss/masked_audio"]) == pytest.approx(float(loss.detach()))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_nothing_to_hear_is_no_loss_and_no_division_by_zero() -> None:
    asked = recipe()
    model, batch = build_pretrain_model(asked), global_batch(asked)
    sound = batch.sounds["voice"]
    none = SoundBatch(torch.zeros_like(sound.mel), torch.zeros_like(sound.present), sound.visible)
    mute = replace(batch, sounds={"voice": none})
    loss, _ = model(mute, 0, model.counts(mute))
    assert (model.counts(mute)[0], float(loss.detach())) == (0, 0.0)
    loss.backward()
    assert all(bool((value.grad == 0).all()) for value in model.parameters() if value.grad is not None)


def test_streams_count_their_own_sounds() -> None:
    asked = recipe()
    model, batch = build_pretrain_model(asked), global_batch(asked)
    whole, *parts = model.counts(batch)
    present = batch.sounds["voice"].present.tolist()
    expected = [
        sum(here for here, name in zip(present, batch.streams, strict=True) if name == stream)
        for stream in ("laboratory", "wild")
    ]
    assert parts == expected
    assert whole == sum(expected)


def test_a_reconstruction_shows_what_is_visible_as_it_is() -> None:
    asked = recipe()
    model, batch = build_pretrain_model(asked), global_batch(asked)
    pixels, encodings = model.encode(batch)
    made = objective(model).reconstruct(encodings, pixels)
    visible = batch.sounds["voice"].visible
    assert visible is not None
    assert (made.view, made.pixels.shape) == ("voice", (BATCH, 1, 24, 16))
    given = pixels["voice"]
    same = (made.pixels == given).view(BATCH, 3, PATCH, COLUMNS, PATCH).all(dim=4).all(dim=2).flatten(1)
    assert same.gather(1, visible).all()
    assert same.sum() < same.numel()


def weights_of(asked: Recipe) -> dict[str, torch.Tensor]:
    return dict(build_pretrain_model(asked).named_parameters())


def test_weights_are_a_function_of_their_names_and_pictures_of_themselves() -> None:
    both = weights_of(example_recipe(EXAMPLES["masked_audio"]["joint, beside pictures"]))
    alone = weights_of(example_recipe(EXAMPLES["masked_image"]["joint"]))
    assert any(name.startswith("sound_encoder.vit.blocks.0.") for name in both)
    assert all(torch.equal(value, both[name]) for name, value in alone.items())
    picture, sound = (both[f"{name}encoder.vit.blocks.0.attn.qkv.weight"] for name in ("", "sound_"))
    assert picture.shape == sound.shape
    assert not torch.equal(picture, sound)


def test_each_sound_is_encoded_once() -> None:
    twice = recipe()
    objectives = (*twice.objectives, *recipe(target="values").objectives)
    model = build_pretrain_model(twice.model_copy(update={"objectives": objectives}))
    batch: Batch = global_batch(twice)
    calls = []
    assert model.sound_encoder is not None
    model.sound_encoder.register_forward_hook(lambda *_: calls.append(1))
    model(batch, 0, model.counts(batch))
    assert len(calls) == 1
    assert model.names == ("masked_audio_0", "masked_audio_1")


@pytest.mark.parametrize(
    ("sounds", "settings", "message"),
    [
        ({**VOICE, "mask": None}, {}, r"sound 'voice' hides none\n.*give sounds.voice a mask"),
        (VOICE, {"decoder": {**DECODER, "kind": "cross", "mix_layers": [0, 3]}}, "an encoder with 6 blocks"),
        (VOICE, {"decoder": {**DECODER, "depth": 3, "skips": [2, 6]}}, r"skips \[2, 6\] names block 6 of an encoder"),
    ],
)
def test_what_cannot_be_predicted_is_refused(sounds: Any, settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_pretrain_model(recipe(sounds, **settings))
