"""Options that several commands of `facemae probe` and `facemae study` share, and how their text is read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facemae.errors import UsageError

if TYPE_CHECKING:
    from facemae_probes.choosing.plan import ProbePlan

Texts = list[str] | None

Model = Annotated[str, typer.Option(help="Run folder, checkpoint or exported encoder; or a baseline: pixels, hog.")]
Protocol = Annotated[
    str | None,
    typer.Option(
        help="official, kfold:K, folds:COLUMN, loso, few-shot:N, few-shot:P%, or paper:SYSTEM, a published way "
        "that chooses on test and is marked so. Default: the benchmark's, else official."
    ),
]
Draws = Annotated[int, typer.Option(min=1, help="Draws of a few-shot protocol.")]
TestData = Annotated[
    Path | None, typer.Option(help="Another shard set to be tested on: learn from --data, predict this one.")
]
TestLabel = Annotated[str | None, typer.Option(help="Its label column; default that of --data.")]
Mapping = Annotated[Texts, typer.Option("--map", help="THEIRS=OURS: a label of --test-data. Repeatable.")]
Clip = Annotated[str | None, typer.Option(help="COLUMN: samples with one value are the frames of one clip.")]
Frame = Annotated[str | None, typer.Option(help="COLUMN that orders the frames; default the order of keys.")]
Metric = Annotated[
    str | None, typer.Option(help="What settings are chosen by; default accuracy, macro-F1, or CCC by kind.")
]
Probes = Annotated[
    str,
    typer.Option(
        help="Comma-separated: linear, knn, attentive (tokens of stills), temporal (clips); finetune and scratch train "
        "the whole net, from the given and from random weights."
    ),
]
Layers = Annotated[str, typer.Option(help="`all`, or block numbers such as 5,11 or -1.")]
Poolings = Annotated[str, typer.Option(help="Comma-separated: mean, cls, cls+mean, gridK.")]
Where = Annotated[Texts, typer.Option(help="COLUMN=VALUE; only such samples. Repeatable.")]
Slices = Annotated[
    Texts,
    typer.Option("--slice", help="COLUMN=VALUE, or @FILE with a key a line; report this part of test too. Repeatable."),
]
GroupBy = Annotated[
    Texts, typer.Option(help="COLUMN: numbers for each of its values, and the largest gap. Repeatable.")
]
Unit = Annotated[str | None, typer.Option(help="Column of independent units, or `sample`; default subject.")]
Split = Annotated[
    str, typer.Option(help="Column of the parts train, valid and test; samples without a value are left out.")
]
RandomInit = Annotated[int | None, typer.Option(help="Seed; keep the architecture of MODEL, with random weights.")]
Cache = Annotated[Path | None, typer.Option(help="Folder of features; default OUT/features.")]
Seed = Annotated[int, typer.Option(help="Seed of everything drawn.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

Epochs = Annotated[float, typer.Option("--finetune-epochs", help="Length of fine-tuning.")]
LearningRates = Annotated[
    str, typer.Option("--finetune-lr", help="Comma-separated learning rates for a batch of 256, to choose from.")
]

ALL_PROBES = "linear,knn,attentive,temporal"
RATES = "5e-4,1e-3,2e-3"
POOLINGS = "mean,cls,grid2,grid4"


def read_plan(
    probe: str, layers: str, pooling: str, seed: int, metric: str | None = None, epochs: float = 10, rates: str = ""
) -> "ProbePlan":
    """The plan that options ask for.

    Raises:
        UsageError: A probe does not exist, or layers or learning rates are no numbers.
    """
    from facemae_probes.choosing.plan import ProbePlan
    from facemae_probes.finetune.plan import FinetunePlan

    return ProbePlan(
        probes=tuple(parse_names(probe)),  # type: ignore[arg-type]
        layers=parse_layers(layers),
        poolings=tuple(parse_names(pooling)),
        metric=metric,
        finetune=FinetunePlan(epochs=epochs, base_lrs=parse_numbers(rates or RATES, "--finetune-lr"), seed=seed),
        seed=seed,
    )


def model_source(model: str, data: Path, random_init: int | None = None) -> Any:
    """What `--model` names: a baseline, a run, a checkpoint or an exported encoder."""
    from facemae_probes.features.sources import EncoderSource, HogSource, PixelSource, pixel_input

    if model in ("pixels", "hog"):
        return (PixelSource if model == "pixels" else HogSource)(pixel_input(data))
    from facemae.features.extractor import load

    name = Path(model).name + ("" if random_init is None else f" (random weights, seed {random_init})")
    path = Path(model) if random_init is None else None
    return EncoderSource(load(model, random_init=random_init), name=name, path=path)


def parse_names(text: str) -> list[str]:
    """Parts of a comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_layers(text: str) -> tuple[int, ...] | None:
    """Layer numbers; None for `all`.

    Raises:
        UsageError: They are none.
    """
    if text.strip() == "all":
        return None
    try:
        return tuple(int(part) for part in parse_names(text))
    except ValueError:
        raise UsageError(f"--layers {text}", expected="`all`, or numbers such as 5,11 or -1") from None


def parse_numbers(text: str, option: str) -> tuple[float, ...]:
    """Numbers of a comma-separated list.

    Raises:
        UsageError: They are none.
    """
    try:
        return tuple(float(part) for part in parse_names(text))
    except ValueError:
        raise UsageError(f"{option} {text}", expected="comma-separated numbers") from None


def parse_pairs(texts: Texts, option: str, form: str) -> dict[str, str]:
    """A mapping from texts with an equals sign.

    Raises:
        UsageError: One has none.
    """
    pairs = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{option} {text}", expected=form)
        pairs[name] = value
    return pairs
