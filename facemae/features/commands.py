"""`facemae extract`."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facemae.data.choices import Files, People
from facemae.features.clip_command import papers, refuse_others, run_clips, say, say_skipped

if TYPE_CHECKING:
    from facemae.features.extraction import Plan, Report
    from facemae.features.extractor import FeatureExtractor

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")


_CLIPS = "Videos, sounds and packed clips"


class Per(StrEnum):
    """What a row is."""

    WINDOW = "window"
    STEP = "step"


def _clip_option(text: str, **more: Any) -> Any:
    return typer.Option(help=text, rich_help_panel=_CLIPS, **more)


@app.command()
def extract(
    context: typer.Context,
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", help="Images, videos, sound files, folders of them, or shard sets.")
    ],
    model: Annotated[str, typer.Option(help="Run folder, checkpoint folder or exported encoder.")],
    out: Annotated[Path, typer.Option(help="File to write: .npz or .parquet.")],
    layer: Annotated[int, typer.Option(help="Block to read, from 0; -1 is the last, behind the final norm.")] = -1,
    pooling: Annotated[str, typer.Option(help="cls, mean, cls+mean, gridK (such as grid2) or tokens.")] = "mean",
    weights: Annotated[str, typer.Option(help="ema, model, or auto: averaged where the run keeps them.")] = "auto",
    where: Annotated[
        list[str] | None, typer.Option(help="Only samples of shard sets with this value: split=test.")
    ] = None,
    files: Annotated[Files, typer.Option(help="What to take of folders that hold images and videos.")] = Files.AUTO,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures per forward pass.")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    random_init: Annotated[
        int | None, typer.Option(help="Baseline: same architecture, random weights of this seed.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that decode images; chosen from the cores.")
    ] = None,
    per: Annotated[Per, _clip_option("A row for each window, or for each time step of it.")] = Per.WINDOW,
    window: Annotated[float | None, _clip_option("Seconds of a window; default: the encoder's own.")] = None,
    stride: Annotated[float | None, _clip_option("Seconds from window to window; default: no overlap.")] = None,
    fps: Annotated[float | None, _clip_option("Pictures a second for encoders of stills; default: 5.")] = None,
    people: Annotated[People, _clip_option("main: the most prominent face; all: each.")] = People.MAIN,
    detector: Annotated[
        str, _clip_option("Of videos: default, or yunet:PATH, retinaface:PATH, onnx:PATH[#sha256=…].")
    ] = "default",
    sound: Annotated[Path | None, _clip_option("Folder of separate sound files; default: beside the videos.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a frozen encoder's features of images, videos or sounds into a file.

    Example: [bold]facemae extract faces/ --model runs/first --out faces.parquet --pooling cls+mean[/bold]

    Example: [bold]facemae extract interviews/ --model runs/av --out clips.parquet --stride 1[/bold]

    Memory stays constant however many images there are and however long a video is. What does not decode, and a video
    without a face, is left out and named in the file's metadata and on the screen. Folders are walked recursively in
    the order of their names.

    Of a video faces are found, followed and cut out as in the model's training; a row has the seconds from which to
    which its window lasts, the person's number, and features of the face, of the sound beneath it, or both.
    """
    from facemae.features.clip_listing import kind_of
    from facemae.features.extraction import check_new
    from facemae.features.extractor import FeatureExtractor

    check_new(out, overwrite)
    kind = kind_of(paths, files.value)
    refuse_others(context, clips=kind == "videos")
    extractor = FeatureExtractor(
        model,
        layer=layer,
        pooling=pooling,
        weights=weights,
        batch_size=batch_size,
        device=device,
        precision=precision,
        random_init=random_init,
        workers=workers,
    )
    if kind == "videos":
        how = {"per": per.value, "window": window, "stride": stride, "fps": fps}
        run_clips(
            extractor, how, paths, out, where=_pairs(where or []), sound=sound, people=people.value, detector=detector,
            overwrite=overwrite, dry_run=dry_run, as_json=as_json,
        )  # fmt: skip
        return
    _run_images(extractor, paths, out, _pairs(where or []), overwrite, dry_run, as_json)


def _run_images(
    extractor: "FeatureExtractor",
    paths: list[Path],
    out: Path,
    where: dict[str, str],
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    from facemae.data.progress import progress
    from facemae.features.extraction import extract_features, plan_extraction
    from facemae.features.sources import open_paths

    source = open_paths(paths, where=where)
    plan = plan_extraction(extractor, source)
    for message in plan.warnings:
        say(f"warning: {message}")
    if dry_run:
        _print_plan(plan, out, as_json)
        return
    with progress("extracting") as advance:
        report = extract_features(extractor, source, out, plan=plan, overwrite=overwrite, progress=advance)
    _print_report(report, as_json)


def _pairs(texts: list[str]) -> dict[str, str]:
    from facemae.errors import UsageError

    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UsageError(f"--where {text!r}", expected="name=value, such as split=test")
        pairs[name] = value
    return pairs


def _print_plan(plan: "Plan", out: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "dry_run": True,
                    "out": str(out),
                    "images": plan.images,
                    "feature_shape": plan.feature_shape,
                    "bytes": plan.bytes,
                    "meta": plan.meta,
                }
            )
        )
        return
    shape = " x ".join(map(str, plan.feature_shape))
    typer.echo(f"would write {plan.images} rows of {shape} numbers, {plan.bytes / 1e6:.1f} MB, to {out}")
    typer.echo(papers(plan.meta))


def _print_report(report: "Report", as_json: bool) -> None:
    rate = report.images / max(report.seconds, 1e-9)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "out": str(report.out),
                    "images": report.images,
                    "skipped": report.meta["skipped"],
                    "seconds": round(report.seconds, 3),
                    "images_per_second": round(rate, 1),
                    "meta": report.meta,
                }
            )
        )
        return
    sizes = report.meta["sizes"]
    if sizes["scaled"]:
        low, high = min(sizes["heights"][0], sizes["widths"][0]), max(sizes["heights"][1], sizes["widths"][1])
        sides = f"{low}" if low == high else f"{low} to {high}"
        typer.echo(f"{sizes['scaled']} images with sides of {sides} pixels were scaled to {sizes['model']}")
    if report.skipped:
        typer.echo(f"{len(report.skipped)} images did not decode and were left out:")
        say_skipped(report.skipped)
    typer.echo(papers(report.meta))
    typer.echo(f"wrote {report.images} rows to {report.out} in {report.seconds:.1f} s ({rate:.0f} images/s)")
