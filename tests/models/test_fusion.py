"""Fusion: who looks at whom, and that silence in place of a missing sound is looked at by nobody."""

import pytest
import torch

from facemae.config import FusionConfig
from facemae.errors import ConfigError
from facemae.models.cross import CrossSelfBlock
from facemae.models.drop_path import draw_factors
from facemae.models.encoding import Encoding
from facemae.models.fusion import Fusion
from facemae.models.init import initialise

WIDTH, SOUND_WIDTH, SAMPLES = 24, 16, 4
PRESENT = torch.tensor([True, False, True, False])
Pair = tuple[Encoding, Encoding]


def build(depth: int = 2, drop_path: float = 0.0) -> Fusion:
    config = FusionConfig(depth=depth, heads=4, drop_path=drop_path)
    fusion = Fusion(config, width=WIDTH, sound_width=SOUND_WIDTH)
    initialise(fusion, 0)
    generator = torch.Generator().manual_seed(0)
    for parameter in fusion.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return fusion


def encodings(silence: float = 0.0, samples: int = SAMPLES) -> Pair:
    """A view and its sound; of samples without sound that has another value."""
    generator = torch.Generator().manual_seed(1)
    view = torch.randn(SAMPLES, 5, WIDTH, generator=generator)
    sound = torch.randn(SAMPLES, 3, SOUND_WIDTH, generator=generator)
    sound = torch.where(PRESENT[:, None, None], sound, sound + silence)
    return Encoding(view[:samples], 0), Encoding(sound[:samples], 0)


def fused(pair: Pair) -> tuple[torch.Tensor, torch.Tensor]:
    view, sound = (encoding.after_fusion().tokens for encoding in pair)
    return view, sound


def test_both_sides_read_what_the_block_before_left() -> None:
    fusion, pair = build(), encodings()
    with torch.no_grad():
        x, y = (encoding.tokens for encoding in pair)
        for block, sound_block in zip(fusion.view_blocks, fusion.sound_blocks, strict=True):
            assert isinstance(block, CrossSelfBlock)
            assert isinstance(sound_block, CrossSelfBlock)
            before = x
            x = x + PRESENT[:, None, None] * block.cross(block.cross_norm(x), block.context_norm(y))
            seen = sound_block.cross(sound_block.cross_norm(y), sound_block.context_norm(before))
            y = y + PRESENT[:, None, None] * seen
            x, y = (
                z + part.attn(part.norm1(z)) + part.mlp(part.norm2(z + part.attn(part.norm1(z))))
                for z, part in ((x, block), (y, sound_block))
            )
        found = fused(fusion(*pair, PRESENT))
        torch.testing.assert_close(found[0], fusion.view_norm(x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found[1], fusion.sound_norm(y), atol=1e-5, rtol=1e-5)


def test_what_stands_in_place_of_a_sound_changes_no_number_and_gets_no_gradient() -> None:
    fusion = build()
    found: list[list[torch.Tensor | None]] = []
    outputs = []
    for silence in (0.0, 7.0):
        fusion.zero_grad()
        view, sound = encodings(silence)
        sound.tokens.requires_grad_()
        tokens, _ = fused(fusion(view, sound, PRESENT))
        tokens.square().sum().backward()  # type: ignore[no-untyped-call]
        outputs.append(tokens.detach())
        assert sound.tokens.grad is not None
        assert not sound.tokens.grad[~PRESENT].any()
        assert sound.tokens.grad[PRESENT].any()
        found.append([value.grad for value in fusion.view_blocks.parameters()])
    assert torch.equal(*outputs)
    for quiet, loud in zip(*found, strict=True):
        assert quiet is not None
        assert loud is not None
        assert torch.equal(quiet, loud)
    none = torch.zeros(SAMPLES, dtype=torch.bool)
    alone = fused(fusion(*encodings(), none))[0]
    for sample in range(SAMPLES):
        assert torch.allclose(alone[sample], outputs[0][sample], atol=1e-6) == (not PRESENT[sample])


def test_a_sample_is_what_it_is_whoever_is_beside_it() -> None:
    fusion = build()
    with torch.no_grad():
        many = fused(fusion(*encodings(), PRESENT))
        one = fused(fusion(*encodings(samples=1), PRESENT[:1]))
    for mine, theirs in zip(one, many, strict=True):
        torch.testing.assert_close(mine[0], theirs[0])


def test_branches_are_scaled_as_written_out_and_recomputed_alike() -> None:
    assert build().branches == [0, 0]
    fusion = build(drop_path=0.5)
    assert fusion.branches == [3, 3]
    drawn = [
        draw_factors(0.5, fusion.branches, seed=3, step=4, view=name, first_slot=0, slots=SAMPLES)
        for name in ("main/fusion", "voice/fusion")
    ]
    # The order of a block's branches: self-attention, MLP, and the look at the other side.
    assert all(bool((factors[1] == 0).any()) for factors in drawn)
    with torch.no_grad():
        x, y = (encoding.tokens for encoding in encodings())
        for number, blocks in enumerate(zip(fusion.view_blocks, fusion.sound_blocks, strict=True)):
            sides = []
            for block, factors, own, other in zip(blocks, drawn, (x, y), (y, x), strict=True):
                assert isinstance(block, CrossSelfBlock)
                attention, mlp, look = (factors[number][:, branch].view(-1, 1, 1) for branch in range(3))
                look = look * PRESENT[:, None, None]
                z = own + look * block.cross(block.cross_norm(own), block.context_norm(other))
                z = z + attention * block.attn(block.norm1(z))
                sides.append(z + mlp * block.mlp(block.norm2(z)))
            x, y = sides
    gradients = []
    for recomputed in (False, True):
        fusion.zero_grad()
        fusion.checkpointing = recomputed
        found = fused(fusion(*encodings(), PRESENT, *drawn))
        torch.testing.assert_close(found[0], fusion.view_norm(x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found[1], fusion.sound_norm(y), atol=1e-5, rtol=1e-5)
        (found[0].square().sum() + found[1].sum()).backward()  # type: ignore[no-untyped-call]
        gradients.append([value.grad for value in fusion.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def test_layers_stay_those_of_the_encoder() -> None:
    layers, norm = {1: torch.zeros(SAMPLES, 5, WIDTH)}, torch.nn.LayerNorm(WIDTH)
    view, sound = encodings()
    given = Encoding(view.tokens, 0, None, layers, (1, 5), norm=norm)
    made = build()(given, sound, PRESENT)[0]
    assert torch.equal(made.tokens, given.tokens)
    after = made.after_fusion()
    assert (after.layers, after.grid, after.fused) == (layers, (1, 5), None)
    assert not torch.equal(after.tokens, given.tokens)


def test_heads_divide_both_widths() -> None:
    with pytest.raises(ConfigError, match=r"fusion.heads is 8 and tokens of sound_encoder have 12 numbers"):
        Fusion(FusionConfig(), width=16, sound_width=12)
