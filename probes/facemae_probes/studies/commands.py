"""`facemae study`: one command from raw data to a table of results."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from facemae_probes.commands import options

Out = Annotated[Path, typer.Option(help="Folder of the study; the same command continues it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print results.json instead of the report.")]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="One command from data to a table of results.",
)


@app.callback()
def group() -> None:
    """One command from data to a table of results."""


@app.command("ferplus")
def ferplus(
    data: Annotated[Path, typer.Option(help="FER+ images with labels.csv, or an indexed shard set packed from them.")],
    out: Out,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to the recipe, such as optim.total=80.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Recipe that is pretrained.")] = "fmae_tiny_rising",
    layers: options.Layers = "5,8,11",
    pooling: Annotated[str, typer.Option(help="Comma-separated: mean, cls, cls+mean, gridK.")] = "mean,grid2,grid4",
    probe: Annotated[str, typer.Option(help="Comma-separated: linear, knn, attentive.")] = "linear,knn,attentive",
    json_output: AsJson = False,
) -> None:
    """Pretrain on the train split of FER+, probe the frozen encoder, compare with its baselines.

    Baselines are the same encoder with random weights, raw pixels and HOG. Probe, layer and pooling are chosen on the
    valid split. What is already done is not done again.

    Example: facemae study ferplus --data fer2013plus --out studies/ferplus
    """
    from dataclasses import replace

    from facemae_probes.studies.ferplus import PLAN, run_study

    plan = replace(
        PLAN,
        probes=tuple(options.parse_names(probe)),  # type: ignore[arg-type]
        layers=options.parse_layers(layers),
        poolings=tuple(options.parse_names(pooling)),
    )
    results = run_study(
        data,
        out,
        recipe=recipe,
        overrides=overrides or (),
        plan=plan,
        command=_command(
            "ferplus",
            [("data", data), ("out", out)],
            {"recipe": recipe, "layers": layers, "pooling": pooling, "probe": probe},
            overrides or (),
        ),
        say=options.say,
    )
    _show(results, out, json_output)


@app.command("equal-time")
def equal_time(
    out: Out,
    data: Annotated[
        Path | None, typer.Option(help="FER+ images with labels.csv, or an indexed shard set packed from them.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="Pretraining time of each system; may be a fraction.")] = 60,
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds of pretraining.")] = "0,1",
    systems: Annotated[
        str, typer.Option(help="A YAML file of systems, or comma-separated names of built-in ones, or `all`.")
    ] = "",
    only: Annotated[str | None, typer.Option(metavar="NAME", help="Only the units of this system or baseline.")] = None,
    seed: Annotated[int | None, typer.Option(help="Only the units with this seed.")] = None,
    probe: Annotated[
        str, typer.Option(help="quick or full: how many layers, poolings and settings are tried.")
    ] = "quick",
    baselines: Annotated[bool, typer.Option(help="Also probe random weights and HOG.")] = True,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of calibration.")] = 3,
    round_seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of a system in a round.")] = 20,
    calibrate_only: Annotated[bool, typer.Option("--calibrate-only", help="Measure the rates, train nothing.")] = False,
    recalibrate: Annotated[bool, typer.Option("--recalibrate", help="Measure the rates again.")] = False,
    accept_calibration: Annotated[
        bool, typer.Option("--accept-calibration", help="Take rates of another machine or other code.")
    ] = False,
    imports: Annotated[
        list[Path] | None, typer.Option("--import", help="Folder with units made elsewhere; repeatable.")
    ] = None,
    report_only: Annotated[bool, typer.Option("--report-only", help="Write the table of the units there are.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON instead of the report.")] = False,
) -> None:
    """Pretrain several systems on FER+ for equally long, probe them frozen, and compare.

    The rate of every system is measured first, in turns; a system trains for its rate times the minutes, counted in
    samples. So runs may be stopped, continued, and share the machine. Systems and seeds are finished one by one; the
    report is written from those there are.

    Example: facemae study equal-time --data fer2013plus --out studies/equal-time --minutes 60 --seeds 0,1
    """
    from facemae.errors import UsageError
    from facemae_probes.studies.calibration import Rounds
    from facemae_probes.studies.equal_time import Calibrating, Table, run_equal_time, seeds_of, systems_of
    from facemae_probes.studies.equal_time_report import write_table
    from facemae_probes.studies.units import import_units

    table = Table(systems_of(options.parse_names(systems)), minutes, seeds_of(seeds), probe, baselines)
    for folder in imports or ():
        for name in import_units(folder, out):
            typer.echo(f"imported {name}", err=True)
    given = {"minutes": f"{minutes:g}", "seeds": seeds, "probe": probe}
    given |= {"systems": Path(systems).name} if systems else {}
    given |= {} if baselines else {"no-baselines": ""}
    given |= {"report-only": ""} if report_only else {}
    folders = [] if data is None else [("data", data)]
    folders += [("import", folder) for folder in imports or ()]
    command = _command("equal-time", [*folders, ("out", out)], given)
    if report_only:
        results = write_table(out, table.wanted(), command)
    elif data is None:
        raise UsageError("no --data", expected="FER+ images or a shard set of them; only --report-only needs none")
    else:
        calibrating = Calibrating(Rounds(rounds, round_seconds), recalibrate, accept_calibration, calibrate_only)
        results = run_equal_time(
            data,
            out,
            table,
            only=only,
            seed=seed,
            calibrating=calibrating,
            command=command,
            say=options.say,
        )
    if calibrate_only and not json_output:
        typer.echo(json.dumps(results, indent=1))
    else:
        _show(results, out, json_output)


@app.command("copies")
def copies(
    data: Annotated[Path, typer.Option(help="Indexed shard set of stills.")],
    count: Annotated[int, typer.Option(min=1, help="Images that are altered.")] = 1000,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """How many altered copies of these images `facemae probe contamination` would find, and how often it errs.

    Example: facemae study copies --data shards/ferplus
    """
    from facemae_probes.studies.copies import lines, study_copies

    found = study_copies(data, count=count)
    typer.echo(json.dumps(found) if json_output else "\n".join(lines(found)))


@app.command("av-retrieval")
def av_retrieval(
    data: Annotated[Path, typer.Option(help="Indexed shard set of clips with sound, packed with --subject-column.")],
    out: Out,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to the recipe, such as efficiency.threads=1.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Recipe with a contrast of clips and the sound beneath.")] = "sync_tiny",
    subject: Annotated[
        str | None, typer.Option(help="Speaker that is learned from; the one with most clips unless given.")
    ] = None,
    held: Annotated[int, typer.Option(min=2, help="Clips of that speaker that are held out.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the held-out clips and of intervals.")] = 0,
    tune: Annotated[
        int | None,
        typer.Option(min=2, help="For choosing settings: hold out so many training clips, look at no held-out one."),
    ] = None,
    show: Annotated[
        Path | None, typer.Option(help="Shard set whose clips are shown reconstructed instead of held-out people.")
    ] = None,
    json_output: AsJson = False,
) -> None:
    """Train on one speaker's clips, and look for the sound of held-out seconds by their pictures, and back.

    Against the same run with the contrast off, the sound shifted inside the clip, random weights, a linear map, and
    other speakers. Intervals are over clips.

    Example: facemae study av-retrieval --data shards/grid --out studies/retrieval efficiency.threads=1
    """
    from facemae_probes.studies.retrieval.study import Asked, run_study

    asked = Asked(recipe, tuple(overrides or ()), subject, held, seed, tune, show)
    given = {"recipe": recipe, "held": str(held), "seed": str(seed)}
    given |= {"subject": subject} if subject else {}
    given |= {"tune": str(tune)} if tune else {}
    given |= {"show": show.resolve().name} if show else {}
    results = run_study(
        data,
        out,
        asked,
        command=_command("av-retrieval", [("data", data), ("out", out)], given, overrides or ()),
        say=options.say,
    )
    _show(results, out, json_output)


@app.command("clip-labels")
def clip_labels(
    data: Annotated[Path, typer.Option(help="Indexed shard set of procedural clips: data synth --clips, data pack.")],
    out: Out,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to the recipe on clips, such as 'optim.total=20 epochs'.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Recipe on clips, with or without sound.")] = "hicmae_tiny",
    still: Annotated[str, typer.Option(help="Recipe on stills that it is compared with.")] = "fmae_tiny",
    still_set: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Change to the recipe on stills; repeatable.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Set of clips drawn with another seed, to be tested on instead; all of it.")
    ] = None,
    layers: Annotated[
        str, typer.Option(help="Blocks to choose from on valid: 0 is the first, -1 the last, behind the final norm.")
    ] = "-5,-3,-1",
    pooling: Annotated[str, typer.Option(help="mean or gridK.")] = "mean",
    seed: Annotated[int, typer.Option(min=0, help="Seed of intervals.")] = 0,
    json_output: AsJson = False,
) -> None:
    """Pretrain on procedural clips, and probe the frozen encoders for labels that need motion or sound.

    Against the same encoders with random weights, and a recipe on stills. What is already done is not done again.

    Example: facemae study clip-labels --data shards/talking --out studies/clip-labels
    """
    from facemae.errors import UsageError
    from facemae_probes.studies.clip_labels import Asked, run_study

    blocks = options.parse_layers(layers)
    if blocks is None:
        raise UsageError("--layers all", expected="numbers, such as -5,-3,-1: encoders here differ in depth")
    asked = Asked(recipe, still, tuple(overrides or ()), tuple(still_set or ()), test, blocks, pooling, seed)
    given = {"recipe": recipe, "still": still, "layers": layers, "pooling": pooling, "seed": str(seed)}
    given |= {"test": test.resolve().name} if test else {}
    changed = [word for text in still_set or () for word in ("--still-set", text)]
    results = run_study(
        data,
        out,
        asked,
        command=_command("clip-labels", [("data", data), ("out", out)], given, [*changed, *(overrides or ())]),
        say=options.say,
    )
    _show(results, out, json_output)


@app.command("leak")
def leak(
    data: Annotated[
        Path, typer.Option(help="Indexed shard set with splits train, valid, test; its labels play no part.")
    ],
    model: Annotated[str, typer.Option(help="Run, checkpoint or exported encoder; or `pixels` or `hog`.")],
    out: Annotated[Path, typer.Option(help="Folder of features and leak.json.")],
    permutations: Annotated[int, typer.Option(min=2, help="Draws of random labels.")] = 50,
    test: Annotated[int, typer.Option(min=20, max=400, help="Test samples.")] = 400,
    layers: options.Layers = "-7,-5,-3,-1",
    pooling: options.Poolings = options.ALL,
    seed: options.Seed = 0,
    json_output: Annotated[bool, typer.Option("--json", help="Print leak.json.")] = False,
) -> None:
    """Give features random labels, and see whether choosing settings finds something where there is nothing.

    Exit code 1 if the honest way leaves the band of chance, or the way that chooses on test does not.

    Example: facemae study leak --data shards/raf-db --model runs/first --out studies/leak
    """
    from facemae_probes.choosing.plan import ProbePlan
    from facemae_probes.studies.leak import LeakSize, leak_study, lines

    plan = ProbePlan(
        probes=("linear", "knn"),
        layers=options.parse_layers(layers),
        poolings=options.parse_poolings(pooling),
        seed=seed,
    )
    size = LeakSize(train=2 * test, valid=test, test=test, permutations=permutations)
    found = leak_study(data, options.model_source(model, data), out, size, plan, say=options.say)
    typer.echo(json.dumps(found) if json_output else "\n".join(lines(found)))
    if not (found["honest"]["inside_band"] and found["paper"]["above_percentile_99"]):
        raise typer.Exit(1)


def _show(results: dict[str, Any], out: Path, json_output: bool) -> None:
    """What a study that writes a report prints."""
    typer.echo(json.dumps(results) if json_output else (out / "report" / "report.md").read_text(encoding="utf-8"))


def _command(
    study: str, folders: Sequence[tuple[str, Path]], given: dict[str, str], overrides: Sequence[str] = ()
) -> str:
    """The command line with every option, and folders by name: reports are published."""
    import shlex

    words = ["facemae", "study", study]
    for name, folder in folders:
        words += [f"--{name}", folder.resolve().name]
    for name, value in given.items():
        words += [f"--{name}", value] if value else [f"--{name}"]
    return shlex.join([*words, *overrides])
