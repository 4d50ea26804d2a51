"""What objectives share that tell pairs from each other: settings, the sigmoid loss, and what is logged of a pair."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator

from facemae.config import ObjectiveConfig
from facemae.models.heads import LearnedNumber
from facemae.objectives.checks import group_size


class ContrastConfig(ObjectiveConfig):
    """Base of the objectives that tell pairs from each other."""

    loss: Literal["infonce", "sigmoid"] = "infonce"
    """`infonce` is a softmax over all others, `sigmoid` is SigLIP's yes or no for each pair."""
    temperature: float = Field(default=0.1, gt=0)
    """Divides similarities; where it starts if it is learned."""
    learn_temperature: bool | None = None
    """Whether the temperature is learned; null for what the papers do: fixed for `infonce`, learned for `sigmoid`."""
    bias: float = -10.0
    """Where the bias of `sigmoid` starts; it is learned."""
    group: int | None = Field(default=None, ge=2)
    """Samples that are compared with each other, a divisor of the batch; null for the whole batch."""

    @model_validator(mode="after")
    def _of_its_loss(self) -> "ContrastConfig":
        if self.loss != "sigmoid" and self.bias != type(self).model_fields["bias"].default:
            raise ValueError(f"bias is of the sigmoid loss, and the loss is {self.loss}")
        return self

    def group_size(self, batch_size: int) -> int:
        """See `ObjectiveConfig`."""
        return group_size(self.kind, self.group, batch_size)


def learned_numbers(config: ContrastConfig) -> tuple[LearnedNumber | None, LearnedNumber | None]:
    """The logarithm of what multiplies similarities, and what is added to them; None where it is not learned."""
    sigmoid = config.loss == "sigmoid"
    learned = sigmoid if config.learn_temperature is None else config.learn_temperature
    # A logarithm: steps of one size suit any magnitude.
    scale = LearnedNumber(-math.log(config.temperature)) if learned else None
    return scale, LearnedNumber(config.bias) if sigmoid else None


def own_places(place: torch.Tensor, count: int) -> torch.Tensor:
    """Bool [n, N]: which of N samples an anchor is, from int64 [n]."""
    return F.one_hot(place, count).bool()


def sigmoid_loss(logits: torch.Tensor, place: torch.Tensor, allowed: torch.Tensor | None = None) -> torch.Tensor:
    """SigLIP's loss between two views (Zhai et al., 2023, eq. 1).

    Args:
        logits: [n, N], scaled and shifted similarities of n anchors to N samples.
        place: int64 [n], which of the N samples an anchor is.
        allowed: bool [n, N], the pairs that count; None for all.

    Returns:
        [n], for each anchor the sum over its pairs.
    """
    sign = 2.0 * own_places(place, logits.shape[-1]) - 1
    losses = -F.logsigmoid(sign * logits)
    return (losses if allowed is None else torch.where(allowed, losses, 0.0)).sum(dim=1)


def infonce_loss(logits: torch.Tensor, place: torch.Tensor, allowed: torch.Tensor | None = None) -> torch.Tensor:
    """InfoNCE of anchors against the samples that are allowed; arguments and result as for `sigmoid_loss`.

    An anchor's own sample must be allowed.
    """
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    return F.cross_entropy(logits, place, reduction="none")


def agreement(
    similarity: torch.Tensor, place: torch.Tensor, allowed: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """What is seen between two views: for each anchor [n], from cosines; arguments as for `sigmoid_loss`.

    `positive_top1` says whether the anchor's own sample is the most similar one, which it never is of one alone;
    `positive_similarity` and `negative_similarity` are cosines, the latter's mean.
    """
    own = own_places(place, similarity.shape[-1])
    others = ~own if allowed is None else allowed & ~own
    positive = similarity.gather(1, place.unsqueeze(1)).squeeze(1)
    candidates = similarity if allowed is None else similarity.masked_fill(~allowed, -torch.inf)
    negative = torch.where(others, similarity, 0.0).sum(dim=1) / others.sum(dim=1).clamp(min=1)
    return {
        "positive_top1": ((candidates.argmax(dim=1) == place) & others.any(dim=1)).float(),
        "positive_similarity": positive,
        "negative_similarity": negative,
    }
