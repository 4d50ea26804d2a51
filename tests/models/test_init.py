import math

import pytest
import torch
from torch import nn

from facemae.config import EncoderConfig
from facemae.errors import ConfigError
from facemae.models.encoder import build_encoder
from facemae.models.init import initialise

TINY = EncoderConfig(name="test_vit", image_size=24, patch_size=6, channels=1, registers=2)


class Pair(nn.Module):
    def __init__(self, *, reverse: bool) -> None:
        super().__init__()
        for name in ("b", "a") if reverse else ("a", "b"):
            setattr(self, name, nn.Linear(4, 6))


class Forgotten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.odd = nn.Parameter(torch.zeros(3))
        self.register_buffer("running", torch.zeros(3))


def test_a_forgotten_parameter_or_buffer_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        initialise(Forgotten(), 0)
    assert caught.value.found == "left uninitialised: odd, running"


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit3", "test_vit4"])
def test_every_parameter_of_an_encoder_is_filled(name: str) -> None:
    encoder = build_encoder(TINY.model_copy(update={"name": name}))
    initialise(encoder, 0)
    assert all(bool(parameter.isfinite().all()) for parameter in encoder.parameters())


def test_values_depend_on_names_and_seed_alone() -> None:
    first, second, other = Pair(reverse=False), Pair(reverse=True), Pair(reverse=False)
    torch.manual_seed(5)
    initialise(first, 7)
    torch.manual_seed(6)
    initialise(second, 7)
    initialise(other, 8)
    for name, value in first.named_parameters():
        assert torch.equal(value, second.get_parameter(name))
    assert not torch.equal(first.get_parameter("a.weight"), other.get_parameter("a.weight"))
    assert not torch.equal(first.get_parameter("a.weight"), first.get_parameter("b.weight"))


def test_a_part_gets_the_weights_it_has_in_the_whole() -> None:
    whole = nn.ModuleDict({"encoder": nn.Linear(3, 5), "head": nn.Linear(5, 2)})
    part = nn.Linear(3, 5)
    initialise(whole, 3)
    initialise(part, 3, prefix="encoder.")
    assert torch.equal(part.weight, whole["encoder"].get_parameter("weight"))


def test_the_scheme_is_maes() -> None:
    encoder = build_encoder(TINY)
    initialise(encoder, 0)
    vit = encoder.vit
    projection = vit.patch_embed.proj.weight
    bound = math.sqrt(6 / (36 + encoder.width))
    assert 0.95 * bound < projection.abs().max() <= bound
    qkv = vit.blocks[0].attn.qkv
    assert 0.95 < qkv.weight.abs().max() / math.sqrt(6 / (4 * encoder.width)) <= 1
    assert qkv.bias.abs().max() == 0
    assert torch.equal(vit.norm.weight, torch.ones(encoder.width))
    assert vit.norm.bias.abs().max() == 0
    for token in (vit.cls_token, vit.reg_token):
        assert 0.01 < token.std() < 0.03


def test_positions_have_maes_layout() -> None:
    encoder = build_encoder(TINY)
    initialise(encoder, 0)
    positions = encoder.vit.pos_embed[0]
    quarter = encoder.width // 4
    assert positions[:3].abs().max() == 0
    for row, column in ((0, 0), (1, 3), (3, 2)):
        expected = []
        for place in (column, row):
            angles = [place / 10000 ** (i / quarter) for i in range(quarter)]
            expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        torch.testing.assert_close(positions[3 + 4 * row + column], torch.tensor(expected), atol=1e-5, rtol=0)
