"""Online clustering of images: from one view, the cluster of another is predicted (Caron et al., "SwAV", 2020)."""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from facemae.config import HeadConfig, ObjectiveConfig
from facemae.data.schema import Batch
from facemae.models.encoding import Encoding
from facemae.models.heads import Pool, ProjectionHead, summary
from facemae.objectives.base import Need, Objective, Setting, Term
from facemae.objectives.checks import check_pool, group_size, several_views
from facemae.objectives.groups import Group, add_terms, split_groups


class ClusteringConfig(ObjectiveConfig):
    """Views of a face predict each other's cluster."""

    compares_samples: ClassVar[bool] = True

    kind: Literal["clustering"] = "clustering"
    """Name in the registry."""
    global_views: tuple[str, ...] = Field(default=("main",), min_length=1)
    """Views whose clusters are predicted, from each other and from the local ones; copies count."""
    local_views: tuple[str, ...] = ()
    """Views, usually small crops, that only predict."""
    prototypes: int = Field(default=3000, ge=2)
    """Number of clusters. Every group is spread over all of them evenly."""
    temperature: float = Field(default=0.1, gt=0)
    """Divides similarities to the prototypes in the prediction."""
    epsilon: float = Field(default=0.05, gt=0)
    """Divides them in the assignment: the smaller, the harder."""
    iterations: int = Field(default=3, ge=1)
    """Rounds of Sinkhorn-Knopp."""
    freeze_prototypes: int = Field(default=0, ge=0)
    """The prototypes stay as they are until this many samples were seen."""
    group: int | None = Field(default=None, ge=2)
    """Samples that are clustered together, a divisor of the batch; null for the whole batch."""
    pool: Pool = "cls"
    """What is projected: `cls` the class token, `mean` the mean of the patch tokens."""
    head: HeadConfig = HeadConfig()
    """The projection."""

    def view_names(self) -> tuple[str, ...]:
        """All views."""
        return self.global_views + self.local_views

    def remark(self, total: int, batch: int) -> str | None:
        """See `ObjectiveConfig`: prototypes that never learn."""
        before_the_last_step = total - batch
        if self.freeze_prototypes <= before_the_last_step:
            return None
        return (
            f"objective {self.kind!r}: freeze_prototypes of {self.freeze_prototypes} samples lasts for a whole run of "
            f"{total}, so the prototypes stay as they were drawn; make it smaller, or the run longer"
        )

    def group_size(self, batch_size: int) -> int:
        """See `ObjectiveConfig`."""
        return group_size(self.kind, self.group, batch_size)


class Clustering(Objective):
    """SwAV's swapped prediction (eq. 2 and 6); a sample counts once, with the mean over its pairs of views.

    Prototypes are scaled to length one where they are used, not after each step as in the published code: the
    direction is what is learned, and the optimiser alone changes weights. The paper's queue of earlier projections is
    left out; a group must be large enough to be spread over the prototypes.
    """

    Config: ClassVar[type[ObjectiveConfig]] = ClusteringConfig

    def __init__(self, config: ClusteringConfig, setting: Setting) -> None:
        super().__init__(config)
        self.settings = config
        self.views = several_views(config.kind, config.view_names(), setting.views)
        self.assigned = sum(setting.views[name].copies for name in config.global_views)
        check_pool(config.kind, config.pool, setting)
        self.exchange = setting.exchange
        self._batch_size = setting.batch_size
        self._group = config.group_size(setting.batch_size)
        self.head = ProjectionHead(config.head, setting.encoder_width)
        self.prototypes = nn.Linear(config.head.out, config.prototypes, bias=False)

    def needs(self) -> tuple[Need, ...]:
        """One encoding of each view; the last layer."""
        return tuple(Need(view) for view in self.views)

    def count(self, batch: Batch) -> int:
        """The number of samples."""
        return len(batch)

    def term(
        self, encodings: Mapping[str, Encoding], pixels: Mapping[str, torch.Tensor], batch: Batch, step: int
    ) -> Term:
        """The sum over samples of the swapped cross-entropy; as metrics, means over groups.

        `cluster_entropy` is the entropy of a group's mean prediction over its highest value: 0 where all samples are in
        one cluster. `clusters_used` is the share of prototypes that are the nearest one of any sample of the group.
        """
        projected = torch.stack([self.head(summary(encodings[view], self.settings.pool)) for view in self.views], dim=1)
        with torch.autocast(projected.device.type, enabled=False):
            prototypes = self._directions(step)
            scores = projected @ prototypes.T
            groups = split_groups(projected[:, : self.assigned].detach(), batch, self._group, self.exchange)
            return add_terms(self._group_term(scores[group.own], group, prototypes.detach()) for group in groups)

    def _directions(self, step: int) -> torch.Tensor:
        """The prototypes at length one, fp32 [K, D]."""
        weight = self.prototypes.weight.float()
        if step * self._batch_size < self.settings.freeze_prototypes:
            # No gradient rather than one of zero: the optimiser leaves the weights and its moments alone.
            weight = weight.detach()
        return F.normalize(weight, dim=1)

    @torch.no_grad()
    def _codes(self, group: Group, prototypes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores [A, N, K] of the group's assigned views, and their codes. Every process computes the same."""
        scores = group.rows.transpose(0, 1) @ prototypes.T
        settings = self.settings
        return scores, torch.stack([sinkhorn(view, settings.epsilon, settings.iterations) for view in scores])

    def _group_term(self, own: torch.Tensor, group: Group, prototypes: torch.Tensor) -> Term:
        """The term of a group's own samples, with scores [n, V, K]."""
        scores, codes = self._codes(group, prototypes)
        predicted = F.log_softmax(own / self.settings.temperature, dim=-1).transpose(0, 1)
        losses = [
            -(codes[target, group.places] * predicted[view]).sum(dim=-1)
            for target in range(self.assigned)
            for view in range(len(self.views))
            if view != target
        ]
        mean = (scores / self.settings.temperature).softmax(dim=-1).mean(dim=(0, 1))
        clusters = scores.shape[-1]
        used = mean.new_zeros(clusters).index_fill_(0, scores.argmax(dim=-1).flatten(), 1.0).mean()
        metrics = {
            "cluster_entropy": torch.special.entr(mean).sum() / math.log(clusters) * group.count,
            "clusters_used": used * group.count,
        }
        loss = torch.stack(losses).mean(dim=0)
        return Term(loss.sum(), metrics, loss.detach())


def sinkhorn(scores: torch.Tensor, epsilon: float, iterations: int) -> torch.Tensor:
    """Codes that spread samples over prototypes evenly: Sinkhorn-Knopp (Caron et al., 2020, section 3.1, eq. 3 to 5).

    In logarithms, so that no epsilon overflows.

    Args:
        scores: fp32 [N, K], similarities of samples to prototypes.
        epsilon: Weight of the entropy.
        iterations: Rounds of scaling first the prototypes, then the samples.

    Returns:
        [N, K]; each row sums to one.
    """
    logs = scores / epsilon
    for _ in range(iterations):
        logs = logs - logs.logsumexp(dim=0, keepdim=True)
        logs = logs - logs.logsumexp(dim=1, keepdim=True)
    return logs.exp()
