"""Multi-head attention by matrix products, with a backward pass that moves as little memory as it can."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.compiler import is_compiling

_SCORES = 2**21
"""Bytes of scores computed at a time: few enough to stay in the caches, enough to keep the threads busy."""


def plain_attention(*packs: torch.Tensor) -> torch.Tensor:
    """Softmax attention as in "Attention Is All You Need" (Vaswani et al., 2017, equation 1), by matrix products.

    The same as `scaled_dot_product_attention`, up to rounding; see docs/decisions/0020-attention-kernel.md for where it
    is the faster one. Scores are scaled after the product, so that queries are not rounded once more.

    Args:
        packs: Queries, keys and values as projections give them: one tensor of all three, [B, N, 3, H, d], or queries,
            [B, M, 1, H, d], and keys and values of what they look at, [B, N, 2, H, d].

    Returns:
        [B, M, H * d]
    """
    result: torch.Tensor = _PlainAttention.apply(*packs)
    return result


class _PlainAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *packs: torch.Tensor) -> torch.Tensor:
        batch, tokens, _, heads, size = packs[0].shape
        # One contiguous [B * H, tokens, d] each: what a product of many small matrices would copy them to anyway.
        q, k, v = (part.flatten(0, 1) for pack in packs for part in pack.permute(2, 0, 3, 1, 4).contiguous())
        shares, found = q.new_empty(len(q), tokens, k.shape[1]), torch.empty_like(q)
        for part, scores, _ in _chunks(shares):
            torch.baddbmm(scores, q[part], k[part].mT, beta=0, alpha=size**-0.5, out=scores)
            torch.softmax(scores, dim=-1, out=shares[part])
            torch.bmm(shares[part], v[part], out=found[part])
        ctx.save_for_backward(q, k, v, shares)
        ctx.packs = [pack.shape for pack in packs]
        return found.view(batch, heads, tokens, size).transpose(1, 2).flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q, k, v, shares = ctx.saved_tensors
        shapes: list[torch.Size] = ctx.packs
        batch, tokens, _, heads, size = shapes[0]
        grads = [q.new_empty(count, batch, heads, length, width) for batch, length, count, heads, width in shapes]
        of_q, of_k, of_v = (part.flatten(0, 1) for pack in grads for part in pack)
        given = grad.reshape(batch, tokens, heads, size).transpose(1, 2).flatten(0, 1)
        for part, scores, of_shares in _chunks(shares):
            torch.bmm(shares[part].mT, given[part], out=of_v[part])
            torch.bmm(given[part], v[part].mT, out=of_shares)
            # What autograd itself calls; the same from elementwise operations takes more than twice as long.
            torch._softmax_backward_data(of_shares, shares[part], -1, shares.dtype, grad_input=scores)  # noqa: SLF001
            torch.baddbmm(of_q[part], scores, k[part], beta=0, alpha=size**-0.5, out=of_q[part])
            torch.baddbmm(of_k[part], scores.mT, q[part], beta=0, alpha=size**-0.5, out=of_k[part])
        return tuple(pack.permute(1, 3, 0, 2, 4) for pack in grads)


def _chunks(shares: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Parts of the matrices of `shares`, with room for two of that size; always the same, so that it stays cached."""
    count, tokens, others = shares.shape
    size = max(1, tokens * others * shares.element_size())
    # A compiler would write out each part.
    step = max(1, count if is_compiling() else min(count, _SCORES // size))
    room = shares.new_empty(2, step, tokens, others)
    for start in range(0, count, step):
        first, second = room[:, : count - start]
        yield slice(start, start + step), first, second
