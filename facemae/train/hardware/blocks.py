"""How the blocks of a model run: compiled, recomputed in the backward pass, or as they are."""

import contextlib
import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import torch
from timm.models.vision_transformer import Block

from facemae.errors import ConfigError
from facemae.models.cross import CrossBlock
from facemae.models.decoder import PixelDecoder
from facemae.objectives.pretraining import PretrainModel

_SHAPES = 64
"""Kinds of blocks and shapes of tokens that are compiled at most; encoders and decoders share the code of a block."""


def prepare_blocks(model: PretrainModel, *, compiled: bool, checkpointing: bool) -> PretrainModel:
    """Set how encoder and decoder blocks run; names and values of weights stay as they are.

    Args:
        model: The model, before a strategy wraps it.
        compiled: Compile each block by itself. Blocks of one shape share their code, so a deep encoder is compiled as
            soon as a shallow one.
        checkpointing: Keep a block's input only and compute the rest again in the backward pass.
    """
    if compiled:
        _configure_compiler()
    for module in model.modules():
        if isinstance(module, PixelDecoder):
            module.checkpointing = checkpointing
        if compiled and isinstance(module, Block | CrossBlock):
            # Shapes change between views and stages only. Left to itself torch takes the second for one of many, and
            # compiles for any.
            module.compile(dynamic=False)
    for encoder in filter(None, (model.encoder, model.sound_encoder)):
        encoder.vit.set_grad_checkpointing(checkpointing)
    if model.fusion is not None:
        model.fusion.checkpointing = checkpointing
    return model


def uncompiled() -> contextlib.AbstractContextManager[object]:
    """Within this, compiled blocks run as they are: what is done now and then is not worth a compilation."""
    stance: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


def _configure_compiler() -> None:
    from torch._dynamo import config

    config.recompile_limit = max(config.recompile_limit, _SHAPES)
    # A block is a piece of the backward pass by itself; cut where DistributedDataParallel's buckets end, it is slower.
    config.optimize_ddp = False


def choose_compile(wanted: str, device: torch.device) -> tuple[bool, str]:
    """Whether blocks are compiled, and why.

    Args:
        wanted: `auto`, `blocks` or `off`.
        device: Where the model runs.

    Raises:
        ConfigError: `blocks` is asked for and the machine cannot compile.
    """
    if wanted == "off":
        return False, "blocks not compiled, as the recipe says"
    if wanted == "auto" and device.type == "cpu":
        return False, "blocks not compiled: a minute of compiling at each start gains a few percent on a CPU"
    missing = _missing(device)
    if missing is None:
        return True, "blocks compiled"
    if wanted == "blocks":
        raise ConfigError(
            f"efficiency.compile is blocks, but {missing}",
            expected="what torch.compile needs: a C++ compiler; on a GPU Triton, a C compiler and Python's headers too",
            fix="install it, or efficiency.compile=off",
        )
    return False, f"blocks not compiled: {missing}"


def _missing(device: torch.device) -> str | None:
    """What torch.compile needs and this machine lacks."""
    if not _finds(os.environ.get("CXX", ""), "g++", "clang++", "c++"):
        return "there is no C++ compiler"
    if device.type != "cuda":
        return None
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    # Triton builds its link to the driver when it is first used.
    if not _finds(os.environ.get("CC", ""), "gcc", "clang"):
        return "there is no C compiler"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "Python's headers (python3-dev) are not installed"
    return None


def _finds(*programs: str) -> bool:
    return any(shutil.which(name) for name in programs if name)
