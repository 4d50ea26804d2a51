"""Fine-tuning with labels as a run of the trainer: it learns, resumes bit by bit, starts from weights, and predicts."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facemae.checkpoint import find_checkpoint
from facemae.config import Recipe
from facemae.data.index import ShardIndex
from facemae.data.pack import PackItem, pack_samples
from facemae.data.select import select
from facemae.errors import ConfigError, DataError, IndexMismatchError, UsageError
from facemae.features.extractor import load
from facemae.objectives.pretraining import build_pretrain_model
from facemae.prediction import load_predictor, predict
from facemae.recipe import load_recipe
from facemae.train.optim.adamw import build_optimizer
from facemae.train.record.log import read_lines
from facemae.train.trainer import pretrain
from tests.train.conftest import RECIPE, run_until

COUNT = 48
FINETUNE = """\
views:
  main:
    crop: {scale: [0.8, 1.0]}
    normalise: {mean: [0.5], std: [0.25]}
    mask: null
encoder: {name: test_vit, image_size: 16, patch_size: 4, channels: 1, drop_path: 0.2}
objectives: [{kind: supervised, labels: side}]
checkpoint: {every: 160 samples}
log: {every_steps: 4, loggers: [], keys: false, pictures: 320 samples}
optim: {batch_size: 8, total: 320 samples, warmup: 32 samples, base_lr: 0.1, layer_decay: 0.8, ema: 40 samples}
"""


def labelled_items() -> list[PackItem]:
    """A bright half of noise says the class; a third of the samples has no class, one another column."""
    made = []
    for number in range(COUNT):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 100, (20, 20)).astype(np.uint8)
        left = number % 2 == 0
        pixels[:, :10] += np.uint8(120 * left)
        pixels[:, 10:] += np.uint8(120 * (not left))
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        labels = {"upright": int(number == 4)} | ({} if number % 3 == 2 else {"side": "left" if left else "right"})
        meta = {"split": "test" if number >= 36 else "train", "labels": labels}
        made.append(PackItem(f"half_{number:03d}", buffer.getvalue(), "png", meta))
    return made


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("halves") / "shards"
    pack_samples(labelled_items(), folder, shard_size=20)
    return folder


Tuned = Callable[..., Recipe]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, halves: Path) -> Tuned:
    """The recipe with overrides; flips would exchange the classes."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "tiny.yaml").write_text(RECIPE.replace("SHARDS", str(halves)))
    (folder / "tuned.yaml").write_text("base: tiny.yaml\nname: tuned\n" + FINETUNE)

    def make(*overrides: str) -> Recipe:
        return load_recipe(
            folder / "tuned.yaml", ["data.streams.0.where={split: train}", "views.main.flip=false", *overrides]
        )

    return make


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tuned: Tuned) -> Path:
    folder = tmp_path_factory.mktemp("tuned") / "run"
    assert pretrain(tuned(), folder).stopped == "finished"
    return folder


def test_it_learns_what_the_labels_say(run: Path, halves: Path) -> None:
    lines = read_lines(run / "log/metrics.jsonl")
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert lines[-1]["accuracy/supervised"] > 0.9
    index = ShardIndex.open(halves)
    test = select(index, {"split": "test"})
    truth = np.array([int(index.key(int(sample))[-3:]) % 2 for sample in test])
    scores = predict(run, halves, test, device="cpu")
    assert scores.shape == (12, 2)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    predictor = load_predictor(run)
    assert (predictor.names, predictor.weights, predictor.step) == (("left", "right"), "ema", 40)
    assert (scores.argmax(axis=1) == truth).mean() > 0.9


def test_predictions_depend_neither_on_batches_nor_on_neighbours(run: Path, halves: Path) -> None:
    samples = np.array([7, 3, 40, 5, 21])
    scores = predict(run, halves, samples, device="cpu")
    for size, chosen in ((2, samples), (1, samples[:2])):
        found = predict(run, halves, chosen, device="cpu", batch_size=size)
        np.testing.assert_allclose(found, scores[: len(chosen)], atol=1e-6)
    assert predict(run, halves, samples[:0], device="cpu").shape == (0, 2)
    last = predict(run, halves, samples, device="cpu", weights="model")
    assert not np.array_equal(last, scores)


def test_the_encoder_of_a_finetuned_run_is_frozen_like_any_other(run: Path, halves: Path) -> None:
    extractor = load(run, device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20)).astype(np.uint8)
    first, again = (extractor.transform([pixels]) for _ in range(2))
    assert np.array_equal(first, again)
    assert extractor.encoder.drop_path == 0.2


@pytest.mark.parametrize("extra", [(), ("views.main.mixup.alpha=0.8", "objectives.0.dropout=0.1")])
def test_a_stopped_run_goes_on_bit_by_bit(tuned: Tuned, tmp_path: Path, extra: tuple[str, ...]) -> None:
    recipe = tuned("optim.total=64 samples", *extra)
    pretrain(recipe, tmp_path / "whole")
    run_until(recipe, tmp_path / "parts", 3)
    pretrain(recipe, tmp_path / "parts")
    for part in ("model", "ema", "optimizer"):
        whole, parts = (find_checkpoint(tmp_path / name).folder / f"{part}.safetensors" for name in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes(), part


def test_classes_are_filled_in_once(tuned: Tuned, run: Path) -> None:
    saved = find_checkpoint(run).manifest.recipe["objectives"][0]
    assert saved["classes"] == ["left", "right"]
    assert pretrain(tuned(), run).stopped == "finished"
    text = (run / "log/events.jsonl").read_text()
    assert "supervised: 24 labels in side, of 2 classes" in text


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["objectives.0.labels=sied"], ConfigError, "no two or more `classes`"),
        (["objectives.0.classes=[left, up]"], DataError, "label 'right' in column 'side'"),
        (["objectives.0.labels=none", "objectives.0.classes=[a, b]"], ConfigError, "no stream has a metadata column"),
        (["views.main.mixup={}", "efficiency.micro_batch=1"], ConfigError, r"a micro-batch of 1 tears one apart"),
        (["views.main.mixup={}", "data.lanes=8", "efficiency.processes=8"], ConfigError, "8 processes has 1 samples"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_the_first_step(
    tuned: Tuned, tmp_path: Path, overrides: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pretrain(tuned(*overrides), tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_a_pretrained_encoder_is_the_start_and_the_head_is_new(tuned: Tuned, whole: Path, tmp_path: Path) -> None:
    recipe = tuned("optim.total=8 samples", "optim.warmup=8 samples")
    pretrain(recipe, tmp_path / "run", init_from=whole)
    events = (tmp_path / "run/log/events.jsonl").read_text()
    assert "trained on masked_image; supervised starts anew" in events
    given = find_checkpoint(whole).tensors("ema", prefix="encoder.")
    found = find_checkpoint(tmp_path / "run").tensors("model", prefix="encoder.")
    # The first update has a learning rate of zero: the warm-up starts there.
    assert all(np.array_equal(value, found[name]) for name, value in given.items())


def test_a_changed_list_of_keys_is_refused(tuned: Tuned, tmp_path: Path) -> None:
    keys = tmp_path / "fold.txt"
    keys.write_text("".join(f"half_{number:03d}\n" for number in range(24)))
    recipe = tuned(f"data.streams.0.keys={keys}", "optim.total=16 samples", "log.keys=true")
    pretrain(recipe, tmp_path / "run")
    assert "half_024" not in (tmp_path / "run/log/keys.jsonl").read_text()
    keys.write_text("".join(f"half_{number:03d}\n" for number in range(25)))
    with pytest.raises(IndexMismatchError, match="the list of keys of stream 'faces'"):
        pretrain(recipe, tmp_path / "run")


def test_predictions_need_a_run_with_labels_and_samples_that_are_there(whole: Path, run: Path, halves: Path) -> None:
    with pytest.raises(UsageError, match="has 0 objectives that learn from labels"):
        predict(whole, halves, [0], device="cpu")
    with pytest.raises(UsageError, match="none of them called 'other'"):
        load_predictor(run, objective="other")


def test_the_rate_falls_from_block_to_block(tuned: Tuned) -> None:
    recipe = tuned("encoder.registers=2", "objectives.0.classes=[left, right]")
    model = build_pretrain_model(recipe)
    optimizer = build_optimizer(model, recipe.optim)
    names = {value: name for name, value in model.named_parameters()}
    factors = {names[value]: group["factor"] for group in optimizer.param_groups for value in group["params"]}
    assert set(factors) == {name for name, value in model.named_parameters() if value.requires_grad}
    depth = model.encoder.depth
    for name, factor in factors.items():
        if name.startswith("encoder.vit.blocks."):
            expected = 0.8 ** (depth - int(name.split(".")[3]))
        elif name.startswith(("encoder.vit.patch_embed", "encoder.vit.cls_token", "encoder.vit.reg_token")):
            expected = 0.8 ** (depth + 1)
        else:
            assert name.startswith(("objectives.0.head.", "encoder.vit.norm."))
            expected = 1.0
        assert factor == pytest.approx(expected), name
    plain = build_optimizer(model, tuned("optim.layer_decay=null").optim)
    assert {group["factor"] for group in plain.param_groups} == {1.0}


def test_two_processes_and_accumulation_train_the_same_net(tuned: Tuned, tmp_path: Path) -> None:
    given = ("optim.total=24 samples", "views.main.mixup.alpha=0.8", "objectives.0.dropout=0.1")
    pretrain(tuned(*given), tmp_path / "one")
    pretrain(tuned(*given, "efficiency.processes=2", "efficiency.micro_batch=2"), tmp_path / "two")
    one, two = (find_checkpoint(tmp_path / name).tensors("model") for name in ("one", "two"))
    before = build_pretrain_model(load_recipe(tmp_path / "one/recipe.yaml")).state_dict()
    for name, value in one.items():
        # Softmax cancels the bias of attention's keys: its gradient is rounding, which Adam makes a full step.
        if not name.endswith("qkv.bias"):
            assert (two[name] - value).norm() <= 1e-2 * (value - before[name]).norm() + 1e-6, name


def test_labels_of_streams_that_a_view_is_not_made_of_are_none(tuned: Tuned, halves: Path, tmp_path: Path) -> None:
    # The other half of the samples has classes "left" and "right", and the view never sees them.
    wild = tmp_path / "wild"
    pack_samples([item for item in labelled_items() if "side" not in item.meta["labels"]], wild, shard_size=20)
    view = "{image_size: 16, flip: false, normalise: {mean: [0.5], std: [0.25]}, streams: "
    overrides = [
        f"data.streams=[{{shards: {wild}, name: wild}}, {{shards: {halves}, name: posed}}]",
        f"views={{main: {view}[wild]}}, other: {view}[posed]}}}}",
    ]
    for named, message in (("", "names no two or more `classes`"), (", classes: [left, right]", "no stream has")):
        objectives = f"{{kind: supervised, labels: side{named}}}, {{kind: supervised, view: other, labels: side}}"
        with pytest.raises(ConfigError, match=message):
            pretrain(tuned(*overrides, f"objectives=[{objectives}]"), tmp_path / "run")
