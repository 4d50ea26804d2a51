"""Attention by matrix products: values and gradients against torch's own, and where it runs."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import Attention
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from facemae.models import plain_attention as module
from facemae.models.attention import PLAIN_TOKENS, SelfAttention, give_attention, prepare_attention
from facemae.models.plain_attention import plain_attention
from facemae.models.recompute import recompute

BATCH, HEADS, SIZE = 3, 2, 4
packs_of = pytest.mark.parametrize("shapes", [[(7, 3)], [(5, 1), (7, 2)]], ids=["self", "cross"])


def packs(shapes: list[tuple[int, int]], dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(BATCH, tokens, count, HEADS, SIZE) for tokens, count in shapes]
    return [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for size in sizes]


def reference(*given: torch.Tensor) -> torch.Tensor:
    q, k, v = (part for pack in given for part in pack.permute(2, 0, 3, 1, 4))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@packs_of
@pytest.mark.parametrize("scores", [1, 600, 2**22])
def test_values_and_gradients_are_those_of_attention(
    shapes: list[tuple[int, int]], scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However many heads are computed at a time: one, some that do not divide them, all.
    monkeypatch.setattr(module, "_SCORES", scores)
    given = packs(shapes)
    found, expected = plain_attention(*given), reference(*given)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = torch.autograd.grad(found, given, weights)
    for mine, theirs in zip(ours, torch.autograd.grad(expected, given, weights), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert torch.autograd.gradcheck(plain_attention, given)


@packs_of
def test_in_bf16_it_errs_no_more_than_plain_products_would(shapes: list[tuple[int, int]]) -> None:
    given = packs(shapes, torch.bfloat16)
    exact = [pack.detach().double().requires_grad_() for pack in given]
    expected = reference(*exact)
    found = plain_attention(*given)
    assert found.dtype == torch.bfloat16
    weights = torch.ones_like(expected)
    wanted = torch.autograd.grad(expected, exact, weights)
    got = torch.autograd.grad(found, given, weights.bfloat16())
    for mine, theirs in zip([found, *got], [expected, *wanted], strict=True):
        assert (mine.double() - theirs).norm() < 0.01 * theirs.norm()


def test_a_gradient_that_is_not_contiguous_is_taken_as_it_is() -> None:
    given = packs([(7, 3)])
    weights = torch.randn(BATCH, HEADS * SIZE, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64).mT
    ours = torch.autograd.grad(plain_attention(*given), given, weights)
    torch.testing.assert_close(ours, torch.autograd.grad(reference(*given), given, weights))


@pytest.mark.parametrize("size", [(0, 5, 3, 2, 4), (2, 5, 3, 0, 4)])
def test_of_nothing_comes_nothing(size: tuple[int, ...]) -> None:
    pack = torch.zeros(size, requires_grad=True)
    found = plain_attention(pack)
    assert found.shape == (size[0], 5, size[3] * 4)
    (gradient,) = torch.autograd.grad(found.sum(), pack)
    assert gradient.shape == pack.shape


def test_under_autocast_gradients_have_the_type_of_what_is_given() -> None:
    given = packs([(7, 3)], torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        (gradient,) = torch.autograd.grad(plain_attention(*given).sum(), given)
    assert gradient.dtype == torch.float32


@packs_of
def test_to_a_compiler_it_is_one_operation(shapes: list[tuple[int, int]]) -> None:
    given = packs(shapes)
    seen: list[Any] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        seen.extend(node.target for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    compiled = torch.compile(lambda *packs: plain_attention(*packs) + 1, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(*given), plain_attention(*given) + 1)
    assert torch.ops.facemae.attention.default in seen
    assert not any("bmm" in str(target) for target in seen)


@packs_of
def test_its_shapes_and_gradients_are_those_it_tells_a_compiler(shapes: list[tuple[int, int]]) -> None:
    given = packs(shapes, torch.float32)
    torch.library.opcheck(torch.ops.facemae.attention.default, (given,))


@packs_of
def test_its_operations_are_counted(shapes: list[tuple[int, int]]) -> None:
    given = packs(shapes)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(plain_attention(*given).sum(), given)
    product = 2 * BATCH * HEADS * given[0].shape[1] * given[-1].shape[1] * SIZE
    # Two products forward, and one for each of their four inputs backward.
    assert counter.get_total_flops() == (2 + 4) * product


def test_attention_of_a_vit_is_replaced_and_keeps_names_and_values() -> None:
    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=24, patch_size=6, in_chans=1, num_classes=0, depth=2
    ).eval()
    x = torch.randn(2, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    names, before = list(vit.state_dict()), vit(x)
    give_attention(vit)
    prepare_attention(vit, x.new_zeros(1, 17, 8, dtype=torch.bfloat16))
    assert [type(block.attn) for block in vit.blocks] == [SelfAttention] * 2
    assert not any(block.attn.fused_attn for block in vit.blocks)
    assert list(vit.state_dict()) == names
    torch.testing.assert_close(vit(x), before, atol=1e-5, rtol=1e-4)


def test_a_block_computed_again_runs_the_attention_it_ran_before() -> None:
    vit = timm.create_model("vit_tiny_patch16_224", img_size=24, patch_size=6, in_chans=1, num_classes=0, depth=1)
    give_attention(vit)
    (block,), generator = vit.blocks, torch.Generator().manual_seed(0)
    views = [torch.randn(2, tokens, vit.embed_dim, generator=generator) for tokens in (PLAIN_TOKENS + 1, 5)]
    found = {}
    for recomputed in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            sums, ran = [], []
            for view in views:
                prepare_attention(vit, view)
                ran.append(block.attn.fused_attn)
                sums.append((recompute(block, view) if recomputed else block(view)).float().sum())
        assert ran == [True, False]
        found[recomputed] = torch.autograd.grad(torch.stack(sums).sum(), list(block.parameters()))
    torch.testing.assert_close(found[True], found[False], rtol=0, atol=0)


@pytest.mark.parametrize("more", [{"qk_norm": True}, {"gated": True}, {"scale_norm": True}, {"qkv_bias": True}])
def test_variants_compute_what_timm_computes(more: dict[str, bool]) -> None:
    torch.manual_seed(0)
    layer = Attention(8, 2, norm_layer=nn.LayerNorm, **more).eval()
    layer.fused_attn = False
    x = torch.randn(2, 5, 8)
    expected = layer(x)
    give_attention(layer)
    assert type(layer) is SelfAttention
    torch.testing.assert_close(layer(x), expected)
    assert not torch.allclose(layer(x), layer(x, is_causal=True))
