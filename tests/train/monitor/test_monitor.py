"""The monitor: right numbers of held-out faces, readable refusals, and a training that does not know of it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from facemae.config import MonitorConfig, Recipe
from facemae.data.drop import drop_samples
from facemae.data.index import ShardIndex, build_index
from facemae.data.loader import build_loader
from facemae.data.pack import PackItem, pack_samples
from facemae.data.schema import CropRecipe, DatasetCard
from facemae.errors import ConfigError, UsageError
from facemae.models.encoder import MaskedEncoder
from facemae.objectives.pretraining import build_pretrain_model
from facemae.recipe import load_recipe
from facemae.recipe_specs import model_input, view_specs
from facemae.train.hardware.numerics import Numerics
from facemae.train.monitor.faces import HeldOut
from facemae.train.monitor.monitor import Monitor, effective_rank, nearest_vote
from facemae.train.optim.adamw import Average
from facemae.train.record.log import RunLog, read_lines
from facemae.train.saving.folder import RunFolder
from facemae.train.trainer import pretrain
from tests.data.test_loader import damage
from tests.train.conftest import RECIPE, Facemae, Tiny, noise_items, result_files, run_until

COLUMNS = ("monitor/rankme", "monitor/knn", "monitor/majority")


def faces(count: int, first: int = 0) -> list[PackItem]:
    """Every third is held out; two moods, as frequent as each other, and one sample without a label."""
    items = []
    for number, item in enumerate(noise_items(count, first=first)):
        meta: dict[str, Any] = {"split": "valid" if number % 3 == 0 else "train"}
        if number != 4:
            meta["labels"] = {"mood": "calm" if number % 2 else "glad", "one": "same"}
        items.append(replace(item, meta=meta))
    return items


def packed(folder: Path, items: list[PackItem]) -> Path:
    pack_samples(items, folder, shard_size=10, card=DatasetCard(name="noise", crop=CropRecipe(size=20)))
    return folder


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tmp_path_factory.mktemp("monitor") / "faces", faces(30))


def config(**values: Any) -> MonitorConfig:
    return MonitorConfig.model_validate({"label": "mood", "k": 3, **values})


def monitor_of(
    recipe: Recipe, faces: HeldOut, folder: Path, average: bool = False
) -> tuple[Monitor, MaskedEncoder, Average | None]:
    model = build_pretrain_model(recipe)
    mean = Average(model) if average else None
    log = RunLog(RunFolder(folder), step=0, batch=8, steps=1, keys=False)
    numerics = Numerics.choose(recipe.efficiency)
    monitor = Monitor(faces, model_input(recipe), model.encoder, mean, numerics, batch=4, every=1, log=log)
    return monitor, model.encoder, mean


# --- the numbers ---------------------------------------------------------------------------------------------------


def test_the_effective_rank_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(50, 12)) * np.arange(1, 13)).astype(np.float32)
    values = np.sqrt(np.linalg.eigvalsh(features.T.astype(np.float64) @ features.astype(np.float64)))
    share = values / values.sum() + 1e-7
    assert effective_rank(torch.from_numpy(features)) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-6)


def test_the_effective_rank_of_what_is_known() -> None:
    assert effective_rank(torch.eye(8)) == pytest.approx(8, rel=1e-4)
    assert effective_rank(torch.outer(torch.arange(1.0, 9.0), torch.ones(5))) == pytest.approx(1, rel=1e-4)
    assert effective_rank(torch.zeros(8, 5)) == 0


def test_the_vote_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    bank, queries = rng.normal(size=(80, 6)) + 5, rng.normal(size=(60, 6)) + 5
    labels = rng.integers(0, 4, 80)
    scaler = StandardScaler().fit(bank)
    reference = KNeighborsClassifier(7, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    expected = reference.fit(scaler.transform(bank), labels).predict(scaler.transform(queries))
    known, asked = (torch.from_numpy(part.astype(np.float32)) for part in (bank, queries))
    assert nearest_vote(known, torch.from_numpy(labels), asked, 7).tolist() == expected.tolist()


def test_a_feature_that_never_changes_does_not_vote() -> None:
    bank = torch.tensor([[1.0, 3.0], [-1.0, 3.0]])
    assert nearest_vote(bank, torch.tensor([0, 1]), torch.tensor([[2.0, 9.0], [-2.0, -9.0]]), 1).tolist() == [0, 1]


# --- the faces -----------------------------------------------------------------------------------------------------


def test_the_same_labelled_faces_are_taken_every_time(held_out: Path) -> None:
    whole = HeldOut(config(), ShardIndex.open(held_out), seed=3)
    assert whole.reference is not None
    labels = {whole.index.key(int(row)): label for row, label in zip(whole.query.rows, whole.query.labels, strict=True)}
    assert labels == {f"face_{number:03d}": "calm" if number % 2 else "glad" for number in range(0, 30, 3)}
    assert "face_004" not in {whole.index.key(int(row)) for row in whole.reference.rows}
    assert len(whole.reference.rows) == 19
    some, again, other = (HeldOut(config(samples=6), ShardIndex.open(held_out), seed=seed) for seed in (3, 3, 4))
    assert some.query.rows.tolist() == again.query.rows.tolist() != other.query.rows.tolist()
    assert len(some.query.rows) == 6
    assert set(some.query.rows) < set(whole.query.rows)
    assert HeldOut(config(label=None), ShardIndex.open(held_out), seed=3).reference is None


def test_erased_faces_are_never_taken(tmp_path: Path) -> None:
    folder = packed(tmp_path / "faces", faces(12))
    drop_samples(folder, keys=["face_003", "face_005"])
    for where in ({}, {"split": "valid"}):
        held = HeldOut(config(label=None, query=where), ShardIndex.open(folder), seed=0)
        assert not held.index.dropped_set & set(held.query.rows.tolist())
        assert len(held.query.rows) == (3 if where else 10)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label": "moood"}, "has no metadata column 'moood'\n.*\n.*did you mean 'mood'"),
        ({"query": {"split": "test"}}, r"has split=test\n.*valid \(10\)"),
        ({"label": "one"}, "all 19 samples of monitor.reference have one=same\n.*two classes"),
        ({"reference": {}}, r"10 of 10 faces of monitor.query are among monitor.reference\n.*would find itself"),
        ({"k": 40}, "monitor.k 40 neighbours of 19 reference samples\n.*at most 19"),
        ({"query": {"split": "valid", "mood": "calm", "key": "face_003"}}, r"selects 1 samples with a value of 'mood'"),
    ],
)
def test_faces_that_do_not_fit_are_refused(held_out: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        HeldOut(config(**values), ShardIndex.open(held_out), seed=3)
    import re

    assert re.search(message, str(caught.value)), str(caught.value)


def test_an_encoder_that_does_not_fit_is_refused(held_out: Path, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"monitor\.layer 9"):
        monitor_of(tiny(), HeldOut(config(layer=9), ShardIndex.open(held_out), seed=0), tmp_path)
    with pytest.raises(ConfigError, match="would find itself"):
        tiny("monitor.label=mood", "monitor.query={split: train}")


# --- the measurement -----------------------------------------------------------------------------------------------


def test_averaged_weights_are_measured_and_everything_is_left_as_it_was(
    held_out: Path, tiny: Tiny, tmp_path: Path
) -> None:
    settings = config(layer=0, pooling="cls")
    faces = HeldOut(settings, ShardIndex.open(held_out), seed=0)
    plain, _, _ = monitor_of(tiny(), faces, tmp_path)
    averaged, encoder, mean = monitor_of(tiny(), faces, tmp_path, average=True)
    assert mean is not None
    encoder.train()
    modules = list(encoder.modules())
    modules[2].training = False
    with torch.no_grad():
        for parameter in encoder.parameters():
            # The others are no part of the average: they do not change.
            parameter.add_(parameter.requires_grad)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    state = torch.get_rng_state()
    # The average still holds the initial weights, which are those of the other model.
    assert averaged.measure() == plain.measure()
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in modules[:4]] == [True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_the_features_are_those_of_the_extractor(held_out: Path, tiny: Tiny, tmp_path: Path) -> None:
    from facemae.features.extractor import FeatureExtractor

    recipe = tiny()
    for layer, pooling in ((-1, "mean"), (2, "cls")):
        settings = config(layer=layer, pooling=pooling, label=None)
        faces = HeldOut(settings, ShardIndex.open(held_out), seed=0)
        monitor, encoder, _ = monitor_of(recipe, faces, tmp_path)
        extractor = FeatureExtractor.from_encoder(
            encoder, recipe.encoder, model_input(recipe), layer=layer, pooling=pooling, device="cpu"
        )
        images = [images for images, _ in faces.images(faces.query, model_input(recipe), 64)]
        expected = effective_rank(torch.from_numpy(extractor.features(torch.cat(images))))
        assert monitor.measure() == {"monitor/rankme": pytest.approx(expected, rel=1e-5)}


def test_a_held_out_face_that_does_not_decode_is_left_out(tmp_path: Path, tiny: Tiny) -> None:
    folder = packed(tmp_path / "faces", faces(12))
    damage(folder, ["face_003"])
    held = HeldOut(config(), ShardIndex.open(folder), seed=0)
    places = [place for _, found in held.images(held.query, model_input(tiny()), 2) for place in found]
    shown = {held.index.key(int(held.query.rows[place])) for place in places}
    assert shown == {"face_000", "face_006", "face_009"}
    monitor, _, _ = monitor_of(tiny(), held, tmp_path / "run")
    assert set(monitor.measure()) == set(COLUMNS)


def test_held_out_faces_none_of_which_decodes_are_said_and_stop_nothing(tmp_path: Path, tiny: Tiny) -> None:
    folder = packed(tmp_path / "faces", faces(12))
    damage(folder, [f"face_{number:03d}" for number in range(12)])
    monitor, _, _ = monitor_of(tiny(), HeldOut(config(), ShardIndex.open(folder), seed=0), tmp_path / "run")
    assert monitor.measure() == {}
    (event,) = read_lines(tmp_path / "run/log/events.jsonl")
    assert f"of {folder} decodes" in event["text"]


def test_shards_that_are_gone_are_said_and_stop_nothing(tmp_path: Path, tiny: Tiny) -> None:
    folder = packed(tmp_path / "faces", faces(12))
    monitor, _, _ = monitor_of(tiny(), HeldOut(config(), ShardIndex.open(folder), seed=0), tmp_path / "run")
    for shard in folder.glob("*.tar"):
        shard.unlink()
    assert monitor.measure() == {}
    (event,) = read_lines(tmp_path / "run/log/events.jsonl")
    assert "held-out faces could not be measured: shard" in event["text"]


def test_more_neighbours_than_faces_that_still_decode_are_all_of_them(tmp_path: Path, tiny: Tiny) -> None:
    folder = packed(tmp_path / "faces", faces(12))
    damage(folder, ["face_001", "face_002"])
    held = HeldOut(config(k=7), ShardIndex.open(folder), seed=0)
    monitor, _, _ = monitor_of(tiny(), held, tmp_path / "run")
    assert set(monitor.measure()) == set(COLUMNS)


def test_an_error_of_torch_is_said_and_stops_nothing(
    held_out: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(features: torch.Tensor) -> float:
        raise torch.linalg.LinAlgError("did not converge")  # type: ignore[attr-defined]

    monkeypatch.setattr("facemae.train.monitor.monitor.effective_rank", fail)
    monitor, _, _ = monitor_of(tiny(), HeldOut(config(), ShardIndex.open(held_out), seed=0), tmp_path)
    assert monitor.measure() == {}
    (event,) = read_lines(tmp_path / "log/events.jsonl")
    assert event["text"].startswith("held-out faces could not be measured: ")
    assert event["text"].endswith("LinAlgError: did not converge")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_features_without_a_rank_are_said_and_stop_nothing(
    held_out: Path, tiny: Tiny, tmp_path: Path, value: float
) -> None:
    monitor, encoder, _ = monitor_of(tiny(), HeldOut(config(), ShardIndex.open(held_out), seed=0), tmp_path)
    with torch.no_grad():
        for parameter in (encoder.vit.norm.weight, encoder.vit.norm.bias):
            parameter.fill_(value)
    found = monitor.measure()
    (event,) = read_lines(tmp_path / "log/events.jsonl")
    if value == 0:
        assert found["monitor/rankme"] == 0
        assert "effective rank 0.0, all features are zero" in event["text"]
    else:
        assert found == {}
        expected = "held-out faces could not be measured: features of 10 of 10 faces are not finite"
        assert event["text"] == expected


def test_a_run_that_is_to_watch_what_is_not_there_does_not_begin(held_out: Path, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no metadata column 'moood'"):
        pretrain(tiny(f"monitor.data={held_out}", "monitor.label=moood"), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lease.lock"]


# --- in a run ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, shards: Path, held_out: Path) -> tuple[Path, Path]:
    """The tiny run with a monitor, and its recipe."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "tiny.yaml").write_text(RECIPE.replace("SHARDS", str(shards)))
    recipe = load_recipe(
        folder / "tiny.yaml", [f"monitor.data={held_out}", "monitor.label=mood", "monitor.k=3", "monitor.every=32"]
    )
    pretrain(recipe, folder / "run")
    return folder / "run", folder / "tiny.yaml"


def test_the_training_is_the_one_without_a_monitor(watched: tuple[Path, Path], whole: Path) -> None:
    run, _ = watched
    assert result_files(run, 8) == result_files(whole, 8)
    ours, theirs = (read_lines(path / "log/metrics.jsonl") for path in (run, whole))
    for name in ("step", "loss", "grad_norm", "lr"):
        assert [line[name] for line in ours] == [line[name] for line in theirs]


def test_the_numbers_are_in_the_log(watched: tuple[Path, Path]) -> None:
    run, _ = watched
    lines = read_lines(run / "log/metrics.jsonl")
    assert [line["step"] for line in lines if COLUMNS[0] in line] == [4, 8]
    for line in lines[1::2]:
        assert 1 <= line["monitor/rankme"] <= 10
        assert 0 <= line["monitor/knn"] <= 1
        assert line["monitor/majority"] == 0.5
    events = [event for event in read_lines(run / "log/events.jsonl") if event["event"] == "monitor"]
    assert [event["step"] for event in events] == [4, 8]
    assert events[-1]["monitor/knn"] == lines[-1]["monitor/knn"]
    assert "mood (most frequent class 50.0 %)" in events[-1]["text"]
    assert (run / "log/pictures/curve.png").stat().st_size > 10_000


def test_a_run_may_be_watched_later_and_otherwise(
    watched: tuple[Path, Path], whole: Path, facemae: Facemae, held_out: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    recipe = load_recipe(watched[1], [f"monitor.data={held_out}"])
    assert pretrain(recipe, tmp_path / "run").stopped == "finished"
    shown = facemae("status", watched[0], "--json")
    assert json.loads(shown.stdout)["state"] == "finished"


def test_a_monitor_that_does_not_fit_stops_the_run_at_its_start(
    tiny: Tiny, held_out: Path, shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="has no metadata column 'mod'"):
        pretrain(tiny(f"monitor.data={held_out}", "monitor.label=mod"), tmp_path / "run")
    # The stream's own shards have one split.
    with pytest.raises(UsageError, match="has split=valid"):
        pretrain(tiny("monitor={}"), tmp_path / "other")


def test_query_faces_that_are_trained_on_are_said(tiny: Tiny, held_out: Path, tmp_path: Path) -> None:
    asked: Callable[..., Recipe] = tiny
    short = (f"data.streams.0.shards={held_out}", "optim.total=8 samples", "optim.warmup=0", "monitor={}")
    pretrain(asked(*short), tmp_path / "run")
    notes = [event["text"] for event in read_lines(tmp_path / "run/log/events.jsonl") if event["event"] == "note"]
    assert notes == ["10 of 10 faces the monitor holds out are trained on by stream 'faces'"]
    pretrain(asked(*short, "data.streams.0.where.split=train"), tmp_path / "other")
    assert not [event for event in read_lines(tmp_path / "other/log/events.jsonl") if event["event"] == "note"]


def test_shards_that_are_added_do_not_change_the_held_out_faces(tiny: Tiny, tmp_path: Path) -> None:
    folder = packed(tmp_path / "faces", faces(30))
    monitor = "monitor={data: null, samples: 5, every: 16 samples}"
    recipe = tiny(f"data.streams.0.shards={folder}", "data.streams.0.where.split=train", monitor)
    run_until(recipe, tmp_path / "run", 2)
    (stream,) = build_loader(recipe.data, view_specs(recipe), seed=0, batch_size=8, stop_step=1).streams
    shutil.copytree(tmp_path / "run", tmp_path / "grown")
    pretrain(recipe, tmp_path / "run")
    packed(tmp_path / "more", faces(30, first=50))
    for number, tar in enumerate(sorted((tmp_path / "more").glob("*.tar"))):
        tar.rename(folder / f"zz-{number}.tar")
    build_index(folder)
    pretrain(recipe, tmp_path / "grown")
    ranks = [
        [line[COLUMNS[0]] for line in read_lines(run / "log/metrics.jsonl") if COLUMNS[0] in line]
        for run in (tmp_path / "run", tmp_path / "grown")
    ]
    assert ranks[0] == ranks[1]
    # A set that begins with the run's shards has its faces, at the same places.
    held = HeldOut(config(label=None, query={"split": "train"}), ShardIndex.open(folder), seed=0)
    assert held.trained_on(stream) == 20
