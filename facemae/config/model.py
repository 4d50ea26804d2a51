"""The networks and what they learn."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from facemae.config.base import Config, OnlyWith

LabelCounts = Mapping[str, Mapping[str, Mapping[Any, int]]]
"""By stream and label column, how many samples have each value, None among them; only columns that the stream has."""


class EncoderConfig(Config):
    """The encoder: any plain ViT of timm, for stills or for clips."""

    name: str = "vit_base_patch16_224"
    """timm model name; gives width, depth and heads."""
    width: int | None = Field(default=None, ge=1)
    """Token dimension; null: as the named model has it."""
    depth: int | None = Field(default=None, ge=1)
    """Number of blocks; likewise."""
    heads: int | None = Field(default=None, ge=1)
    """Attention heads; likewise."""
    image_size: int = Field(default=224, ge=1)
    """Side of the square input in pixels."""
    patch_size: int = Field(default=16, ge=1)
    """Side of a patch in pixels; divides the image size."""
    channels: Literal[1, 3] = 3
    """1 for grey, 3 for colour."""
    registers: int = Field(default=0, ge=0)
    """Extra learned tokens beside the class token."""
    class_token: bool | None = None
    """Whether there is a class token; null: as the named model has it. VideoMAE and its heirs have none."""
    position: Literal["sincos", "learned", "sequence"] = "sincos"
    """Fixed sine-cosine position embedding, of clips over time and place; `learned` starts from it, stills only;
    `sequence`, clips only, is VideoMAE's: sine-cosine of a token's number in the whole clip."""
    tubelet: int | None = Field(default=None, ge=1)
    """Frames that a token of a clip spans; null makes an encoder of stills. To an encoder of clips a still is a clip of
    one step, the picture repeated."""
    frames: int | None = Field(default=None, ge=1)
    """Frames of the clips the positions are built for, a multiple of `tubelet`; views may have other numbers."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Stochastic depth (Huang et al. 2016): the share of samples for which a branch of the last block is left out in
    training, rising linearly from 0 in the first block. Nothing is left out of an exported or frozen encoder."""

    @model_validator(mode="after")
    def _patches_fit(self) -> "EncoderConfig":
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}; "
                f"the nearest multiples are {self.image_size // self.patch_size * self.patch_size} and "
                f"{-(-self.image_size // self.patch_size) * self.patch_size}"
            )
        return self

    @model_validator(mode="after")
    def _clips_fit(self) -> "EncoderConfig":
        if self.tubelet is None:
            if self.frames is not None:
                raise ValueError(
                    f"frames is {self.frames} and an encoder of stills has none; set tubelet, or frames=null"
                )
            if self.position == "sequence":
                raise ValueError("position 'sequence' numbers the tokens of a clip; set tubelet, or position=sincos")
            return self
        if self.frames is None:
            raise ValueError(
                f"tubelet is {self.tubelet} and frames is not set; a clip of 16 frames is usual: frames=16"
            )
        if self.frames % self.tubelet:
            raise ValueError(f"frames {self.frames} is not a multiple of tubelet {self.tubelet}")
        if self.position == "learned":
            raise ValueError("position 'learned' is of stills; with tubelet set position=sincos or sequence")
        return self

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def steps(self) -> int:
        """Steps in time of the clips the positions are built for; 1 for stills."""
        return 1 if self.tubelet is None or self.frames is None else self.frames // self.tubelet


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
    embed_bias: bool = True
    """Whether the map from the encoder's width to the decoder's has a bias; only kind `joint` has that map. MAE's has
    one, VideoMAE's and HiCMAE's have none."""
    mix_layers: tuple[int, ...] | None = None
    """0-based encoder blocks, the last among them: each decoder block reads a learned mix of their outputs. Only with
    kind `cross`; null lets all read the encoder's output."""
    skips: tuple[int, ...] | None = None
    """0-based encoder blocks, one for each decoder block but the first, which looks at its output beside the tokens it
    works on: HiCMAE's hierarchical skip connections, [9, 6, 3] there. Only with kind `joint`; null has none."""

    @model_validator(mode="after")
    def _consistent(self) -> "DecoderConfig":
        if self.width % self.heads:
            raise ValueError(f"decoder width {self.width} is not a multiple of its {self.heads} heads")
        if self.kind == "joint" and self.fraction < 1:
            raise ValueError(
                f"decoder.fraction {self.fraction} needs decoder.kind=cross: a joint decoder attends over all tokens"
            )
        if self.kind == "cross" and not self.embed_bias:
            raise ValueError("decoder.embed_bias=false needs decoder.kind=joint: a cross decoder has no such map")
        if self.mix_layers is not None:
            self._check_mix(self.mix_layers)
        if self.skips is not None:
            self._check_skips(self.skips)
        return self

    def _check_mix(self, layers: tuple[int, ...]) -> None:
        if self.kind == "joint":
            raise ValueError("decoder.mix_layers needs decoder.kind=cross: a joint decoder reads the encoder once")
        if not layers or list(layers) != sorted(set(layers)) or layers[0] < 0:
            raise ValueError(f"decoder.mix_layers {list(layers)}: different block numbers from 0 on, ascending")

    def _check_skips(self, skips: tuple[int, ...]) -> None:
        if self.kind == "cross":
            raise ValueError("decoder.skips needs decoder.kind=joint; decoder.mix_layers is what kind cross has")
        if not skips or len(skips) != self.depth - 1 or min(skips) < 0:
            raise ValueError(
                f"decoder.skips {list(skips)} of a decoder with {self.depth} blocks: one encoder block, from 0 on, for "
                f"each but the first, so {self.depth - 1}"
            )


class CriticConfig(Config):
    """A critic that tells reconstructed patches from real ones, as MARLIN: a Wasserstein GAN in one backward pass."""

    weight: float = Field(default=0.01, gt=0)
    """How much the reconstruction is to please the critic; of the squared error's weight of 1. The critic's own loss
    has weight 1."""
    hidden: int | None = Field(default=None, ge=1)
    """Numbers between its two layers; null takes MARLIN's, four times the decoder's width."""


class HeadConfig(Config):
    """A projection head: an MLP whose output is scaled to length one."""

    depth: int = Field(default=2, ge=1)
    """Number of linear layers."""
    hidden: Annotated[int, OnlyWith("depth", lambda depth: depth > 1)] = Field(default=2048, ge=1)
    """Dimension between them."""
    out: int = Field(default=128, ge=1)
    """Dimension of the projection."""
    norm: Annotated[Literal["layer", "none"], OnlyWith("depth", lambda depth: depth > 1)] = "layer"
    """What follows the hidden layers. The published heads have batch norm; see `facemae.models.heads`."""


class ObjectiveConfig(Config):
    """Base of the objectives' own blocks; `kind` picks one from `facemae.objectives.registry`."""

    compares_samples: ClassVar[bool] = False
    """Whether it sets samples against each other, and so may exchange rows between processes."""

    kind: str
    """Name in the registry."""
    weight: float = Field(default=1.0, ge=0)
    """Factor of this term in the total loss."""

    def view_names(self) -> tuple[str, ...]:
        """The views it encodes; the recipe must have them."""
        return ()

    def sound_names(self) -> tuple[str, ...]:
        """The sounds it encodes; likewise."""
        return ()

    def either_names(self) -> tuple[str, ...]:
        """What it encodes beside, be it a view or a sound; likewise."""
        return ()

    def fused_names(self) -> tuple[str, ...]:
        """Those of them that it takes after fusion."""
        return ()

    def group_size(self, batch_size: int) -> int:
        """Samples that are compared with each other, in a global batch of this size.

        Raises:
            ConfigError: They do not divide the batch, or it is too small.
        """
        return 1

    def remark(self, total: int, batch: int) -> str | None:
        """What to say at the start of a run of so many samples, where a setting does not fit its length."""
        return None

    def label_columns(self) -> tuple[str, ...]:
        """Metadata columns it learns from."""
        return ()

    def completed(self, found: Callable[[], LabelCounts], started: "ObjectiveConfig | None") -> "ObjectiveConfig":
        """With what it leaves to the data filled in.

        Args:
            found: Gives the values of its label columns.
            started: What the run was started with, where it goes on.
        """
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_kind(cls, value: Any, handler: Any) -> Any:
        # A plain mapping read from YAML becomes the configuration class of the objective it names.
        if cls is ObjectiveConfig and isinstance(value, dict):
            from facemae.objectives.registry import objective_config_class

            return objective_config_class(value.get("kind", "")).model_validate(value)
        return handler(value)
