"""A run that went back twice."""

from pathlib import Path

import pytest

from facemae.recipe import load_recipe
from facemae.train.trainer import pretrain
from tests.train.conftest import RECIPE
from tests.train.spikes import spike_at, watched


@pytest.fixture(scope="session")
def rewound(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """A run that met spikes in the batches 7 and 14."""
    folder = tmp_path_factory.mktemp("rewound")
    (folder / "tiny.yaml").write_text(RECIPE.replace("SHARDS", str(shards)))
    recipe = watched(lambda *overrides: load_recipe(folder / "tiny.yaml", overrides), "rewind")
    with pytest.MonkeyPatch.context() as patch:
        spike_at(patch, 7, 14)
        assert pretrain(recipe, folder / "run").stopped == "finished"
    return folder / "run"
