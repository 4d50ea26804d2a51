"""Stochastic depth: branches of blocks are left out for some samples (Huang et al., 2016, arXiv 1603.09382).

What is left out is decided outside the encoder, as a function of seed, step and slot, and handed to it: torch's own
random state would make a run depend on processes, accumulation and where it was continued.
"""

import torch
from torch import nn

from facemae.rng import uniform_by_slot


class Branch(nn.Module):
    """Scales a residual branch by a factor for each row: 0 leaves the branch out.

    Takes the place of timm's DropPath. Without factors the branch is what it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.factors: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[R, tokens, D], scaled by the factors, [R, 1, 1]."""
        return x if self.factors is None else x * self.factors.to(x.dtype)


def give_branches(blocks: nn.Module) -> None:
    """Put a `Branch` wherever timm's blocks have a place for dropping a path."""
    for module in blocks.modules():
        for name, _ in list(module.named_children()):
            if name.startswith("drop_path"):
                setattr(module, name, Branch())


def count_branches(blocks: nn.ModuleList) -> list[int]:
    """For each block, how many of its branches can be left out."""
    return [sum(isinstance(part, Branch) for part in block.modules()) for block in blocks]


def run_block(
    block: nn.Module, x: torch.Tensor, factors: torch.Tensor | None, *further: torch.Tensor | None
) -> torch.Tensor:
    """A block's output, its branches scaled.

    Sets the factors in the very call that uses them, so that a block that is computed again in the backward pass leaves
    the same branches out.

    Args:
        block: One of `give_branches`.
        x: [R, tokens, D].
        factors: [R, branches], or None.
        further: What the block takes beside x.
    """
    if factors is None:
        return block(x, *further)  # type: ignore[no-any-return]
    branches = [module for module in block.modules() if isinstance(module, Branch)]
    for number, branch in enumerate(branches):
        branch.factors = factors[:, number].view(-1, 1, 1)
    try:
        return block(x, *further)  # type: ignore[no-any-return]
    finally:
        for branch in branches:
            branch.factors = None


def draw_factors(
    rate: float, branches: list[int], *, seed: int, step: int, view: str, first_slot: int, slots: int
) -> list[torch.Tensor]:
    """Which branches of which samples are left out, and what the others are scaled by so that the mean is kept.

    Each branch is drawn by itself, as in timm. The rate rises linearly, 0 in the first block and `rate` in the last.

    Args:
        rate: The last block's.
        branches: How many branches each block has.
        seed: The run's seed.
        step: The optimiser step.
        view: Name of the view in the batch.
        first_slot: Slot of the first sample in the global batch.
        slots: Samples.

    Returns:
        For each block float32 [slots, branches]: 0, or 1 / (1 - the block's rate).
    """
    drawn = uniform_by_slot(seed, "drop_path", view, step, first=first_slot, slots=slots, each=sum(branches))
    factors, begin = [], 0
    for number, count in enumerate(branches):
        share = rate * number / max(1, len(branches) - 1)
        kept = torch.from_numpy(drawn[:, begin : begin + count] >= share)
        factors.append(kept.float() / (1 - share))
        begin += count
    return factors
