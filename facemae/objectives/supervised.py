"""Learning from labels: the encoder is fine-tuned together with a linear head on its pooled tokens."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, Field, model_validator
from torch import nn

from facemae.config import LabelCounts, ObjectiveConfig, copy_names
from facemae.config.data import Where, as_text
from facemae.data.schema import Batch
from facemae.errors import ConfigError
from facemae.models.encoding import Encoding
from facemae.objectives.base import Need, Objective, Setting, Term
from facemae.objectives.checks import check_pool
from facemae.objectives.labels import LabelReader, Task
from facemae.objectives.mixup import draw_shares, partners
from facemae.objectives.rows import only, spread
from facemae.objectives.transfer import upload
from facemae.rng import uniform_by_slot

START = 1e-3
"""Factor of the head's initial weights, so that fine-tuning starts from even predictions (BEiT's `init_scale`)."""

HeadPool = Literal["mean", "cls", "cls+mean"]


def _as_list(value: object) -> object:
    values = [value] if isinstance(value, str | int | float) else value
    return [as_text(item) for item in values] if isinstance(values, list | tuple) else values


Names = Annotated[tuple[str, ...], BeforeValidator(_as_list)]
"""Texts; a single one needs no list, and numbers are taken as text."""


class SupervisedConfig(ObjectiveConfig):
    """Labels of samples are predicted from the whole encoding."""

    kind: Literal["supervised"] = "supervised"
    """Name in the registry."""
    view: str = "main"
    """The view that is encoded; it may be mixed (`views.NAME.mixup`)."""
    task: Task = "classes"
    """What the labels are: one of several `classes`, several binary columns (`multilabel`), shares or votes of classes
    (`distribution`), or numbers (`regression`)."""
    labels: Names = ()
    """Metadata columns: one for `classes`, one a class or number for the others."""
    classes: Names = ()
    """Names of the classes in the order of the head's outputs, for `classes`; empty takes those of the streams' samples
    when the run is started, numbers in their order and before text."""
    rename: Where = Field(default_factory=dict)
    """Values that are called otherwise as classes, for example `{happy: happiness}`."""
    unknown: Names = ()
    """Values that say that a label is not known, beside empty ones: for example `[9, 999]`."""
    pool: HeadPool = "mean"
    """What the head sees: the `mean` of the patch tokens behind a norm of its own, the class token (`cls`), or both."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of what the head sees that is left out in training."""
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Label smoothing: this share of a class label is spread over all classes; for `classes`."""

    centre: tuple[float, ...] = ()
    """For `regression`: what is taken from each column before it is learnt, and given back when it is predicted; empty
    takes the means of the streams' samples when the run is started."""
    scale: tuple[float, ...] = ()
    """For `regression`: what each column is divided by; empty takes the standard deviations."""

    def view_names(self) -> tuple[str, ...]:
        """The one view."""
        return (self.view,)

    @property
    def reader(self) -> LabelReader:
        """Reads its labels."""
        return LabelReader(self.task, self.labels, self.classes, self.rename, self.unknown)

    def label_columns(self) -> tuple[str, ...]:
        """See `ObjectiveConfig`."""
        return self.labels

    def completed(self, found: Callable[[], LabelCounts], started: ObjectiveConfig | None) -> "SupervisedConfig":
        """See `ObjectiveConfig`: the classes of the samples, where none are named; the spread of numbers."""
        if self.task == "regression" and not self.centre and self.labels:
            if isinstance(started, SupervisedConfig) and started.centre:
                return self.model_copy(update={"centre": started.centre, "scale": started.scale})
            centre, scale = self.reader.spread_in(found())
            return self.model_copy(update={"centre": centre, "scale": scale})
        if self.task != "classes" or self.classes or not self.labels:
            return self
        named = started.classes if isinstance(started, SupervisedConfig) else ()
        return self.model_copy(update={"classes": named or self.reader.classes_in(found())})

    @model_validator(mode="after")
    def _consistent(self) -> "SupervisedConfig":
        if self.task == "classes" and len(self.labels) > 1:
            raise ValueError(
                f"task classes reads one column and labels names {len(self.labels)}; or set task=multilabel"
            )
        if self.task != "classes" and (self.classes or self.smoothing):
            raise ValueError(f"classes and smoothing are for task classes; the task is {self.task}")
        if len(self.centre) != len(self.scale) or len(self.centre) not in (0, len(self.labels)):
            raise ValueError("centre and scale have one number for each of the labels, or none")
        if self.centre and self.task != "regression":
            raise ValueError(f"centre and scale are for task regression; the task is {self.task}")
        if any(not scale > 0 for scale in self.scale):
            raise ValueError(f"scale {list(self.scale)}: numbers above 0")
        for names, what in ((self.labels, "labels"), (self.classes, "classes")):
            if len(set(names)) < len(names):
                raise ValueError(f"{what} has a name twice: {', '.join(names)}")
        return self


class Head(nn.Module):
    """A linear map of pooled tokens.

    MAE's fine-tuning takes the mean of tokens before the encoder's final norm and gives it one of its own; here the
    encoder keeps the norm it was pretrained with, and the mean behind it gets another.

    Args:
        pool: What is brought together.
        width: Dimension of the tokens.
        out: Numbers predicted.
    """

    def __init__(self, pool: HeadPool, width: int, out: int) -> None:
        super().__init__()
        self.pool = pool
        self.norm = nn.Identity() if pool == "cls" else nn.LayerNorm(width, eps=1e-6)
        self.linear = nn.Linear(width * len(pool.split("+")), out)

    @torch.no_grad()
    def reset_values(self) -> None:
        """Make the initial weights small."""
        self.linear.weight.mul_(START)

    def pooled(self, encoding: Encoding) -> torch.Tensor:
        """[B, F], what the linear map sees."""
        if self.pool == "cls":
            return encoding.tokens[:, 0]
        mean: torch.Tensor = self.norm(encoding.patches.mean(dim=1))
        return (
            mean if self.pool == "mean" else torch.cat([encoding.tokens[:, 0], mean.to(encoding.tokens.dtype)], dim=1)
        )

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """[B, F] gives fp32 [B, C], also under autocast: losses are computed in fp32."""
        return self.linear(pooled).float()  # type: ignore[no-any-return]


class Supervised(Objective):
    """The loss of known labels.

    `classes` and `distribution`: cross-entropy; `multilabel`: binary cross-entropy; `regression`: squared error of
    numbers in units of their deviation. What
    counts is a known label: a sample of classes or of a distribution counts once, one of C columns as often as columns
    are known, so the loss is the mean over known labels whatever is missing where.
    """

    Config: ClassVar[type[ObjectiveConfig]] = SupervisedConfig
    takes_mixup: ClassVar[bool] = True
    takes_parts: ClassVar[bool] = True

    def __init__(self, config: SupervisedConfig, setting: Setting) -> None:
        super().__init__(config)
        reader = config.reader
        if not config.labels or (config.task == "classes" and len(config.classes) < 2):
            missing = "metadata column in `labels`" if not config.labels else "two or more `classes`"
            raise ConfigError(
                f"objective 'supervised' names no {missing}",
                expected="labels=COLUMN, and classes that samples have",
                fix="facemae data stats DIR shows columns and values",
            )
        check_pool(config.kind, "mean" if config.pool == "mean" else "cls", setting)
        self.settings, self.reader = config, reader
        self.views = copy_names(setting.views, config.view)
        self.streams = setting.views[config.view].streams
        self.seed = setting.seed
        mixup = setting.views[config.view].mixup
        self.alpha = None if mixup is None else mixup.alpha
        self.head = Head(config.pool, setting.encoder_width, reader.width)
        self.centre, self.scale = (torch.tensor(values) for values in (config.centre or (0.0,), config.scale or (1.0,)))

    def needs(self) -> tuple[Need, ...]:
        """One encoding of each copy of the view; the last layer."""
        return tuple(Need(view) for view in self.views)

    def count(self, batch: Batch) -> int:
        """The number of known labels."""
        return sum(self.reader.count(meta) for meta in self._metas(batch))

    def check_labels(self, found: LabelCounts) -> str:
        """See `Objective`."""
        return self.reader.check(found)

    def term(
        self, encodings: Mapping[str, Encoding], pixels: Mapping[str, torch.Tensor], batch: Batch, step: int
    ) -> Term:
        """The sum over known labels; `accuracy` as metric, of the decisions at even odds for binary columns."""
        targets, known = self.reader.targets(self._metas(batch))
        if not known.any():
            nothing = torch.zeros(len(batch), device=encodings[self.views[0]].tokens.device)
            metrics = {} if self.settings.task == "regression" else {"accuracy": nothing.sum()}
            return Term(nothing.sum(), metrics, nothing)
        if self.settings.task == "regression":
            targets = (targets - self.centre) / self.scale
        if self.settings.smoothing:
            targets = targets * (1 - self.settings.smoothing) + self.settings.smoothing / self.reader.width
        parts = [self._view_term(encodings[view], view, targets, known, batch, step) for view in self.views]
        loss, right = (torch.stack(values).mean(dim=0) for values in zip(*parts, strict=True))
        metrics = {} if self.settings.task == "regression" else {"accuracy": right.sum().detach()}
        return Term(loss.sum(), metrics, spread(loss.detach(), batch.rows(self.views[0]), len(batch)))

    def _metas(self, batch: Batch) -> list[Mapping[str, Any]]:
        """Metadata of the samples that the view is made of."""
        named = zip(batch.streams, batch.meta, strict=True)
        return [meta for stream, meta in named if self.streams is None or stream in self.streams]

    def scores(self, encoding: Encoding) -> torch.Tensor:
        """What is predicted, fp32 [B, C]: probabilities of classes or of binary columns, or numbers. Nothing drawn."""
        out: torch.Tensor = self.head(self.head.pooled(encoding))
        if self.settings.task in ("classes", "distribution"):
            return out.softmax(dim=1)
        if self.settings.task == "multilabel":
            return out.sigmoid()
        return out * self.scale.to(out.device) + self.centre.to(out.device)

    def _view_term(
        self, encoding: Encoding, view: str, targets: torch.Tensor, known: torch.Tensor, batch: Batch, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What each sample that the view is made of adds to the loss and to the right decisions, [R] each."""
        pooled = self.head.pooled(encoding)
        device = pooled.device
        out = self.head(self._thinned(pooled, view, batch, step))
        shares = torch.ones(len(targets))
        if self.alpha is not None:
            shares = draw_shares(self.alpha, seed=self.seed, step=step, view=view, batch=batch)
        weights = known * shares.view(-1, 1)
        sides = [(targets, weights)]
        if self.alpha is not None:
            sides.append((partners(targets), partners(known) * (1 - shares).view(-1, 1)))
        losses, right = [], []
        with torch.autocast(device.type, enabled=False):
            for wanted, weight in sides:
                wanted, weight = (upload(part, device) for part in (wanted, weight))
                losses.append(self._losses(out, wanted, weight))
                right.append(self._right(out.detach(), wanted, weight))
        return torch.stack(losses).sum(dim=0), torch.stack(right).sum(dim=0)

    def _losses(self, out: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        task = self.settings.task
        if task in ("classes", "distribution"):
            return -(targets * out.log_softmax(dim=1)).sum(dim=1) * weights[:, 0]
        if task == "multilabel":
            each = F.binary_cross_entropy_with_logits(out, targets, reduction="none")
        else:
            each = (out - targets).square()
        return (each * weights).sum(dim=1)

    def _right(self, out: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        if self.settings.task in ("classes", "distribution"):
            return (out.argmax(dim=1) == targets.argmax(dim=1)) * weights[:, 0]
        return (((out > 0) == (targets > 0.5)) * weights).sum(dim=1)

    def _thinned(self, pooled: torch.Tensor, view: str, batch: Batch, step: int) -> torch.Tensor:
        """Dropout whose draws are a function of seed, step and slot."""
        rate = self.settings.dropout
        if not rate:
            return pooled
        slots = {"first": batch.first_slot, "slots": len(batch), "each": pooled.shape[1]}
        drawn = uniform_by_slot(self.seed, "dropout", view, step, **slots)
        kept = only(upload(torch.from_numpy(drawn >= rate), pooled.device), batch.rows(view))
        return pooled * kept.to(pooled.dtype) / (1 - rate)
