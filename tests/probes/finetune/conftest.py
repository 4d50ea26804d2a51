"""A tiny pretraining run."""

from pathlib import Path

import pytest

from facemae.recipe import load_recipe
from facemae.train.trainer import pretrain

PRETRAINING = """\
schema: 1
name: tiny
seed: 3
data: {lanes: 2, streams: [{name: faces, shards: SHARDS}]}
views: {main: {normalise: {mean: [0.5], std: [0.25]}}}
encoder: {name: test_vit, image_size: 16, patch_size: 4, channels: 1}
objectives: [{kind: masked_image, decoder: {width: 16, depth: 1, heads: 2}}]
optim: {batch_size: 8, total: 16 samples}
efficiency: {device: cpu, precision: fp32, threads: 1, workers: 0}
log: {loggers: []}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, labelled_shards: Path) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    (folder / "tiny.yaml").write_text(PRETRAINING.replace("SHARDS", str(labelled_shards)))
    pretrain(load_recipe(folder / "tiny.yaml"), folder / "run")
    return folder / "run"
