"""How a run is optimised, computed, saved and logged."""

from typing import Literal

from pydantic import Field, field_validator

from facemae.config.base import Config, Span, SpanConfig


class SpikeConfig(Config):
    """What is done about a step whose gradient norm, before clipping, stands out."""

    factor: float = Field(default=5.0, gt=1)
    """How many times its running median a norm may be."""
    window: Span = SpanConfig(amount=32_768)
    """Samples the median is taken over; not in percent, since it must not change when a run is extended."""
    action: Literal["skip", "rewind"] = "skip"
    """`skip` leaves the update out; `rewind` goes back to the last scheduled checkpoint, then on with later samples."""
    limit: int = Field(default=8, ge=0)
    """Spikes in a row that may be skipped, or times the run may go back, before it stops."""

    @field_validator("window")
    @classmethod
    def _fixed(cls, value: SpanConfig) -> SpanConfig:
        if value.unit == "percent":
            raise ValueError("a window in percent would change when the run is extended; give samples or epochs")
        return value


class OptimConfig(Config):
    """Optimiser, schedule and averaging. All lengths count samples."""

    batch_size: int = Field(default=256, ge=1)
    """Samples per optimiser step, over all processes and accumulation."""
    total: Span = SpanConfig(amount=50, unit="epochs")
    """Length of the run."""
    warmup: Span = SpanConfig(amount=5, unit="percent")
    """Linear warm-up of the learning rate."""
    base_lr: float = Field(default=1.5e-4, gt=0)
    """Learning rate for a batch of 256; scaled linearly with the batch size."""
    min_lr: float = Field(default=0.0, ge=0)
    """Learning rate at the end of the cosine."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's averaging factors."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Decoupled weight decay; never on biases, norms, positions and tokens."""
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    """Factor of the learning rate from each block of the encoder to the one below it, as in fine-tuning of BEiT (Bao et
    al. 2022) and MAE: everything behind the blocks has the full rate; null has one rate for all."""
    clip: float | None = Field(default=None, gt=0)
    """Largest gradient norm; null for no clipping."""
    ema: Span | None = None
    """Half-life of the averaged weights; null keeps none."""
    max_bad_steps: int = Field(default=8, ge=0)
    """Consecutive updates that may be skipped for non-finite values before the run stops."""
    spike: SpikeConfig | None = None
    """What is done about a gradient that stands out; null does nothing."""


class EfficiencyConfig(Config):
    """What makes a run fast and must not change its results beyond rounding."""

    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """Arithmetic of the forward and backward pass; weights stay fp32. `auto` takes bf16 where the hardware has it.
    `tf32` is fp32 with matrix products in TF32, on a GPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Samples per forward pass; null takes the whole share of the batch. Divides it."""
    processes: int | None = Field(default=None, ge=1)
    """Processes a run is started in on this machine: divides `data.lanes`; null takes one for each GPU, as
    many as can share a step, and one on the CPU. Under torchrun or srun theirs are taken."""
    strategy: Literal["auto", "single", "ddp", "exact"] = "auto"
    """How several processes share a step: `ddp` exchanges gradients during the backward pass, `exact` after it and
    bitwise repeatably. `auto` takes `exact` on the CPU, and on GPUs `ddp` except for objectives that compare samples
    of all processes. In one process all are the same."""
    workers: int | None = Field(default=None, ge=0)
    """Loader processes of each process; null chooses from its cores. Never changes what is read."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of each process for the model on the CPU; null leaves torch's choice, divided among the processes."""
    compile: Literal["auto", "off", "blocks"] = "auto"
    """Compile each block of encoder and decoder. `auto` does so on a GPU, if the machine can."""
    checkpointing: bool = False
    """Compute each block again in the backward pass: less memory, a third more time, the same gradients."""


class CheckpointConfig(Config):
    """When a run saves."""

    every: Span = SpanConfig(amount=5, unit="percent")
    """Distance between checkpoints. Free to change in mid-run, except where `optim.spike.action` is rewind."""
    keep: int = Field(default=2, ge=2)
    """Newest checkpoints kept; at least two, so a damaged one never leaves none."""


class LogConfig(Config):
    """What a run writes about itself."""

    every_steps: int = Field(default=10, ge=1)
    """Steps between log lines."""
    pictures: Span = SpanConfig(amount=10, unit="percent")
    """Distance between reconstruction pictures."""
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    """Where metrics, events and pictures are shown beside the run's own files."""
    keys: bool = False
    """Write every step's keys and a digest of their views and masks to `log/keys.jsonl`; for audits."""
