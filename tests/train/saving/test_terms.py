"""What a start was granted, a length or more shards: from when it holds, and where a run goes back behind it."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from facemae.checkpoint import find_checkpoint
from facemae.data.pack import pack_samples
from facemae.errors import ResumeError, UsageError
from facemae.train import trainer
from facemae.train.loop import Trainer
from facemae.train.saving.rewind import Rewind, read_rewinds, record_rewind
from facemae.train.trainer import pretrain
from tests.train.conftest import Tiny, crash, grow, noise_items, run_until
from tests.train.spikes import events, spike_at, watched


def test_a_refused_start_grants_nothing(tiny: Tiny, tmp_path: Path, growing: Path) -> None:
    recipe = tiny(f"data.streams.0.shards={growing}")
    out = tmp_path / "run"
    run_until(recipe, out, 2)
    grow(growing)
    with pytest.raises(UsageError, match="has split=valid"):
        pretrain(tiny(f"data.streams.0.shards={growing}", "monitor={}"), out, adopt_data=True)
    assert not (out / "terms.json").exists()
    pretrain(recipe, out)
    assert find_checkpoint(out).document("data")["streams"]["faces"]["shards"] == 2


def test_a_length_that_was_granted_can_be_taken_back_before_the_next_checkpoint(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    run_until(tiny(), out, 2)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train", crash)
        with pytest.raises(RuntimeError, match="crash"):
            pretrain(tiny("optim.total=80 samples"), out, extend=True)
    with pytest.raises(ResumeError, match=r"optim\.total\.amount: 80\.0 -> 64\.0"):
        pretrain(tiny(), out)
    run_until(tiny(), out, 4, extend=True)
    # As where newer checkpoints are damaged: the older one knows the length that holds.
    for folder in sorted((out / "checkpoints").iterdir())[2:]:
        shutil.rmtree(folder)
    assert pretrain(tiny(), out).samples == 64


@pytest.mark.parametrize("granted", ["extend", "adopt_data", "replaced"])
def test_what_a_start_was_granted_holds_where_the_run_goes_back_to(
    tiny: Tiny, tmp_path: Path, growing: Path, monkeypatch: pytest.MonkeyPatch, granted: str
) -> None:
    out = tmp_path / "run"
    recipe = watched(tiny, "rewind", f"data.streams.0.shards={growing}")
    run_until(recipe, out, 5)
    if granted == "extend":
        recipe = watched(tiny, "rewind", f"data.streams.0.shards={growing}", "optim.total=176 samples")
    elif granted == "adopt_data":
        grow(growing)
    else:
        shutil.rmtree(growing)
        pack_samples(noise_items(20, first=100), growing, shard_size=10)
    run_until(recipe, out, 6, extend=granted == "extend", adopt_data=granted != "extend")
    spike_at(monkeypatch, 7)
    # Without the flag, as any start may be: the run goes back to step 4, where neither was granted yet.
    assert pretrain(recipe, out).stopped == "finished"
    assert read_rewinds(out / "rewinds.json") == (Rewind(7, 4, 8, undisturbed=False),)
    assert find_checkpoint(out).document("data")["streams"]["faces"]["shards"] == (3 if granted == "adopt_data" else 2)
    back = events(out, "resume")[-1]
    assert back["text"].startswith("continuing from step-00000004: ")
    assert ("another learning rate" if granted == "extend" else "another order of samples") in back["text"]
    assert not back["bitwise"]
    assert "undisturbed run goes back" not in back["text"]
    assert len(events(out, "setup")) == 3


def test_what_came_since_the_start_is_not_adopted_when_the_run_goes_back(
    tiny: Tiny, tmp_path: Path, growing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    recipe = watched(tiny, "rewind", f"data.streams.0.shards={growing}")
    run_until(recipe, out, 2)
    spike_at(monkeypatch, 7)

    def grown(*arguments: Any) -> Rewind:
        grow(growing)
        return record_rewind(*arguments)

    monkeypatch.setattr(trainer, "record_rewind", grown)
    assert pretrain(recipe, out, adopt_data=True).stopped == "finished"
    assert find_checkpoint(out).document("data")["streams"]["faces"]["shards"] == 2
    assert not (out / "terms.json").exists()


def test_records_of_checkpoints_that_are_gone_are_removed(rewound: Path, tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(rewound, run)
    shutil.rmtree(run / "checkpoints")
    run_until(watched(tiny, "rewind"), run, 9)
    assert events(run, "note")[-1]["text"] == "removed rewinds.json, of a run whose checkpoints are gone"
    saved = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert pretrain(watched(tiny, "rewind"), run).stopped == "finished"
    assert events(run, "resume")[-1]["text"].startswith(f"continuing from {saved[-1]}")


def test_damaged_terms_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    run_until(tiny(), tmp_path / "run", 2)
    (tmp_path / "run/terms.json").write_text("{}")
    with pytest.raises(ResumeError, match="does not say how long the run is and what it reads"):
        pretrain(tiny(), tmp_path / "run")
