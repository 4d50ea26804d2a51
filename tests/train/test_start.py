"""Where runs begin: what is pinned and from when, what may change, given weights and their papers, longer runs."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from facemae.checkpoint import InitialWeights, Manifest, file_digest, find_checkpoint
from facemae.data.drop import drop_samples
from facemae.data.pack import pack_samples
from facemae.data.quarantine import Quarantine
from facemae.errors import CheckpointError, IndexMismatchError, ResumeError
from facemae.features.export import export_encoder
from facemae.objectives.pretraining import build_pretrain_model
from facemae.recipe import load_recipe
from facemae.train.record.log import read_lines
from facemae.train.start import CHANGES_SHOWN, Start, resolve_lengths
from facemae.train.trainer import pretrain
from tests.train.conftest import Tiny, crash, grow, noise_items, result_files, run_until


def test_a_changed_recipe_is_refused_with_the_difference(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pretrain(tiny(), out)
    with pytest.raises(ResumeError, match=r"optim\.base_lr: 0\.05 -> 0\.1") as caught:
        pretrain(tiny("optim.base_lr=0.1", "log.every_steps=1"), out)
    assert "log.every_steps" not in str(caught.value)
    longer = tiny("optim.total=80 samples")
    with pytest.raises(ResumeError, match="--extend"):
        pretrain(longer, out)
    with pytest.raises(ResumeError, match="base_lr"):
        pretrain(tiny("optim.total=80 samples", "optim.base_lr=0.1"), out, extend=True)
    assert pretrain(longer, out, extend=True).samples == 80
    with pytest.raises(ResumeError, match="started with 80"):
        pretrain(tiny(), out, extend=True)


def test_of_another_recipe_its_name_comes_first_and_not_all_that_differs(tiny: Tiny, tmp_path: Path) -> None:
    run_until(tiny(), tmp_path / "run", 2)
    other = load_recipe("simclr_tiny", [f"data.streams.0.shards={tiny().data.streams[0].shards}"])
    with pytest.raises(ResumeError, match=r"started with:\n    name: \w+ -> simclr_tiny\n") as caught:
        pretrain(other, tmp_path / "run")
    *shown, more = str(caught.value).split("expected:")[0].rstrip().splitlines()[1:]
    assert len(shown) == CHANGES_SHOWN
    assert re.fullmatch(r"    and \d\d more", more)


def test_where_a_run_goes_back_to_cannot_change(tiny: Tiny, tmp_path: Path) -> None:
    rewind = "optim.spike={action: rewind}"
    run_until(tiny(rewind), tmp_path / "run", 2)
    with pytest.raises(ResumeError, match=r"checkpoint\.every\.amount: 16\.0 -> 8\.0") as caught:
        pretrain(tiny(rewind, "checkpoint.every=8 samples"), tmp_path / "run")
    assert "optim.spike.action is rewind" in str(caught.value)


def test_growth_enters_only_when_adopted(tiny: Tiny, tmp_path: Path, growing: Path) -> None:
    recipe = tiny(f"data.streams.0.shards={growing}")
    out = tmp_path / "run"
    run_until(recipe, out, 2)
    grow(growing)
    run_until(recipe, out, 4)
    assert find_checkpoint(out).document("data")["streams"]["faces"]["shards"] == 2
    pretrain(recipe, out, adopt_data=True)
    assert find_checkpoint(out).document("data")["streams"]["faces"]["shards"] == 3
    events = read_lines(out / "log/events.jsonl")
    assert "adopt" in {event["event"] for event in events}
    said = [event for event in events if event["event"] == "resume"]
    assert [event["bitwise"] for event in said] == [True, False]
    assert "another order of samples from here" in said[1]["text"]


def test_a_replaced_set_that_is_adopted_is_not_taken_for_an_erased_one(
    tiny: Tiny, tmp_path: Path, growing: Path
) -> None:
    recipe = tiny(f"data.streams.0.shards={growing}")
    out = tmp_path / "run"
    run_until(recipe, out, 2)
    shutil.rmtree(growing)
    pack_samples(noise_items(20, first=100), growing, shard_size=10)
    pretrain(recipe, out, adopt_data=True)
    (said,) = [event for event in read_lines(out / "log/events.jsonl") if event["event"] == "resume"]
    assert "another order of samples from here" in said["text"]
    assert "erased" not in said["text"]


def test_erased_samples_leave_the_order_as_it_was(tiny: Tiny, tmp_path: Path, growing: Path) -> None:
    recipe = tiny(f"data.streams.0.shards={growing}")
    keys: dict[str, list[list[str]]] = {}
    for name in ("as it was", "run"):
        out = tmp_path / name
        run_until(recipe, out, 2)
        if name == "run":
            drop_samples(growing, keys=[keys["as it was"][5][0]])
        pretrain(recipe, out)
        keys[name] = [line["keys"] for line in read_lines(out / "log/keys.jsonl")]
    changed = [
        (mine, other)
        for one, two in zip(keys["run"], keys["as it was"], strict=True)
        for mine, other in zip(one, two, strict=True)
        if mine != other
    ]
    assert changed
    assert {other for _, other in changed} == {keys["as it was"][5][0]}
    (said,) = [event for event in read_lines(out / "log/events.jsonl") if event["event"] == "resume"]
    assert not said["bitwise"]
    assert ": the same samples, views and masks; samples that were erased since are read" in said["text"]
    assert "another order" not in said["text"]


def test_losses_in_another_precision_are_within_what_is_promised(tiny: Tiny, tmp_path: Path, whole: Path) -> None:
    run_until(tiny(), tmp_path / "run", 2)
    pretrain(tiny("efficiency.precision=bf16"), tmp_path / "run")
    (said,) = [event for event in read_lines(tmp_path / "run/log/events.jsonl") if event["event"] == "resume"]
    assert "loss of the next steps within 0.01, because of other precision fp32 -> bf16" in said["text"]
    ours, theirs = (
        [line["loss"] for line in read_lines(run / "log/metrics.jsonl")] for run in (tmp_path / "run", whole)
    )
    assert ours != theirs
    assert ours == pytest.approx(theirs, abs=0.01)


def test_adopting_data_that_is_the_same_changes_nothing(tiny: Tiny, tmp_path: Path, whole: Path) -> None:
    run_until(tiny(), tmp_path / "run", 2)
    pretrain(tiny(), tmp_path / "run", adopt_data=True)
    (said,) = [event for event in read_lines(tmp_path / "run/log/events.jsonl") if event["event"] == "resume"]
    assert said["bitwise"]
    assert result_files(tmp_path / "run", 8) == result_files(whole, 8)


def test_changed_shards_are_refused_and_moved_ones_are_not(tiny: Tiny, tmp_path: Path, growing: Path) -> None:
    out = tmp_path / "run"
    run_until(tiny(f"data.streams.0.shards={growing}"), out, 2)
    moved = growing.rename(tmp_path / "moved")
    run_until(tiny(f"data.streams.0.shards={moved}"), out, 4)
    pack_samples(noise_items(20, first=100), growing, shard_size=10)
    with pytest.raises(IndexMismatchError, match="not those the run started with"):
        pretrain(tiny(f"data.streams.0.shards={growing}"), out)


def test_all_is_pinned_before_the_first_step(
    tiny: Tiny, tmp_path: Path, growing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    recipe = tiny(f"data.streams.0.shards={growing}")
    with monkeypatch.context() as patch:
        patch.setattr(Quarantine, "record", crash)
        with pytest.raises(RuntimeError, match="crash"):
            pretrain(recipe, out)
    begin = find_checkpoint(out)
    assert begin.manifest.step == 0
    initial = build_pretrain_model(recipe).state_dict()
    for part in ("model", "ema"):
        assert all(torch.equal(value, initial[name]) for name, value in begin.tensors(part).items())
    with pytest.raises(ResumeError, match=r"optim\.base_lr: 0\.05 -> 0\.1"):
        pretrain(tiny(f"data.streams.0.shards={growing}", "optim.base_lr=0.1"), out)
    grow(growing)
    run_until(recipe, out, 1)
    assert find_checkpoint(out).document("data")["streams"]["faces"]["shards"] == 2
    with pytest.raises(IndexMismatchError, match="not those the run started with"):
        pretrain(tiny(), out)


def test_initial_weights(tiny: Tiny, tmp_path: Path, whole: Path) -> None:
    short = ("optim.total=8 samples", "optim.warmup=8 samples")  # the one update has a learning rate of 0
    for number, source in enumerate((whole, whole / "checkpoints/step-00000008")):
        out = tmp_path / f"run{number}"
        pretrain(tiny(*short), out, init_from=source)
        given = find_checkpoint(whole).tensors("ema")
        assert all(torch.equal(value, given[name]) for name, value in find_checkpoint(out).tensors("model").items())
    file = whole / "checkpoints/step-00000008/model.safetensors"
    pretrain(tiny(*short, "seed=9"), tmp_path / "file", init_from=file)
    given = find_checkpoint(whole).tensors("model")
    assert torch.equal(find_checkpoint(tmp_path / "file").tensors("model")["encoder.vit.norm.weight"],
                       given["encoder.vit.norm.weight"])  # fmt: skip


def test_wrong_initial_weights_are_described(tiny: Tiny, tmp_path: Path, whole: Path) -> None:
    with pytest.raises(CheckpointError, match="do not fit the recipe's model") as caught:
        pretrain(tiny("encoder.patch_size=8"), tmp_path / "run", init_from=whole)
    assert "encoder.vit.patch_embed.proj.weight is" in str(caught.value)
    with pytest.raises(CheckpointError, match="does not exist"):
        pretrain(tiny(), tmp_path / "other", init_from=tmp_path / "nothing")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        pretrain(tiny(), tmp_path / "third", init_from=tmp_path / "text.safetensors")


def test_what_is_known_about_initial_weights_is_kept(tiny: Tiny, tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Quarantine, "record", crash)
        with pytest.raises(RuntimeError, match="crash"):
            pretrain(tiny("name=second"), out, init_from=whole)
    pretrain(tiny("name=second"), out)
    source = find_checkpoint(whole)
    manifest = find_checkpoint(out).manifest
    assert manifest.step == 8
    cards = source.manifest.cards
    digest = file_digest(source.folder / "ema.safetensors")
    assert manifest.init == InitialWeights(digest=digest, recipe="tiny", cards=cards)
    assert manifest.cards == {**cards, "init/faces": cards["faces"]}
    export_encoder(out, tmp_path / "export")
    assert find_checkpoint(tmp_path / "export").manifest.cards == manifest.cards
    pretrain(tiny("name=third"), tmp_path / "third", init_from=tmp_path / "export")
    third = find_checkpoint(tmp_path / "third").manifest
    assert third.init is not None
    assert third.init.recipe == "second"
    assert set(third.cards) == {"faces", "init/faces", "init/init/faces"}


def test_bare_weights_are_of_unknown_origin(tiny: Tiny, tmp_path: Path, whole: Path) -> None:
    file = whole / "checkpoints/step-00000008/model.safetensors"
    pretrain(tiny("optim.total=8 samples"), tmp_path / "run", init_from=file)
    manifest = find_checkpoint(tmp_path / "run").manifest
    assert manifest.init is not None
    assert (manifest.init.recipe, manifest.init.digest) == ("unknown", file_digest(file))
    card = manifest.cards["init/unknown"]
    assert (card.licence, card.redistributable, card.crop.detector) == ("unknown", False, "unknown")


def test_a_manifest_from_before_initial_weights_were_recorded(whole: Path) -> None:
    tree = json.loads((whole / "checkpoints/step-00000008/manifest.json").read_text())
    del tree["init"]
    assert Manifest.model_validate(tree).init is None


def test_an_extended_run_does_not_warm_up_again(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "run"
    percent = ("optim.warmup=50 percent", "optim.ema=10 percent", "log.every_steps=1")
    pretrain(tiny(*percent), out)
    pretrain(tiny(*percent, "optim.total=160 samples"), out, extend=True)
    rates = [line["lr"] for line in read_lines(out / "log/metrics.jsonl")]
    assert len(rates) == 20
    peak = 0.05 * 8 / 256
    assert rates[4] == pytest.approx(peak), "warm-up is half of the 64 samples the run was started with"
    # On the cosine over 160 samples, a quarter of the way down.
    assert rates[8] == pytest.approx(peak * 0.5 * (1 + 0.5**0.5))
    assert rates[8:] == sorted(rates[8:], reverse=True)
    (said,) = [event["text"] for event in read_lines(out / "log/events.jsonl") if event["event"] == "extend"]
    assert said.startswith(f"extended from 64 to 160 samples: lr 0.00e+00 -> {rates[8]:.2e}")
    assert said.endswith("; half-life of averaged weights 16 samples")
    (resume,) = [event for event in read_lines(out / "log/events.jsonl") if event["event"] == "resume"]
    assert (resume["bitwise"], resume["changed_at"]) == (False, 8)
    assert "another learning rate from here, for 160 samples in place of 64" in resume["text"]


def test_the_warm_up_of_a_run_that_did_not_save_it_is_that_of_its_first_length(tiny: Tiny) -> None:
    recipe = tiny("optim.warmup=50 percent", "optim.total=160 samples")
    old: dict[str, Any] = {"step": 8, "epoch_samples": 36, "total_samples": 64}
    assert resolve_lengths(recipe, Start(state=old), 36).warmup == 32
    assert resolve_lengths(recipe, Start(state={**old, "warmup_samples": 20}), 36).warmup == 20
    assert resolve_lengths(recipe, Start(), 36).warmup == 80
