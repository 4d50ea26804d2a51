"""HiCMAE as one writes it with timm's blocks: the baseline of `facemae bench step` for frames with sound.

It follows the description of Sun et al., "HiCMAE", 2024: embed all tubelets and patches, keep the visible, encode them,
compare means at several depths, fuse, append mask tokens, decode with skips, average the error over the hidden ones.
All samples have sound.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import LayerNorm
from timm.models.vision_transformer import Block
from torch import nn

from facemae.config import Recipe
from facemae.data.preprocess import normalise
from facemae.data.schema import Batch
from facemae.models.encoder import sound_arguments, timm_arguments
from facemae.models.tubelets import TubeletEmbed
from facemae.objectives.contrastive import ContrastiveConfig
from facemae.objectives.masked_audio import MaskedAudioConfig
from facemae.objectives.masked_patches import MaskedPatchesConfig
from facemae.objectives.masked_video import MaskedVideoConfig
from facemae.objectives.pretraining import PretrainModel

_SIZES = {
    "encoder": (384, 6),
    "sound_encoder": (384, 6),
    "objectives.0.decoder": (192, 3),
    "objectives.1.decoder": (192, 3),
}
SMALL = (
    *(f"{block}.width={width}" for block, (width, _) in _SIZES.items()),
    *(f"{block}.heads={heads}" for block, (_, heads) in _SIZES.items()),
    "fusion.heads=6",
    "objectives.2.group=null",
    "objectives.2.weight=0.1",
)
"""Changes of recipe `hicmae`: the authors' Small, compared over the whole batch; minutes on two cores.

Contrast weighs more than in the recipe, which costs no time: at its 0.0025 equal losses would say nothing of it.
"""


def fits(recipe: Recipe) -> bool:
    """Whether a recipe is one that this baseline follows."""
    kinds = tuple(type(objective) for objective in recipe.objectives)
    if kinds != (MaskedVideoConfig, MaskedAudioConfig, ContrastiveConfig) or recipe.fusion is None:
        return False
    video, audio, contrast = recipe.objectives
    assert isinstance(video, MaskedVideoConfig)
    assert isinstance(audio, MaskedAudioConfig)
    assert isinstance(contrast, ContrastiveConfig)
    plain = (
        recipe.encoder.position == "sequence"
        and not recipe.encoder.drop_path + recipe.fusion.drop_path
        and recipe.encoder.class_token is False
        and recipe.sound_encoder is not None
        and recipe.sound_encoder.class_token is False
        and recipe.sound_encoder.drop_path == 0
    )
    masked = all(
        (part.decoder.kind, part.decoder.embed_bias, part.target, part.fused) == ("joint", False, "norm_pix", True)
        and part.decoder.skips is not None
        and part.critic is None
        for part in (video, audio)
    )
    compared = (contrast.loss, contrast.direction, contrast.group, contrast.exclude) == ("infonce", "both", None, ())
    levels = all(level.blocks is not None and level.head is None for level in contrast.levels)
    return plain and masked and video.difference and compared and levels


class LookingBlock(Block):  # type: ignore[misc]  # timm has no types
    """Cross-attention, self-attention and MLP."""

    def __init__(self, width: int, heads: int, context_width: int) -> None:
        super().__init__(width, heads, qkv_bias=True)
        self.heads = heads
        self.cross_norm, self.context_norm = LayerNorm(width), LayerNorm(context_width)
        self.cross = nn.ModuleDict(
            {"q": nn.Linear(width, width), "kv": nn.Linear(context_width, 2 * width), "proj": nn.Linear(width, width)}
        )

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Tokens [B, N, width] and context [B, K, context_width] give [B, N, width]."""
        batch, tokens, width = x.shape
        q = self.cross["q"](self.cross_norm(x)).reshape(batch, tokens, self.heads, -1).transpose(1, 2)
        kv = self.cross["kv"](self.context_norm(context))
        k, v = kv.reshape(batch, context.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        return super().forward(x + self.cross["proj"](seen))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Mask tokens behind the visible ones, a plain block, and blocks that look at a level each."""

    pos: torch.Tensor

    def __init__(self, config: MaskedPatchesConfig, encoder_width: int, values: int, pos: torch.Tensor) -> None:
        super().__init__()
        settings = config.decoder
        self.skips = settings.skips or ()
        self.embed = nn.Linear(encoder_width, settings.width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, settings.width))
        first = Block(settings.width, settings.heads, qkv_bias=True)
        others = [LookingBlock(settings.width, settings.heads, settings.width) for _ in self.skips]
        self.blocks = nn.ModuleList([first, *others])
        self.norm = LayerNorm(settings.width)
        self.pred = nn.Linear(settings.width, values)
        self.register_buffer("pos", pos.clone(), persistent=False)

    def forward(self, x: torch.Tensor, levels: dict[int, torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
        """Predictions of the hidden patches, [B, M, values]; `mask` bool [B, N], true where hidden."""
        pos = self.pos.expand(len(x), -1, -1)
        seen, hidden = (pos[where].reshape(len(x), -1, pos.shape[-1]) for where in (~mask, mask))
        y = torch.cat([self.embed(x) + seen, self.mask_token + hidden], dim=1)
        contexts = [self.embed(levels[level]) + seen for level in self.skips]
        first, *others = self.blocks
        y = first(y)
        for block, context in zip(others, contexts, strict=True):
            y = block(y, context)
        predicted: torch.Tensor = self.pred(self.norm(y[:, -hidden.shape[1] :]))
        return predicted


class AudioVisualAutoencoder(nn.Module):
    """Both encoders, fusion, both decoders and the whole loss in one module.

    Args:
        recipe: A recipe that `fits`.
        positions: Positions of both decoders, [patches, width].
    """

    def __init__(self, recipe: Recipe, positions: Sequence[torch.Tensor]) -> None:
        super().__init__()
        video, audio, contrast = recipe.objectives
        encoder, hears, fusion = recipe.encoder, recipe.sound_encoder, recipe.fusion
        assert isinstance(video, MaskedVideoConfig)
        assert isinstance(audio, MaskedAudioConfig)
        assert isinstance(contrast, ContrastiveConfig)
        assert hears is not None
        assert fusion is not None
        self.contrast, self.weights = contrast, [objective.weight for objective in recipe.objectives]
        self.patch, self.sound_patch, self.tubelet = encoder.patch_size, hears.patch_size, encoder.tubelet or 1
        scale = recipe.views[video.view].normalise
        self.scale = (scale.mean, scale.std)
        embed = partial(TubeletEmbed, frames=encoder.steps * self.tubelet, tubelet=self.tubelet)
        self.video = timm.create_model(encoder.name, embed_layer=embed, **timm_arguments(encoder))
        self.sound = timm.create_model(hears.name, **sound_arguments(hears))
        for vit in (self.video, self.sound):
            vit.pos_embed.requires_grad_(False)
        widths = (self.video.embed_dim, self.sound.embed_dim)
        sides = [
            nn.ModuleList(LookingBlock(own, fusion.heads, other) for _ in range(fusion.depth))
            for own, other in (widths, widths[::-1])
        ]
        self.video_blocks, self.sound_blocks = sides
        self.video_norm, self.sound_norm = LayerNorm(widths[0]), LayerNorm(widths[1])
        values = (self.tubelet * self.patch**2 * encoder.channels, self.sound_patch**2)
        self.wanted = [{*side} for side in zip(*self._blocks(), strict=True)]
        for wanted, objective in zip(self.wanted, (video, audio), strict=True):
            wanted |= {*(objective.decoder.skips or ())}
        self.video_decoder = Decoder(video, widths[0], values[0], positions[0])
        self.sound_decoder = Decoder(audio, widths[1], values[1], positions[1])

    def forward(self, clips: torch.Tensor, seen: torch.Tensor, mel: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
        """The loss of a batch.

        Args:
            clips: [B, T, C, H, W], normalised.
            seen: int64 [B, K], the tubelets that are seen.
            mel: [B, frames, mels], normalised.
            heard: int64 [B, K], the patches that are heard.
        """
        mel = mel.unsqueeze(1)
        hidden = torch.ones(len(clips), self.video.patch_embed.num_patches, dtype=torch.bool, device=clips.device)
        hidden = hidden.scatter(1, seen, value=False)
        muted = torch.ones(len(mel), self.sound.patch_embed.num_patches, dtype=torch.bool, device=mel.device)
        muted = muted.scatter(1, heard, value=False)
        x, views = _encode(self.video, clips, hidden, self.wanted[0])
        y, sounds = _encode(self.sound, mel, muted, self.wanted[1])
        compared = [self._compare(views[first], sounds[second]) for first, second in self._blocks()]
        for block, sound_block in zip(self.video_blocks, self.sound_blocks, strict=True):
            x, y = block(x, y), sound_block(y, x)
        made = self.video_decoder(self.video_norm(x), views, hidden)
        heard_made = self.sound_decoder(self.sound_norm(y), sounds, muted)
        wanted = self._clip_targets(clips)[hidden].view_as(made)
        heard_wanted = _normed(_cut(mel, self.sound_patch)).flatten(2)[muted].view_as(heard_made)
        video, audio, contrast = self.weights
        loss = video * F.mse_loss(made.float(), wanted) + audio * F.mse_loss(heard_made.float(), heard_wanted)
        return loss + contrast * torch.stack(compared).sum()

    def _blocks(self) -> list[tuple[int, int]]:
        return [level.blocks for level in self.contrast.levels if level.blocks is not None]

    def _compare(self, view: torch.Tensor, sound: torch.Tensor) -> torch.Tensor:
        first, second = (F.normalize(tokens.mean(dim=1).float(), dim=-1) for tokens in (view, sound))
        with torch.autocast(view.device.type, enabled=False):
            logits = first @ second.T / self.contrast.temperature
        places = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, places) + F.cross_entropy(logits.T, places)) / 2

    @torch.no_grad()
    def _clip_targets(self, clips: torch.Tensor) -> torch.Tensor:
        """Tubelets normalised by channel, as the first frame and the difference to the second: [B, N, values]."""
        mean, std = (clips.new_tensor(values).view(1, 1, -1, 1, 1) for values in self.scale)
        frames = (clips * std + mean).view(len(clips), -1, self.tubelet, *clips.shape[2:])
        cut = torch.stack([_cut(frames[:, :, place].flatten(0, 1), self.patch) for place in range(self.tubelet)], dim=2)
        # [B * steps, patches of a step, tubelet * p * p, C], then [B, N, tubelet, p * p * C].
        normed = _normed(cut.flatten(2, 3)).reshape(len(clips), -1, self.tubelet, cut.shape[3] * cut.shape[4])
        return torch.cat([normed[:, :, 0], normed[:, :, 1] - normed[:, :, 0]], dim=-1)

    def loss(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch on the model's device."""
        (view,), (sound,) = batch.views.values(), batch.sounds.values()
        assert view.visible is not None
        assert sound.visible is not None
        loss: torch.Tensor = self(normalise(view.image, *self.scale), view.visible, sound.mel, sound.visible)
        return loss

    @torch.no_grad()
    def load_from(self, source: PretrainModel) -> None:
        """Take the weights of a `PretrainModel` of the same recipe, by name."""
        names = {
            "sound_encoder.vit.": "sound.",
            "encoder.vit.": "video.",
            "fusion.view_": "video_",
            "fusion.sound_": "sound_",
            "objectives.0.decoder.": "video_decoder.",
            "objectives.1.decoder.": "sound_decoder.",
        }
        renamed = {}
        for name, value in source.state_dict().items():
            prefix = next(prefix for prefix in names if name.startswith(prefix))
            renamed[names[prefix] + name.removeprefix(prefix)] = value
        self.load_state_dict(renamed)


def _encode(
    vit: Any, pixels: torch.Tensor, hidden: torch.Tensor, wanted: set[int]
) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    """The visible tokens, and those of wanted blocks, after the final norm."""
    x = vit.patch_embed(pixels) + vit.pos_embed
    x = x[~hidden].reshape(len(x), -1, x.shape[-1])
    levels = {}
    for number, block in enumerate(vit.blocks):
        x = block(x)
        if number in wanted:
            levels[number] = vit.norm(x)
    return vit.norm(x), levels


def _cut(pictures: torch.Tensor, patch: int) -> torch.Tensor:
    """[B, C, H, W] as [B, N, p * p, C]."""
    batch, channels, height, width = pictures.shape
    x = pictures.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return torch.einsum("nchpwq->nhwpqc", x).reshape(batch, -1, patch * patch, channels)


def _normed(patches: torch.Tensor) -> torch.Tensor:
    """Each channel of each patch by its own mean and deviation, [B, N, values, C]."""
    mean, variance = patches.mean(dim=-2, keepdim=True), patches.var(dim=-2, keepdim=True)
    return (patches - mean) / (variance.sqrt() + 1e-6)
