"""From an encoder's tokens to one feature vector an image."""

import re
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, cat

from facemae.errors import UsageError
from facemae.models.encoder import MaskedEncoder

PATTERNS = ("cls", "mean", "cls+mean", "gridK (K from 1 to the patch grid's side, for example grid2)", "tokens")
"""What `pooling` may be."""


_Kind = Literal["cls", "mean", "cls+mean", "grid", "tokens"]
_PLAIN: dict[str, _Kind] = {"cls": "cls", "mean": "mean", "cls+mean": "cls+mean", "tokens": "tokens"}


ClipGrid = tuple[int, int, int]
"""Steps, rows and columns."""


@dataclass(frozen=True)
class Prefix:
    """An encoder's leading tokens, which are no patches: the class token, if it has one, then registers."""

    class_token: bool = False
    registers: int = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.names)

    @property
    def names(self) -> list[str]:
        """What they are called, in their order."""
        return ["cls"] * self.class_token + [f"register{number}" for number in range(self.registers)]


def prefix_of(encoder: MaskedEncoder) -> Prefix:
    """The leading tokens of an encoder."""
    return Prefix(encoder.vit.has_class_token, encoder.vit.num_reg_tokens)


@dataclass(frozen=True)
class Pooling:
    """A parsed pooling name.

    Attributes:
        kind: The way tokens are brought together.
        cells: Cells along a side, for kind `grid`; else 0.
    """

    kind: _Kind
    cells: int = 0


def parse_pooling(name: str) -> Pooling:
    """Parse a pooling name; see `PATTERNS`.

    Raises:
        UsageError: The name is none of the known ones.
    """
    if name in _PLAIN:
        return Pooling(_PLAIN[name])
    match = re.fullmatch(r"grid([1-9]\d*)", name)
    if match is None:
        raise UsageError(f"unknown pooling {name!r}", expected="one of " + ", ".join(PATTERNS))
    return Pooling("grid", int(match.group(1)))


def check_pooling(pooling: Pooling, prefix: Prefix, grid: tuple[int, int]) -> None:
    """Raise `UsageError` where an encoder of this shape cannot be pooled this way."""
    if pooling.kind in ("cls", "cls+mean") and not prefix.class_token:
        raise UsageError(
            f"pooling {pooling.kind!r} needs a class token; this encoder has none", fix="use pooling='mean'"
        )
    if pooling.kind == "grid" and pooling.cells > min(grid):
        raise UsageError(
            f"pooling grid{pooling.cells} has more cells than the encoder's {grid[0]}x{grid[1]} patches",
            expected=f"grid1 to grid{min(grid)}",
        )


def can_pool(name: str, prefix: Prefix, grid: tuple[int, int]) -> bool:
    """Whether an encoder of this shape can be pooled this way."""
    try:
        check_pooling(parse_pooling(name), prefix, grid)
    except UsageError:
        return False
    return True


def pool_tokens(tokens: Tensor, prefix: Prefix, grid: tuple[int, int], pooling: str) -> Tensor:
    """Bring an encoder's tokens together.

    Args:
        tokens: [B, P + h·w, D]: P prefix tokens, then patches in row-major order.
        prefix: The encoder's P leading tokens. Registers enter no pooling but `tokens`.
        grid: (h, w), rows and columns of patches.
        pooling: `cls` the class token; `mean` the mean of the patch tokens; `cls+mean` both, joined; `gridK` the patch
            tokens averaged in K x K cells, joined row by row; `tokens` all tokens as they are.

    Returns:
        [B, F]; for `tokens` [B, P + h·w, D].

    Raises:
        UsageError: The pooling is unknown or does not suit the encoder.
    """
    parsed = parse_pooling(pooling)
    check_pooling(parsed, prefix, grid)
    rows, columns = grid
    if tokens.shape[1] != prefix.count + rows * columns:
        raise UsageError(
            f"got {tokens.shape[1]} tokens an image",
            expected=f"{prefix.count} prefix tokens and {rows}x{columns} patches; masked encodings cannot be pooled",
        )
    if parsed.kind == "tokens":
        return tokens
    if parsed.kind == "cls":
        return tokens[:, 0]
    patches = tokens[:, prefix.count :]
    if parsed.kind == "mean":
        return patches.mean(dim=1)
    if parsed.kind == "cls+mean":
        return cat([tokens[:, 0], patches.mean(dim=1)], dim=1)
    image = patches.transpose(1, 2).reshape(len(patches), -1, rows, columns)
    return F.adaptive_avg_pool2d(image, parsed.cells).flatten(2).transpose(1, 2).flatten(1)


def pool_clip_tokens(tokens: Tensor, prefix: Prefix, grid: ClipGrid, pooling: str) -> Tensor:
    """As `pool_tokens`, of clips: all time steps together.

    Args:
        tokens: [B, P + t·h·w, D], patches step by step.
        prefix: Those P.
        grid: (t, h, w), steps, rows and columns.
        pooling: As for `pool_tokens`; patches at one place are averaged over time, but for `tokens`.
    """
    steps, rows, columns = grid
    if parse_pooling(pooling).kind == "tokens":
        return tokens
    places = tokens[:, prefix.count :].reshape(len(tokens), steps, rows * columns, -1).mean(dim=1)
    return pool_tokens(cat([tokens[:, : prefix.count], places], dim=1), prefix, (rows, columns), pooling)


def pool_step_tokens(tokens: Tensor, prefix: Prefix, grid: ClipGrid, pooling: str) -> Tensor:
    """Bring the patches of each time step of a clip together.

    Args:
        tokens: [B, P + t·h·w, D].
        prefix: Those P, which belong to no step.
        grid: (t, h, w). Of a spectrogram moments, 1 and bands.
        pooling: `mean`, `gridK` or `tokens`; of one row of bands, K cells.

    Returns:
        [B, t, F]; for `tokens` [B, t, h·w, D].

    Raises:
        UsageError: The pooling takes the class token, which has no time.
    """
    parsed = parse_pooling(pooling)
    check_step_pooling(parsed, grid)
    steps, rows, columns = grid
    patches = tokens[:, prefix.count :].reshape(len(tokens), steps, rows * columns, -1)
    if parsed.kind == "tokens":
        return patches
    if parsed.kind == "mean":
        return patches.mean(dim=2)
    images = patches.flatten(0, 1).transpose(1, 2).reshape(len(tokens) * steps, -1, rows, columns)
    cells = F.adaptive_avg_pool2d(images, (min(parsed.cells, rows), parsed.cells))
    return cells.flatten(2).transpose(1, 2).reshape(len(tokens), steps, -1)


def check_step_pooling(pooling: Pooling, grid: ClipGrid) -> None:
    """Raise `UsageError` where time steps of this shape cannot be pooled this way."""
    if pooling.kind in ("cls", "cls+mean"):
        raise UsageError(
            f"pooling {pooling.kind!r} of time steps: the class token has no time", fix="use pooling='mean'"
        )
    _, rows, columns = grid
    check_pooling(pooling, Prefix(), (columns if rows == 1 else rows, columns))


def clip_feature_shape(pooling: str, width: int, prefix: Prefix, grid: ClipGrid) -> tuple[int, ...]:
    """Shape of one window's features: (F,), or (tokens, width) for `tokens`."""
    steps, rows, columns = grid
    shape = feature_shape(pooling, width, prefix, (rows, columns))
    return (prefix.count + steps * rows * columns, width) if len(shape) > 1 else shape


def step_feature_shape(pooling: str, width: int, grid: ClipGrid) -> tuple[int, ...]:
    """Shape of one time step's features: (F,), or (tokens, width) for `tokens`."""
    parsed = parse_pooling(pooling)
    check_step_pooling(parsed, grid)
    _, rows, columns = grid
    if parsed.kind == "tokens":
        return (rows * columns, width)
    return (width * (1 if parsed.kind == "mean" else min(parsed.cells, rows) * parsed.cells),)


def feature_shape(pooling: str, width: int, prefix: Prefix, grid: tuple[int, int]) -> tuple[int, ...]:
    """Shape of one image's features: (F,), or (tokens, width) for `tokens`."""
    parsed = parse_pooling(pooling)
    check_pooling(parsed, prefix, grid)
    if parsed.kind == "tokens":
        return (prefix.count + grid[0] * grid[1], width)
    parts = {"cls": 1, "mean": 1, "cls+mean": 2, "grid": parsed.cells**2}
    return (parts[parsed.kind] * width,)


def feature_names(pooling: str, width: int, prefix: Prefix, grid: tuple[int, int]) -> list[str]:
    """Names of the feature columns, for example `mean_0`, `grid2_r0c1_17`, `patch_r3c0_5`."""
    parsed = parse_pooling(pooling)
    check_pooling(parsed, prefix, grid)
    if parsed.kind == "tokens":
        parts = prefix.names + [f"patch_r{r}c{c}" for r in range(grid[0]) for c in range(grid[1])]
    elif parsed.kind == "grid":
        cells = range(parsed.cells)
        parts = [f"{pooling}_r{r}c{c}" for r in cells for c in cells]
    else:
        parts = parsed.kind.split("+")
    return [f"{part}_{i}" for part in parts for i in range(width)]
