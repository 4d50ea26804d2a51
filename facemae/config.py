"""The typed recipe tree: what a pretraining run is made of.

A recipe is a YAML file that fills this tree; `facemae.recipe` reads, merges and prints it. Blocks are grouped by
what they may change: everything except `efficiency` and `log` changes results, and a run that has started refuses such
a change. Four more may change that cannot either: `about`, `checkpoint`, `data.max_damage`, `optim.max_bad_steps`.
Every field carries a docstring; an unknown key is an error that names the nearest known one.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, model_validator


class Config(BaseModel):
    """Base of every block: immutable, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


def _parse_span(value: object) -> object:
    if isinstance(value, str):
        number, _, unit = value.strip().partition(" ")
        return {"amount": number.replace("_", ""), "unit": unit.strip() or "samples"}
    if isinstance(value, int | float):
        return {"amount": value, "unit": "samples"}
    return value


class SpanConfig(Config):
    """A length of training, written ``"50 epochs"``, ``"2_000_000 samples"`` or ``"5 percent"`` (of the whole run)."""

    amount: float = Field(ge=0)
    """How many."""
    unit: Literal["samples", "epochs", "percent"] = "samples"
    """Of what."""

    def samples(self, *, epoch: int, total: int | None = None) -> int:
        """The length in samples.

        Args:
            epoch: Samples in one epoch of the run's streams.
            total: Samples in the whole run; needed for percent.
        """
        if self.unit == "samples":
            return round(self.amount)
        if self.unit == "epochs":
            return round(self.amount * epoch)
        if total is None:
            raise ValueError("a percentage needs the total it is a part of")
        return round(self.amount / 100 * total)


Span = Annotated[SpanConfig, BeforeValidator(_parse_span)]


def _as_texts(value: object) -> object:
    """YAML reads `{AU12: 1}` as a number; metadata is compared as text, written as the metadata columns write it."""
    return {name: _as_text(item) for name, item in value.items()} if isinstance(value, dict) else value


def _as_text(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float) else value


class StreamConfig(Config):
    """One source of samples."""

    name: str = "faces"
    """What the stream is called in logs and state."""
    shards: str = ""
    """Folder of the indexed shard set. Given on the command line: `--data DIR`."""
    where: Annotated[dict[str, str], BeforeValidator(_as_texts)] = Field(default_factory=dict)
    """Only samples whose metadata has these values, for example `{split: train}`."""
    share: int = Field(default=1, ge=1)
    """How many parts of each global batch come from this stream."""


class DataConfig(Config):
    """Where samples come from and in which order."""

    streams: tuple[StreamConfig, ...] = (StreamConfig(),)
    """The sources; one is the usual case."""
    lanes: int = Field(default=8, ge=1)
    """Parallel runs an epoch is cut into. Legal numbers of processes divide it."""
    block: int | None = Field(default=None, ge=1)
    """Shuffle within blocks of this many samples; null shuffles a whole lane. Set it for slow random access."""
    max_damage: float = Field(default=0.001, ge=0, le=1)
    """Highest share of samples that may be replaced because they do not decode; above it the run stops."""


class CropConfig(Config):
    """How a square view is cut from a face image."""

    kind: Literal["resize", "random_resized"] = "random_resized"
    """`resize` scales the whole image; `random_resized` takes a random part of it."""
    scale: tuple[float, float] = (0.2, 1.0)
    """Range of the part's area, as a share of the image's."""
    ratio: tuple[float, float] = (0.75, 4 / 3)
    """Range of the part's width over height."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How pixels are resampled; always with antialiasing."""

    @model_validator(mode="after")
    def _ranges(self) -> "CropConfig":
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"scale {list(self.scale)} is no range of shares: 0 < lowest <= highest <= 1")
        low, high = self.ratio
        if not 0 < low <= high < math.inf:
            raise ValueError(f"ratio {list(self.ratio)} is no range of width over height: 0 < lowest <= highest")
        return self


class NormaliseConfig(Config):
    """Normalisation applied to pixels in [0, 1], per channel."""

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Subtracted; one number a channel."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Divided by; one number a channel."""

    @model_validator(mode="after")
    def _divides(self) -> "NormaliseConfig":
        if not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"std {list(self.std)} divides pixels; every number must be greater than 0")
        return self


class MaskConfig(Config):
    """Which patches of a view the encoder does not see."""

    kind: Literal["random", "block"] = "random"
    """`random` draws single patches; `block` draws squares of patches."""
    ratio: float = Field(default=0.75, gt=0, lt=1)
    """Share of patches hidden. The count is the same in every sample."""
    block: int = Field(default=2, ge=1)
    """Side of a block in patches, for kind `block`."""


class ViewConfig(Config):
    """One view of a sample: crop, flip, normalisation and mask."""

    crop: CropConfig = CropConfig()
    """The crop."""
    flip: bool = True
    """Mirror half of the samples."""
    normalise: NormaliseConfig = NormaliseConfig()
    """Pixel normalisation."""
    mask: MaskConfig | None = MaskConfig()
    """The mask; null lets the encoder see everything."""


class EncoderConfig(Config):
    """The encoder: any plain ViT of timm."""

    name: str = "vit_base_patch16_224"
    """timm model name; gives width, depth and heads."""
    image_size: int = Field(default=224, ge=1)
    """Side of the square input in pixels."""
    patch_size: int = Field(default=16, ge=1)
    """Side of a patch in pixels; divides the image size."""
    channels: Literal[1, 3] = 3
    """1 for grey, 3 for colour."""
    registers: int = Field(default=0, ge=0)
    """Extra learned tokens beside the class token."""
    position: Literal["sincos", "learned"] = "sincos"
    """Fixed sine-cosine position embedding, or a learned one that starts from it."""

    @model_validator(mode="after")
    def _patches_fit(self) -> "EncoderConfig":
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}; "
                f"the nearest multiples are {self.image_size // self.patch_size * self.patch_size} and "
                f"{-(-self.image_size // self.patch_size) * self.patch_size}"
            )
        return self

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size


class DecoderConfig(Config):
    """The decoder of a masked objective."""

    kind: Literal["joint", "cross"] = "joint"
    """`joint` is MAE's self-attention over all tokens; with `cross`, queries see visible tokens only (CrossMAE)."""
    width: int = Field(default=512, ge=1)
    """Token dimension."""
    depth: int = Field(default=8, ge=1)
    """Number of blocks."""
    heads: int = Field(default=16, ge=1)
    """Attention heads."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of the masked patches that is decoded; below 1 only with kind `cross`."""

    @model_validator(mode="after")
    def _consistent(self) -> "DecoderConfig":
        if self.width % self.heads:
            raise ValueError(f"decoder width {self.width} is not a multiple of its {self.heads} heads")
        if self.kind == "joint" and self.fraction < 1:
            raise ValueError(
                f"decoder.fraction {self.fraction} needs decoder.kind=cross: a joint decoder attends over all tokens"
            )
        return self


class ObjectiveConfig(Config):
    """Base of the objectives' own blocks; `kind` picks one from `facemae.objectives.registry`."""

    kind: str
    """Name in the registry."""
    weight: float = Field(default=1.0, ge=0)
    """Factor of this term in the total loss."""
    view: str = "main"
    """The view that is encoded for this objective."""

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_kind(cls, value: Any, handler: Any) -> Any:
        # A plain mapping read from YAML becomes the configuration class of the objective it names.
        if cls is ObjectiveConfig and isinstance(value, dict):
            from facemae.objectives.registry import objective_config_class

            return objective_config_class(value.get("kind", "")).model_validate(value)
        return handler(value)


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
    clip: float | None = Field(default=None, gt=0)
    """Largest gradient norm; null for no clipping."""
    ema: Span | None = None
    """Half-life of the averaged weights; null keeps none."""
    max_bad_steps: int = Field(default=8, ge=0)
    """Consecutive updates that may be skipped for non-finite values before the run stops."""


class EfficiencyConfig(Config):
    """What makes a run fast and must not change its results beyond rounding."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the forward and backward pass; weights stay fp32. `auto` takes bf16 where the hardware has it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Samples per forward pass; null takes the whole share of the batch. Divides it."""
    workers: int | None = Field(default=None, ge=0)
    """Loader processes; null chooses from the cores. Never changes what is read."""
    threads: int | None = Field(default=None, ge=1)
    """Threads for the model on the CPU; null leaves torch's choice."""


class CheckpointConfig(Config):
    """When a run saves."""

    every: Span = SpanConfig(amount=5, unit="percent")
    """Distance between checkpoints."""
    keep: int = Field(default=2, ge=2)
    """Newest checkpoints kept; at least two, so a damaged one never leaves none."""


class LogConfig(Config):
    """What a run writes about itself."""

    every_steps: int = Field(default=10, ge=1)
    """Steps between log lines."""
    pictures: Span = SpanConfig(amount=10, unit="percent")
    """Distance between reconstruction pictures."""
    tensorboard: bool = True
    """Write TensorBoard events."""
    keys: bool = False
    """Write every consumed key to `log/keys.jsonl`; for audits."""


class Recipe(Config):
    """A whole pretraining system."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    """Version of this tree."""
    name: str
    """Name of the system."""
    about: str = ""
    """What it is, where its values come from."""
    fidelity: Literal["reference", "paper", "approximate", "own"] = "own"
    """How close it is to a published system: its code, its text, roughly, or none."""
    seed: int = Field(default=0, ge=0)
    """The one seed of the run."""
    data: DataConfig = DataConfig()
    """Streams and their order."""
    views: dict[str, ViewConfig] = Field(default_factory=lambda: {"main": ViewConfig()})
    """Views by name."""
    encoder: EncoderConfig = EncoderConfig()
    """The encoder."""
    objectives: tuple[SerializeAsAny[ObjectiveConfig], ...] = Field(min_length=1)
    """What is minimised; terms are weighted and added."""
    optim: OptimConfig = OptimConfig()
    """Optimiser and schedule."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Saving."""
    efficiency: EfficiencyConfig = EfficiencyConfig()
    """Speed; may change between starts of one run."""
    log: LogConfig = LogConfig()
    """Logging; may change between starts of one run."""

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        for objective in self.objectives:
            if objective.view not in self.views:
                raise ValueError(
                    f"objective {objective.kind!r} needs view {objective.view!r}; the recipe has {sorted(self.views)}"
                )
        for name, view in self.views.items():
            for part in ("mean", "std"):
                values = getattr(view.normalise, part)
                if len(values) != self.encoder.channels:
                    raise ValueError(
                        f"views.{name}.normalise.{part} has {len(values)} numbers; "
                        f"encoder.channels is {self.encoder.channels}"
                    )
        if self.optim.batch_size % self.data.lanes:
            raise ValueError(
                f"optim.batch_size {self.optim.batch_size} is not a multiple of data.lanes {self.data.lanes}"
            )
        return self
