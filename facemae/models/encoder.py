"""The image encoder: timm's VisionTransformer, driven so that hidden patches cost nothing."""

import difflib
import re
from collections.abc import Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models import checkpoint
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from facemae.config import EncoderConfig
from facemae.errors import ConfigError, UsageError
from facemae.models.attention import prepare_attention
from facemae.models.encoding import Encoding
from facemae.models.patches import patchify, take
from facemae.models.positions import sincos_positions


def timm_arguments(config: EncoderConfig) -> dict[str, Any]:
    """The keywords with which `timm.create_model(config.name, …)` builds the module an encoder's weights load into."""
    return {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "in_chans": config.channels,
        "reg_tokens": config.registers,
        "num_classes": 0,
        "global_pool": "",
        "fc_norm": False,
        "dynamic_img_size": False,
    }


def build_encoder(config: EncoderConfig) -> "MaskedEncoder":
    """Build an encoder. Its weights are timm's own until `facemae.models.init.initialise` or a checkpoint fills them.

    Raises:
        ConfigError: The name is no plain ViT of timm, or contradicts the other values.
    """
    _check_name(config)
    try:
        vit = timm.create_model(config.name, pretrained=False, weight_init="skip", **timm_arguments(config))
    except (TypeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"timm cannot build {config.name!r} with {timm_arguments(config)}: {error}",
            fix="choose another encoder.name or change the values it objects to",
        ) from error
    if type(vit) is not VisionTransformer or type(vit.patch_embed) is not PatchEmbed:
        raise ConfigError(
            f"encoder.name {config.name!r} builds a {type(vit).__name__} on {type(vit.patch_embed).__name__}",
            expected="timm's VisionTransformer on a plain patch projection, for example vit_base_patch16_224",
        )
    return MaskedEncoder(vit, learned_positions=config.position == "learned")


def _check_name(config: EncoderConfig) -> None:
    known = timm.list_models(module="vision_transformer")
    name = config.name.partition(".")[0]
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
        raise ConfigError(
            f"encoder.name {config.name!r}",
            expected="a plain ViT of timm" + (f"; the nearest names are {', '.join(nearest)}" if nearest else ""),
            fix="timm.list_models(module='vision_transformer') lists them all",
        )
    registers = re.search(r"_reg(\d+)_", name)
    if registers and int(registers[1]) != config.registers:
        raise ConfigError(
            f"encoder.name {config.name!r} has {registers[1]} registers and encoder.registers is {config.registers}",
            fix=f"set encoder.registers={registers[1]}",
        )


class MaskedEncoder(nn.Module):
    """A ViT that can encode a part of the patches.

    Attributes:
        vit: timm's module without a head; its state dictionary loads into plain timm by name (`timm_arguments`).
        width: Token dimension.
        depth: Number of blocks.
        grid: Rows and columns of patches.
        patch: Side of a patch in pixels.
        prefix: Leading tokens that are no patches.
    """

    def __init__(self, vit: Any, *, learned_positions: bool) -> None:
        super().__init__()
        self.vit: Any = vit
        self.width = int(vit.embed_dim)
        self.depth = len(vit.blocks)
        self.grid: tuple[int, int] = tuple(vit.patch_embed.grid_size)
        self.patch = int(vit.patch_embed.patch_size[0])
        self.prefix = int(vit.num_prefix_tokens)
        if vit.pos_embed is not None:
            # Fixed positions stay a parameter, so that they travel with the weights and plain timm finds them.
            vit.pos_embed.requires_grad_(learned_positions)

    @property
    def patches(self) -> int:
        """Number of patches in the grid."""
        return self.grid[0] * self.grid[1]

    @property
    def _placed_prefix(self) -> int:
        # Some ViTs give the class token and registers no position at all.
        return 0 if self.vit.no_embed_class else self.prefix

    @torch.no_grad()
    def reset_positions(self) -> None:
        """Set the positions to sine-cosine; the class token and registers have position zero, as in MAE."""
        if self.vit.pos_embed is not None:
            self.vit.pos_embed.copy_(sincos_positions(self.grid, self.width, self._placed_prefix))

    def forward(
        self,
        pixels: torch.Tensor,
        visible: torch.Tensor | None = None,
        layers: Sequence[int] = (),
        *,
        norm_layers: bool = False,
    ) -> Encoding:
        """Encode images, or the visible patches of them.

        Without `visible` the tokens equal timm's `forward_features`.

        Args:
            pixels: [B, C, H, W], normalised.
            visible: int64 [B, K], the patches to encode; None encodes all.
            layers: 0-based numbers of blocks whose outputs are wanted too.
            norm_layers: Apply the final norm to those outputs.

        Raises:
            UsageError: The image has another shape than the encoder, or a layer does not exist.
        """
        self._check(pixels, layers)
        x = self._embed(pixels, visible)
        prepare_attention(self.vit, x)
        kept: dict[int, torch.Tensor] = {}
        for number, block in enumerate(self.vit.blocks):
            x = checkpoint(block, x) if self.vit.grad_checkpointing else block(x)
            if number in layers:
                kept[number] = self.vit.norm(x) if norm_layers else x
        return Encoding(self.vit.norm(x), self.prefix, visible, kept)

    def _embed(self, pixels: torch.Tensor, visible: torch.Tensor | None) -> torch.Tensor:
        embed = self.vit.patch_embed
        patches = patchify(pixels, self.patch)
        if visible is not None:
            patches = take(patches, visible)
        # The projection is a convolution whose stride is its kernel; on gathered patches it is a plain matrix product.
        weight = embed.proj.weight.permute(0, 2, 3, 1).flatten(1)
        x = embed.norm(F.linear(patches, weight, embed.proj.bias))
        prefix = [token for token in (self.vit.cls_token, self.vit.reg_token) if token is not None]
        start = torch.cat(prefix, dim=1) if prefix else x.new_zeros(1, 0, self.width)
        positions = self.vit.pos_embed
        if positions is not None:
            placed = self._placed_prefix
            start = start + positions[:, :placed] if placed else start
            grid = positions[:, placed:]
            x = x + (grid if visible is None else F.embedding(visible, grid[0]))
        x = torch.cat([start.expand(x.shape[0], -1, -1).to(x.dtype), x], dim=1)
        return self.vit.norm_pre(self.vit.pos_drop(x))  # type: ignore[no-any-return]

    def _check(self, pixels: torch.Tensor, layers: Sequence[int]) -> None:
        expected = (self.vit.in_chans, *self.vit.patch_embed.img_size)
        if tuple(pixels.shape[1:]) != expected:
            raise UsageError(
                f"images of shape {tuple(pixels.shape)}",
                expected="[batch, channels, height, width] with " + " x ".join(map(str, expected)),
                fix="facemae.data.preprocess.to_model_input brings any image into the encoder's form",
            )
        wrong = [number for number in layers if not 0 <= number < self.depth]
        if wrong:
            raise UsageError(f"layers {wrong}", expected=f"block numbers from 0 to {self.depth - 1}")
