"""How the blocks of a model run: compiled, recomputed in the backward pass, or as they are."""

import importlib.util
import os
import shutil

import torch
from timm.models.vision_transformer import Block

from facemae.errors import ConfigError
from facemae.models.cross import CrossBlock
from facemae.models.decoder import PixelDecoder
from facemae.objectives.pretraining import PretrainModel


def prepare_blocks(model: PretrainModel, *, compiled: bool, checkpointing: bool) -> PretrainModel:
    """Set how encoder and decoder blocks run; names and values of weights stay as they are.

    Args:
        model: The model, before a strategy wraps it.
        compiled: Compile each block by itself. Blocks of one shape share their code, so a deep encoder is compiled as
            soon as a shallow one.
        checkpointing: Keep a block's input only and compute the rest again in the backward pass.
    """
    for module in model.modules():
        if isinstance(module, PixelDecoder):
            module.checkpointing = checkpointing
        if compiled and isinstance(module, Block | CrossBlock):
            module.compile()
    for encoder in filter(None, (model.encoder, model.sound_encoder)):
        encoder.vit.set_grad_checkpointing(checkpointing)
    if model.fusion is not None:
        model.fusion.checkpointing = checkpointing
    return model


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
        return False, "blocks not compiled: a minute of compiling gains a few percent on a CPU"
    missing = _missing(device)
    if missing is None:
        return True, "blocks compiled"
    if wanted == "blocks":
        raise ConfigError(
            f"efficiency.compile is blocks, but {missing}",
            expected="what torch.compile needs: a C++ compiler, and Triton on a GPU",
            fix="install it, or efficiency.compile=off",
        )
    return False, f"blocks not compiled: {missing}"


def _missing(device: torch.device) -> str | None:
    """What torch.compile needs and this machine lacks."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if name):
        return "there is no C++ compiler"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    return None
