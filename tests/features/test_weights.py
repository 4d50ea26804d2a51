"""What a loaded encoder knows of its training."""

from pathlib import Path

from facemae.features.export import export_encoder
from facemae.features.weights import load_encoder
from tests.features.conftest import PINNED


def test_a_model_and_its_export_know_which_data_they_were_trained_on(run: Path, tmp_path: Path) -> None:
    trained = {"faces": {"where": {"split": "train"}, **PINNED["faces"]}}
    assert load_encoder(run).streams == trained
    assert load_encoder(export_encoder(run, tmp_path / "encoder")).streams == trained
    assert load_encoder(run, random_init=0).streams == {}
