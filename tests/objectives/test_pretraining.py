from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch

from facemae.config import EncoderConfig, MaskConfig, NormaliseConfig, ObjectiveConfig, Recipe, ViewConfig
from facemae.data.schema import Batch, ViewBatch
from facemae.errors import ConfigError
from facemae.models.encoder import build_encoder
from facemae.models.encoding import Encoding
from facemae.models.init import initialise
from facemae.objectives.base import Need, Objective, Setting, Term
from facemae.objectives.masked_image import MaskedImageConfig
from facemae.objectives.pretraining import PretrainModel, build_pretrain_model
from facemae.objectives.registry import OBJECTIVES, objective_config_class

GREY = NormaliseConfig(mean=(0.5,), std=(0.25,))


def batch(samples: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    visible = torch.rand(samples, 16, generator=generator).argsort(dim=1)[:, :4].sort(dim=1).values
    views = {
        name: ViewBatch(torch.randint(0, 256, (samples, 1, 24, 24), dtype=torch.uint8, generator=generator), seen)
        for name, seen in (("main", visible), ("open", None))
    }
    labels = tuple({"labels": {"age": 30}} if i % 2 else {} for i in range(samples))
    return Batch(0, 0, tuple(map(str, range(samples))), ("faces",) * samples, views, labels)


class AgeConfig(ObjectiveConfig):
    kind: str = "age"


class Age(Objective):
    """Counts only samples with an age, and asks for a layer."""

    Config: ClassVar[type[ObjectiveConfig]] = AgeConfig

    def __init__(self, config: AgeConfig, setting: Setting) -> None:
        super().__init__(config)
        self.scale = torch.nn.Linear(setting.encoder_width, 1)

    def needs(self) -> tuple[Need, ...]:
        return (Need("open", (1, 0)),)

    def count(self, batch: Batch) -> int:
        return sum("labels" in meta for meta in batch.meta)

    def term(
        self, encodings: Mapping[str, Encoding], pixels: Mapping[str, torch.Tensor], batch: Batch, step: int
    ) -> Term:
        rows = [i for i, meta in enumerate(batch.meta) if "labels" in meta]
        predicted = self.scale(encodings["open"].layers[1][rows, 0])
        error = (predicted - 30).square().sum()
        return Term(error, {"mean_age": predicted.sum()})


@pytest.fixture
def with_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "age", f"{__name__}:Age")


def recipe(*objectives: dict[str, Any], seed: int = 0) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "test",
            "seed": seed,
            "views": {"main": ViewConfig(normalise=GREY), "open": ViewConfig(normalise=GREY, mask=None)},
            "encoder": EncoderConfig(name="test_vit", image_size=24, patch_size=6, channels=1),
            "objectives": objectives or (masked(),),
        }
    )


def masked(**more: Any) -> dict[str, Any]:
    return {"kind": "masked_image", "decoder": {"width": 32, "depth": 1, "heads": 4}, **more}


@pytest.mark.usefixtures("with_age")
def test_terms_are_weighted_divided_by_their_own_count_and_added() -> None:
    model = build_pretrain_model(recipe(masked(weight=0.5), {"kind": "age", "weight": 2.0}))
    given = batch()
    assert model.counts(given) == (4, 2)
    loss, metrics = model(given, 0, (4, 2))
    assert set(metrics) == {"loss/masked_image", "loss/age", "mean_age/age"}
    torch.testing.assert_close(loss.detach(), 0.5 * metrics["loss/masked_image"] + 2 * metrics["loss/age"])
    doubled, _ = model(given, 0, (4, 4))
    torch.testing.assert_close(loss - doubled, metrics["loss/age"])


@pytest.mark.usefixtures("with_age")
def test_a_batch_in_which_nothing_counts_is_no_division_by_zero() -> None:
    model = build_pretrain_model(recipe({"kind": "age"}))
    given = batch(1)
    assert model.counts(given) == (0,)
    loss, _ = model(given, 0, (0,))
    assert loss.item() == 0


@pytest.mark.usefixtures("with_age")
def test_each_view_is_encoded_once() -> None:
    model = build_pretrain_model(recipe(masked(), masked(weight=0.1), {"kind": "age"}))
    calls: list[tuple[int, ...]] = []
    model.encoder.register_forward_hook(lambda _module, _inputs, output: calls.append(tuple(sorted(output.layers))))
    loss, metrics = model(batch(), 0, (4, 4, 2))
    assert calls == [(), (0, 1)]
    assert {"loss/masked_image_0", "loss/masked_image_1", "loss/age"} <= set(metrics)
    assert bool(loss.isfinite())


def test_metrics_are_detached() -> None:
    model = build_pretrain_model(recipe())
    _, metrics = model(batch(), 0, (4,))
    assert not any(value.requires_grad for value in metrics.values())


def test_initial_weights_are_the_seeds_and_an_encoder_alone_gets_the_same() -> None:
    first, second, other = (build_pretrain_model(recipe(seed=seed)) for seed in (1, 1, 2))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert any(not torch.equal(value, other.state_dict()[name]) for name, value in first.state_dict().items())
    alone = build_encoder(recipe().encoder)
    initialise(alone, 1, prefix="encoder.")
    for name, value in alone.state_dict().items():
        assert torch.equal(value, first.state_dict()[f"encoder.{name}"])


def test_state_names_are_encoder_vit_and_objectives() -> None:
    names = build_pretrain_model(recipe()).state_dict()
    assert "encoder.vit.blocks.0.attn.qkv.weight" in names
    assert "objectives.0.decoder.mask_token" in names
    assert all(name.startswith(("encoder.vit.", "objectives.0.decoder.")) for name in names)


def test_every_trainable_parameter_gets_a_gradient() -> None:
    for kind in ("joint", "cross"):
        model: PretrainModel = build_pretrain_model(
            recipe(masked(decoder={"kind": kind, "width": 32, "depth": 1, "heads": 4}))
        )
        loss, _ = model(batch(), 0, (4,))
        loss.backward()
        without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert without == []


def test_an_unknown_objective_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean masked_image"):
        objective_config_class("masked_images")
    with pytest.raises(ConfigError, match="did you mean masked_image"):
        recipe({"kind": "mask_image"})


def test_a_mapping_becomes_the_objectives_own_configuration() -> None:
    assert objective_config_class("masked_image") is MaskedImageConfig
    parsed = recipe(masked()).objectives[0]
    assert isinstance(parsed, MaskedImageConfig)
    assert parsed.decoder.depth == 1
    assert MaskConfig() == recipe().views["main"].mask
