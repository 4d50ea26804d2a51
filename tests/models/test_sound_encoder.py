"""The encoder of spectrograms: a plain ViT of timm on a grid of time by frequency that is no square."""

import math

import pytest
import torch

from facemae.config import SoundEncoderConfig
from facemae.errors import ConfigError
from facemae.models.encoder import MaskedEncoder, build_sound_encoder
from facemae.models.init import initialise

TINY = SoundEncoderConfig(name="test_vit", frames=24, mels=16, patch_size=4)
GRID = (6, 4)


def build(config: SoundEncoderConfig = TINY) -> MaskedEncoder:
    encoder = build_sound_encoder(config)
    initialise(encoder, 0)
    return encoder.eval()


def spectrograms() -> torch.Tensor:
    return torch.randn(3, 1, 24, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("position", ["sincos", "learned", "sequence"])
def test_full_forward_equals_timm(position: str) -> None:
    encoder, mel = build(TINY.model_copy(update={"position": position})), spectrograms()
    with torch.no_grad():
        encoding = encoder(mel)
        torch.testing.assert_close(encoding.tokens, encoder.vit.forward_features(mel), atol=1e-5, rtol=1e-5)
    assert (encoding.grid, encoding.patches.shape) == (GRID, (3, 24, encoder.width))


def test_positions_are_time_and_frequency() -> None:
    encoder = build()
    table, quarter = encoder.vit.pos_embed[0, 1:].view(6, 4, -1), encoder.width // 4
    for moment, band in ((0, 0), (5, 1), (2, 3)):
        for half, place in enumerate((band, moment)):
            for i in (0, quarter - 1):
                angle = place / 10000 ** (i / quarter)
                found = table[moment, band, half * 2 * quarter + i], table[moment, band, (half * 2 + 1) * quarter + i]
                assert [float(value) for value in found] == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-5)


def test_positions_of_a_sequence_are_those_of_a_patchs_number() -> None:
    encoder = build(TINY.model_copy(update={"position": "sequence"}))
    assert not encoder.vit.pos_embed[0, 0].any()
    for patch in (0, 1, 23):
        for i in (0, 1, encoder.width // 2 - 1):
            angle = patch / 10000 ** (2 * i / encoder.width)
            found = encoder.vit.pos_embed[0, 1 + patch, 2 * i : 2 * i + 2].tolist()
            assert found == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-5)


def test_hidden_patches_change_nothing_and_visible_ones_are_those_of_the_grid() -> None:
    encoder, mel = build(), spectrograms()
    visible = torch.tensor([[0, 5, 23], [1, 2, 3], [4, 8, 20]])
    changed = mel.clone()
    shown = torch.zeros(3, 24, dtype=torch.bool).scatter_(1, visible, True).view(3, 1, 6, 4)
    shown = shown.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    changed[~shown] = 7.0
    with torch.no_grad():
        torch.testing.assert_close(encoder(mel, visible).tokens, encoder(changed, visible).tokens)
        assert not torch.allclose(encoder(mel, visible).tokens, encoder(mel.roll(4, dims=2), visible).tokens, atol=1e-3)


def test_a_class_token_may_be_left_out() -> None:
    encoder = build(TINY.model_copy(update={"class_token": False}))
    assert encoder(spectrograms()).tokens.shape == (3, 24, encoder.width)


def test_the_final_norm_of_a_level_is_the_encoders() -> None:
    encoder, mel = build(), spectrograms()
    with torch.no_grad():
        encoding, normed = encoder(mel, None, (2,)), encoder(mel, None, (2,), norm_layers=True)
        assert encoding.norm is not None
        torch.testing.assert_close(encoding.norm(encoding.layers[2]), normed.layers[2])
        assert not torch.allclose(encoding.layers[2], normed.layers[2], atol=1e-2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "resnet50"}, "sound_encoder.name 'resnet50'"),
        ({"name": "vit_pwee_patch16_reg1_gap_256"}, "set sound_encoder.registers=1"),
        ({"name": "vit_base_patch16_rope_224"}, "sound_encoder.name"),
    ],
)
def test_what_is_no_plain_vit_is_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_sound_encoder(TINY.model_copy(update=changes))
