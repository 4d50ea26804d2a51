"""Temporal attentive probe: learned queries pool the frames of a clip, knowing when each was.

Clips have any number of frames; a batch pads them to its longest and a mask keeps padding out of everything. Time is
relative, 0 at the first frame and 1 at the last, written as sines and cosines (Vaswani et al. 2017, arXiv:1706.03762).
Without mixing layers a query weighs frames by what they show and by when, which is enough for "first a, then b" at
about the same times in every clip. Mixing layers (pre-norm transformer blocks) let frames see each other before.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from facemae.errors import ProbeError
from facemae.rng import torch_generator
from facemae_probes.heads.losses import Labels, LabelScale, activate
from facemae_probes.heads.standardise import BLOCK_ELEMENTS, Floats, Rows, Standardiser, View
from facemae_probes.heads.training import PooledHead, TrainSetting, train
from facemae_probes.tasks.targets import Kind, Targets

TURNS = 16.0
"""Turns of the fastest sine over a clip; the slowest makes half a turn."""
WAVES = 16
"""Frequencies; each has a sine and a cosine."""
MEASURED = 65536
"""Most frames from which mean and scale are measured."""
SCORED_AT_ONCE = 256


@dataclass(frozen=True)
class TemporalSetting(TrainSetting):
    """Hyper-parameters of the temporal probe.

    Attributes:
        layers: Mixing layers, 0 to 2.
        width: Their width.
        heads: Their attention heads; divides the width.
    """

    queries: int = 4
    layers: int = 0
    width: int = 128
    heads: int = 4


SETTINGS = (TemporalSetting(lr=3e-3), TemporalSetting(lr=1e-2), TemporalSetting(lr=1e-3, layers=1))
"""Settings tried by default."""


@dataclass(frozen=True)
class Clips:
    """Clips as runs of frames.

    Attributes:
        frames: [F, D] features of all frames, in memory or mapped.
        starts: [N] first frame of each clip.
        lengths: [N] frames of each clip, at least one.

    Raises:
        ProbeError: A clip has no frame, or frames that there are not.
    """

    frames: Floats
    starts: Rows
    lengths: Rows

    def __post_init__(self) -> None:
        wrong = (self.lengths < 1) | (self.starts < 0) | (self.starts + self.lengths > len(self.frames))
        if wrong.any():
            clip = int(wrong.argmax())
            raise ProbeError(
                f"clip {clip} has {self.lengths[clip]} frames from frame {self.starts[clip]}",
                expected=f"at least one, within the {len(self.frames)} frames there are",
            )

    def __len__(self) -> int:
        return len(self.starts)

    def rows(self, clips: Rows) -> Rows:
        """The frames of some clips, one after the other."""
        lengths = self.lengths[clips]
        begin = np.cumsum(lengths) - lengths
        return np.asarray(np.arange(lengths.sum()) + np.repeat(self.starts[clips] - begin, lengths), dtype=np.int64)


def mean_over_time(frames: Floats, starts: Rows, lengths: Rows) -> NDArray[np.float32]:
    """Mean feature of each clip [N, D], for heads that know no time; arguments as in `Clips`."""
    clips = Clips(frames, starts, lengths)
    out = np.empty((len(clips), frames.shape[1]), dtype=np.float32)
    ends, size = np.cumsum(lengths), max(64, BLOCK_ELEMENTS // frames.shape[1])
    first = 0
    while first < len(clips):
        # Whole clips, of about `size` frames together and at least one.
        begin = ends[first] - lengths[first]
        stop = max(first + 1, int(np.searchsorted(ends, begin + size, side="right")))
        own = np.arange(first, stop)
        block = View(frames, clips.rows(own)).block(0, int(ends[stop - 1] - begin), torch.float64).numpy()
        total = np.add.reduceat(block, ends[own] - lengths[own] - begin, axis=0)
        out[own] = total / lengths[own, None]
        first = stop
    return out


def time_waves(time: Tensor) -> Tensor:
    """Sines and cosines [..., 2·WAVES] of relative times [...] in 0 to 1."""
    exponent = torch.linspace(0, 1, WAVES)
    angle = time[..., None] * (2 * math.pi * 0.5 * (2 * TURNS) ** exponent)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Mixing(nn.Module):
    """A pre-norm transformer block over frames, without dropout."""

    def __init__(self, width: int, heads: int, seed: int, name: str) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = _linear(width, 3 * width, seed, f"{name}.qkv")
        self.out = _linear(width, width, seed, f"{name}.out")
        self.up = _linear(width, 2 * width, seed, f"{name}.up")
        self.down = _linear(2 * width, width, seed, f"{name}.down")

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Frames [B, T, W] that have seen each other; only those in the mask [B, T] are seen."""
        batch, time, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        x = x + self.out(seen.transpose(1, 2).reshape(batch, time, width))
        return x + torch.as_tensor(self.down(F.gelu(self.up(self.norm2(x)))))


class TemporalPool(nn.Module):
    """M queries over frames and their times, then a linear layer.

    Args:
        width: Dimension of frames, D.
        classes: Outputs, C.
        setting: Queries, mixing layers and dropout.
        seed: Seed of initial values.
    """

    def __init__(self, width: int, classes: int, setting: TemporalSetting, seed: int) -> None:
        super().__init__()
        inner = setting.width if setting.layers else width
        if setting.layers:
            self.enter = _linear(width, inner, seed, "enter")
            self.time = _linear(2 * WAVES, inner, seed, "time")
        self.mixing = nn.ModuleList(
            Mixing(inner, setting.heads, seed, f"mixing.{number}") for number in range(setting.layers)
        )
        start = torch.randn(setting.queries, inner, generator=torch_generator(seed, "temporal", "queries"))
        self.query = nn.Parameter(start * inner**-0.5)
        place = torch.randn(setting.queries, 2 * WAVES, generator=torch_generator(seed, "temporal", "place"))
        self.place = nn.Parameter(place * WAVES**-0.5)
        self.read = PooledHead(setting.queries * inner, classes, setting.dropout)

    def forward(self, frames: Tensor, time: Tensor, mask: Tensor, keep: Tensor | None = None) -> Tensor:
        """Logits.

        Args:
            frames: [B, T, D], standardised; what stands where the mask is False is never looked at.
            time: [B, T] relative times.
            mask: bool [B, T], True for frames.
            keep: Optional bool [B, M·W] of pooled values to keep, drawn by the caller.

        Returns:
            [B, C].
        """
        # Also in the weighted sum, where zero times what is not a number would not be zero.
        x = torch.where(mask[..., None], frames, 0)
        waves = time_waves(torch.where(mask, time, 0))
        if len(self.mixing):
            x = self.enter(x) + self.time(waves)
            for block in self.mixing:
                x = block(x, mask)
        attention = torch.einsum("btd,md->bmt", x, self.query) * x.shape[-1] ** -0.5
        attention = attention + torch.einsum("bts,ms->bmt", waves, self.place)
        attention = attention.masked_fill(~mask[:, None], -math.inf)
        pooled = torch.bmm(attention.softmax(dim=-1), x).flatten(1)
        return torch.as_tensor(self.read(pooled, keep))


def padded(clips: Clips, chosen: Rows, scale: Standardiser) -> tuple[Tensor, Tensor, Tensor]:
    """A batch of clips: standardised frames [B, T, D], relative times [B, T] and mask [B, T], T the longest."""
    lengths = torch.from_numpy(clips.lengths[chosen])
    place = torch.arange(int(lengths.max()))
    mask = place < lengths[:, None]
    flat = scale.view(clips.frames, clips.rows(chosen)).held()
    frames = flat.new_zeros(*mask.shape, flat.shape[1])
    frames[mask] = flat
    time = torch.where(mask, place / (lengths[:, None] - 1).clamp_min(1), 0)
    return frames, time, mask


@dataclass(frozen=True)
class TemporalModel:
    """A fitted temporal probe with its scale of frames."""

    pool: TemporalPool
    scale: Standardiser
    kind: Kind
    label_scale: LabelScale

    def scores(self, clips: Clips, rows: Rows) -> NDArray[np.float32]:
        """What is predicted for some of the clips: [len(rows), C] probabilities or numbers."""
        self.pool.eval()
        out = np.empty((len(rows), len(self.label_scale.centre)), dtype=np.float32)
        # Clips of like length share a batch, so that little of it is padding.
        order = np.argsort(clips.lengths[rows], kind="stable")
        with torch.inference_mode():
            for start in range(0, len(rows), SCORED_AT_ONCE):
                chosen = order[start : start + SCORED_AT_ONCE]
                logits = self.pool(*padded(clips, rows[chosen], self.scale))
                out[chosen] = activate(logits, self.kind, self.label_scale).numpy()
        return out


def fit_temporal(
    clips: Clips, rows: Rows, targets: Targets, *, setting: TemporalSetting, seed: int = 0
) -> Iterator[tuple[int, TemporalModel]]:
    """Train one setting.

    Args:
        clips: All clips.
        rows: Numbers of the training clips.
        targets: Of exactly these clips, of any kind.
        setting: Hyper-parameters.
        seed: Seed of initial values, order and dropout.

    Yields:
        Epoch (from 1) and the model as it stands; the caller copies what it wants to keep.

    Raises:
        ProbeError: There are fewer than two clips.
    """
    seen = clips.rows(rows)
    measured = seen[np.linspace(0, len(seen) - 1, min(len(seen), MEASURED)).astype(np.int64)]
    scale, label_scale = Standardiser.fit(clips.frames, measured), LabelScale.of(targets)
    pool = TemporalPool(clips.frames.shape[1], targets.width, setting, seed)
    labels = Labels.of(label_scale.standard(targets))

    def read(chosen: Rows) -> tuple[Tensor, ...]:
        return padded(clips, rows[chosen], scale)

    for epoch in train(pool, pool.read, read, labels, setting, seed=seed, purpose="temporal"):
        yield epoch, TemporalModel(pool, scale, targets.kind, label_scale)


def _linear(inputs: int, outputs: int, seed: int, name: str) -> nn.Linear:
    """A linear layer with keyed initial weights of variance one over its inputs, and no bias at first."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        draws = torch_generator(seed, "temporal", name)
        layer.weight.copy_(torch.randn(outputs, inputs, generator=draws) * inputs**-0.5)
        layer.bias.zero_()
    return layer
