"""Objectives on tokens that are leaves of the graph: no encoder, so that values and gradients are looked at alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from facemae.config import EncoderConfig, ObjectiveConfig, ViewConfig
from facemae.data.schema import Batch
from facemae.models.encoding import Encoding
from facemae.models.init import initialise
from facemae.objectives.base import Objective, Setting, Term
from facemae.objectives.exchange import Alone, Exchange
from facemae.objectives.registry import build_objective, objective_config_class

WIDTH, TOKENS = 12, 5


def objective(
    settings: dict[str, Any], views: dict[str, int], *, batch_size: int, exchange: Exchange | None = None
) -> Objective:
    """An objective with initial weights, for views of so many copies each."""
    config: ObjectiveConfig = objective_config_class(settings["kind"]).model_validate(settings)
    setting = Setting(
        EncoderConfig(name="test_vit", image_size=24, patch_size=6, channels=1),
        encoder_width=WIDTH,
        encoder_depth=2,
        class_token=True,
        views={name: ViewConfig(mask=None, copies=copies) for name, copies in views.items()},
        seed=0,
        batch_size=batch_size,
        exchange=exchange or Alone(),
    )
    built = build_objective(config, setting)
    initialise(built, 0)
    return built


def tokens(samples: int, views: Sequence[str]) -> dict[str, torch.Tensor]:
    """Random tokens [samples, TOKENS, WIDTH] of each view, alike for the same sample."""
    generator = torch.Generator().manual_seed(1)
    same = torch.randn(samples, TOKENS, WIDTH, generator=generator)
    return {view: (same + torch.randn(samples, TOKENS, WIDTH, generator=generator)).requires_grad_() for view in views}


def part(samples: int, first_slot: int) -> Batch:
    """A batch without pixels."""
    keys = tuple(str(first_slot + number) for number in range(samples))
    return Batch(0, first_slot, keys, ("faces",) * samples, {}, ({},) * samples)


def term(built: Objective, given: dict[str, torch.Tensor], rows: slice | None = None, *, step: int = 0) -> Term:
    """The term of some of the samples."""
    rows = rows or slice(0, len(next(iter(given.values()))))
    encodings = {view: Encoding(value[rows], 1) for view, value in given.items()}
    return built.term(encodings, {}, part(rows.stop - rows.start, rows.start), step)


@dataclass
class Pretended:
    """Several processes played one after another: a first round records what each gives, a second one hands out all."""

    world: int
    rank: int = 0
    given: dict[int, torch.Tensor] = field(default_factory=dict)

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        if len(self.given) < self.world:
            self.given[self.rank] = rows
            return rows.repeat(self.world, *(1 for _ in rows.shape[1:]))
        return torch.cat([self.given[rank] for rank in range(self.world)])


def in_processes(settings: dict[str, Any], copies: dict[str, int], given: dict[str, torch.Tensor], world: int) -> Term:
    """The term of a global batch computed by several processes, with the gradients that their sum has."""
    samples = len(next(iter(given.values())))
    exchange = Pretended(world)
    built = objective(settings, copies, batch_size=samples, exchange=exchange)
    share = samples // world
    terms: list[Term] = []
    for _ in range(2):
        terms.clear()
        for exchange.rank in range(world):
            rows = slice(exchange.rank * share, (exchange.rank + 1) * share)
            terms.append(term(built, given, rows))
    samples_of = [each.samples for each in terms if each.samples is not None]
    return Term(
        torch.stack([each.sum for each in terms]).sum(),
        {name: torch.stack([each.metrics[name] for each in terms]).sum() for name in terms[0].metrics},
        torch.cat(samples_of),
    )


def gradients(total: torch.Tensor, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Gradients by the tokens."""
    return dict(zip(given, torch.autograd.grad(total, list(given.values())), strict=True))


def check_groups(settings: dict[str, Any], copies: dict[str, int]) -> Term:
    """Two groups of four samples give what runs on each of them give; their term, of eight samples."""
    given = tokens(8, _names(copies))
    whole = term(objective({**settings, "group": 4}, copies, batch_size=8), given)
    alone = objective(settings, copies, batch_size=4)
    halves = [term(alone, {view: value[rows] for view, value in given.items()}) for rows in (slice(4), slice(4, 8))]
    torch.testing.assert_close(whole.sum, halves[0].sum + halves[1].sum)
    for name, value in whole.metrics.items():
        torch.testing.assert_close(value, halves[0].metrics[name] + halves[1].metrics[name])
    return whole


def check_processes(settings: dict[str, Any], copies: dict[str, int], world: int) -> None:
    """Several processes with three samples each give what one gives, and the gradients too.

    Groups of six then span two processes, and groups of two lie across borders.
    """
    samples, given = 3 * world, tokens(3 * world, _names(copies))
    one = term(objective(settings, copies, batch_size=samples), given)
    several = in_processes(settings, copies, given, world)
    torch.testing.assert_close(several.sum, one.sum, atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(several.samples, one.samples, atol=1e-5, rtol=1e-6)
    for name in one.metrics:
        torch.testing.assert_close(several.metrics[name], one.metrics[name], atol=1e-5, rtol=1e-5)
    mine, theirs = gradients(several.sum, given), gradients(one.sum, given)
    for view in given:
        torch.testing.assert_close(mine[view], theirs[view], atol=1e-5, rtol=1e-5)


def _names(copies: dict[str, int]) -> list[str]:
    """What views are called in a batch that have two copies or more."""
    return [f"{name}/{number}" for name, count in copies.items() for number in range(count)]
