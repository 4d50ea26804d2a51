"""How many processes a run has, decided and checked before any of them is started."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from facemae.config import EfficiencyConfig, Recipe
from facemae.data.plan import check_batch, check_world
from facemae.errors import FacemaeError, UsageError
from facemae.train.processes.groups import check_groups, check_pairs

_NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
"""Device files without one of which no GPU can be used; looking at them costs nothing."""

_FIRST_HOST = re.compile(r"(?:[^,\[]|\[[^\]]*\])+")
_NUMBERS = re.compile(r"\[(\d+)[^\]]*\]")
_TASKS = re.compile(r"(\d+)(?:\(x(\d+)\))?")


def choose_world(recipe: Recipe) -> int:
    """Processes to start on this machine: as the recipe says, else as many as GPUs that can share a step."""
    config = recipe.efficiency
    if config.processes is not None:
        return config.processes
    gpus = 0 if config.device == "cpu" else visible_gpus()
    return max((count for count in range(1, gpus + 1) if _can_share(recipe, count)), default=1)


def describe_idle_gpus(recipe: Recipe, world: int) -> str | None:
    """Why a run that chose its number of processes leaves GPUs idle; None where it does not."""
    config = recipe.efficiency
    gpus = 0 if config.device == "cpu" else visible_gpus()
    if config.processes is not None or not world < gpus or world != choose_world(recipe):
        return None
    micro = f", efficiency.micro_batch {config.micro_batch}" if config.micro_batch else ""
    return f"{world} of {gpus} GPUs: more processes cannot share a step equally (data.lanes {recipe.data.lanes}{micro})"


def visible_gpus() -> int:
    """GPUs that torch sees; without loading it where there are none."""
    if not any(Path(node).exists() for node in _NODES):
        return 0
    import torch

    # Counts through the driver's management library: the GPU is not taken by this process.
    return torch.cuda.device_count()


def check_share(recipe: Recipe, world: int) -> None:
    """Refuse a number of processes that cannot share this recipe's steps; needs neither data nor a model.

    Raises:
        UsageError: The lanes do not divide the batch, or the number of processes does not divide them; the message
            lists what is possible.
        ConfigError: Micro-batches do not divide a process's share, or they tear samples apart that an objective
            compares; likewise.
    """
    from facemae.objectives.pretraining import compared_groups
    from facemae.train.loop import micro_steps

    lanes, batch = recipe.data.lanes, recipe.optim.batch_size
    check_world(lanes, world)
    check_batch(batch, lanes, [stream.share for stream in recipe.data.streams])
    share = batch // world
    micro = share // micro_steps(recipe, share)
    check_groups(compared_groups(recipe), share=share, micro=micro, world=world, lanes=lanes)
    check_pairs(recipe.views, share=share, micro=micro, batch=batch)


def _can_share(recipe: Recipe, world: int) -> bool:
    try:
        check_share(recipe, world)
    except FacemaeError:
        return False
    return True


def check_gpus(config: EfficiencyConfig, world: int) -> None:
    """Refuse to start more processes than this machine has GPUs, where it has any that are to be used.

    Raises:
        UsageError: Naming both.
    """
    gpus = 0 if config.device == "cpu" else visible_gpus()
    if world > 1 and 0 < gpus < world:
        raise UsageError(
            f"{world} processes on a machine that shows {gpus} GPUs",
            expected="a GPU for each process",
            fix=f"--processes {gpus}, or efficiency.device=cpu",
        )


def check_given_world(config: EfficiencyConfig, world: int) -> None:
    """Refuse a recipe that asks for another number of processes than a launcher has started.

    Raises:
        UsageError: Naming both.
    """
    if config.processes not in (None, world):
        raise UsageError(
            f"efficiency.processes is {config.processes} in a run of {world} processes that was started from outside",
            expected="no number, or the same",
            fix="leave out --processes and efficiency.processes under torchrun and srun",
        )


def place_by_slurm(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that torchrun would set, for a task that srun has started; empty where it has not.

    Tasks of one step meet on the step's first machine, at a port made of job and step.
    """
    count = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if count == 1 or environment.get("RANK") or environment.get("WORLD_SIZE"):
        return {}
    job, step = (int(environment.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE")
    node = int(environment.get("SLURM_NODEID", "0"))
    # By these, processes of one machine divide its cores.
    local = {} if tasks is None else {"LOCAL_WORLD_SIZE": str(_tasks_per_node(tasks)[node])}
    return {
        **local,
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": str(count),
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "MASTER_ADDR": environment.get("MASTER_ADDR") or _first_host(environment["SLURM_STEP_NODELIST"]),
        # Below the ports that systems hand out by themselves.
        "MASTER_PORT": environment.get("MASTER_PORT") or str(20_000 + (job * 10 + step) % 12_000),
    }


def _first_host(nodes: str) -> str:
    """The first name of a SLURM host list such as `gpu[03-05,9],login1` or `rack[1-2]node[3,4]`."""
    match = _FIRST_HOST.match(nodes)
    assert match is not None, nodes
    return _NUMBERS.sub(r"\1", match.group())


def _tasks_per_node(text: str) -> list[int]:
    """Tasks of each machine of a step, which SLURM writes as `2(x3),1` for 2, 2, 2 and 1."""
    found = []
    for part in text.split(","):
        match = _TASKS.fullmatch(part)
        assert match is not None, text
        found += [int(match[1])] * int(match[2] or 1)
    return found
