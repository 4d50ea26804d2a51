"""The encoder of clips: tubelets, positions over time and place, stills as clips of one step."""

import math

import pytest
import torch

from facemae.config import EncoderConfig
from facemae.errors import ConfigError, UsageError
from facemae.models.clip_encoder import ClipEncoder
from facemae.models.clip_positions import clip_positions
from facemae.models.encoder import MaskedEncoder, build_encoder
from facemae.models.init import initialise
from facemae.models.positions import sincos_positions
from facemae.models.tubelets import tubeletify, untubeletify

TINY = EncoderConfig(name="test_vit", image_size=12, patch_size=6, tubelet=2, frames=6)

VARIANTS = {
    "plain": TINY,
    "no class token": TINY.model_copy(update={"class_token": False}),
    "sequence, grey": TINY.model_copy(update={"position": "sequence", "channels": 1, "class_token": False}),
    "three frames a tubelet": TINY.model_copy(update={"tubelet": 3}),
    "registers": TINY.model_copy(update={"name": "vit_tiny_patch16_224", "registers": 2}),
    "norm before the blocks": TINY.model_copy(update={"name": "vit_xsmall_patch16_clip_224"}),
}


def build(config: EncoderConfig = TINY) -> MaskedEncoder:
    encoder = build_encoder(config)
    initialise(encoder, 0)
    return encoder.eval()


def clips(config: EncoderConfig = TINY, frames: int = 6, size: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, frames, config.channels, size, size, generator=generator)


def test_tubelets_have_videomaes_order_of_tokens_and_values() -> None:
    given, found = clips(), tubeletify(clips(), 2, 6)
    assert found.shape == (2, 12, 2 * 6 * 6 * 3)
    for number in range(12):
        step, row, column = number // 4, number % 4 // 2, number % 2
        values = [
            given[:, step * 2 + frame, channel, row * 6 + y, column * 6 + x]
            for frame in range(2)
            for y in range(6)
            for x in range(6)
            for channel in range(3)
        ]
        assert torch.equal(found[:, number], torch.stack(values, dim=1))
    assert torch.equal(untubeletify(found, 2, 6, (3, 2, 2)), given)


@pytest.mark.parametrize("name", VARIANTS)
def test_full_forward_equals_timms_with_the_convolution(name: str) -> None:
    config = VARIANTS[name]
    encoder, given = build(config), clips(config)
    steps = 6 // (config.tubelet or 1)
    with torch.no_grad():
        found = encoder(given)
        torch.testing.assert_close(found.tokens, encoder.vit.forward_features(given), atol=1e-5, rtol=1e-5)
    assert found.grid == (steps, 2, 2)
    assert found.patches.shape == (2, steps * 4, encoder.width)
    assert encoder.prefix == config.registers + (1 if config.class_token is None else 0)
    shape = encoder.vit.patch_embed.proj.weight.shape
    assert shape == (encoder.width, config.channels, config.tubelet, 6, 6)


@pytest.mark.parametrize("name", VARIANTS)
def test_masked_forward_equals_blocks_on_gathered_tokens(name: str) -> None:
    config = VARIANTS[name]
    encoder, given = build(config), clips(config)
    visible = torch.tensor([[0, 3, 7], [1, 2, 5]])
    vit = encoder.vit
    with torch.no_grad():
        every = vit._pos_embed(vit.patch_embed(given))
        prefix = encoder.prefix
        rows = [torch.cat([sample[:prefix], sample[prefix + row]]) for sample, row in zip(every, visible, strict=True)]
        expected = vit.norm(vit.blocks(vit.norm_pre(torch.stack(rows))))
        torch.testing.assert_close(encoder(given, visible).tokens, expected, atol=1e-5, rtol=1e-5)


def test_hidden_tubelets_do_not_reach_the_encoding() -> None:
    encoder, given = build(), clips()
    hidden = given.clone()
    hidden[:, 2:4] = torch.nan  # the second of three steps: tokens 4 to 7
    visible = torch.tensor([[0, 3, 8, 11]] * 2)
    with torch.no_grad():
        assert torch.equal(encoder(given, visible).tokens, encoder(hidden, visible).tokens)


def test_several_masks_of_a_clip_are_rows() -> None:
    encoder, given = build(), clips()
    visible = torch.tensor([[[0, 3], [4, 11]], [[1, 2], [0, 9]]])
    with torch.no_grad():
        found = encoder(given, visible)
        each = [encoder(given, visible[:, mask]).tokens for mask in range(2)]
    assert (found.tokens.shape[0], found.masks) == (4, 2)
    torch.testing.assert_close(found.tokens, torch.stack(each, dim=1).flatten(0, 1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("position", ["sincos", "sequence"])
def test_a_still_is_a_clip_of_one_step(position: str) -> None:
    encoder = build(TINY.model_copy(update={"position": position}))
    still = clips()[:, 0]
    visible = torch.tensor([[0, 3], [1, 2]])
    with torch.no_grad():
        for seen in (None, visible):
            found = encoder(still, seen)
            assert found.grid == (1, 2, 2)
            assert torch.equal(found.tokens, encoder(still.unsqueeze(1).repeat(1, 2, 1, 1, 1), seen).tokens)
    # The middle of three steps is the second: a still has its position.
    assert isinstance(encoder, ClipEncoder)
    native = encoder.vit.pos_embed[0, encoder.prefix :]
    torch.testing.assert_close(encoder._places((1, 2, 2)), native[4:8], atol=1e-6, rtol=0)


def test_clips_of_other_lengths_and_sizes_are_encoded() -> None:
    encoder = build()
    with torch.no_grad():
        found = encoder(clips(frames=4, size=18))
    assert found.grid == (2, 3, 3)
    assert found.patches.shape[1] == 18


@pytest.mark.parametrize("shape", [(1, 5, 3, 12, 12), (1, 0, 3, 12, 12), (1, 6, 1, 12, 12), (1, 6, 3, 13, 12), (6, 12)])
def test_wrong_clips_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="a multiple of 2 frames and multiples of 6 for height and width"):
        build()(torch.zeros(shape))


def test_separable_positions_are_time_then_maes_place() -> None:
    found = clip_positions("sincos", (3, 2, 4), 16, prefix=2)[0]
    assert torch.equal(found[:2], torch.zeros(2, 16))
    places = sincos_positions((2, 4), 8)[0]
    for token in range(24):
        step, place = divmod(token, 8)
        angles = [step / 10000 ** (i / 4) for i in range(4)]
        time = torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
        torch.testing.assert_close(found[2 + token], torch.cat([time, places[place]]), atol=1e-6, rtol=0)


def test_positions_of_the_sequence_are_videomaes() -> None:
    found = clip_positions("sequence", (8, 14, 14), 6)[0]
    for token in (0, 1, 14, 195, 196, 1567):
        expected = [token / 10000 ** (2 * (feature // 2) / 6) for feature in range(6)]
        values = [math.cos(angle) if feature % 2 else math.sin(angle) for feature, angle in enumerate(expected)]
        torch.testing.assert_close(found[token], torch.tensor(values), atol=1e-6, rtol=0)


def test_positions_of_other_grids_lie_between_those_of_the_native_one() -> None:
    native = clip_positions("sincos", (4, 2, 2), 16)[0].view(4, 4, 16)
    half = clip_positions("sincos", (2, 2, 2), 16, native=(4, 2, 2))[0].view(2, 4, 16)
    # The first of two steps lies at coordinate 0.5.
    torch.testing.assert_close(half[0, :, 0], torch.full((4,), math.sin(0.5)), atol=1e-6, rtol=0)
    assert torch.equal(half[:, :, 8:], native[:2, :, 8:])


@pytest.mark.parametrize(("kind", "width", "unit"), [("sincos", 12, 8), ("sequence", 9, 2)])
def test_a_width_that_does_not_suit_is_named(kind: str, width: int, unit: int) -> None:
    with pytest.raises(ConfigError, match=f"token width {width}\n.*a multiple of {unit}"):
        clip_positions(kind, (2, 2, 2), width)  # type: ignore[arg-type]
