"""`facemae bench attention`: attention computed as the trainer chooses here, against the other way."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch.utils.benchmark import Timer

from facemae.bench.report import BenchResult, compare_rates, machine, spread
from facemae.errors import DataError
from facemae.models.attention import choose_attention
from facemae.models.plain_attention import plain_attention

WAYS = {True: "fused kernel", False: "matrix products"}
"""What `choose_attention` says, in words."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""Largest difference of values and gradients, relative to the largest of them."""


@dataclass(frozen=True)
class AttentionBenchSettings:
    """What is measured.

    Attributes:
        tokens: Lengths of sequences, one measurement each; the default ones are those of masked encoders and decoders.
        heads: Heads of attention.
        size: Dimension of a head.
        all_tokens: Tokens of a batch, so that batches of all lengths are of one size.
        rounds: How often each way is measured, in turns.
        seconds: Time a way gets in a round.
    """

    tokens: tuple[int, ...] = (17, 50, 99, 197, 400)
    heads: int = 6
    size: int = 64
    all_tokens: int = 12_800
    rounds: int = 7
    seconds: float = 0.1


def bench_attention(settings: AttentionBenchSettings) -> Iterator[BenchResult]:
    """Measure forward and backward passes of attention in both ways, in bf16 and in fp32.

    Args:
        settings: What is measured.

    Yields:
        A result for each precision and length, in passes a second. A ratio below 1 speaks
        against the rule of `facemae.models.attention.choose_attention` on this machine.

    Raises:
        DataError: The two ways do not compute the same.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for dtype in (torch.bfloat16, torch.float32):
        for tokens in settings.tokens:
            yield _compare(settings, device, dtype, tokens)


def attention(qkv: torch.Tensor, *, fused: bool) -> torch.Tensor:
    """Projections [B, N, 3, H, d] give [B, N, H * d], in one way or the other."""
    if not fused:
        return plain_attention(qkv)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _compare(settings: AttentionBenchSettings, device: torch.device, dtype: torch.dtype, tokens: int) -> BenchResult:
    fused = choose_attention(device, dtype, tokens)
    batch = max(1, settings.all_tokens // tokens)
    drawn = torch.randn(batch, tokens, 3, settings.heads, settings.size, generator=torch.Generator().manual_seed(0))
    qkv = drawn.to(device, dtype).requires_grad_()

    def passes(fused: bool) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
        def once() -> tuple[torch.Tensor, torch.Tensor]:
            found = attention(qkv, fused=fused)
            return found, torch.autograd.grad(found, qkv, found.detach())[0]

        return once

    check_same(passes(fused)(), passes(not fused)(), TOLERANCE[dtype])
    sides = [_Stopwatch(passes(way), settings.seconds) for way in (fused, not fused)]
    rounds = [[side.rate() for side in sides] for _ in range(settings.rounds)]
    ours, other = ([rates[side] for rates in rounds] for side in (0, 1))
    mine, theirs, ratio = compare_rates(ours, other)
    facts = {
        "baseline": WAYS[not fused], "device": device.type, "threads": torch.get_num_threads(), "batch": batch,
        **asdict(settings), "tokens": tokens, **spread(ours, other),
    }  # fmt: skip
    bench = f"attention by {WAYS[fused]}, {'bf16' if dtype == torch.bfloat16 else 'fp32'}, {tokens} tokens"
    return BenchResult(bench, mine, theirs, "passes/s", ratio, facts, machine())


def check_same(ours: tuple[torch.Tensor, ...], other: tuple[torch.Tensor, ...], tolerance: float) -> None:
    """Raise DataError where values or gradients of the two ways differ by more than rounding does."""
    for name, mine, theirs in zip(("values", "gradients"), ours, other, strict=True):
        difference = float((mine - theirs).detach().abs().max() / theirs.detach().abs().max())
        if not difference <= tolerance:
            raise DataError(
                f"{name} of the two ways differ by {difference:.2g} of the largest",
                expected=f"at most {tolerance:g}",
                fix="report this with `facemae env`: the measurement would be worth nothing, and so may a training",
            )


class _Stopwatch:
    """Rates of a function, of as many calls as fill a time."""

    def __init__(self, function: Callable[[], object], seconds: float) -> None:
        # It waits for a GPU's queue, and would count on one thread if not told.
        self._timer = Timer("function()", globals={"function": function}, num_threads=torch.get_num_threads())
        self._calls = max(1, int(seconds / self._timer.timeit(2).mean))

    def rate(self) -> float:
        """Calls a second."""
        return float(1 / self._timer.timeit(self._calls).mean)
