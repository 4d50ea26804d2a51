"""The image encoder: timm's VisionTransformer, driven so that hidden patches cost nothing."""

import difflib
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from facemae.config import EncoderConfig, SoundEncoderConfig
from facemae.errors import ConfigError, UsageError
from facemae.models.attention import give_attention, prepare_attention
from facemae.models.clip_positions import Position, fixed_kind, fixed_positions, fixed_tables
from facemae.models.drop_path import count_branches, give_branches, run_block
from facemae.models.encoding import START, Encoding
from facemae.models.patches import patchify, take
from facemae.models.positions import Grid, GridTables, resampling
from facemae.models.recompute import recompute
from facemae.models.tubelets import TubeletEmbed


def timm_arguments(config: EncoderConfig) -> dict[str, Any]:
    """The keywords with which `timm.create_model(config.name, …)` builds the module an encoder's weights load into.

    Of an encoder of clips they lack the embedding of tubelets: `embed_layer`, see `build_encoder`.
    """
    return {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "in_chans": config.channels,
        "reg_tokens": config.registers,
        **_further_arguments(config),
    }


def sound_arguments(config: SoundEncoderConfig) -> dict[str, Any]:
    """Those of an encoder of sounds."""
    return {
        "img_size": (config.frames, config.mels),
        "patch_size": config.patch_size,
        "in_chans": 1,
        "reg_tokens": config.registers,
        **_further_arguments(config),
    }


def _further_arguments(config: EncoderConfig | SoundEncoderConfig) -> dict[str, Any]:
    """What holds for encoders of every kind."""
    own = {"class_token": config.class_token, "embed_dim": config.width, "depth": config.depth}
    own["num_heads"] = config.heads
    return {
        "num_classes": 0,
        "global_pool": "",
        "fc_norm": False,
        "dynamic_img_size": False,
        **{name: value for name, value in own.items() if value is not None},
    }


def build_encoder(config: EncoderConfig) -> "MaskedEncoder":
    """Build an encoder. Its weights are timm's own until `facemae.models.init.initialise` or a checkpoint fills them.

    Raises:
        ConfigError: The name is no plain ViT of timm, or contradicts the other values.
    """
    arguments = timm_arguments(config)
    if config.tubelet is not None:
        from facemae.models.clip_encoder import ClipEncoder  # which is one of these

        embed = partial(TubeletEmbed, frames=config.steps * config.tubelet, tubelet=config.tubelet)
        vit = _build_vit(config, {**arguments, "embed_layer": embed}, "encoder", TubeletEmbed)
        return ClipEncoder(vit, position=fixed_kind(config.position), drop_path=config.drop_path)
    vit = _build_vit(config, arguments, "encoder")
    return MaskedEncoder(vit, learned_positions=config.position == "learned", drop_path=config.drop_path)


def build_sound_encoder(config: SoundEncoderConfig, shared: "MaskedEncoder | None" = None) -> "MaskedEncoder":
    """Build an encoder of spectrograms, [B, 1, frames, mels]: rows of its grid are moments, columns are bands.

    So positions are those of AudioMAE (Huang et al., "Masked Autoencoders that Listen", 2022): sine-cosine, the first
    half of the features for frequency, the second for time; with position `sequence` they are HiCMAE's.

    Args:
        config: Its configuration.
        shared: The encoder of views, on whose blocks it runs with `blocks: shared`; without it the encoder has blocks
            of its own, of the same names.

    Raises:
        ConfigError: As `build_encoder`.
    """
    vit = _build_vit(config, sound_arguments(config), "sound_encoder")
    learned, position = config.position == "learned", fixed_kind(config.position)
    encoder = MaskedEncoder(vit, learned_positions=learned, drop_path=config.drop_path, position=position)
    if shared is not None and config.blocks == "shared":
        encoder.share(shared)
    return encoder


def _build_vit(
    config: EncoderConfig | SoundEncoderConfig, arguments: dict[str, Any], key: str, embed: type[nn.Module] = PatchEmbed
) -> VisionTransformer:
    """The module of timm with these keywords; `key` is the recipe's block, `embed` what cuts patches."""
    _check_name(config, key)
    try:
        vit = timm.create_model(config.name, pretrained=False, weight_init="skip", **arguments)
    except (TypeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"timm cannot build {config.name!r} with {arguments}: {error}",
            fix=f"choose another {key}.name or change the values it objects to",
        ) from error
    if type(vit) is not VisionTransformer or type(vit.patch_embed) is not embed:
        raise ConfigError(
            f"{key}.name {config.name!r} builds a {type(vit).__name__} on {type(vit.patch_embed).__name__}",
            expected="timm's VisionTransformer on a plain patch projection, for example vit_base_patch16_224",
        )
    give_attention(vit)
    if config.drop_path:
        give_branches(vit.blocks)
    return vit


def _check_name(config: EncoderConfig | SoundEncoderConfig, key: str) -> None:
    known = timm.list_models(module="vision_transformer")
    name = config.name.partition(".")[0]
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
        raise ConfigError(
            f"{key}.name {config.name!r}",
            expected="a plain ViT of timm" + (f"; the nearest names are {', '.join(nearest)}" if nearest else ""),
            fix="timm.list_models(module='vision_transformer') lists them all",
        )
    registers = re.search(r"_reg(\d+)_", name)
    if registers and int(registers[1]) != config.registers:
        raise ConfigError(
            f"{key}.name {config.name!r} has {registers[1]} registers and {key}.registers is {config.registers}",
            fix=f"set {key}.registers={registers[1]}",
        )


class MaskedEncoder(nn.Module):
    """A ViT that can encode a part of the patches, and images of other sizes than the one it was built for.

    Positions of another grid mean the same places in the image: sine-cosine ones are evaluated at scaled coordinates,
    learned ones are resampled as by timm. Both are computed when they are needed and never saved.

    Attributes:
        vit: timm's module without a head; its state dictionary loads into plain timm by name (`timm_arguments`).
        width: Token dimension.
        depth: Number of blocks.
        grid: Rows and columns of patches of the image size the encoder was built for.
        patch: Side of a patch in pixels.
        prefix: Leading tokens that are no patches.
        drop_path: Rate of stochastic depth in training; what is left out is handed to `forward`.
        branches: For each block, how many residual branches can be left out; 0 where the rate is 0.
    """

    def __init__(
        self, vit: Any, *, learned_positions: bool, drop_path: float = 0.0, position: Position = "sincos"
    ) -> None:
        super().__init__()
        self.vit: Any = vit
        self.drop_path = drop_path
        self.branches = count_branches(vit.blocks)
        self.width = int(vit.embed_dim)
        self.depth = len(vit.blocks)
        self.grid: Grid = tuple(vit.patch_embed.grid_size)
        self.patch = int(vit.patch_embed.patch_size[0])
        self.prefix = int(vit.num_prefix_tokens)
        if vit.pos_embed is not None:
            # Fixed positions stay a parameter, so that they travel with the weights and plain timm finds them.
            vit.pos_embed.requires_grad_(learned_positions)
        self._learned_positions, self._position = learned_positions, position
        resampled = GridTables(partial(resampling, self.grid))
        self._tables = resampled if learned_positions else fixed_tables(position, self.grid, self.width)
        self._lender: tuple[MaskedEncoder, ...] = ()

    @property
    def trunk(self) -> Any:
        """The module of timm whose blocks and final norm it runs on: its own, or that of the encoder it shares with."""
        return self._lender[0].trunk if self._lender else self.vit

    def share(self, lender: "MaskedEncoder") -> None:
        """Run on the blocks and the final norm of another encoder instead of its own, which are dropped.

        Patches, positions and leading tokens stay its own, and so does what tells its tokens from the other's: the bias
        of the projection is added to each.
        """
        # In a tuple, so that the blocks are not found under a second name.
        self._lender = (lender,)
        self.drop_path, self.branches = lender.drop_path, lender.branches
        self.vit.blocks, self.vit.norm = nn.Sequential(), nn.Identity()

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
        """Set the positions to fixed ones; the class token and registers have position zero, as in MAE."""
        if self.vit.pos_embed is not None:
            fixed = fixed_positions(self._position, self._native, self.width)
            self.vit.pos_embed.copy_(torch.cat([torch.zeros(self._placed_prefix, self.width), fixed]).unsqueeze(0))

    def forward(
        self,
        pixels: torch.Tensor,
        visible: torch.Tensor | None = None,
        layers: Sequence[int] = (),
        *,
        norm_layers: bool = False,
        factors: Sequence[torch.Tensor] = (),
    ) -> Encoding:
        """Encode images, or the visible patches of them.

        Without `visible` the tokens equal timm's `forward_features`.

        Args:
            pixels: [B, C, H, W], normalised; H and W are multiples of the patch size.
            visible: int64 [B, K], the patches to encode, or [B, M, K] for M masked versions of each image, which become
                rows of the encoding; None encodes all.
            layers: 0-based numbers of blocks whose outputs are wanted too; `START` for the tokens before the first one.
            norm_layers: Apply the final norm to those outputs.
            factors: For each block [B, branches], by which the branches of each sample are scaled
                (`facemae.models.drop_path.draw_factors`); empty leaves all as they are.

        Raises:
            UsageError: The image has another number of channels or is not made of whole patches, or a layer does not
                exist.
        """
        self._check(pixels, layers)
        grid = self._grid_of(pixels)
        masks = 1 if visible is None or visible.ndim == 2 else visible.shape[1]
        x = self._embed(pixels, visible, grid)
        visible = None if visible is None else visible.flatten(0, -2)
        trunk = self.trunk
        prepare_attention(trunk, x)
        kept: dict[int, torch.Tensor] = {START: x} if START in layers else {}
        for number, block in enumerate(trunk.blocks):
            scale = factors[number].repeat_interleave(masks, dim=0) if factors else None
            recomputed = trunk.grad_checkpointing
            x = recompute(run_block, block, x, scale) if recomputed else run_block(block, x, scale)
            if number in layers:
                kept[number] = trunk.norm(x) if norm_layers else x
        tokens, last = trunk.norm(x), self.depth - 1
        normed = {**(kept if norm_layers else {}), **({last: tokens} if last in kept else {})}
        return Encoding(tokens, self.prefix, visible, kept, grid, masks, norm=trunk.norm, normed=normed)

    def _embed(self, pixels: torch.Tensor, visible: torch.Tensor | None, grid: tuple[int, ...]) -> torch.Tensor:
        """Tokens before the blocks, [R, prefix + K, D]."""
        patches = self._cut(pixels)
        if visible is None:
            x = self._project(patches)
        else:
            # The masks of an image together may show its patches more than once; each is projected once.
            wanted = visible.flatten(1)
            several = wanted.shape[1] > patches.shape[1]
            x = take(self._project(patches), wanted) if several else self._project(take(patches, wanted))
            visible = visible.flatten(0, -2)
            x = x.view(*visible.shape, self.width)
        prefix = [token for token in (self.vit.cls_token, self.vit.reg_token) if token is not None]
        start = torch.cat(prefix, dim=1) if prefix else x.new_zeros(1, 0, self.width)
        if self.vit.pos_embed is not None:
            placed = self._placed_prefix
            start = start + self.vit.pos_embed[:, :placed] if placed else start
            places = self._places(grid)
            x = x + (places if visible is None else F.embedding(visible, places))
        x = torch.cat([start.expand(x.shape[0], -1, -1).to(x.dtype), x], dim=1)
        return self.vit.norm_pre(self.vit.pos_drop(x))  # type: ignore[no-any-return]

    def _project(self, patches: torch.Tensor) -> torch.Tensor:
        embed = self.vit.patch_embed
        # The projection is a convolution whose stride is its kernel; on gathered patches it is a plain matrix product.
        return embed.norm(F.linear(patches, self._weight(), embed.proj.bias))  # type: ignore[no-any-return]

    def _cut(self, pixels: torch.Tensor) -> torch.Tensor:
        """All patches, [B, N, values]."""
        return patchify(pixels, self.patch)

    def _weight(self) -> torch.Tensor:
        """The projection of the values of a patch, in the order in which they are cut: [D, values]."""
        weight: torch.Tensor = self.vit.patch_embed.proj.weight
        return weight.permute(0, 2, 3, 1).flatten(1)

    def _grid_of(self, pixels: torch.Tensor) -> tuple[int, ...]:
        return (pixels.shape[2] // self.patch, pixels.shape[3] // self.patch)

    @property
    def _native(self) -> tuple[int, ...]:
        """The grid the positions are stored for."""
        return self.grid

    def _places(self, grid: tuple[int, ...]) -> torch.Tensor:
        """Positions of the patches of a grid, [patches, D]."""
        native: torch.Tensor = self.vit.pos_embed[0, self._placed_prefix :]
        if grid == self._native:
            return native
        table = self._tables(grid, native.device)
        if not self._learned_positions:
            return table
        with torch.autocast(native.device.type, enabled=False):
            return table @ native

    def _check(self, pixels: torch.Tensor, layers: Sequence[int]) -> None:
        whole = pixels.ndim == 4 and not any(side % self.patch or not side for side in pixels.shape[2:])
        if not whole or pixels.shape[1] != self.vit.in_chans:
            native = (self.vit.in_chans, *self.vit.patch_embed.img_size)
            raise UsageError(
                f"images of shape {tuple(pixels.shape)}",
                expected=f"[batch, channels, height, width] with {' x '.join(map(str, native))}, "
                f"or other multiples of {self.patch} for height and width",
                fix="facemae.data.preprocess.to_model_input brings any image into the encoder's form",
            )
        self._check_layers(layers)

    def _check_layers(self, layers: Sequence[int]) -> None:
        wrong = [number for number in layers if not (0 <= number < self.depth or number == START)]
        if wrong:
            raise UsageError(f"layers {wrong}", expected=f"block numbers from 0 to {self.depth - 1}")
