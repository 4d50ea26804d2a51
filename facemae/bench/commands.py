"""`facemae bench`: ours against a named baseline, in one run."""

import importlib.metadata
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

if TYPE_CHECKING:
    from facemae.bench.report import BenchResult

GROUP = "facemae.benches"
"""Entry points of benches that other packages add, such as `facemae_probes`; each names a `typer.Typer`."""


class BenchGroup(TyperGroup):
    """The benches of this module, and those of installed packages."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names."""
        return [*super().list_commands(ctx), *sorted(importlib.metadata.entry_points(group=GROUP).names)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The bench of this name, or None."""
        found = super().get_command(ctx, cmd_name)
        for entry in importlib.metadata.entry_points(group=GROUP, name=cmd_name) if found is None else ():
            found = get_command(entry.load())
            found.name = cmd_name
        return found


app = typer.Typer(
    cls=BenchGroup,
    no_args_is_help=True,
    help="Measure ours against a named baseline in the same run; a ratio above 1 means ours is better.",
    rich_markup_mode="rich",
    add_completion=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]


def show(results: Iterable["BenchResult"], as_json: bool) -> None:
    """Print results to standard output."""
    for result in results:
        typer.echo(result.to_json() if as_json else result.to_text())


def tell(line: str) -> None:
    """Say how a measurement goes, beside its results."""
    typer.echo(line, err=True)


@app.command()
def data(
    images: Annotated[int, typer.Option(min=128, help="JPEG files to make and to read in each round.")] = 1024,
    size: Annotated[int, typer.Option(min=8, help="Side of the views in pixels.")] = 224,
    batch: Annotated[int, typer.Option(min=8, help="Samples in a batch; a multiple of 8.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="How often each side is measured, in turns.")] = 5,
    clips: Annotated[
        Path | None, typer.Option(help="Folder of videos with sound: measure clips of these instead of images.")
    ] = None,
    count: Annotated[int, typer.Option(min=8, help="Videos taken of that folder.")] = 24,
    as_json: Json = False,
) -> None:
    """Reading: shards through our loader against ImageFolder with PIL transforms, one worker each.

    Example: [bold]facemae bench data --json[/bold]

    With --clips: 16 frames of 160 pixels and their sound, packed, against decord on the original files.

    Example: [bold]facemae bench data --clips videos/[/bold]

    Both sides read the same 256-pixel JPEG files, which are drawn for the purpose, and must deliver the same tensor for
    the same crop within 2/255.
    """
    if clips is not None:
        from facemae.bench.data_clips import ClipDataBenchSettings, bench_clip_data

        show(bench_clip_data(clips, ClipDataBenchSettings(count, rounds=rounds), tell=tell), as_json)
        return
    from facemae.bench.data import DataBenchSettings, bench_data

    settings = DataBenchSettings(images=images, size=size, batch=batch, rounds=rounds)
    show(bench_data(settings, tell=tell), as_json)


@app.command()
def clips(
    clips: Annotated[
        Path | None, typer.Option(help="Folder of videos; procedural faces are filmed where not given.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Videos to take or to make.")] = 24,
    size: Annotated[int, typer.Option(min=16, help="Side of the crops in pixels; even.")] = 160,
    rounds: Annotated[int, typer.Option(min=1, help="How often each way is measured, in turns.")] = 5,
    as_json: Json = False,
) -> None:
    """Clips: each way to store and to read them, against reading 16 frames of the original videos by decord.

    Example: [bold]facemae bench clips --clips videos/ --json[/bold]

    One thread; the bytes are in memory. Beside clips/s, --json has bytes a clip and the error of a pixel.
    """
    from facemae.bench.clips import ClipsBenchSettings, bench_clips

    show(bench_clips(clips, ClipsBenchSettings(count, size, rounds), tell=tell), as_json)


@app.command()
def order(
    shards: Annotated[
        Path | None, typer.Argument(metavar="[SHARDS]", help="A shard set with subjects; simulated where not given.")
    ] = None,
    batch: Annotated[int, typer.Option(min=2, help="Samples in a global batch.")] = 256,
    lanes: Annotated[int, typer.Option(min=1, help="Lanes; divides the batch.")] = 8,
    block: Annotated[int | None, typer.Option(min=1, help="Shuffle within blocks of this many samples.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs to look at.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order.")] = 0,
    as_json: Json = False,
) -> None:
    """Order: pairs of one person or one shard within a batch, against drawing samples at random.

    Example: [bold]facemae bench order faces/ --batch 256[/bold]
    """
    from facemae.bench.order import OrderBenchSettings, bench_order

    settings = OrderBenchSettings(batch=batch, lanes=lanes, block=block, epochs=epochs, seed=seed)
    show(bench_order(shards, settings), as_json)


@app.command()
def index(
    samples: Annotated[int, typer.Option(min=1000, help="Samples in the index.")] = 10_000_000,
    lookups: Annotated[int, typer.Option(min=1, help="Random look-ups.")] = 100_000,
    folder: Annotated[Path | None, typer.Option(help="Where to put it meanwhile: 1.2 GB for ten million.")] = None,
    as_json: Json = False,
) -> None:
    """Index: opening a large one and looking up random samples, against memory-mapped columns.

    Example: [bold]facemae bench index --samples 1000000[/bold]
    """
    from facemae.bench.index import compare_index

    show(compare_index(samples, lookups, folder), as_json)


@app.command()
def faces(
    clips: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of videos with one face each, beside drawn ones.")
    ] = None,
    detector: Annotated[
        list[str] | None, typer.Option(help="Compare with this one; may be repeated. All that are known if not given.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many clips of each kind.")] = 20,
    frames: Annotated[int, typer.Option(min=3, help="At most so many frames of a clip.")] = 50,
    as_json: Json = False,
) -> None:
    """Faces: the default detector against others, and the steady box of a track against a box for each frame.

    Example: [bold]facemae bench faces --clips grid/ --detector haar-alt --detector yunet:model.onnx[/bold]

    Counts frames with the face found and wrong boxes, and measures the shake of the crop and frames/s on one core.
    """
    from facemae.bench.faces import FacesBenchSettings, bench_faces

    settings = FacesBenchSettings(limit, frames, tuple(detector or ()))
    show(bench_faces(clips, settings, tell=tell), as_json)


@app.command()
def attention(
    tokens: Annotated[
        list[int] | None, typer.Option(min=1, help="Length of a sequence; may be repeated. [default: 17 to 400]")
    ] = None,
    heads: Annotated[int, typer.Option(min=1, help="Heads.")] = 6,
    size: Annotated[int, typer.Option(min=1, help="Dimension of a head.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="How often each way is measured, in turns.")] = 7,
    as_json: Json = False,
) -> None:
    """Attention: as the trainer computes it on this machine, against the other way it could.

    Example: [bold]facemae bench attention --tokens 50 --tokens 197[/bold]

    Forward and backward, in bf16 and fp32, by itself. A ratio below 1 speaks against the choice on this machine; why it
    is what it is, docs/decisions/0020 says.
    """
    from facemae.bench.attention import AttentionBenchSettings, bench_attention

    settings = AttentionBenchSettings(heads=heads, size=size, rounds=rounds)
    show(bench_attention(replace(settings, tokens=tuple(tokens)) if tokens else settings), as_json)


@app.command()
def step(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes of the recipe for all sides.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Recipe whose decoder, views and optimiser are taken.")] = "fmae",
    encoder: Annotated[
        str | None, typer.Option(help="timm name of the encoder; vit_small_patch16_224 for recipe fmae, else its own.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(min=8, help="Side of the views in pixels.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Samples in a step.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Steps in a round of each side.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="How often each side is measured, in turns.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the model on the CPU.")] = None,
    run: Annotated[bool, typer.Option(help="Also measure a real run against its loader and its step.")] = True,
    quick: Annotated[bool, typer.Option("--quick", help="One step, two rounds: to see that it works.")] = False,
    as_json: Json = False,
) -> None:
    """A training step against one written with timm's blocks, in fp32 and under bf16 autocast; and a whole run.

    Example: [bold]facemae bench step --json[/bold], or [bold]facemae bench step efficiency.compile=blocks[/bold]

    With [bold]--recipe hicmae[/bold] it is one on clips with sound, in the authors' Small; no run is measured then.

    All sides start from the same weights, read the same batches with the same masks, and must have the same loss within
    0.01 at every step. Each is a process of its own, so that its peak memory is its own; they take turns.
    """
    from facemae.bench.step import StepBenchSettings, bench_step

    if encoder is None and recipe == "fmae":
        encoder = "vit_small_patch16_224"
    settings = StepBenchSettings(
        recipe,
        encoder,
        image_size,
        batch,
        1 if quick else steps,
        2 if quick else rounds,
        threads,
        tuple(overrides or ()),
    )
    show(bench_step(settings, run=run, tell=tell), as_json)
