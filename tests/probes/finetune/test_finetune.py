"""Fine-tuning as a probe: it learns a fold, is found again, and reads the labels that the task means."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from facemae.checkpoint import open_checkpoint
from facemae.data.index import ShardIndex
from facemae.data.select import metadata
from facemae.errors import ProbeError, UsageError
from facemae.features.extractor import load
from facemae.features.weights import load_encoder
from facemae.train import trainer
from facemae_probes.finetune import Augmentation, FinetuneOption, FinetunePlan, finetune_fold, finetune_identity
from facemae_probes.finetune.fold import predict_rows
from facemae_probes.finetune.recipe import fold_recipe, label_block
from facemae_probes.tasks.targets import Targets
from tests.probes.conftest import CLASSES

PLAN = FinetunePlan(
    epochs=12, least_steps=0, base_lrs=(0.1,), batch_size=8, augmentation=Augmentation((0.9, 1.0), flip=False), ema=10
)
SMALL = FinetunePlan(epochs=1, least_steps=0, base_lrs=(0.01, 0.02), batch_size=8)
CPU = {"device": "cpu", "precision": "fp32", "threads": 1, "workers": 0, "processes": 1}


@pytest.fixture(scope="module")
def samples(labelled_shards: Path) -> np.ndarray:
    return np.arange(len(ShardIndex.open(labelled_shards)), dtype=np.int64)


@pytest.fixture(scope="module")
def targets(labelled_shards: Path) -> Targets:
    """The classes by other names than those in the metadata, in another order."""
    column = metadata(ShardIndex.open(labelled_shards), ["emotion"])["emotion"].to_pylist()
    names = ("sadness", "neutral", "happiness")
    numbers = [{"sad": 0, "neutral": 1, "happy": 2}[text] for text in column]
    return Targets("classes", names, np.array(numbers, dtype=np.int64))


FIT, JUDGE = np.arange(0, 120), np.arange(120, 180)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finetune")


@pytest.fixture(scope="module")
def run(labelled_shards: Path, samples: np.ndarray, targets: Targets, model: Path, out: Path) -> Path:
    option = PLAN.options()[0]
    return finetune_fold(labelled_shards, samples, targets, ["emotion"], FIT, model, PLAN, option, out, efficiency=CPU)


def test_it_learns_the_fold_and_predicts_other_rows(
    run: Path, labelled_shards: Path, samples: np.ndarray, targets: Targets
) -> None:
    scores = predict_rows(run, labelled_shards, samples, JUDGE, device="cpu")
    assert scores.shape == (60, 3)
    assert scores.dtype == np.float32
    assert (scores.argmax(axis=1) == targets.values[JUDGE]).mean() > 0.8
    turned = predict_rows(run, labelled_shards, samples, JUDGE[::-1].copy(), device="cpu")
    np.testing.assert_allclose(turned[::-1], scores, atol=1e-5)
    kept = predict_rows(run, labelled_shards, samples, JUDGE, device="cpu")
    assert np.array_equal(kept, scores)
    assert len(list((run / "predictions").glob("*.npy"))) == 2


def test_a_finished_run_is_found_again_and_keeps_what_predicts(
    run: Path, labelled_shards: Path, samples: np.ndarray, targets: Targets, model: Path, out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(trainer, "pretrain", None)
    said: list[str] = []
    again = finetune_fold(
        labelled_shards, samples, targets, ["emotion"], FIT[::-1], model, PLAN, PLAN.options()[0], out, say=said.append
    )
    assert again == run
    assert said == [f"{run.name}: fine-tuned already"]
    final = open_checkpoint(run / "final")
    assert final.has("ema")
    assert not final.has("optimizer")
    assert not (run / "training/checkpoints").exists()
    assert final.manifest.samples == 12 * 120
    assert load(run / "final", device="cpu").transform([np.zeros((16, 16), np.uint8)]).shape == (1, 64)


def test_a_stopped_run_goes_on(
    labelled_shards: Path, samples: np.ndarray, targets: Targets, model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole = trainer.pretrain

    def stopping(*arguments: object, **more: object) -> trainer.RunResult:
        return replace(whole(*arguments, **more), stopped="SIGTERM", samples=5)  # type: ignore[arg-type]

    given = (labelled_shards, samples, targets, ["emotion"], FIT[:16], model, SMALL, FinetuneOption(0.01), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "pretrain", stopping)
        with pytest.raises(ProbeError, match="stopped by SIGTERM after 5 samples"):
            finetune_fold(*given, efficiency=CPU)
    (run,) = (tmp_path / "runs").iterdir()
    with pytest.raises(ProbeError, match="is not finished"):
        predict_rows(run, labelled_shards, samples, JUDGE)
    assert finetune_fold(*given, efficiency=CPU) == run
    events = (run / "training/log/events.jsonl").read_text()
    assert "continuing from step-00000002" in events


def test_everything_that_determines_a_run_is_in_its_identity(
    labelled_shards: Path, samples: np.ndarray, targets: Targets, model: Path
) -> None:
    option = FinetuneOption(0.1)

    def identity(rows: np.ndarray = FIT, plan: FinetunePlan = PLAN, targets: Targets = targets) -> dict[str, object]:
        return finetune_identity(labelled_shards, samples, targets, ["emotion"], rows, model, plan, option)

    first = identity()
    assert identity(FIT[::-1].copy()) == first
    other = Targets("classes", targets.names, (targets.values + 1) % 3)
    changed = {
        "samples": identity(np.arange(1, 121)),
        "labels": identity(targets=other),
        "weights": identity(plan=replace(PLAN, from_scratch=True)),
        "plan": identity(plan=replace(PLAN, mixup=0.8)),
    }
    for key, found in changed.items():
        assert found[key] != first[key]
    # Which rates a plan has to choose from says nothing of the run with one of them.
    assert identity(plan=replace(PLAN, base_lrs=(0.1, 0.2))) == first


def test_random_weights_are_not_held_back_by_layer_decay() -> None:
    scratch = replace(SMALL, layer_decay=0.75).scratch()
    assert scratch.layer_decay is None
    assert scratch == replace(SMALL, from_scratch=True, layer_decay=None)


def test_from_scratch_starts_from_the_weights_of_the_seed(
    labelled_shards: Path, samples: np.ndarray, targets: Targets, model: Path, tmp_path: Path
) -> None:
    plan = replace(SMALL, from_scratch=True, base_lrs=(1e-9,), ema=None, layer_decay=None, weight_decay=0.0, seed=5)
    given = (labelled_shards, samples, targets, ["emotion"], FIT[:16], model, plan, plan.options()[0], tmp_path)
    run = finetune_fold(*given, efficiency=CPU)
    found = load_encoder(run / "final").encoder.state_dict()
    expected = load_encoder(model, random_init=5).encoder.state_dict()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6)


def test_labels_are_those_of_the_task_or_refused() -> None:
    emotions = Targets("classes", ("a", "b"), np.array([0, 1, 0]))
    block = label_block({"x": ["1", "b", "1"]}, emotions, ["x"], 0.1)
    assert block["rename"] == {"1": "a"}
    assert (block["classes"], block["smoothing"]) == (["a", "b"], 0.1)
    units = Targets("multilabel", ("AU1", "AU2"), np.array([[0, 1], [1, -1]]))
    columns: dict[str, list[int | None]] = {"AU1": [0, 1], "AU2": [1, None]}
    assert label_block(columns, units, ["AU1", "AU2"], 0.1) == {"task": "multilabel", "labels": ["AU1", "AU2"]}
    shares = Targets("distribution", ("a", "b"), np.array([[0.25, 0.75]]))
    assert label_block({"a": [1], "b": [3]}, shares, ["a", "b"], 0.0)["task"] == "distribution"
    numbers = Targets("regression", ("valence",), np.array([[0.5], [np.nan]]))
    assert label_block({"valence": [0.5, None]}, numbers, ["valence"], 0.0)["task"] == "regression"
    for values, targets, names in (
        ({"x": ["1", "1", "2"]}, emotions, ["x"]),
        ({"x": ["1", None, "1"]}, emotions, ["x"]),
        ({"AU1": [0, 1], "AU2": [1, 1]}, units, ["AU1", "AU2"]),
        ({"a": [1], "b": [2]}, shares, ["a", "b"]),
    ):
        with pytest.raises(ProbeError, match=r"are not what columns .* of the shard set say"):
            label_block(values, targets, names, 0.0)


@pytest.mark.parametrize(("count", "lanes", "batch"), [(3, 1, 2), (50, 1, 50), (51, 1, 50), (2000, 8, 64)])
def test_few_samples_are_read_in_one_lane_and_seen_more_often(
    model: Path, tmp_path: Path, count: int, lanes: int, batch: int
) -> None:
    objective = {"task": "classes", "labels": ["emotion"], "classes": list(CLASSES)}
    plan = FinetunePlan(epochs=2)
    recipe = fold_recipe(
        load_encoder(model), plan, plan.options()[0], objective,
        shards=tmp_path, keys=tmp_path / "keys.txt", count=count, efficiency={},
    )  # fmt: skip
    assert (recipe.data.lanes, recipe.optim.batch_size) == (lanes, batch)
    assert recipe.optim.total.samples(epoch=count) == max(2 * count, 200 * batch)


def test_plans_and_folds_that_learn_nothing_are_refused(
    labelled_shards: Path, samples: np.ndarray, targets: Targets, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="fine-tuning with 0 learning rates"):
        FinetunePlan(base_lrs=())
    with pytest.raises(ProbeError, match="fine-tuning on 1 samples"):
        finetune_fold(
            labelled_shards, samples, targets, ["emotion"], FIT[:1], model, SMALL, FinetuneOption(0.1), tmp_path
        )
    shutil.rmtree(tmp_path)
