"""An export carries the encoder of sound and all that determines what it hears."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from facemae.checkpoint import Manifest, open_checkpoint, write_checkpoint
from facemae.errors import CheckpointError
from facemae.features.export import export_encoder, verify_export
from facemae.features.extractor import load
from facemae.rng import generator
from tests.features.clip_models import FPS, FRAMES, MEL, RATE, SIDE, voice


@pytest.fixture(scope="module")
def run(clip_run: Path) -> Path:
    return clip_run


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_encoder(run, tmp_path_factory.mktemp("export") / "model")


def test_features_of_clips_are_those_of_the_run(run: Path, exported: Path) -> None:
    frames = generator(0, "frames").integers(0, 256, (24, SIDE, SIDE, 3), dtype=np.uint8)
    ours, theirs = (
        load(path, device="cpu").clips().of_arrays(frames, 25, wave=voice(0.96), rate=RATE) for path in (exported, run)
    )
    np.testing.assert_array_equal(ours.video, theirs.video)
    assert ours.sound is not None
    assert theirs.sound is not None
    np.testing.assert_array_equal(ours.sound, theirs.sound)


def test_it_says_what_is_seen_and_heard(run: Path, exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == [
        "encoder.json",
        "encoder.safetensors",
        "manifest.json",
        "sound_encoder.safetensors",
    ]
    details = json.loads((exported / "encoder.json").read_text())
    assert details["clip"] == {"frames": FRAMES, "fps": FPS}
    assert details["sound"]["input"] == {"frames": 64, "patch_size": 16, "mel": MEL.model_dump(mode="json")}
    sound = load(run).loaded.sound
    assert sound is not None
    assert details["sound"]["digest"] == sound.digest
    assert verify_export(exported) < 1e-5


def rewritten(exported: Path, out: Path, *, mean: float | None = None, without: str | None = None) -> Path:
    """The export with another spectrogram in its recipe, or without a part."""
    checkpoint = open_checkpoint(exported)
    recipe = json.loads(json.dumps(checkpoint.manifest.recipe))
    if mean is not None:
        recipe["sounds"]["voice"]["mel"]["mean"] = mean
    manifest = Manifest(**{**checkpoint.manifest.model_dump(exclude={"files"}), "recipe": recipe})
    parts = {part: checkpoint.tensors(part) for part in ("encoder", "sound_encoder") if part != without}
    write_checkpoint(out, manifest, tensors=parts, documents={"encoder": checkpoint.document("encoder")})
    return out


def test_another_spectrogram_or_a_missing_encoder_is_an_error(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not the one that was exported"):
        verify_export(rewritten(exported, tmp_path / "mel", mean=0.0))
    with pytest.raises(CheckpointError, match="exported without its sound_encoder"):
        load(rewritten(exported, tmp_path / "less", without="sound_encoder"))
    damaged = Path(shutil.copytree(exported, tmp_path / "damaged"))
    data = bytearray((damaged / "sound_encoder.safetensors").read_bytes())
    data[-1] ^= 1
    (damaged / "sound_encoder.safetensors").write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"checksum of sound_encoder\.safetensors"):
        load(damaged)


def test_the_extractors_of_a_run_without_sound_hear_nothing(deaf: Path, tmp_path: Path) -> None:
    out = export_encoder(deaf, tmp_path / "out")
    assert json.loads((out / "encoder.json").read_text())["sound"] is None
    assert load(out).loaded.sound is None
    assert load(out).clips().sound_shape is None
