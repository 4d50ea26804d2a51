"""AdamW with groups checked by name, and the running average of the weights."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch

import torch
from torch import nn

from facemae.config import OptimConfig
from facemae.errors import CheckpointError

UNDECAYED = ("*pos_embed", "*position*", "*_token", "*_tokens", "*.gamma")
"""Names that get no weight decay, beside everything of fewer than two dimensions (biases and norms)."""


_ENCODERS = ("encoder.vit.", "sound_encoder.vit.")
_BLOCK = re.compile(r"((?:sound_)?encoder\.vit\.)blocks\.(\d+)\.")
_BELOW = ("patch_embed.", "pos_embed", "cls_token", "reg_token", "norm_pre.")


@dataclass(frozen=True)
class Groups:
    """Trainable parameters by whether they decay.

    Attributes:
        decayed: Names with weight decay.
        undecayed: Names without.
    """

    decayed: tuple[str, ...]
    undecayed: tuple[str, ...]


def group_names(named: Iterable[tuple[str, nn.Parameter]]) -> Groups:
    """Sort trainable parameters into decayed and undecayed, by full name and number of dimensions."""
    decayed: list[str] = []
    undecayed: list[str] = []
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        free = parameter.ndim <= 1 or any(fnmatch(name, pattern) for pattern in UNDECAYED)
        (undecayed if free else decayed).append(name)
    return Groups(tuple(decayed), tuple(undecayed))


def rate_factor(name: str, depth: int, decay: float | None) -> float:
    """The learning rate of a parameter as a share of the full one: `decay` once for each block from the head down.

    Patch embedding, tokens and positions are the layer below the first block; the encoder's norm and everything outside
    it have the full rate (`get_layer_id_for_vit` in the code of BeiT, Bao et al. 2022, and of MAE). Each encoder counts
    its own blocks.

    Args:
        name: The parameter's full name.
        depth: Blocks of the encoder it belongs to.
        decay: `optim.layer_decay`.
    """
    encoder = encoder_of(name)
    if decay is None or encoder is None:
        return 1.0
    block = _BLOCK.match(name)
    if block:
        return float(decay ** (depth - int(block[2])))
    return float(decay ** (depth + 1)) if name.removeprefix(encoder).startswith(_BELOW) else 1.0


def is_adversary(name: str) -> bool:
    """Whether a parameter belongs to an adversary of the rest; see `facemae.models.reversal`.

    Its gradients are clipped apart: they grow and shrink with another loss, and would change how far the rest steps.
    """
    return ".adversary." in name


def encoder_of(name: str) -> str | None:
    """The prefix of the encoder that a parameter belongs to, or None."""
    return next((prefix for prefix in _ENCODERS if name.startswith(prefix)), None)


def encoder_depths(names: Iterable[str]) -> dict[str | None, int]:
    """Blocks of each encoder by its prefix; 0 for what belongs to none."""
    depths: dict[str | None, int] = {None: 0, **dict.fromkeys(_ENCODERS, 0)}
    for name in names:
        if block := _BLOCK.match(name):
            depths[block[1]] = max(depths[block[1]], int(block[2]) + 1)
    lender, sharing = _ENCODERS
    # An encoder without blocks of its own lies below those that it shares.
    depths[sharing] = depths[sharing] or depths[lender]
    return depths


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the model's trainable parameters; each group's `factor` is its share of the learning rate.

    The fused form updates all parameters in one kernel (on two CPU cores 4 times as fast as the foreach form) and takes
    a tensor that tells it to leave weights and moments alone, which needs no look from the host.
    """
    parameters = dict(model.named_parameters())
    groups = group_names(parameters.items())
    depths = encoder_depths(parameters)
    by_kind: dict[tuple[float, float], list[nn.Parameter]] = {}
    for names, weight_decay in ((groups.decayed, config.weight_decay), (groups.undecayed, 0.0)):
        for name in names:
            factor = rate_factor(name, depths[encoder_of(name)], config.layer_decay)
            by_kind.setdefault((weight_decay, factor), []).append(parameters[name])
    return torch.optim.AdamW(
        [
            {"params": members, "weight_decay": weight_decay, "factor": factor}
            for (weight_decay, factor), members in by_kind.items()
        ],
        lr=config.base_lr,
        betas=config.betas,
        fused=True,
    )


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's state as `<entry>/<parameter name>`, free of positions and groups."""
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{entry}/{names[parameter]}": value
        for parameter, state in optimizer.state.items()
        for entry, value in state.items()
    }


def load_optimizer_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, saved: Mapping[str, torch.Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave.

    Raises:
        CheckpointError: The state is not that of this model's parameters.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    state: dict[nn.Parameter, dict[str, torch.Tensor]] = {parameter: {} for parameter in parameters.values()}
    for key, value in saved.items():
        entry, _, name = key.partition("/")
        parameter = parameters.get(name)
        if parameter is None or (value.ndim and value.shape != parameter.shape):
            raise CheckpointError(
                f"the saved optimiser state {key} does not belong to this model",
                expected="the model that the checkpoint was saved of",
                fix="start a new run with --init-from, which takes weights alone",
            )
        state[parameter][entry] = value.clone().to(parameter.device)
    optimizer.state.clear()
    # A parameter that has never had a gradient has no state.
    optimizer.state.update({parameter: entries for parameter, entries in state.items() if entries})


class Average:
    """The running average of a model's trainable parameters.

    Buffers and fixed parameters are those of the model.

    Args:
        model: The model whose parameters are averaged; the average starts as a copy of them.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._live = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._mean = {name: value.detach().clone() for name, value in self._live.items()}

    @torch.no_grad()
    def update(self, rate: float) -> None:
        """Move the average by `rate` towards the parameters."""
        torch._foreach_lerp_(list(self._mean.values()), list(self._live.values()), rate)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Averaged weights under the model's state-dict names."""
        return {**self._model.state_dict(), **self._mean}

    @torch.no_grad()
    def load(self, saved: Mapping[str, torch.Tensor]) -> None:
        """Put back what `tensors` gave; names have been checked."""
        for name, mean in self._mean.items():
            mean.copy_(saved[name])
