import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from facemae.checkpoint import find_checkpoint, newest_valid, open_checkpoint
from facemae.data.schema import DatasetCard
from facemae.errors import CheckpointError, UsageError
from facemae.features import export
from facemae.features.export import export_encoder, probe_image, verify_export
from facemae.features.extractor import load
from facemae.features.weights import LoadedEncoder, load_encoder
from tests.features.conftest import CROP, FREE, WIDTH, Save


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_encoder(run, tmp_path_factory.mktemp("export") / "encoder")


@pytest.mark.parametrize("registers", [0, 4])
def test_plain_timm_loads_the_weights_by_name(save_checkpoint: Save, tmp_path: Path, registers: int) -> None:
    out = export_encoder(save_checkpoint(registers=registers), tmp_path / "encoder")
    details = json.loads((out / "encoder.json").read_text())
    vit = timm.create_model(details["timm"]["name"], **details["timm"]["arguments"]).eval()
    vit.load_state_dict(load_file(out / "encoder.safetensors"), strict=True)
    ours = load(out, device="cpu")
    image = probe_image(ours.input)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (ours.input.mean, ours.input.std))
    with torch.no_grad():
        tokens = vit.forward_features((image.float() / 255 - mean) / std)
    torch.testing.assert_close(ours.encode(image)[-1], tokens, atol=1e-5, rtol=1e-5)


def test_an_export_is_the_run_again(run: Path, exported: Path, pictures: list[np.ndarray]) -> None:
    theirs, ours = load_encoder(run), load_encoder(exported)
    assert ours.digest == theirs.digest
    assert (ours.input, ours.crop, ours.about) == (theirs.input, CROP, theirs.about)
    found, wanted = load(exported, device="cpu").transform(pictures), load(run, device="cpu").transform(pictures)
    np.testing.assert_array_equal(found, wanted)
    assert sorted(path.name for path in exported.iterdir()) == ["encoder.json", "encoder.safetensors", "manifest.json"]


def test_its_papers_say_what_it_is(exported: Path) -> None:
    manifest = find_checkpoint(exported).manifest
    assert (manifest.kind, manifest.step, manifest.recipe["name"]) == ("encoder", 7, "fmae_test")
    assert manifest.cards["faces"].licence == "CC0-1.0"
    details = json.loads((exported / "encoder.json").read_text())
    assert details["data_licences"] == ["CC0-1.0"]
    assert details["redistributable"] is True
    assert len(details["expected"]["features"]) == WIDTH


@pytest.mark.parametrize(
    ("cards", "allowed"),
    [
        ({"faces": FREE, "more": FREE}, True),
        ({"faces": FREE, "more": FREE.model_copy(update={"redistributable": False})}, False),
        ({"faces": DatasetCard(name="web", licence="images: none given by the authors; labels: MIT")}, False),
        ({"faces": DatasetCard(name="toy", licence="CC0-1.0")}, False),
        ({}, False),
    ],
)
def test_weights_may_be_passed_on_only_where_every_card_says_so(
    save_checkpoint: Save, tmp_path: Path, cards: dict[str, DatasetCard], allowed: bool
) -> None:
    out = export_encoder(save_checkpoint(cards=cards), tmp_path / "encoder")
    assert json.loads((out / "encoder.json").read_text())["redistributable"] is allowed


def test_a_run_that_saves_meanwhile_gives_papers_and_weights_of_one_step(
    save_checkpoint: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, later = save_checkpoint(step=7), save_checkpoint(step=8, seed=5)
    real = load_encoder

    def while_training_goes_on(path: Path, **options: Any) -> LoadedEncoder:
        loaded = real(path, **options)
        shutil.move(later / "checkpoints" / "step-00000008", run / "checkpoints")
        return loaded

    expected = real(run).digest
    monkeypatch.setattr(export, "load_encoder", while_training_goes_on)
    folder = export.export_encoder(run, tmp_path / "out")
    assert open_checkpoint(folder).manifest.step == 7
    assert json.loads((folder / "encoder.json").read_text())["digest"] == expected
    assert newest_valid(run)[0] is not None
    assert real(run).about["step"] == 8


def test_verify_finds_damage_and_wrong_answers(save_checkpoint: Save, tmp_path: Path, exported: Path) -> None:
    assert verify_export(exported) < 1e-5
    out = export_encoder(save_checkpoint(), tmp_path / "encoder")
    (out / "encoder.json").write_text((out / "encoder.json").read_text().replace("CC0", "CC1"))
    with pytest.raises(CheckpointError, match=r"checksum of encoder\.json"):
        verify_export(out)
    with pytest.raises(CheckpointError, match=r"checksum of encoder\.json"):
        load(out)


def test_features_that_changed_are_noticed(
    exported: Path, save_checkpoint: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = load_encoder(save_checkpoint(seed=5))
    monkeypatch.setattr("facemae.features.export.load_encoder", lambda _: other)
    with pytest.raises(CheckpointError, match="differ by"):
        verify_export(exported)


def test_what_cannot_be_exported_is_refused(run: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists"):
        export_encoder(run, exported)
    with pytest.raises(CheckpointError, match="run's checkpoint"):
        verify_export(next((run / "checkpoints").iterdir()))
    with pytest.raises(CheckpointError, match="exported from the ema weights"):
        load(exported, weights="model")
    with pytest.raises(CheckpointError, match="there is no model"):
        export_encoder(tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists()
