"""Contrast of images: views of one face are alike, those of different faces are not."""

from collections.abc import Mapping
from itertools import combinations, permutations
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from facemae.config import HeadConfig, ObjectiveConfig
from facemae.data.schema import Batch
from facemae.models.encoding import Encoding
from facemae.models.heads import Pool, ProjectionHead, summary
from facemae.objectives.base import Need, Objective, Setting, Term
from facemae.objectives.checks import check_pool, several_views
from facemae.objectives.contrast import ContrastConfig, agreement, learned_numbers, own_places, sigmoid_loss
from facemae.objectives.groups import Group, add_terms, split_groups


class ContrastiveImageConfig(ContrastConfig):
    """Two or more views of a face are told from the views of other faces."""

    compares_samples: ClassVar[bool] = True

    kind: Literal["contrastive_image"] = "contrastive_image"
    """Name in the registry."""
    views: tuple[str, ...] = Field(default=("main",), min_length=1)
    """The views; one view with several copies counts as several. With more than two, the mean over all pairs."""
    pool: Pool = "cls"
    """What is projected: `cls` the class token, `mean` the mean of the patch tokens."""
    head: HeadConfig = HeadConfig()
    """The projection."""

    def view_names(self) -> tuple[str, ...]:
        """All views."""
        return self.views


class ContrastiveImage(Objective):
    """NT-Xent of SimCLR (Chen et al., 2020, eq. 1), or the sigmoid loss of SigLIP (Zhai et al., 2023, eq. 1).

    A sample counts once, with the mean over its pairs of views. So the loss is that of the papers for two views: the
    mean over the 2N anchors of a group, and the sum over the group's pairs divided by N.
    """

    Config: ClassVar[type[ObjectiveConfig]] = ContrastiveImageConfig

    def __init__(self, config: ContrastiveImageConfig, setting: Setting) -> None:
        super().__init__(config)
        self.settings = config
        self.views = several_views(config.kind, config.views, setting.views)
        check_pool(config.kind, config.pool, setting)
        self.exchange = setting.exchange
        self._group = config.group_size(setting.batch_size)
        self.head = ProjectionHead(config.head, setting.encoder_width)
        self.log_scale, self.bias = learned_numbers(config)
        self.scale = 1 / config.temperature

    def needs(self) -> tuple[Need, ...]:
        """One encoding of each view; the last layer."""
        return tuple(Need(view) for view in self.views)

    def count(self, batch: Batch) -> int:
        """The number of samples."""
        return len(batch)

    def term(
        self, encodings: Mapping[str, Encoding], pixels: Mapping[str, torch.Tensor], batch: Batch, step: int
    ) -> Term:
        """The sum over samples of the loss; as metrics, over pairs of views, what is seen between the two views alone.

        `positive_top1` says whether the other view of the face is the most similar one of the group's N,
        `positive_similarity` and `negative_similarity` are mean cosines.
        """
        projected = [self.head(summary(encodings[view], self.settings.pool)) for view in self.views]
        # Similarities of float16's or bfloat16's precision would be equal for many pairs.
        with torch.autocast(projected[0].device.type, enabled=False):
            return add_terms(
                self._group_term(torch.stack([rows[group.own] for rows in projected]), group)
                for group in split_groups(torch.stack(projected, dim=1), batch, self._group, self.exchange)
            )

    def _group_term(self, own: torch.Tensor, group: Group) -> Term:
        """The term of the own samples of a group.

        Args:
            own: [V, n, D], projections of the own samples by view.
            group: The group, with rows [N, V, D].
        """
        # [V, n, V, N]: every view of the own samples against every view of all.
        similarity = torch.einsum("vnd,mwd->vnwm", own, group.rows)
        place = torch.arange(group.places.start, group.places.stop, device=own.device)
        scale = self.scale if self.log_scale is None else self.log_scale().exp()
        if self.bias is None:
            loss = nt_xent(similarity * scale, place)
        else:
            loss = pair_sigmoid(similarity * scale + self.bias(), place)
        return Term(loss.sum(), _agreement(similarity.detach(), place), loss.detach())


def nt_xent(logits: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """NT-Xent: each anchor's positive is another view of it, its negatives are both views of the other samples.

    Args:
        logits: [V, n, V, N], scaled similarities of n anchors in each view to N samples in each view.
        place: int64 [n], which of the N samples an anchor is.

    Returns:
        [n], for each sample the mean over ordered pairs of views.
    """
    itself = own_places(place, logits.shape[-1])
    losses = []
    for anchor, other in permutations(range(len(logits)), 2):
        within = logits[anchor, :, anchor].masked_fill(itself, -torch.inf)
        both = torch.cat([logits[anchor, :, other], within], dim=1)
        losses.append(F.cross_entropy(both, place, reduction="none"))
    return torch.stack(losses).mean(dim=0)


def pair_sigmoid(logits: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """SigLIP's loss between two views; arguments and result as for `nt_xent`, over unordered pairs of views."""
    losses = [sigmoid_loss(logits[first, :, second], place) for first, second in combinations(range(len(logits)), 2)]
    return torch.stack(losses).mean(dim=0)


def _agreement(similarity: torch.Tensor, place: torch.Tensor) -> dict[str, torch.Tensor]:
    """Sums over samples of means over ordered pairs of views."""
    pairs = permutations(range(len(similarity)), 2)
    found = [agreement(similarity[anchor, :, other], place) for anchor, other in pairs]
    return {name: torch.stack([values[name].sum() for values in found]).mean() for name in found[0]}
