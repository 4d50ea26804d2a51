"""Multi-head attention by matrix products, with a backward pass that moves as little memory as it can."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.library import custom_op, register_autograd
from torch.utils.flop_counter import register_flop_formula

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
    found: torch.Tensor = _forward(packs)[0]
    return found


# To a compiler each pass is one operation: written out, its parts would leave the caches.
@custom_op("facemae::attention", mutates_args=())
def _forward(
    packs: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What is found, [B, M, H * d]; q, k and v, [B * H, tokens, d] each; and the shares of attention, [B * H, M, N]."""
    batch, tokens, _, heads, size = packs[0].shape
    q, k, v = (part for pack in packs for part in _parts(pack))
    shares, found = q.new_empty(len(q), tokens, k.shape[1]), torch.empty_like(q)
    for part, scores, _ in _chunks(shares):
        torch.baddbmm(scores, q[part], k[part].mT, beta=0, alpha=size**-0.5, out=scores)
        torch.softmax(scores, dim=-1, out=shares[part])
        torch.bmm(shares[part], v[part], out=found[part])
    found = found.view(batch, heads, tokens, size).transpose(1, 2).reshape(batch, tokens, heads * size)
    return found, q, k, v, shares


@custom_op("facemae::attention_backward", mutates_args=())
def _backward(
    grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, shares: torch.Tensor, packs: int
) -> list[torch.Tensor]:
    """Gradients of the packs, one or two, from that of what was found."""
    batch, tokens, size = len(grad), q.shape[1], q.shape[2]
    heads = grad.shape[2] // size
    grads = [q.new_empty(len(parts), batch, heads, *parts[0].shape[1:]) for parts in _packed(q, k, v, packs)]
    of_q, of_k, of_v = (part.flatten(0, 1) for pack in grads for part in pack)
    given = grad.reshape(batch, tokens, heads, size).transpose(1, 2).reshape(-1, tokens, size)
    for part, scores, of_shares in _chunks(shares):
        torch.bmm(shares[part].mT, given[part], out=of_v[part])
        torch.bmm(given[part], v[part].mT, out=of_shares)
        # What autograd itself calls; the same from elementwise operations takes more than twice as long.
        torch._softmax_backward_data(of_shares, shares[part], -1, shares.dtype, grad_input=scores)  # noqa: SLF001
        torch.baddbmm(of_q[part], scores, k[part], beta=0, alpha=size**-0.5, out=of_q[part])
        torch.baddbmm(of_k[part], scores.mT, q[part], beta=0, alpha=size**-0.5, out=of_k[part])
    return [pack.permute(1, 3, 0, 2, 4) for pack in grads]


@_forward.register_fake
def _forward_shapes(packs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    batch, tokens, _, heads, size = packs[0].shape
    others = packs[-1].shape[1]
    found = packs[0].new_empty(batch, tokens, heads * size)
    parts = [found.new_empty(batch * heads, count, size) for count in (tokens, others, others)]
    return found, *parts, found.new_empty(batch * heads, tokens, others)


@_backward.register_fake
def _backward_shapes(
    grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, _: torch.Tensor, packs: int
) -> list[torch.Tensor]:
    batch, size = len(grad), q.shape[2]
    parts = _packed(q, k, v, packs)
    grads = [q.new_empty(len(some), batch, grad.shape[2] // size, *some[0].shape[1:]) for some in parts]
    return [pack.permute(1, 3, 0, 2, 4) for pack in grads]


def _keep(ctx: Any, inputs: tuple[Sequence[torch.Tensor]], output: tuple[torch.Tensor, ...]) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.packs = len(inputs[0])


def _differentiate(ctx: Any, grad: torch.Tensor | None, *_: None) -> Sequence[torch.Tensor | None]:
    if grad is None:
        return [None] * ctx.packs
    grads: list[torch.Tensor] = _backward(grad, *ctx.saved_tensors, ctx.packs)
    return grads


register_autograd(_forward, _differentiate, setup_context=_keep)


@register_flop_formula(torch.ops.facemae.attention)
def _operations(packs: Sequence[tuple[int, ...]], *_: Any, **__: Any) -> int:
    (batch, queries, _one, heads, size), keys = packs[0], packs[-1][1]
    return 2 * 2 * batch * heads * queries * keys * size


@register_flop_formula(torch.ops.facemae.attention_backward)
def _operations_backward(_: Any, q: tuple[int, ...], k: tuple[int, ...], *__: Any, **___: Any) -> int:
    return 4 * 2 * q[0] * q[1] * q[2] * k[1]


def _parts(pack: torch.Tensor) -> Iterator[torch.Tensor]:
    """What a pack holds, a contiguous [B * H, tokens, d] each, as products of many small matrices want it."""
    for part in pack.permute(2, 0, 3, 1, 4):
        yield part.clone(memory_format=torch.contiguous_format).flatten(0, 1)


def _packed(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packs: int) -> tuple[tuple[torch.Tensor, ...], ...]:
    """The parts as they came: in one pack, or queries apart."""
    return ((q, k, v),) if packs == 1 else ((q,), (k, v))


def _chunks(shares: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Parts of the matrices of `shares`, with room for two of that size; always the same, so that it stays cached."""
    count, tokens, others = shares.shape
    size = max(1, tokens * others * shares.element_size())
    step = max(1, min(count, _SCORES // size))
    room = shares.new_empty(2, step, tokens, others)
    for start in range(0, count, step):
        first, second = room[:, : count - start]
        yield slice(start, start + step), first, second
