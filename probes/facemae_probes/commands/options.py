"""What several commands of `facemae probe` and `facemae study` share: options, and how their text is read."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facemae.errors import UsageError

if TYPE_CHECKING:
    from facemae_probes.choosing.plan import ProbePlan
    from facemae_probes.finetune.plan import FinetunePlan

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
TestWhere = Annotated[Texts, typer.Option(help="COLUMN=VALUE; only such samples of --test-data. Repeatable.")]
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
Poolings = Annotated[
    str,
    typer.Option(
        help="Comma-separated: mean, cls, cls+mean, gridK; `all`: mean, grid2, grid4, and cls if the encoder has one."
    ),
]
Where = Annotated[
    Texts, typer.Option(help="COLUMN=VALUE; only such samples, with --test-data of those learnt from. Repeatable.")
]
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

Finetune = Annotated[
    Texts,
    typer.Option(
        help="KEY=VALUE of finetune and scratch: epochs=5, base_lrs=[5e-4,1e-3], layer_decay=0.65, drop_path=0.1, "
        "mixup=0.2, ema=null for the last weights, … Repeatable; see docs/fine-tuning.md."
    ),
]

ALL_PROBES = "linear,knn,attentive,temporal"
ALL = "all"


def say(text: str) -> None:
    """Tell how a command goes, beside what it prints in the end."""
    typer.echo(text, err=True)


def read_plan(
    probe: str, layers: str, pooling: str, seed: int, metric: str | None = None, finetune: Texts = None
) -> "ProbePlan":
    """The plan that options ask for.

    Raises:
        UsageError: A probe does not exist, layers are no numbers, or fine-tuning has no such setting.
    """
    from facemae_probes.choosing.plan import ProbePlan

    return ProbePlan(
        probes=tuple(parse_names(probe)),  # type: ignore[arg-type]
        layers=parse_layers(layers),
        poolings=parse_poolings(pooling),
        metric=metric,
        finetune=_finetune(finetune, seed),
        seed=seed,
    )


def _finetune(texts: Texts, seed: int) -> "FinetunePlan":
    import yaml
    from pydantic import TypeAdapter, ValidationError

    from facemae_probes.finetune.plan import FinetunePlan

    given = parse_pairs(texts, "--finetune", "KEY=VALUE")
    known = [field.name for field in fields(FinetunePlan) if field.name not in ("from_scratch", "seed")]
    if unknown := [name for name in given if name not in known]:
        raise UsageError(f"--finetune {unknown[0]}=…", expected=f"one of {', '.join(known)}")
    try:
        values = {name: _number(yaml.safe_load(text)) for name, text in given.items()}
        plan: FinetunePlan = TypeAdapter(FinetunePlan).validate_python({**values, "seed": seed})
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"])
        raise UsageError(f"--finetune {name}: {problem['msg']}", expected="KEY=VALUE") from None
    except yaml.YAMLError:
        raise UsageError(f"--finetune {texts}", expected="KEY=VALUE with a value as in YAML") from None
    return plan


def _number(value: Any) -> Any:
    """YAML reads 5e-4 as a text; here it is a number."""
    if isinstance(value, list):
        return tuple(_number(each) for each in value)
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def model_source(model: str, data: Path, random_init: int | None = None) -> Any:
    """What `--model` names: a baseline, a run, a checkpoint or an exported encoder.

    Raises:
        UsageError: Random weights of a baseline were asked for.
    """
    from facemae_probes.features.sources import EncoderSource, HogSource, PixelSource, pixel_input

    if model in ("pixels", "hog"):
        if random_init is not None:
            raise UsageError(f"--random-init with --model {model}", expected="a net, whose weights can be drawn")
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


def parse_poolings(text: str) -> tuple[str, ...] | None:
    """Names of poolings; None for `all`."""
    return None if text.strip() == ALL else tuple(parse_names(text))


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
