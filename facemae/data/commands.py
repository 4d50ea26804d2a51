"""`facemae data …`: making, checking and changing shard sets."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from facemae.data.pack_command import register as register_pack
from facemae.data.synth_command import register as register_synth

app = typer.Typer(
    no_args_is_help=True, help="Make, check and change shard sets.", rich_markup_mode="rich", add_completion=False
)

Shards = Annotated[Path, typer.Argument(metavar="SHARDS", help="Folder of the shard set.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def _say(lines: list[str]) -> None:
    for line in lines:
        print(line)


@app.command()
def index(
    shards: Shards,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that read; default: the cores.")] = None,
    as_json: AsJson = False,
) -> None:
    """Index a folder of WebDataset shards, whoever wrote them.

    Reads every byte once. Shards an older index knows keep their place, new ones come behind them.

    Example: facemae data index shards/ferplus
    """
    from facemae.data.index import build_index
    from facemae.data.progress import progress

    with progress("indexing shards") as report:
        result = build_index(shards, workers=workers, progress=report)
    if as_json:
        _print_json({"samples": len(result), "shards": len(result.shards), "digest": result.digest})
    else:
        print(f"{len(result)} samples in {len(result.shards)} shards, digest {result.digest[:16]}")


@app.command()
def verify(
    shards: Shards,
    near: Annotated[
        int, typer.Option(min=-1, max=16, help="Bits in which near-duplicates may differ, of 64; -1: do not look.")
    ] = 4,
    out: Annotated[Path | None, typer.Option(help="CSV of the duplicates: key, cluster, kind, split, subject.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check shards against their index, and look for damage and duplicates.

    Every member's checksum is computed and every image decoded. Exact duplicates have the same pixels; near-duplicates
    have perceptual hashes that differ in few bits, and thumbnails that correlate. Exit code 1 if bytes changed or an
    image does not decode.

    Example: facemae data verify shards/ferplus --out duplicates.csv
    """
    from facemae.data.progress import progress
    from facemae.data.verify import verify_shards, write_duplicates

    with progress("verifying") as report:
        result = verify_shards(shards, near=None if near < 0 else near, progress=report)
    if out is not None:
        write_duplicates(result, out)
    if as_json:
        _print_json(result.as_dict())
    else:
        _say(result.lines())
    if not result.sound:
        print(f"facemae: {shards} is damaged", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def stats(
    shards: Shards,
    sheet: Annotated[Path | None, typer.Option(help="Contact sheet; default: SHARDS/contact-sheet.png.")] = None,
    images: Annotated[int, typer.Option(min=0, max=2000, help="Images on the sheet; 0: none.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the choice of images.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Count splits, labels, subjects and image sizes, and draw a contact sheet.

    Example: facemae data stats shards/ferplus
    """
    from facemae.data.index import SHEET
    from facemae.data.stats import contact_sheet, count_shards
    from facemae.errors import StorageError

    result = count_shards(shards)
    note = None
    if images:
        try:
            result.sheet = contact_sheet(shards, sheet or shards / SHEET, images=images, seed=seed)
        except StorageError as error:
            # Counting needs no right to write; only a sheet that was asked for is worth failing for.
            if sheet is not None:
                raise
            note = f"no contact sheet: {error.found}; choose a place for it with --sheet"
    if note is not None:
        print(f"facemae: {note}", file=sys.stderr)
    if as_json:
        _print_json(result.as_dict())
    else:
        _say(result.lines())


@app.command()
def drop(
    shards: Shards,
    subject: Annotated[list[str] | None, typer.Option(help="Erase all samples of this subject; repeatable.")] = None,
    key: Annotated[list[str] | None, typer.Option(help="Erase the sample of this key; repeatable.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be erased and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase samples of a subject or key from the shards, for good.

    Bytes, labels, subject and key go; the positions of the other samples stay, so runs that have started can continue:
    they read a named substitute.

    Example: facemae data drop shards/ferplus --subject S042
    """
    from facemae.data.drop import drop_samples

    result = drop_samples(shards, subjects=subject or (), keys=key or (), dry_run=dry_run)
    if as_json:
        _print_json(result.as_dict())
    else:
        _say(result.lines())


register_pack(app)
register_synth(app)
