"""How an encoder is fine-tuned, and what is chosen among."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from facemae.errors import UsageError


@dataclass(frozen=True)
class Augmentation:
    """Random changes of the training images.

    Attributes:
        scale: Range of the crop's share of the image's area.
        ratio: Range of its width over height.
        flip: Mirror half of the images.
        colour: Share of the images whose brightness and contrast change.
        brightness: How much, as in a view's colour block.
        contrast: Likewise.
    """

    scale: tuple[float, float] = (0.7, 1.0)
    ratio: tuple[float, float] = (0.9, 1 / 0.9)
    flip: bool = True
    colour: float = 0.8
    brightness: float = 0.2
    contrast: float = 0.2


@dataclass(frozen=True)
class FinetuneOption:
    """What a candidate is told apart by.

    Attributes:
        base_lr: Learning rate for a batch of 256.
    """

    base_lr: float


@dataclass(frozen=True)
class FinetunePlan:
    """How an encoder is fine-tuned. The weights at the end are used, averaged or last: never those of a best epoch.

    The defaults are those of recipe `finetune_tiny`, after MAE's fine-tuning (He et al. 2022, table 9).

    Attributes:
        epochs: Length in epochs of the rows it learns from.
        least_steps: Where few rows make the epochs shorter than this, they are seen more often.
        base_lrs: Learning rates to choose from, for a batch of 256.
        warmup: Linear warm-up, in percent of the run.
        layer_decay: Factor of the learning rate from block to block, or None; for given weights only (see `scratch`).
        drop_path: Rate of stochastic depth in the last block.
        mixup: Beta's alpha, or None for no mixing.
        smoothing: Label smoothing, for classes.
        dropout: Dropout in front of the head.
        weight_decay: Decoupled weight decay.
        clip: Largest gradient norm, or None.
        ema: Half-life of the averaged weights in percent of the run; None uses the last ones.
        batch_size: Samples of a step, fewer where a fold has fewer.
        pool: What the head sees.
        augmentation: Random changes of the images.
        from_scratch: The same net from random weights in place of the given ones: what pretraining is worth.
        seed: Seed of everything drawn, of random weights too.
    """

    epochs: float = 10
    least_steps: int = 200
    base_lrs: tuple[float, ...] = (5e-4, 1e-3, 2e-3)
    warmup: float = 10
    layer_decay: float | None = 0.75
    drop_path: float = 0.1
    mixup: float | None = None
    smoothing: float = 0.1
    dropout: float = 0.0
    weight_decay: float = 0.05
    clip: float | None = 1.0
    ema: float | None = 5
    batch_size: int = 64
    pool: Literal["mean", "cls", "cls+mean"] = "mean"
    augmentation: Augmentation = Augmentation()
    from_scratch: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.base_lrs or self.epochs <= 0 or self.batch_size < 2:
            raise UsageError(
                f"fine-tuning with {len(self.base_lrs)} learning rates, {self.epochs:g} epochs, batches of "
                f"{self.batch_size}",
                expected="one learning rate or more, a positive length, and batches of two or more",
            )

    def options(self) -> tuple[FinetuneOption, ...]:
        """The candidates; the first is taken where there is nothing to choose on."""
        return tuple(FinetuneOption(base_lr) for base_lr in self.base_lrs)

    def scratch(self) -> "FinetunePlan":
        """The same plan for random weights, which learn at one rate in all blocks.

        Layer decay spares weights that are good already. With 0.75 the first of twelve blocks learns at a thirtieth of
        the rate, so a random net would lose to a pretrained one for that alone.
        """
        return replace(self, from_scratch=True, layer_decay=None)

    def facts(self) -> dict[str, Any]:
        """All that holds for every candidate, as plain values."""
        return {name: value for name, value in asdict(self).items() if name != "base_lrs"}
