"""A transformer that two encoders share, run on the tokens of a view and of its sound together."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from facemae.models.attention import prepare_attention
from facemae.models.drop_path import run_block
from facemae.models.encoder import MaskedEncoder
from facemae.models.encoding import START, Encoding
from facemae.models.recompute import recompute


class JointPass(nn.Module):
    """The second pass of a unified encoder: all tokens of a sample, seen and heard, in one sequence.

    What an encoder gives of frames alone and of sound alone stays what it is; this adds what the same blocks make of
    both (`Encoding.fused`), as CAV-MAE does with its last block (Gong et al., 2023); VAEmo has one encoder for all
    (arXiv 2505.02331). A sample without sound keeps what its frames alone gave: bitwise no trace of what stands in
    place of the sound, and no gradient. It has no weights of its own.

    Args:
        encoder: The encoder whose blocks are run; that of the sound runs on them too.

    Attributes:
        checkpointing: Whether blocks are computed again in the backward pass.
        drop_path: Rate of stochastic depth in training.
        branches: For each block, how many residual branches can be left out.
    """

    def __init__(self, encoder: MaskedEncoder) -> None:
        super().__init__()
        # In a tuple, so that the blocks are not found under a second name.
        self._encoder = (encoder,)
        self.checkpointing = False
        self.drop_path, self.branches = encoder.drop_path, encoder.branches

    def forward(
        self,
        view: Encoding,
        sound: Encoding,
        present: torch.Tensor,
        view_factors: Sequence[torch.Tensor] = (),
        sound_factors: Sequence[torch.Tensor] = (),
    ) -> tuple[Encoding, Encoding]:
        """Both encodings with their tokens after the joint pass; both must have the tokens before it, layer `START`.

        Args:
            view: The encoding of B samples.
            sound: That of their sounds.
            present: Bool [B], which samples have sound.
            view_factors: For each block [B, branches], by which branches are scaled; empty leaves all as they are.
            sound_factors: Not read: a block has one sequence here.
        """
        vit, length = self._encoder[0].trunk, view.tokens.shape[1]
        x = torch.cat([view.layers[START], sound.layers[START]], dim=1)
        prepare_attention(vit, x)
        for number, block in enumerate(vit.blocks):
            factors = view_factors[number] if view_factors else None
            x = recompute(run_block, block, x, factors) if self.checkpointing else run_block(block, x, factors)
        x, heard = vit.norm(x), present[:, None, None]
        return (
            replace(view, fused=torch.where(heard, x[:, :length], view.tokens)),
            replace(sound, fused=torch.where(heard, x[:, length:], sound.tokens)),
        )
