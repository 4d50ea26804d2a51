"""Device, precision, threads and determinism of a run, decided once, said aloud, and recorded."""

import contextlib
import importlib.metadata
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from facemae.config import EfficiencyConfig
from facemae.errors import ConfigError
from facemae.models.attention import PLAIN_TOKENS
from facemae.objectives.pretraining import PretrainModel
from facemae.parallel import local_processes
from facemae.revision import source_digest
from facemae.train.hardware.allocator import kept_memory
from facemae.train.hardware.blocks import choose_compile, prepare_blocks
from facemae.train.hardware.work import peak_flops

DRAWING = ("torch", "numpy", "opencv-python-headless", "pillow", "simplejpeg", "av", "soundfile", "soxr", "scipy")
"""Libraries that draw views and masks, or decode pixels and sound."""
LIBRARIES = ("facemae", "timm", "triton", *DRAWING)
"""Libraries whose version may change a number of a run."""
CODE = "code"
"""Among their versions the digest of our own modules."""
_ORDERING = (CODE, "numpy")
"""What decides which samples come when, beside the data and the seed."""
_PROCESSOR = ("processor", "vector_units")
_KERNELS = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
)
"""Variables by which people choose which instructions compute."""


@dataclass(frozen=True)
class Numerics:
    """How a run computes.

    Attributes:
        device: Where the model runs.
        precision: `fp32`, `tf32` or `bf16`, of the forward and backward pass; weights are fp32 always.
        reason: Why all of this, for the log.
        threads: Threads of the model on the CPU.
        compiled: Whether blocks are compiled.
        checkpointing: Whether blocks are computed again in the backward pass.
    """

    device: torch.device
    precision: str
    reason: str
    threads: int
    compiled: bool = False
    checkpointing: bool = False

    @classmethod
    def choose(cls, config: EfficiencyConfig) -> "Numerics":
        """Resolve every `auto`.

        Raises:
            ConfigError: The hardware lacks what is asked for.
        """
        device = _choose_device(config.device)
        precision, why = _choose_precision(config.precision, device)
        threads = config.threads or _default_threads()
        compiled, compiling = choose_compile(config.compile, device)
        reasons = [f"device {device.type}{_unusable(config.device, device)}", f"precision {precision} ({why})"]
        if device.type == "cpu" and precision == "bf16":
            reasons.append(f"plain attention up to {PLAIN_TOKENS} tokens")
        reasons.append(compiling)
        if config.checkpointing:
            reasons.append("blocks computed again in the backward pass")
        return cls(device, precision, ", ".join(reasons), threads, compiled, config.checkpointing)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def prepare(self, model: PretrainModel) -> PretrainModel:
        """Take the model to its device, and let its blocks run as was chosen; before a strategy wraps it."""
        return prepare_blocks(model.to(self.device), compiled=self.compiled, checkpointing=self.checkpointing)

    def peak(self) -> float | None:
        """Operations a second that the device can do in this precision; None where that is not known."""
        if self.device.type != "cuda":
            return None
        return peak_flops(torch.cuda.get_device_name(self.device), self.precision)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Fix threads, deterministic algorithms and memory inside the block; restore the settings after it."""
        threads = torch.get_num_threads()
        deterministic = torch.are_deterministic_algorithms_enabled()
        warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        fill = _fills_memory()
        torch.set_num_threads(self.threads)
        matmul = torch.get_float32_matmul_precision()
        # What is computed in fp32 beside bf16 is there because it has to be exact: losses that compare samples.
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        # On the GPU some kernels have no deterministic form and others are slower: there the promise is a tolerance.
        torch.use_deterministic_algorithms(self.device.type == "cpu")
        _fill_memory(False)
        try:
            with kept_memory() if self.device.type == "cpu" else contextlib.nullcontext():
                yield
        finally:
            torch.set_num_threads(threads)
            torch.set_float32_matmul_precision(matmul)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            _fill_memory(fill)


def machine_facts(numerics: Numerics, *, world: int, strategy: str, micro_batch: int) -> dict[str, Any]:
    """What, beside library versions, decides whether a continuation rounds the same way."""
    facts: dict[str, Any] = {
        "processor": processor_name(),
        "vector_units": torch.backends.cpu.get_cpu_capability(),
        "device": numerics.device.type,
        "threads": numerics.threads,
        "precision": numerics.precision,
        "world": world,
        "strategy": strategy,
        "micro_batch": micro_batch,
    }
    if numerics.compiled:
        facts["compile"] = "blocks"
    if numerics.device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(numerics.device)
    return facts | {name: os.environ[name] for name in _KERNELS if os.environ.get(name)}


def library_versions() -> dict[str, str]:
    """Versions of the libraries that compute weights and pixels, and the digest of our own code."""
    found = {CODE: source_digest()}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def processor_name() -> str:
    """The processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def rounding_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Why a continuation may round otherwise than an undisturbed run; None where every bit will be the same.

    Args:
        old: Machine facts and library versions of the checkpoint, in one mapping.
        new: The same of this process.
    """
    changed = _changes(old, new)
    if changed:
        return f"of other {', '.join(changed.values())}"
    if new.get("device") != "cpu":
        return "GPU kernels may add in another order"
    if new.get("world", 1) > 2 and new.get("strategy") != "exact":
        # Two numbers have one sum; the order of more changes with the buffers that carry them.
        return f"strategy {new.get('strategy')} may add in another order"
    if new.get("compile"):
        return "the first step of a start is not compiled"
    return None


def loss_tolerance(old: Mapping[str, Any], new: Mapping[str, Any]) -> float | None:
    """How far losses of the next steps may lie from an undisturbed run's where `rounding_changes` finds something.

    Of losses around 1, as tests see them over a few steps; later steps drift apart as rounding does. None where code or
    a library has changed, which may do more than round.

    Args:
        old: As of `rounding_changes`.
        new: As of `rounding_changes`.
    """
    if any(old.get(name) != new.get(name) for name in (CODE, *LIBRARIES)):
        return None
    return 1e-3 if old.get("precision") == new.get("precision") == "fp32" else 1e-2


def ordering_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Which changes may give a continuation other samples; None where none does. As `rounding_changes`."""
    return _among(_ORDERING, old, new)


def drawing_changes(old: Mapping[str, Any], new: Mapping[str, Any], *, sounds: bool) -> str | None:
    """Which changes may make a continuation see other views and masks; None where none does. As `rounding_changes`.

    Args:
        old: As of `rounding_changes`.
        new: As of `rounding_changes`.
        sounds: Whether views are spectrograms too. They are matrix products, and those round by processor; pictures are
            drawn in whole numbers or one value at a time.
    """
    return _among((CODE, *DRAWING, *((*_PROCESSOR, *_KERNELS) if sounds else ())), old, new)


def _among(names: Sequence[str], old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    changed = _changes(old, new)
    return ", ".join(changed[name] for name in names if name in changed) or None


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: f"{name} {old.get(name, '(unknown)')} -> {new.get(name, '(none)')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }


def _fills_memory() -> bool:
    return bool(getattr(torch.utils.deterministic, "fill_uninitialized_memory"))  # noqa: B009 (untyped in torch)


def _fill_memory(on: bool) -> None:
    # Filling fresh tensors with NaN costs time and finds only reads of uninitialised memory.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", on)  # noqa: B010 (untyped in torch)


def _default_threads() -> int:
    threads = torch.get_num_threads()
    # Who sets the variable means every process.
    return threads if "OMP_NUM_THREADS" in os.environ else max(1, threads // local_processes())


def _choose_device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("efficiency.device is cuda, but torch sees no GPU", fix="efficiency.device=auto")
    if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()):
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _unusable(wanted: str, device: torch.device) -> str:
    """Says that there are GPUs which torch cannot use, where one was wanted."""
    count = torch.cuda.device_count() if wanted == "auto" and device.type == "cpu" else 0
    return (
        f" ({count} GPUs are there, but torch {torch.__version__} cannot use them: is the driver too old?)"
        if count
        else ""
    )


def _choose_precision(wanted: str, device: torch.device) -> tuple[str, str]:
    able, units = (
        (_gpu_bf16(device) if device.type == "cuda" else _cpu_bf16()) if wanted in {"auto", "bf16"} else (False, "")
    )
    if wanted == "fp32":
        return "fp32", "as the recipe says"
    if wanted == "tf32":
        if device.type == "cpu":
            raise ConfigError(
                "efficiency.precision is tf32, which a CPU does not have", fix="efficiency.precision=auto"
            )
        return "tf32", "as the recipe says"
    if wanted == "bf16":
        return "bf16", f"as the recipe says; {units}" + ("" if able else ", so it will be slow")
    return ("bf16" if able else "fp32"), units


def _gpu_bf16(device: torch.device) -> tuple[bool, str]:
    name = torch.cuda.get_device_name(device)
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return True, f"{name} computes in bf16"
    return False, f"{name} has no bf16 arithmetic"


def _cpu_bf16() -> tuple[bool, str]:
    # Without these units the CPU converts every operand, which is slower than fp32.
    flags = _cpu_flags()
    for flag in ("amx_bf16", "avx512_bf16"):
        if flag in flags:
            return True, f"the processor has {flag}"
    return False, "the processor has no bf16 arithmetic"


def _cpu_flags() -> set[str]:
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        return {name for name, present in capabilities().items() if present is True}
    try:  # torch before 2.9 does not tell
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return set(line.partition(":")[2].split())
    except OSError:
        pass
    return set()
