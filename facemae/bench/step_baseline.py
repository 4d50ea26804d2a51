"""A masked autoencoder as one writes it with timm's blocks: the baseline of `facemae bench step`.

It follows the description of He et al., "Masked Autoencoders", 2022: embed all patches, keep the visible ones, put mask
tokens and the order of the grid back, predict every patch, average the error over the hidden ones.
"""

import timm
import torch
from timm.layers import LayerNorm
from timm.models.vision_transformer import Block
from torch import nn

from facemae.config import DecoderConfig, EncoderConfig, NormaliseConfig
from facemae.data.preprocess import normalise
from facemae.data.schema import Batch
from facemae.models.encoder import timm_arguments
from facemae.models.positions import sincos_positions


class MaskedAutoencoder(nn.Module):
    """Encoder, joint decoder and norm-pix loss in one module.

    Args:
        encoder: The encoder; no registers.
        decoder: The decoder; of kind `joint`.
        view: Name of the view.
        scale: Its normalisation.
    """

    decoder_pos: torch.Tensor

    def __init__(
        self, encoder: EncoderConfig, decoder: DecoderConfig, view: str = "main", scale: NormaliseConfig | None = None
    ) -> None:
        super().__init__()
        scale = scale or NormaliseConfig()
        self.view, self.scale = view, (scale.mean, scale.std)
        self.patch = encoder.patch_size
        self.vit = timm.create_model(encoder.name, pretrained=False, **timm_arguments(encoder))
        self.vit.pos_embed.requires_grad_(False)
        self.embed = nn.Linear(self.vit.embed_dim, decoder.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder.width))
        self.register_buffer("decoder_pos", sincos_positions((encoder.grid, encoder.grid), decoder.width, 1))
        self.blocks = nn.ModuleList(Block(decoder.width, decoder.heads, qkv_bias=True) for _ in range(decoder.depth))
        self.norm = LayerNorm(decoder.width)
        self.pred = nn.Linear(decoder.width, encoder.patch_size**2 * encoder.channels)

    def forward(self, images: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """The loss of a batch.

        Args:
            images: [B, C, H, W], normalised.
            visible: int64 [B, K], the patches that are seen.
        """
        vit = self.vit
        x = vit.patch_embed(images) + vit.pos_embed[:, 1:]
        mask = torch.ones(x.shape[:2], device=x.device).scatter(1, visible, 0.0)
        x = x.gather(1, visible.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        x = torch.cat([(vit.cls_token + vit.pos_embed[:, :1]).expand(len(x), -1, -1), x], dim=1)
        x = vit.norm(vit.blocks(x))
        predicted = self._decode(x, mask)
        target = self._patchify(images)
        mean, variance = target.mean(dim=-1, keepdim=True), target.var(dim=-1, keepdim=True)
        target = (target - mean) / (variance + 1e-6) ** 0.5
        error = ((predicted - target) ** 2).mean(dim=-1)
        return (error * mask).sum() / mask.sum()

    def loss(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch on the model's device."""
        given = batch.views[self.view]
        assert given.visible is not None
        loss: torch.Tensor = self(normalise(given.image, *self.scale), given.visible)
        return loss

    def _decode(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        # Where each patch of the grid lies once the mask tokens are appended to the visible ones.
        restore = mask.argsort(dim=1, stable=True).argsort(dim=1)
        tokens = self.mask_token.to(x.dtype).expand(len(x), mask.shape[1] + 1 - x.shape[1], -1)
        grid = torch.cat([x[:, 1:], tokens], dim=1)
        grid = grid.gather(1, restore.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        x = torch.cat([x[:, :1], grid], dim=1) + self.decoder_pos
        for block in self.blocks:
            x = block(x)
        predicted: torch.Tensor = self.pred(self.norm(x))[:, 1:]
        return predicted

    def _patchify(self, images: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = images.shape
        rows, columns = height // self.patch, width // self.patch
        x = images.reshape(batch, channels, rows, self.patch, columns, self.patch)
        return torch.einsum("nchpwq->nhwpqc", x).reshape(batch, rows * columns, -1)

    @torch.no_grad()
    def load_from(self, weights: dict[str, torch.Tensor]) -> None:
        """Take the weights of a `PretrainModel` with one masked objective, by name."""
        renamed = {
            name.replace("encoder.vit.", "vit.").replace("objectives.0.decoder.", ""): value
            for name, value in weights.items()
        }
        self.load_state_dict({**renamed, "decoder_pos": self.decoder_pos})
