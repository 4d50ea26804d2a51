"""How a training step is spread over processes.

The trainer speaks to `Strategy` only. A strategy owns the optimiser, because some (DeepSpeed) own clipping,
accumulation and the update as well. All of them keep fp32 weights and compute the same training; they read and write
one canonical, name-keyed state. Losses and gradients are summed over processes, never averaged: each process's loss is
its share of the global batch's already.
"""

from facemae.train.strategy.base import Strategy, Update
from facemae.train.strategy.choice import choose_strategy
from facemae.train.strategy.ddp import Ddp
from facemae.train.strategy.exact import Exact
from facemae.train.strategy.single import SingleProcess

__all__ = ["Ddp", "Exact", "SingleProcess", "Strategy", "Update", "choose_strategy"]
