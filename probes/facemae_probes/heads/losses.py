"""What heads minimise, for each kind of targets: the loss of logits, its gradient, and what logits are turned into.

The loss of N samples is a sum over samples and columns divided by N, for every kind: the softmax cross-entropy against
classes or shares, the binary cross-entropy of coded columns, half the squared error of known numbers. Labels that are
missing add nothing; N counts samples whether all of their columns are known or not.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from facemae_probes.tasks.targets import Kind, Targets


@dataclass(frozen=True)
class LabelScale:
    """Where numbers lie and how far they spread, so that columns of different units are fitted equally well.

    Attributes:
        centre: fp32 [C] mean of the known values; zero for kinds that are no numbers.
        spread: fp32 [C] their deviation; one for kinds that are no numbers, and where they do not vary.
    """

    centre: Tensor
    spread: Tensor

    @classmethod
    def of(cls, targets: Targets) -> "LabelScale":
        """Measure targets."""
        if targets.kind != "regression":
            return cls(torch.zeros(targets.width), torch.ones(targets.width))
        count = np.maximum(targets.known.sum(axis=0), 1)
        centre = np.nansum(targets.values, axis=0) / count
        spread = np.sqrt(np.nansum(np.square(targets.values - centre), axis=0) / count)
        spread[spread <= 1e-6 * np.maximum(np.abs(centre), 1e-6)] = 1
        return cls(torch.from_numpy(centre.astype(np.float32)), torch.from_numpy(spread.astype(np.float32)))

    def standard(self, targets: Targets) -> Targets:
        """Targets in this scale."""
        if targets.kind != "regression":
            return targets
        values = (targets.values - self.centre.double().numpy()) / self.spread.double().numpy()
        return Targets(targets.kind, targets.names, values)


@dataclass(frozen=True)
class Labels:
    """Targets as tensors.

    Attributes:
        kind: Their kind.
        width: C.
        wanted: [N] class numbers for `classes`, else fp32 [N, C], zero where unknown.
        known: bool [N, C]; None where all is known.
    """

    kind: Kind
    width: int
    wanted: Tensor
    known: Tensor | None

    @classmethod
    def of(cls, targets: Targets) -> "Labels":
        """Those of targets."""
        if targets.kind == "classes":
            return cls(targets.kind, targets.width, torch.from_numpy(np.array(targets.values)), None)
        known = np.broadcast_to(targets.known, targets.values.shape)
        wanted = torch.from_numpy(np.where(known, targets.values, 0).astype(np.float32))
        return cls(targets.kind, targets.width, wanted, None if known.all() else torch.from_numpy(known.copy()))

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, rows: slice | Tensor) -> "Labels":
        known = None if self.known is None else self.known[rows]
        return Labels(self.kind, self.width, self.wanted[rows], known)


def label_loss(logits: Tensor, labels: Labels) -> Tensor:
    """The loss of logits [N, C], for training by automatic differentiation."""
    if labels.kind in ("classes", "distribution"):
        wanted = labels.wanted if labels.kind == "classes" else labels.wanted.to(logits.dtype)
        return F.cross_entropy(logits, wanted)
    wanted = labels.wanted.to(logits.dtype)
    if labels.kind == "multilabel":
        each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    else:
        each = 0.5 * (logits - wanted).square()
    if labels.known is not None:
        each = torch.where(labels.known, each, 0)
    return each.sum() / len(logits)


def residuals(logits: Tensor, labels: Labels) -> tuple[float, Tensor, Tensor]:
    """The same by hand, which is several times as fast for few columns.

    Args:
        logits: [C, N]: columns first, because sums over few columns are then sums of long rows. Overwritten.
        labels: Of N samples.

    Returns:
        The loss times N; its gradient by the logits, [C, N]; and the sum over samples of its second derivatives: a
        matrix [C, C] where columns depend on each other, else [C].
    """
    if labels.kind in ("classes", "distribution"):
        return _softmax_residuals(logits, labels)
    wanted = labels.wanted.to(logits.dtype).T
    known = None if labels.known is None else labels.known.T
    if labels.kind == "regression":
        change = logits.sub_(wanted)
        curvature = torch.ones_like(change)
        each = 0.5 * change.square()
    else:
        each = F.softplus(logits) - wanted * logits
        chance = logits.sigmoid_()
        curvature = chance * (1 - chance)
        change = chance - wanted
    if known is not None:
        each, change, curvature = each * known, change * known, curvature * known
    return float(each.sum(dtype=torch.float64)), change, curvature.sum(dim=1)


def _softmax_residuals(logits: Tensor, labels: Labels) -> tuple[float, Tensor, Tensor]:
    top = logits.amax(dim=0)
    logits -= top
    if labels.kind == "classes":
        chosen = labels.wanted[None]
        right = logits.gather(0, chosen).sum(dtype=torch.float64)
    else:
        shares = labels.wanted.to(logits.dtype).T
        right = (logits * shares).sum(dtype=torch.float64)
    chance = logits.exp_()
    total = chance.sum(dim=0)
    chance /= total
    loss = float(total.log_().sum(dtype=torch.float64) - right)
    curvature = torch.diag(chance.sum(dim=1)).addmm_(chance, chance.T, alpha=-1)
    if labels.kind == "classes":
        chance.scatter_add_(0, chosen, chance.new_full((), -1).expand_as(chosen))
    else:
        chance -= shares
    return loss, chance, curvature


def activate(logits: Tensor, kind: Kind, label_scale: LabelScale | None = None) -> Tensor:
    """Scores [N, C] of logits [N, C]: probabilities of classes or of columns, or numbers in their own units."""
    if kind in ("classes", "distribution"):
        return logits.softmax(dim=1)
    if kind == "multilabel":
        return logits.sigmoid()
    return logits if label_scale is None else logits * label_scale.spread + label_scale.centre
