"""`facemae extract`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from facemae.features.extraction import Plan, Report

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")

_SHOWN = 5


@app.command()
def extract(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Images, folders of images, or shard sets.")],
    model: Annotated[str, typer.Option(help="Run folder, checkpoint folder or exported encoder.")],
    out: Annotated[Path, typer.Option(help="File to write: .npz or .parquet.")],
    layer: Annotated[int, typer.Option(help="Block to read, from 0; -1 is the last, behind the final norm.")] = -1,
    pooling: Annotated[str, typer.Option(help="cls, mean, cls+mean, gridK (such as grid2) or tokens.")] = "mean",
    weights: Annotated[str, typer.Option(help="ema, model, or auto: averaged where the run keeps them.")] = "auto",
    where: Annotated[
        list[str] | None, typer.Option(help="Only samples of shard sets with this value: split=test.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    random_init: Annotated[
        int | None, typer.Option(help="Baseline: same architecture, random weights of this seed.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding threads; chosen from the cores.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a frozen encoder's features of images into a file.

    Example: [bold]facemae extract faces/ --model runs/first --out faces.parquet --pooling cls+mean[/bold]

    Memory stays constant however many images there are. An image that does not decode is left out and named in the
    file's metadata and on the screen. Folders are walked recursively in the order of their names.
    """
    from facemae.data.progress import progress
    from facemae.features.extraction import check_new, extract_features, plan_extraction
    from facemae.features.extractor import FeatureExtractor
    from facemae.features.sources import open_paths

    check_new(out, overwrite)
    source = open_paths(paths, where=_pairs(where or []))
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
    plan = plan_extraction(extractor, source)
    for message in plan.warnings:
        _say(f"warning: {message}")
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


def _say(text: str) -> None:
    print(text, file=sys.stderr)


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
    typer.echo(_papers(plan.meta))


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
        for skip in report.skipped[:_SHOWN]:
            typer.echo(f"  {skip.reason}")
        if len(report.skipped) > _SHOWN:
            typer.echo(f"  and {len(report.skipped) - _SHOWN} more; all are named in the file's metadata")
    typer.echo(_papers(report.meta))
    typer.echo(f"wrote {report.images} rows to {report.out} in {report.seconds:.1f} s ({rate:.0f} images/s)")


def _papers(meta: dict[str, object]) -> str:
    """The model and crop recipes in two lines; what is unknown is said to be."""
    model, crop, sources = meta["model"], meta["crop"], meta["sources"]
    assert isinstance(model, dict)
    assert isinstance(crop, dict)
    assert isinstance(sources, list)
    lines = [
        f"model {model['recipe']}, {model['weights']} weights, step {model.get('step', '?')}, {model['digest'][:12]}",
        f"layer {meta['layer']}, pooling {meta['pooling']}",
        f"faces cut for the model: {_crop_text(crop['model'])}",
    ]
    lines += [f"faces cut in {source['name']}: {_crop_text(source['crop'])}" for source in sources]
    return "\n".join(lines)


def _crop_text(crop: dict[str, object]) -> str:
    return ", ".join(f"{name} {crop[name]}" for name in ("detector", "margin", "alignment", "colour"))
