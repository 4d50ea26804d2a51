"""Contrast between two encodings: what belongs to one sample is alike, be it views, or a view and a sound."""

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import nn

from facemae.config import Config, HeadConfig, ObjectiveConfig
from facemae.data.schema import Batch
from facemae.errors import ConfigError
from facemae.models.encoding import Encoding
from facemae.models.heads import ProjectionHead
from facemae.objectives.base import Need, Objective, Setting, Term
from facemae.objectives.checks import heard
from facemae.objectives.contrast import (
    ContrastConfig,
    agreement,
    infonce_loss,
    learned_numbers,
    own_places,
    sigmoid_loss,
)
from facemae.objectives.groups import Group, add_terms, split_groups
from facemae.objectives.rows import spread
from facemae.objectives.transfer import upload

_NO_MARK = (-1.0, -1.0)
"""Of samples that lack a property, which they share with none."""


class LevelConfig(Config):
    """A depth at which two encodings are compared."""

    blocks: tuple[int, int] | None = None
    """0-based block of the first encoder and of the second, whose output is compared after the encoder's final norm;
    null for the encoders' outputs. HiCMAE's three levels are [3, 3], [6, 6] and [9, 9]."""
    head: HeadConfig | None = None
    """A projection of its own for each of the two; null compares the means themselves, as HiCMAE and CAV-MAE, which
    needs encoders of one width."""
    steps: int | None = Field(default=None, ge=1)
    """Into how many equal stretches of time clips and sounds are cut. Each has a mean of its own, projected by one head
    for all, and what is compared is the mean of their cosines over those of which the masks of both sides show
    something: what is alike must be so at the same time. null takes one mean over all, as HiCMAE and CAV-MAE."""
    centre: bool = False
    """Of several stretches: what those that are shown have in common is subtracted from each before the projection, so
    that what stays the same in time, who speaks and where among it, does not count."""

    @model_validator(mode="after")
    def _several(self) -> "LevelConfig":
        if self.centre and (self.steps or 1) < 2:
            raise ValueError("centre subtracts the mean of several stretches of time; set steps to 2 or more")
        return self


class ContrastiveConfig(ContrastConfig):
    """Two encodings of a sample are told from those of other samples."""

    compares_samples: ClassVar[bool] = True

    kind: Literal["contrastive"] = "contrastive"
    """Name in the registry."""
    between: tuple[str, str] = ("main", "voice")
    """What is compared: views or sounds, by name."""
    levels: tuple[LevelConfig, ...] = Field(default=(LevelConfig(),), min_length=1)
    """Where: the losses of all levels are added, as in HiCMAE. Each has its own learned temperature and bias."""
    temperature: float = Field(default=0.07, gt=0)
    """Divides similarities; where it starts if it is learned. HiCMAE 0.07, CAV-MAE 0.05."""
    direction: Literal["both", "forward"] = "both"
    """Of `infonce`: `both` averages over anchors of either side (HiCMAE); `forward` takes the first of `between` as
    anchors, told from others by the second (CAV-MAE, with the picture as the first)."""
    exclude: tuple[Literal["source", "subject"], ...] = ()
    """Samples of one stream that share one of these are no negatives of each other: the same video, the same person.
    Those that lack it share nothing."""

    def either_names(self) -> tuple[str, ...]:
        """Both."""
        return self.between

    @model_validator(mode="after")
    def _two(self) -> "ContrastiveConfig":
        if self.between[0] == self.between[1]:
            raise ValueError(f"between names {self.between[0]!r} twice; name two different views or sounds")
        if self.loss == "sigmoid" and self.direction != "both":
            raise ValueError("direction is of the infonce loss; sigmoid asks of each pair once")
        return self


class Contrastive(Objective):
    """InfoNCE (van den Oord et al., 2018) or the sigmoid loss of SigLIP (Zhai et al., 2023, eq. 1) at several levels.

    What is compared are means over the visible tokens, divided by their length. The loss is the mean over the samples
    that have both sides, of sums over levels. Samples that lack one are neither anchors nor negatives.
    """

    Config: ClassVar[type[ObjectiveConfig]] = ContrastiveConfig
    takes_parts: ClassVar[bool] = True

    def __init__(self, config: ContrastiveConfig, setting: Setting) -> None:
        super().__init__(config)
        self.settings = config
        self.exchange = setting.exchange
        self._group = config.group_size(setting.batch_size)
        self.sounds = tuple(name for name in config.between if name in setting.sounds)
        sides = tuple(_side(name, setting) for name in config.between)
        for level in config.levels:
            _check_level(config.between, sides, level)
            _check_steps(config.between, level, setting)
        self.levels = nn.ModuleList(Level(config, level, sides) for level in config.levels)

    def needs(self) -> tuple[Need, ...]:
        """One encoding of each, with the blocks of all levels."""
        return tuple(
            Need(
                name, tuple(sorted({level.blocks[side] for level in self.settings.levels if level.blocks is not None}))
            )
            for side, name in enumerate(self.settings.between)
        )

    def count(self, batch: Batch) -> int:
        """The number of samples that have both sides."""
        return int(self._present(batch).sum())

    def term(
        self, encodings: Mapping[str, Encoding], pixels: Mapping[str, torch.Tensor], batch: Batch, step: int
    ) -> Term:
        """The sum over samples of the loss; as metrics, what is seen at each level from the first side.

        `positive_top1`, of several levels `positive_top1_0` and so on, says whether the sample's other side is the most
        similar one of the group's; `positive_similarity` and `negative_similarity` are mean cosines.
        """
        first, second = (encodings[name] for name in self.settings.between)
        rows_of = tuple(batch.rows(name) for name in self.settings.between)
        vectors = [level(first, second, rows_of, len(batch)) for level in self._levels()]
        device = vectors[0].device
        present, marks = (upload(part, device) for part in (self._present(batch), self._marks(batch)))
        # One exchange carries all levels and what tells samples apart: [B, numbers].
        rows = torch.cat([*(vector.flatten(1) for vector in vectors), present.float().unsqueeze(1), marks], dim=1)
        shapes = [tuple(vector.shape[1:]) for vector in vectors]
        with torch.autocast(device.type, enabled=False):
            return add_terms(
                self._group_term(rows[group.own], shapes, group)
                for group in split_groups(rows, batch, self._group, self.exchange)
            )

    def _levels(self) -> list["Level"]:
        return [level for level in self.levels if isinstance(level, Level)]

    def _present(self, batch: Batch) -> torch.Tensor:
        """Bool [B], which samples have both sides; on the device of the batch."""
        present = torch.ones(len(batch), dtype=torch.bool)
        for name in self.settings.between:
            rows = batch.rows(name)
            if name in self.sounds:
                here = batch.sounds[name].present
            elif rows is not None:
                here = torch.ones_like(rows, dtype=torch.bool)
            else:
                continue
            present = upload(present, here.device) & spread(here, rows, len(batch))
        return present

    def _marks(self, batch: Batch) -> torch.Tensor:
        """float32 [B, 2 * E]: for each of E excluded properties two whole numbers that samples of one value share."""
        samples = list(zip(batch.streams, batch.meta, strict=True))
        marks = {name: [_mark(stream, name, meta) for stream, meta in samples] for name in self.settings.exclude}
        for name, values in marks.items():
            # Of groups that go beyond these samples nothing is known here. Python shows a warning of one place once.
            if len(values) >= self._group and len(set(values)) == 1 and values[0] != _NO_MARK:
                warnings.warn(
                    f"all {len(values)} samples share their {name}, which `exclude` of objective 'contrastive' takes "
                    "out of the negatives: they are compared with nothing",
                    stacklevel=1,
                )
        rows = [[number for values in marks.values() for number in values[place]] for place in range(len(samples))]
        return torch.tensor(rows, dtype=torch.float32).view(len(batch), 2 * len(marks))

    def _group_term(self, own: torch.Tensor, shapes: list[tuple[int, ...]], group: Group) -> Term:
        """The term of the own samples of a group, [n, numbers], with rows [N, numbers]."""
        sizes = [shape[0] * shape[1] for shape in shapes]
        sizes.append(own.shape[1] - sum(sizes))
        *mine, own_facts = torch.split(own, sizes, dim=1)
        *theirs, facts = torch.split(group.rows, sizes, dim=1)
        place = torch.arange(group.places.start, group.places.stop, device=own.device)
        present = own_facts[:, 0] > 0
        allowed = _allowed(own_facts, facts, place)
        losses: list[torch.Tensor] = []
        metrics: dict[str, torch.Tensor] = {}
        for number, (level, shape) in enumerate(zip(self._levels(), shapes, strict=True)):
            pair, pairs = (part[number].reshape(-1, *shape) for part in (mine, theirs))
            losses.append(level.loss(pair, pairs, place, allowed))
            with torch.no_grad():
                seen = agreement(level.similarity(pair[:, 0], pairs[:, 1]), place, allowed)
            suffix = f"_{number}" if len(shapes) > 1 else ""
            metrics |= {name + suffix: torch.where(present, value, 0.0).sum() for name, value in seen.items()}
        loss = torch.where(present, torch.stack(losses).sum(dim=0), 0.0)
        return Term(loss.sum(), metrics, loss.detach())


class Level(nn.Module):
    """One depth of the comparison: heads, temperature and bias.

    Args:
        config: The objective's settings.
        level: The level's.
        sides: Width and depth of each side's encoder.
    """

    def __init__(self, config: ContrastiveConfig, level: LevelConfig, sides: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.settings, self.blocks, self.steps = config, level.blocks, level.steps or 1
        self.centre = level.centre
        self.heads = None if level.head is None else nn.ModuleList(ProjectionHead(level.head, w) for w, _ in sides)
        self.log_scale, self.bias = learned_numbers(config)

    def forward(
        self, first: Encoding, second: Encoding, rows: Sequence[torch.Tensor | None], samples: int
    ) -> torch.Tensor:
        """Rows of both sides, fp32 [B, 2, D], for `similarity`; zeros where a sample lacks a side.

        Args:
            first: The first side.
            second: The second side.
            rows: Of each, the samples that it was made of; None for all.
            samples: Samples B of the batch.
        """
        found = []
        for side, encoding in enumerate((first, second)):
            vectors, shown = self._vectors(encoding, side)
            facts = vectors if shown is None else torch.cat([vectors, shown.to(vectors.dtype)], dim=1)
            found.append(spread(facts, rows[side], samples))
        return torch.stack(found, dim=1)

    def vector(self, encoding: Encoding, side: int) -> torch.Tensor:
        """Vectors of length one of one side, fp32 [R, D]; of several stretches of time one behind the other.

        Cosines of such vectors are `similarity` where both sides show every stretch.
        """
        return self._vectors(encoding, side)[0]

    def _vectors(self, encoding: Encoding, side: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Vectors, zeros in stretches that show nothing, and bool [R, steps], which show something; None of one."""
        tokens = _level_tokens(encoding, None if self.blocks is None else self.blocks[side])
        means, shown = step_means(tokens, encoding, self.steps)
        if self.centre:
            # What a single stretch has in common with itself is all of it.
            shown = shown & (shown.sum(dim=1, keepdim=True) > 1)
            means = means - means.sum(dim=1, keepdim=True) / shown.sum(dim=1).clamp(min=1).view(-1, 1, 1)
        found = F.normalize(means.float(), dim=-1) if self.heads is None else self.heads[side](means)
        if self.steps == 1:
            return found.flatten(1), None
        found = torch.where(shown.unsqueeze(-1), found, 0.0)
        return found.flatten(1) / shown.sum(dim=1, keepdim=True).clamp(min=1).sqrt(), shown

    def similarity(self, own: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Cosines [n, N] of one side's rows [n, D] with the other's, [N, D].

        Of several stretches their mean over those that both show; 0 where there is none.
        """
        if self.steps == 1:
            return own @ rows.T
        vectors, others = own[:, : -self.steps], rows[:, : -self.steps]
        shown, seen = own[:, -self.steps :], rows[:, -self.steps :]
        # Of as many stretches as each shows, each vector has the length of one.
        scale = (shown.sum(dim=1).unsqueeze(1) * seen.sum(dim=1)).sqrt() / (shown @ seen.T).clamp(min=1)
        return (vectors @ others.T) * scale

    def loss(self, own: torch.Tensor, rows: torch.Tensor, place: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
        """The loss of each own sample, [n].

        Args:
            own: [n, 2, D], the rows of both sides of the own samples.
            rows: [N, 2, D], those of the group.
            place: int64 [n], which of the N an own sample is.
            allowed: bool [n, N], itself and its negatives.
        """
        scale = 1 / self.settings.temperature if self.log_scale is None else self.log_scale().exp()
        forward = self.similarity(own[:, 0], rows[:, 1]) * scale
        if self.bias is not None:
            return sigmoid_loss(forward + self.bias(), place, allowed)
        loss = infonce_loss(forward, place, allowed)
        if self.settings.direction == "forward":
            return loss
        return (loss + infonce_loss(self.similarity(own[:, 1], rows[:, 0]) * scale, place, allowed)) / 2


def _level_tokens(encoding: Encoding, block: int | None) -> torch.Tensor:
    """The visible patches' tokens at a level, [B, K, D]."""
    if block is None:
        return encoding.patches
    return encoding.level(block)[:, encoding.prefix :]


def step_means(tokens: torch.Tensor, encoding: Encoding, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Means over the visible tokens in equal stretches of time.

    Args:
        tokens: [B, K, D], those of an encoding's visible patches.
        encoding: The encoding, whose grid begins with time.
        steps: How many stretches, a divisor of the grid's steps in time.

    Returns:
        [B, steps, D], zeros where a stretch shows nothing, and bool [B, steps], where it shows something.
    """
    everywhere = torch.ones(len(tokens), steps, dtype=torch.bool, device=tokens.device)
    if steps == 1:
        return tokens.mean(dim=1, keepdim=True), everywhere
    assert encoding.grid is not None, "encoders give theirs"
    each = math.prod(encoding.grid) // steps
    if encoding.visible is None:
        return tokens.reshape(len(tokens), steps, each, -1).mean(dim=2), everywhere
    # In fp32: what stays the same is subtracted from these means, and what is left is small beside them.
    with torch.autocast(tokens.device.type, enabled=False):
        belongs = F.one_hot(encoding.visible // each, steps).float()
        counts = belongs.sum(dim=1)
        return belongs.mT @ tokens.float() / counts.clamp(min=1).unsqueeze(-1), counts > 0


def _allowed(own: torch.Tensor, rows: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Bool [n, N]: an anchor itself, and the samples that are there and share nothing with it that is excluded."""
    values = (own.shape[1] - 1) // 2
    marks, others = (facts[:, 1:].reshape(len(facts), values, 2) for facts in (own, rows))
    # [n, N, E]: both numbers agree, and are those of a value.
    shared = (marks[:, None] == others[None]).all(dim=-1) & (marks[:, None, :, 0] >= 0)
    negative: torch.Tensor = (rows[:, 0] > 0)[None] & ~shared.any(dim=-1)
    return negative | own_places(place, len(rows))


def _mark(stream: str, name: str, meta: Mapping[str, Any]) -> tuple[float, float]:
    """Two whole numbers below 2^24, exact in float32, that two values share with a chance of 2^-48; -1 for none."""
    value = meta.get(name)
    if value is None and name == "source":
        # The file that a sample was packed from: pieces and persons of one video share it.
        value = meta.get("path")
    if value is None or value == "":
        return _NO_MARK
    digest = hashlib.blake2b(f"{len(stream)}:{stream}{value}".encode(), digest_size=6).digest()
    return float(int.from_bytes(digest[:3])), float(int.from_bytes(digest[3:]))


def _side(name: str, setting: Setting) -> tuple[int, int]:
    """Width and depth of the encoder of a view or sound.

    Raises:
        ConfigError: It has several copies, which nobody could pair.
    """
    view = setting.sounds[name].beneath if name in setting.sounds else name
    if setting.views[view].copies > 1:
        raise ConfigError(
            f"objective 'contrastive' pairs {name!r} and views.{view}.copies is {setting.views[view].copies}",
            expected="one copy",
            fix="name another view, or objective contrastive_image for copies of one view",
        )
    if name in setting.sounds:
        encoder = heard("contrastive", setting)
        return encoder.width, encoder.depth
    return setting.encoder_width, setting.encoder_depth


def _check_level(between: tuple[str, str], sides: tuple[tuple[int, int], ...], level: LevelConfig) -> None:
    """Raise ConfigError where a level's blocks are not there, or widths differ that no head makes equal."""
    for side, block in enumerate(level.blocks or ()):
        if not 0 <= block < sides[side][1]:
            raise ConfigError(
                f"objective 'contrastive' compares block {block} of {between[side]!r}",
                expected=f"0 to {sides[side][1] - 1}",
            )
    if level.head is None and sides[0][0] != sides[1][0]:
        raise ConfigError(
            f"objective 'contrastive' compares {sides[0][0]} numbers of {between[0]!r} with {sides[1][0]} of "
            f"{between[1]!r}",
            fix="give each level a head, or choose encoders of one width",
        )


def _check_steps(between: tuple[str, str], level: LevelConfig, setting: Setting) -> None:
    """Raise ConfigError where a side has no such stretches of time."""
    for name in between if level.steps is not None else ():
        if name in setting.sounds:
            moments = heard("contrastive", setting).config.grid[0]
        else:
            clip = setting.views[name].clip
            moments = 1 if clip is None else clip.frames // (setting.encoder.tubelet or 1)
        if level.steps is not None and moments % level.steps:
            legal = [str(count) for count in range(1, moments + 1) if moments % count == 0]
            raise ConfigError(
                f"objective 'contrastive' cuts {name!r} into {level.steps} stretches of time; it has {moments} moments",
                expected=f"one of {', '.join(legal)}",
            )
