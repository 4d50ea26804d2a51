"""Which strategy a run takes."""

import torch

from facemae.config import EfficiencyConfig
from facemae.errors import ConfigError
from facemae.train.processes.process_group import Processes, ProcessGroup
from facemae.train.strategy.base import Strategy
from facemae.train.strategy.ddp import Ddp
from facemae.train.strategy.exact import Exact
from facemae.train.strategy.single import SingleProcess


def choose_strategy(
    config: EfficiencyConfig, processes: Processes, device: torch.device, *, exchanges: bool = False
) -> Strategy:
    """The strategy a recipe asks for, or the one that suits.

    Args:
        config: The recipe's block.
        processes: The processes that share the run. Without a process group all strategies are the same.
        device: Where the model runs.
        exchanges: Whether objectives exchange rows in the backward pass.

    Raises:
        ConfigError: `single` in several processes, or `ddp` on GPUs with objectives that exchange rows.
    """
    if not isinstance(processes, ProcessGroup):
        return SingleProcess()
    if config.strategy == "single":
        raise ConfigError(
            f"efficiency.strategy is 'single' and the run has {processes.world} processes",
            expected="auto, ddp or exact",
            fix="set efficiency.strategy=auto, or start one process",
        )
    # On the CPU the overlap of DistributedDataParallel gains nothing: both need the same cores.
    automatic = "exact" if device.type == "cpu" or exchanges else "ddp"
    wanted = automatic if config.strategy == "auto" else config.strategy
    if wanted == "ddp" and exchanges and device.type != "cpu":
        # It sends gradients while objectives exchange rows.
        raise ConfigError(
            "efficiency.strategy is 'ddp' and an objective compares samples of all processes, on GPUs",
            expected="auto or exact: two NCCL channels of one GPU may wait for each other for ever",
            fix="set efficiency.strategy=auto",
        )
    return Exact(processes) if wanted == "exact" else Ddp(processes)
