"""One transformer for frames and sound: whose weights, what a joint pass is, and that silence leaves no trace."""

import pytest
import torch

from facemae.config import EncoderConfig, SoundEncoderConfig
from facemae.models.encoder import MaskedEncoder, build_encoder, build_sound_encoder
from facemae.models.encoding import START, Encoding
from facemae.models.init import initialise
from facemae.models.joint import JointPass

HEARS = SoundEncoderConfig(name="test_vit", frames=24, mels=16, patch_size=8, blocks="shared", class_token=False)
PRESENT = torch.tensor([True, False, True])

Encoders = tuple[MaskedEncoder, MaskedEncoder]


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    encoder = build_encoder(EncoderConfig(name="test_vit", image_size=16, patch_size=4, channels=1))
    hears = build_sound_encoder(HEARS, encoder)
    pair = torch.nn.ModuleDict({"encoder": encoder, "sound_encoder": hears})
    initialise(pair, 0)
    return encoder, hears


def given(silence: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(3, 1, 16, 16, generator=generator)
    sounds = torch.randn(3, 1, 24, 16, generator=generator)
    return pictures, torch.where(PRESENT.view(3, 1, 1, 1), sounds, silence)


def encode(encoders: Encoders, silence: float = 0.0) -> tuple[Encoding, Encoding]:
    first, second = (encoder(x, None, (START,)) for encoder, x in zip(encoders, given(silence), strict=True))
    return first, second


def test_blocks_have_one_name_and_a_sharing_encoder_only_what_is_its_own(encoders: Encoders) -> None:
    encoder, hears = encoders
    assert set(hears.state_dict()) == {"vit.patch_embed.proj.weight", "vit.patch_embed.proj.bias", "vit.pos_embed"}
    assert {id(value) for value in hears.parameters()}.isdisjoint(id(value) for value in encoder.parameters())
    assert hears.depth == encoder.depth


def test_alone_it_is_a_plain_encoder_with_the_others_blocks(encoders: Encoders) -> None:
    encoder, hears = encoders
    plain = build_sound_encoder(HEARS)
    lent = {name: value for name, value in encoder.vit.state_dict().items() if name.startswith(("blocks.", "norm."))}
    plain.vit.load_state_dict({**lent, **hears.vit.state_dict()})
    visible = torch.tensor([[0, 2, 5]] * 3)
    for seen in (None, visible):
        mine, theirs = (which(given()[1], seen, (1,)) for which in (hears, plain))
        torch.testing.assert_close(mine.tokens, theirs.tokens)
        torch.testing.assert_close(mine.level(1), theirs.level(1))


def test_the_joint_pass_is_the_blocks_on_one_sequence(encoders: Encoders) -> None:
    view, sound = encode(encoders)
    seen, heard = JointPass(encoders[0])(view, sound, torch.ones(3, dtype=torch.bool))
    vit = encoders[0].vit
    together = vit.norm(vit.blocks(torch.cat([view.layers[START], sound.layers[START]], dim=1)))
    torch.testing.assert_close(seen.after_fusion().tokens, together[:, :17])
    torch.testing.assert_close(heard.after_fusion().tokens, together[:, 17:])
    assert seen.tokens is view.tokens


def test_what_stands_for_missing_sound_leaves_no_trace_and_gets_no_gradient(encoders: Encoders) -> None:
    joint, fused = JointPass(encoders[0]), []
    for silence in (0.0, 7.0):
        view, sound = encode(encoders, silence)
        seen, _ = joint(view, sound, PRESENT)
        fused.append(seen.after_fusion().tokens)
        assert torch.equal(fused[-1][1], view.tokens[1])
        assert not torch.allclose(fused[-1][0], view.tokens[0], atol=1e-3)
    assert torch.equal(*fused)
    view, sound = encode(encoders)
    start = sound.layers[START].detach().requires_grad_()
    sound.layers[START] = start
    joint(view, sound, PRESENT)[0].after_fusion().tokens.square().sum().backward()
    assert start.grad is not None
    assert [bool(grad.any()) for grad in start.grad] == PRESENT.tolist()


def test_blocks_computed_again_give_the_same(encoders: Encoders) -> None:
    view, sound = encode(encoders)
    joint = JointPass(encoders[0])
    first = joint(view, sound, PRESENT)[0].after_fusion().tokens
    joint.checkpointing = True
    torch.testing.assert_close(joint(view, sound, PRESENT)[0].after_fusion().tokens, first)
