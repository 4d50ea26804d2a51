"""`facemae env`: versions and hardware, for a bug report."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from typing import Annotated, Any

import typer

from facemae.parallel import usable_cores

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="rich")

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "scikit-learn",
    "pillow",
    "opencv-python-headless",
    "simplejpeg",
    "safetensors",
    "webdataset",
    "pyarrow",
    "faiss-gpu",
    "faiss-cpu",
    "pydantic",
    "torchmetrics",
    "typer",
    "tensorboard",
    "deepspeed",
    "submitit",
    "av",
    "decord2",
)
"""Distributions whose versions decide how facemae behaves."""

VARIABLES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "WORLD_SIZE", "SLURM_JOB_ID", "TORCH_LOGS")
"""Environment variables that change how it runs. No other is read."""


@app.command()
def env(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Print versions and hardware for a bug report; it holds no paths and no names of people or machines.

    Example: [bold]facemae env --json[/bold]
    """
    facts = environment()
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for topic, entries in facts.items():
        typer.echo(topic)
        for name, value in entries.items():
            typer.echo(f"  {name:<24} {_text(value)}")


def environment() -> dict[str, dict[str, Any]]:
    """Versions and hardware by topic: `system`, `packages`, `torch`, `gpus`, `variables`."""
    return {
        "system": _system(),
        "packages": {name: _version(name) for name in ("facemae", *PACKAGES)},
        "torch": _torch(),
        "gpus": _gpus(),
        "variables": {name: os.environ.get(name) for name in VARIABLES},
    }


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return str(value)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _system() -> dict[str, Any]:
    return {
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "cores usable": usable_cores(),
        "memory GB": _memory(),
    }


def _processor() -> str:
    """The processor's name; Linux tells it in a file only."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 (a kernel file, read line by line)
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _torch() -> dict[str, Any]:
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch

    return {
        "cuda": torch.version.cuda,
        "cuda available": torch.cuda.is_available(),
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "nccl": _nccl(),
        "threads": torch.get_num_threads(),
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "bf16 on gpu": torch.cuda.is_bf16_supported() if torch.cuda.is_available() else None,
    }


def _nccl() -> str | None:
    import torch

    if not torch.cuda.is_available():
        return None
    version: tuple[int, ...] = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
    return ".".join(map(str, version))


def _gpus() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    found = {}
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        found[str(number)] = {
            "name": card.name,
            "memory GB": round(card.total_memory / 1e9, 1),
            "capability": f"{card.major}.{card.minor}",
        }
    return found
