"""Stochastic depth: what is left out is a function of seed, step and slot, and nothing is where nobody asks."""

import pytest
import torch

from facemae.config import EncoderConfig
from facemae.models.drop_path import Branch, draw_factors
from facemae.models.encoder import MaskedEncoder, build_encoder
from facemae.models.init import initialise

CONFIG = EncoderConfig(name="test_vit", image_size=24, patch_size=6, channels=1, drop_path=0.5)


def build(config: EncoderConfig = CONFIG) -> MaskedEncoder:
    encoder = build_encoder(config)
    initialise(encoder, 0)
    return encoder


def pixels(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 1, 24, 24, generator=torch.Generator().manual_seed(1))


def factors(slots: int, first: int = 0, step: int = 4, seed: int = 1, rate: float = 0.5) -> list[torch.Tensor]:
    return draw_factors(rate, [2] * 6, seed=seed, step=step, view="main", first_slot=first, slots=slots)


def test_a_slot_keeps_its_factors_however_the_batch_is_cut() -> None:
    whole = torch.stack(factors(8))
    for first in range(8):
        assert torch.equal(torch.stack(factors(1, first))[:, 0], whole[:, first])
    assert not torch.equal(torch.stack(factors(8, step=5)), whole)
    assert not torch.equal(torch.stack(factors(8, seed=2)), whole)


def test_the_rate_rises_linearly_and_the_mean_is_kept() -> None:
    drawn = factors(4000, rate=0.4)
    assert torch.equal(drawn[0], torch.ones(4000, 2))
    for number, values in enumerate(drawn):
        share = 0.4 * number / 5
        assert (values == 0).float().mean() == pytest.approx(share, abs=0.02)
        assert values.mean() == pytest.approx(1, abs=0.03)
        expected = [1.0] if number == 0 else [0.0, 1 / (1 - share)]
        assert sorted(set(values.flatten().tolist())) == pytest.approx(expected)


def test_without_factors_an_encoder_is_what_it_is() -> None:
    plain = build(CONFIG.model_copy(update={"drop_path": 0.0}))
    assert torch.equal(build().train()(pixels()).tokens, plain(pixels()).tokens)
    assert build().state_dict().keys() == plain.state_dict().keys()
    assert plain.branches == [0] * plain.depth
    assert build().branches == [2] * plain.depth


@pytest.mark.parametrize("masks", [1, 2])
def test_branches_are_scaled_as_written_out(masks: int) -> None:
    encoder, drawn = build(), factors(3)
    visible = torch.tensor([[[0, 3, 7], [1, 2, 5]]] * 3)[:, :masks]
    x = encoder._embed(pixels(), visible, (4, 4))
    for block, values in zip(encoder.vit.blocks, drawn, strict=True):
        attention, mlp = (values[:, branch].repeat_interleave(masks).view(-1, 1, 1) for branch in range(2))
        x = x + attention * block.attn(block.norm1(x))
        x = x + mlp * block.mlp(block.norm2(x))
    found = encoder(pixels(), visible, factors=drawn)
    torch.testing.assert_close(found.tokens, encoder.vit.norm(x))
    assert all(part.factors is None for part in encoder.modules() if isinstance(part, Branch))


def test_blocks_computed_again_leave_the_same_branches_out() -> None:
    found = {}
    for recomputed in (False, True):
        encoder = build()
        encoder.vit.set_grad_checkpointing(recomputed)
        # Two encodings before the backward pass, as of two views: each keeps its own.
        first, second = (encoder(pixels(), factors=factors(3, step=step)).tokens for step in (0, 1))
        (first.square().sum() + second.sum()).backward()
        found[recomputed] = [value.grad for value in encoder.parameters() if value.requires_grad]
    for plain, again in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(plain, again)


@pytest.mark.slow
def test_compiled_blocks_leave_the_same_branches_out_without_compiling_anew() -> None:
    plain, compiled = build(), build()
    for block in compiled.vit.blocks:
        block.compile()
    torch._dynamo.utils.counters.clear()
    for step in range(3):
        drawn = factors(3, step=step)
        torch.testing.assert_close(compiled(pixels(), factors=drawn).tokens, plain(pixels(), factors=drawn).tokens)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
