"""Initial weights as a function of the seed and each parameter's name."""

from collections.abc import Callable

import torch
from timm.layers import LayerScale
from timm.models.vision_transformer import ResPostBlock
from torch import nn

from facemae.errors import ConfigError
from facemae.rng import torch_generator

Draw = Callable[[str, torch.Tensor], None]


def initialise(module: nn.Module, seed: int, *, prefix: str = "") -> None:
    """Fill every parameter and buffer, starting from NaN so that none can be forgotten.

    The scheme is MAE's: Xavier-uniform for linear layers and the flattened patch projection, zero biases, norms at one
    and zero, tokens from a normal distribution of standard deviation 0.02, positions sine-cosine. Each parameter has
    its own generator, keyed by its name: neither the order in which modules were built nor what else is in the model
    changes its value.

    Args:
        module: The module to fill.
        seed: The run's seed.
        prefix: What the names inside `module` are preceded by in the whole model. With `"encoder."` an encoder gets the
            very weights it has at step 0 of a run with this seed.

    Raises:
        ConfigError: A parameter or buffer has no rule, by name.
    """
    fill_with_nan(module)
    for path, part in module.named_modules():
        _initialise_part(part, seed, f"{prefix}{path}." if path else prefix)
    # After the parts, because positions are parameters of modules with rules of their own. `reset_values` sets what a
    # module starts from by its configuration, such as a learned temperature.
    for part in module.modules():
        for reset in ("reset_positions", "reset_values"):
            if hasattr(part, reset):
                getattr(part, reset)()
        if isinstance(part, ResPostBlock) and part.init_values is not None:
            for norm in (part.norm1, part.norm2):
                nn.init.constant_(norm.weight, part.init_values)
    check_initialised(module)


@torch.no_grad()
def fill_with_nan(module: nn.Module) -> None:
    """Set every floating-point parameter and buffer to NaN."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.fill_(torch.nan)


def check_initialised(module: nn.Module) -> None:
    """Raise ConfigError naming the parameters and buffers that hold a NaN."""
    named = (*module.named_parameters(), *module.named_buffers())
    left = [name for name, tensor in named if tensor.is_floating_point() and bool(tensor.isnan().any())]
    if left:
        raise ConfigError(
            f"left uninitialised: {', '.join(left)}",
            expected="a rule for every parameter and buffer in facemae.models.init",
        )


@torch.no_grad()
def _initialise_part(part: nn.Module, seed: int, path: str) -> None:
    if isinstance(part, LayerScale):
        part.gamma.fill_(part.init_values)
        return
    norm = "Norm" in type(part).__name__
    for name, parameter in part.named_parameters(recurse=False):
        generator = torch_generator(seed, "init", path + name)
        if norm:
            parameter.fill_(1.0 if name == "weight" else 0.0)
        elif name.endswith("bias"):
            parameter.zero_()
        elif name.endswith("_token"):
            parameter.copy_(torch.empty(parameter.shape).normal_(std=0.02, generator=generator))
        elif name == "weight" and isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d):
            flat = torch.empty(parameter.shape[0], parameter[0].numel())
            parameter.copy_(nn.init.xavier_uniform_(flat, generator=generator).view_as(parameter))
