"""The loss of each stream by itself: a mean over what counts of it, however the batch is divided."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch

from facemae.config import ObjectiveConfig, Recipe
from facemae.data.schema import Batch
from facemae.models.encoding import Encoding
from facemae.objectives.base import Need, Objective, Setting, Term
from facemae.objectives.pretraining import PretrainModel, build_pretrain_model
from facemae.objectives.registry import OBJECTIVES
from tests.objectives.test_pretraining import batch, masked, recipe


class AgesConfig(ObjectiveConfig):
    kind: str = "ages"


class Ages(Objective):
    """Counts only samples with an age; each adds its age."""

    Config: ClassVar[type[ObjectiveConfig]] = AgesConfig

    def __init__(self, config: AgesConfig, setting: Setting) -> None:
        super().__init__(config)

    def needs(self) -> tuple[Need, ...]:
        return (Need("open"),)

    def count(self, batch: Batch) -> int:
        return sum("labels" in meta for meta in batch.meta)

    def term(
        self, encodings: Mapping[str, Encoding], pixels: Mapping[str, torch.Tensor], batch: Batch, step: int
    ) -> Term:
        ages = torch.tensor([float(meta.get("labels", {}).get("age", 0)) for meta in batch.meta])
        return Term(ages.sum(), samples=ages)


@pytest.fixture(autouse=True)
def _with_ages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "ages", f"{__name__}:Ages")


def mixed() -> Batch:
    """Eight samples: every second has an age, streams alternate in pairs, and one age stands out."""
    given = batch(8)
    meta = list(given.meta)
    meta[1] = {"labels": {"age": 90}}
    return replace(given, streams=("studio", "studio", "wild", "wild") * 2, meta=tuple(meta))


def model_of(streams: tuple[str, ...], *objectives: dict[str, Any]) -> PretrainModel:
    tree = recipe(*objectives).model_dump(mode="json", by_alias=True)
    tree["data"] = {"streams": [{"name": name} for name in streams]}
    return build_pretrain_model(Recipe.model_validate(tree))


def test_each_stream_has_the_mean_over_what_counts_of_it() -> None:
    model = model_of(("studio", "wild"), {"kind": "ages"})
    given = mixed()
    assert model.counts(given) == (4, 2, 2)
    _, metrics = model(given, 0, model.counts(given))
    assert {name: value.item() for name, value in metrics.items()} == {
        "loss/ages": 45.0,
        "loss/ages/studio": 60.0,
        "loss/ages/wild": 30.0,
    }


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    model = model_of(("studio", "wild"), masked(), {"kind": "ages"})
    given = mixed()
    counts = model.counts(given)
    parts = given.split(4)
    assert tuple(sum(column) for column in zip(*(model.counts(part) for part in parts), strict=True)) == counts
    _, whole = model(given, 0, counts)
    shares = [model(part, 0, counts)[1] for part in parts]
    assert {"loss/masked_image/studio", "loss/masked_image/wild", "loss/ages/wild"} <= set(whole)
    for name, value in whole.items():
        torch.testing.assert_close(sum(share[name] for share in shares), value)
    both = (whole["loss/masked_image/studio"] + whole["loss/masked_image/wild"]) / 2
    torch.testing.assert_close(both, whole["loss/masked_image"])
    assert not any(value.requires_grad for value in whole.values())


def test_a_stream_in_which_nothing_counts_is_no_division_by_zero() -> None:
    model = model_of(("studio", "wild", "absent"), {"kind": "ages"})
    given = mixed()
    assert model.counts(given) == (4, 2, 2, 0)
    _, metrics = model(given, 0, model.counts(given))
    assert metrics["loss/ages/absent"].item() == 0


def test_a_single_stream_is_not_named() -> None:
    model = model_of(("faces",), masked())
    given = batch()
    assert model.counts(given) == (4,)
    assert set(model(given, 0, (4,))[1]) == {"loss/masked_image"}
