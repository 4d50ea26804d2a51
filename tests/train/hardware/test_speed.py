"""What makes a run fast changes no result, is said aloud, and is refused where the machine cannot do it."""

import importlib.util
import shutil
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from timm.layers import LayerNorm

from facemae.config import EfficiencyConfig, Recipe
from facemae.data.loader import build_loader
from facemae.data.schema import Batch
from facemae.errors import ConfigError
from facemae.objectives.pretraining import build_pretrain_model
from facemae.recipe_specs import view_specs
from facemae.train.hardware.blocks import choose_compile
from facemae.train.hardware.device import Mover
from facemae.train.hardware.numerics import Numerics, machine_facts
from facemae.train.hardware.work import Work, peak_flops
from facemae.train.record.log import read_lines
from facemae.train.saving.promise import resume_promise

Tiny = Callable[..., Recipe]
CPU = torch.device("cpu")


def first_batch(recipe: Recipe) -> Batch:
    size = recipe.optim.batch_size
    (batch,) = build_loader(recipe.data, view_specs(recipe), seed=recipe.seed, batch_size=size, stop_step=1)
    return batch


def gradients(recipe: Recipe) -> tuple[float, dict[str, torch.Tensor]]:
    numerics = Numerics.choose(recipe.efficiency)
    model = numerics.prepare(build_pretrain_model(recipe))
    batch = first_batch(recipe)
    with numerics.autocast():
        loss, _ = model(batch, 0, model.counts(batch))
    loss.backward()
    return float(loss.detach()), {
        name: value.grad for name, value in model.named_parameters() if value.grad is not None
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["joint", "cross"])
def test_checkpointing_gives_the_same_gradients(
    tiny: Tiny, kind: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = [f"objectives.0.decoder.kind={kind}", "objectives.0.decoder.depth=2", f"efficiency.precision={precision}"]
    loss, expected = gradients(tiny(*decoder))
    forwards: list[int] = []
    real: Callable[[LayerNorm, torch.Tensor], torch.Tensor] = LayerNorm.forward

    def counting(self: LayerNorm, x: torch.Tensor) -> torch.Tensor:
        forwards.append(1)
        return real(self, x)

    monkeypatch.setattr(LayerNorm, "forward", counting)
    gradients(tiny(*decoder))
    kept = len(forwards)
    again, found = gradients(tiny(*decoder, "efficiency.checkpointing=true"))
    assert len(forwards) - kept > kept
    assert again == loss
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_compiled_blocks_give_the_same_loss_and_gradients(tiny: Tiny) -> None:
    loss, expected = gradients(tiny())
    again, found = gradients(tiny("efficiency.compile=blocks"))
    assert again == pytest.approx(loss, rel=1e-5)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-6)


def test_blocks_are_not_compiled_on_a_cpu_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_compile("auto", CPU)[0] is False
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/g++")
    assert choose_compile("blocks", CPU) == (True, "blocks compiled")
    assert choose_compile("off", CPU)[0] is False


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match=r"efficiency\.compile is blocks, but there is no C\+\+ compiler"):
        choose_compile("blocks", CPU)
    compiled, reason = choose_compile("auto", torch.device("cuda"))
    assert (compiled, reason) == (False, "blocks not compiled: there is no C++ compiler")


def test_what_triton_needs_is_asked_for_before_the_first_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda name: name if name in ("g++", "gcc") else None)
    assert choose_compile("auto", gpu) == (False, "blocks not compiled: Triton is not installed")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: "there")
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    assert choose_compile("auto", gpu) == (
        False,
        "blocks not compiled: Python's headers (python3-dev) are not installed",
    )
    (tmp_path / "Python.h").touch()
    assert choose_compile("auto", gpu) == (True, "blocks compiled")
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "clang++" else None)
    assert choose_compile("auto", gpu) == (False, "blocks not compiled: there is no C compiler")


def test_gpus_that_torch_cannot_use_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "device cpu, precision" in Numerics.choose(EfficiencyConfig()).reason
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert "device cpu (4 GPUs are there, but torch" in Numerics.choose(EfficiencyConfig()).reason
    assert "device cpu, precision" in Numerics.choose(EfficiencyConfig(device="cpu")).reason


def test_fp32_is_fp32_whatever_was_set_before() -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        with Numerics.choose(EfficiencyConfig(device="cpu", precision="fp32")).applied():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_what_chooses_instructions_is_part_of_the_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    numerics = Numerics.choose(EfficiencyConfig(device="cpu", precision="fp32"))
    monkeypatch.delenv("MKL_CBWR", raising=False)
    plain = machine_facts(numerics, world=1, strategy="single", micro_batch=8)
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    other = machine_facts(numerics, world=1, strategy="single", micro_batch=8)
    assert "because of other MKL_CBWR (unknown) -> COMPATIBLE" in resume_promise(plain, other).text


def test_tf32_is_refused_on_a_cpu() -> None:
    with pytest.raises(ConfigError, match="tf32, which a CPU does not have"):
        Numerics.choose(EfficiencyConfig(device="cpu", precision="tf32"))


def test_what_was_chosen_is_said() -> None:
    numerics = Numerics.choose(EfficiencyConfig(device="cpu", precision="bf16", checkpointing=True))
    for words in ("precision bf16", "plain attention up to 1024 tokens", "blocks not compiled", "computed again"):
        assert words in numerics.reason


def test_compiled_runs_promise_no_bits() -> None:
    numerics = Numerics.choose(EfficiencyConfig(device="cpu", precision="fp32"))
    plain = machine_facts(numerics, world=1, strategy="single", micro_batch=8)
    compiled = machine_facts(replace(numerics, compiled=True), world=1, strategy="single", micro_batch=8)
    assert resume_promise(plain, plain).bitwise
    assert not resume_promise(compiled, compiled).bitwise
    assert "compile (unknown) -> blocks" in resume_promise(plain, compiled).text


def test_operations_of_a_step_are_counted_once_for_each_shape(tiny: Tiny) -> None:
    batch = first_batch(tiny())
    layer = torch.nn.Linear(16, 32)
    work = Work(peak=1e6)
    for _ in range(3):
        with work.step(batch):
            layer(torch.ones(4, 16)).sum().backward()
    # A product forward and one for the weights: the input needs no gradient. 2 operations for each multiply and add.
    operations = 3 * 2 * (2 * 4 * 16 * 32)
    numbers = work.read(2.0)
    assert numbers == {"gflops": round(operations / 2 / 1e9, 2), "mfu": round(operations / 2 / 1e6, 4)}
    assert work.read(1.0) == {"gflops": 0.0, "mfu": 0.0}
    half = batch.split(2)[0]
    with work.step(half):
        pass
    assert work.read(1.0)["mfu"] == 0
    with work.step(batch):
        pass
    assert work.read(1.0)["mfu"] == round(operations / 3 / 1e6, 4)
    assert set(Work(peak=1e6, recomputed=True).read(1.0)) == {"gflops", "hfu"}


def test_a_step_of_the_model_counts_about_six_operations_a_weight_and_token(tiny: Tiny) -> None:
    recipe = tiny()
    model, batch, work = build_pretrain_model(recipe), first_batch(recipe), Work()
    with work.step(batch):
        loss, _ = model(batch, 0, model.counts(batch))
        loss.backward()
    block = model.encoder.vit.blocks[0]
    weights = sum(value.numel() for value in block.parameters() if value.ndim == 2)
    assert batch.views["main"].visible is not None
    tokens = len(batch) * (batch.views["main"].visible.shape[1] + 1)
    least = 6 * weights * tokens * model.encoder.depth
    assert least < work.read(1.0)["gflops"] * 1e9 < 10 * least


def test_known_gpus_have_a_peak_and_others_none() -> None:
    assert peak_flops("NVIDIA A100-SXM4-80GB", "bf16") == 312e12
    assert peak_flops("NVIDIA H100 PCIe", "bf16") == 756e12
    assert peak_flops("NVIDIA H100 NVL", "bf16") == 835e12
    assert peak_flops("NVIDIA H100 80GB HBM3", "tf32") == 494e12
    assert peak_flops("NVIDIA H100 80GB HBM3", "fp32") is None
    assert peak_flops("something new", "bf16") is None


def test_the_log_says_how_much_was_computed(whole: Path) -> None:
    lines = read_lines(whole / "log" / "metrics.jsonl")
    assert lines
    assert all("gflops" in line and "mfu" not in line and line["memory_mb"] > 0 for line in lines)


def test_on_a_cpu_batches_stay_where_they_are(tiny: Tiny) -> None:
    batch = first_batch(tiny())
    assert Mover(CPU)(batch) is batch


@pytest.mark.gpu
def test_on_a_gpu_batches_arrive_whole(tiny: Tiny) -> None:
    batch = first_batch(tiny()).pin_memory()
    moved = Mover(torch.device("cuda"))(batch)
    assert torch.equal(moved.views["main"].image.cpu(), batch.views["main"].image)
    assert moved.views["main"].image.is_cuda
