"""What objectives share that predict hidden patches, of pictures, of clips or of spectrograms."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from facemae.config import CriticConfig, DecoderConfig, ObjectiveConfig, ViewConfig
from facemae.data.schema import Batch
from facemae.errors import ConfigError
from facemae.models.clip_positions import Position
from facemae.models.critic import PatchCritic
from facemae.models.encoding import Encoding
from facemae.models.patches import hidden_patches, take
from facemae.objectives.base import Need, Objective, Reconstruction, Setting, Term
from facemae.objectives.checks import check_mix, check_skips
from facemae.objectives.rows import only, spread
from facemae.objectives.transfer import upload
from facemae.rng import uniform_by_slot

EPSILON = 1e-6
_ERROR, _FAKE, _REAL = "reconstruction", "critic_fake", "critic_real"


class MaskedPatchesConfig(ObjectiveConfig):
    """Hidden patches are predicted from the visible ones."""

    decoder: DecoderConfig = DecoderConfig()
    """The decoder."""
    fused: bool = False
    """Whether the decoder gets the visible tokens after fusion (block `fusion`), as in HiCMAE; what it skips to are the
    encoder's own blocks all the same."""
    critic: CriticConfig | None = None
    """A critic of the reconstruction, MARLIN's; null for none. The log then has `reconstruction`, the squared error
    alone, and `critic_fake` and `critic_real`, how reconstructed and real patches score; the loss is the sum of the
    error and the critic's own loss, the first score less the second."""

    def fused_names(self) -> tuple[str, ...]:
        """What it predicts, where it is taken after fusion."""
        return (*self.view_names(), *self.sound_names()) if self.fused else ()


class MaskedViewConfig(MaskedPatchesConfig):
    """The pixels of hidden patches of a view are predicted from the visible ones."""

    view: str = "main"
    """The view whose hidden patches are predicted."""

    def view_names(self) -> tuple[str, ...]:
        """The one view."""
        return (self.view,)


@dataclass(frozen=True)
class Masked:
    """The encodings whose hidden patches are predicted.

    Attributes:
        names: Of the view or sound: one, or one for each of its copies.
        width: Dimension of the encoder's tokens.
        depth: Number of its blocks.
        grid: Rows and columns of patches of the encoder's own size; of clips steps, rows and columns; of a sound
            moments and bands.
        patch_values: Numbers in a patch.
        position: Kind of the decoder's positions of clips.
    """

    names: tuple[str, ...]
    width: int
    depth: int
    grid: tuple[int, ...]
    patch_values: int
    position: Position = "sincos"


def masked_view(config: MaskedViewConfig, setting: Setting) -> ViewConfig:
    """The view that an objective predicts.

    Raises:
        ConfigError: It hides nothing.
    """
    view = setting.views[config.view]
    if view.mask is None:
        raise ConfigError(
            f"objective {config.kind!r} predicts hidden patches and view {config.view!r} hides none",
            fix=f"give views.{config.view} a mask",
        )
    return view


class MaskedPatches(Objective):
    """Mean squared error of the decoded hidden patches; a sample counts once, whatever copies and masks it has.

    With the joint decoder and all hidden patches the loss is MAE's: the mean over the hidden patches of the batch.

    Args:
        config: Its block of the recipe.
        setting: What it is built for.
        masked: What it predicts.
    """

    takes_masks: ClassVar[bool] = True
    takes_parts: ClassVar[bool] = True

    def __init__(self, config: MaskedPatchesConfig, setting: Setting, masked: Masked) -> None:
        from facemae.models.decoder import build_decoder

        super().__init__(config)
        check_mix(config.decoder.mix_layers, masked.depth)
        check_skips(config.decoder.skips, masked.depth)
        self.names, self.grid, self.fused = masked.names, masked.grid, config.fused
        self.seed = setting.seed
        self.decoding = config.decoder
        self.decoder = build_decoder(
            config.decoder,
            encoder_width=masked.width,
            grid=masked.grid,
            patch_values=masked.patch_values,
            position=masked.position,
        )
        self.critic = config.critic
        # By this name its gradients are clipped apart from the others.
        self.adversary: PatchCritic | None = None
        if self.critic is not None:
            self.adversary = PatchCritic(masked.patch_values, self.critic.hidden or 4 * config.decoder.width)

    @abstractmethod
    def cut(self, pixels: torch.Tensor) -> torch.Tensor:
        """The patches of a view or sound, [B, N, values]."""

    @abstractmethod
    def put_together(self, patches: torch.Tensor, grid: tuple[int, ...]) -> torch.Tensor:
        """The inverse of `cut`."""

    @abstractmethod
    def targets(self, patches: torch.Tensor) -> torch.Tensor:
        """What is to be predicted of patches, [B, M, values], fp32."""

    @abstractmethod
    def restore(self, predicted: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Pixels from a prediction, [B, M, values]; what targets do not tell is taken from the true patches."""

    def needs(self) -> tuple[Need, ...]:
        """One encoding of each copy; the last layer, and those that the decoder mixes with it or skips to."""
        layers = (*(self.decoding.mix_layers or ())[:-1], *sorted(set(self.decoding.skips or ())))
        return tuple(Need(name, layers, fused=self.fused) for name in self.names)

    def present(self, batch: Batch) -> torch.Tensor | None:
        """Bool [R], which of the view's or sound's samples have what is predicted; None where all do."""
        return None

    def count(self, batch: Batch) -> int:
        """The number of samples that have what is predicted."""
        present, rows = self.present(batch), batch.rows(self.names[0])
        if present is not None:
            return int(present.sum())
        return len(batch) if rows is None else len(rows)

    def term(
        self, encodings: Mapping[str, Encoding], pixels: Mapping[str, torch.Tensor], batch: Batch, step: int
    ) -> Term:
        """The sum over samples of the mean squared error over the decoded patches of all their copies and masks."""
        rows, given = batch.rows(self.names[0]), pixels[self.names[0]]
        if not len(given):
            # A part of a batch in which no sample is one of the view's streams.
            nothing = given.new_zeros(len(batch))
            parts = () if self.adversary is None else (_ERROR, _FAKE, _REAL)
            return Term(nothing.sum(), dict.fromkeys(parts, nothing.sum()), samples=nothing)
        found: dict[str, list[torch.Tensor]] = {}
        for copy, name in enumerate(self.names):
            encoding = self._taken(encodings[name])
            hidden = self._to_decode(encoding, batch, step, copy)
            for part, values in self._compare(encoding, pixels[name], hidden).items():
                found.setdefault(part, []).append(values)
        means = {part: torch.cat(values, dim=1).mean(dim=1) for part, values in found.items()}
        present = self.present(batch)
        if present is not None:
            # What stands for a missing one gives finite numbers: they are left out, not multiplied away.
            means = {part: torch.where(present, values, 0.0) for part, values in means.items()}
        loss = means[_ERROR]
        if self.adversary is not None:
            loss = loss + means[_FAKE] - means[_REAL]
        sums = {} if self.adversary is None else {part: values.sum() for part, values in means.items()}
        return Term(loss.sum(), sums, samples=spread(loss.detach(), rows, len(batch)))

    def _to_decode(self, encoding: Encoding, batch: Batch, step: int, copy: int) -> torch.Tensor:
        """The hidden patches that are decoded of a copy of the view, [R, M]: all, or some that are drawn."""
        hidden, masks = self._hidden(encoding), encoding.masks
        if self.decoding.fraction == 1:
            return hidden
        chosen = draw_subset(
            (len(batch) * masks, hidden.shape[1]),
            self.decoding.fraction,
            seed=self.seed,
            step=step,
            first_slot=batch.first_slot * masks,
            copy=copy,
        )
        chosen = upload(chosen, hidden.device)
        return hidden.gather(1, only(chosen, batch.rows(self.names[copy]), masks))

    def _taken(self, encoding: Encoding) -> Encoding:
        """What the decoder gets."""
        return encoding.after_fusion() if self.fused else encoding

    def _hidden(self, encoding: Encoding) -> torch.Tensor:
        """The patches that an encoding does not show, [R, M]."""
        assert encoding.visible is not None
        return hidden_patches(encoding.visible, math.prod(encoding.grid or self.grid))

    def _compare(self, encoding: Encoding, image: torch.Tensor, hidden: torch.Tensor) -> dict[str, torch.Tensor]:
        """Means over the hidden patches to be decoded, [samples, masks]: of the squared error and of scores."""
        predicted: torch.Tensor = self.decoder(encoding, hidden)
        # Small differences of large numbers: the target and the error are computed in fp32.
        with torch.autocast(image.device.type, enabled=False):
            patches = take(self.cut(image.float()), hidden.reshape(len(image), -1)).view_as(predicted)
            wanted = self.targets(patches)
            error = F.mse_loss(predicted.float(), wanted, reduction="none")
            found = {_ERROR: error.mean(dim=(1, 2)).view(len(image), -1)}
        if self.adversary is not None and self.critic is not None:
            scores = self.adversary(predicted, wanted, self.critic.weight)
            for part, values in zip((_FAKE, _REAL), scores, strict=True):
                found[part] = values.mean(dim=1).view(len(image), -1)
        return found

    def reconstruct(self, encodings: Mapping[str, Encoding], pixels: Mapping[str, torch.Tensor]) -> Reconstruction:
        """All hidden patches predicted, also where training decodes a part of them; of the first copy and mask.

        A normalised prediction has neither mean nor contrast; it is shown with the true ones of its patch.
        """
        name = self.names[0]
        encoding, image = self._taken(encodings[name]).first_mask(), pixels[name]
        hidden = self._hidden(encoding)
        patches = self.cut(image.float())
        predicted = self.restore(self.decoder(encoding, hidden).float(), take(patches, hidden))
        pasted = patches.scatter(1, hidden.unsqueeze(-1).expand_as(predicted), predicted)
        return Reconstruction(name, self.put_together(pasted, encoding.grid or self.grid))


def patch_statistics(patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each patch, [B, M, 1], over all its values of all channels together.

    The variance is the unbiased one and EPSILON is added to it, as MAE does.
    """
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (variance + EPSILON).sqrt()


def normalise_patches(patches: torch.Tensor) -> torch.Tensor:
    """MAE's norm-pix target: each patch less its mean, over its deviation. [B, M, values]."""
    mean, deviation = patch_statistics(patches)
    return (patches - mean) / deviation


def channel_statistics(levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each channel of each tubelet, [B, M, 1, C], of [B, M, values of a channel, C].

    The variance is the unbiased one, and EPSILON is added to its root, as VideoMAE does; MAE adds it to the variance.
    """
    variance, mean = torch.var_mean(levels, dim=-2, keepdim=True)
    return mean, variance.sqrt() + EPSILON


def draw_subset(
    shape: torch.Size | tuple[int, int], fraction: float, *, seed: int, step: int, first_slot: int, copy: int = 0
) -> torch.Tensor:
    """Which of the hidden patches of each sample are decoded, by their rank among the hidden ones.

    A function of seed, step and slot in the global batch: how the batch is divided does not change it.

    Args:
        shape: Samples, and hidden patches in each.
        fraction: Share to decode; at least one patch is.
        seed: The run's seed.
        step: The optimiser step.
        first_slot: Slot of the first sample in the global batch. Where samples have several masks, each is a row and
            both numbers count rows.
        copy: Number of the copy of the view.

    Returns:
        int64 [samples, count], ascending.
    """
    samples, hidden = shape
    count = max(1, round(fraction * hidden))
    further = (copy,) if copy else ()
    priority = uniform_by_slot(seed, "decode", step, *further, first=first_slot, slots=samples, each=hidden)
    chosen = np.argsort(priority, axis=1)[:, :count]
    return torch.from_numpy(np.sort(chosen, axis=1))
