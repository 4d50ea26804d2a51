"""Fine-tuning within the folds of a protocol, beside frozen probes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from facemae.errors import ProbeError
from facemae_probes.choosing.plan import ProbePlan
from facemae_probes.commands import app
from facemae_probes.features.sources import PixelSource, pixel_input
from facemae_probes.finetune import Augmentation, FinetunePlan
from facemae_probes.protocols.few_shot import FewShot
from facemae_probes.protocols.folds import KFold
from facemae_probes.runner import run_probe

TUNING = FinetunePlan(
    epochs=5, least_steps=0, base_lrs=(0.03, 0.1), batch_size=8, augmentation=Augmentation((0.9, 1.0), flip=False)
)
PLAN = ProbePlan(probes=("knn", "finetune"), layers=(-1,), poolings=("mean",), finetune=TUNING, replicates=100)


def test_options_are_chosen_on_valid_and_the_chosen_run_predicts_test(
    labelled_shards: Path, model: Path, tmp_path: Path
) -> None:
    result = run_probe(labelled_shards, model, "emotion", plan=PLAN, out=tmp_path)
    assert set(result.scores) == {"knn", "finetune"}
    table = [row for row in result.data["selection"]["table"] if row["probe"] == "finetune"]
    assert [row["base_lr"] for row in table] == [0.03, 0.1]
    (chosen,) = result.data["results"]["finetune"]["settings"]
    assert chosen["valid"] == max(row["valid"] for row in table)
    assert result.data["results"]["finetune"]["test"]["accuracy"] > 0.7
    assert len(list((tmp_path / "finetune" / "runs").iterdir())) == 2
    assert "finetune_code" in result.data["request"]
    # The same request again reads the result; a further frozen probe reads the runs.
    said: list[str] = []
    run_probe(
        labelled_shards, model, "emotion", plan=replace(PLAN, probes=("finetune",)), out=tmp_path, say=said.append
    )
    assert sum("fine-tuned already" in text for text in said) >= 2


def test_in_folds_the_chosen_option_is_fitted_again_and_one_option_is_not_judged(
    labelled_shards: Path, model: Path, tmp_path: Path
) -> None:
    plan = replace(PLAN, probes=("finetune",), finetune=replace(TUNING, epochs=2, base_lrs=(0.1,)))
    where = {"odd": "0"}
    found = run_probe(labelled_shards, model, "emotion", plan=plan, protocol=KFold(2), where=where, out=tmp_path / "a")
    assert found.data["results"]["finetune"]["test"]["count"] == 90
    assert len(list((tmp_path / "a/finetune/runs").iterdir())) == 2
    assert all(row["valid"] is None for row in found.data["results"]["finetune"]["settings"])

    few = run_probe(labelled_shards, model, "emotion", plan=plan, protocol=FewShot(1, draws=2), out=tmp_path / "b")
    assert few.scores["finetune"].shape == (2, 45, 3)
    assert np.isfinite(few.scores["finetune"]).all()


@pytest.mark.slow
def test_thresholds_in_folds_are_those_of_judged_scores(labelled_shards: Path, model: Path, tmp_path: Path) -> None:
    plan = replace(PLAN, probes=("finetune",), finetune=replace(TUNING, epochs=2, base_lrs=(0.1,)))
    units = run_probe(
        labelled_shards, model, "AU*", plan=plan, protocol=KFold(2), where={"odd": "0"}, out=tmp_path / "run"
    )
    # Three inner runs and one on all rows in each of two folds.
    assert len(list((tmp_path / "run/finetune/runs").iterdir())) == 8
    assert (units.thresholds["finetune"] != 0.5).any()


def test_what_fine_tuning_needs_is_said(labelled_shards: Path, model: Path, tmp_path: Path) -> None:
    plan = replace(PLAN, probes=("finetune",))
    with pytest.raises(ProbeError, match="--probe finetune of raw pixels"):
        run_probe(labelled_shards, PixelSource(pixel_input(labelled_shards)), "emotion", plan=plan, out=tmp_path)
    with pytest.raises(ProbeError, match="without a folder"):
        run_probe(labelled_shards, model, "emotion", plan=plan)
    arguments = ["run", "--data", str(labelled_shards), "--model", str(model), "--label", "emotion"]
    wrong = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path), "--finetune", "base_lrs=fast"])
    assert "--finetune base_lrs" in str(wrong.exception)
