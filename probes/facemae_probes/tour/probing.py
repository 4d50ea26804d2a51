"""Probes of the quickstart: three questions, the trained encoder against the same encoder at random."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facemae_probes.choosing.plan import ProbePlan, Say
from facemae_probes.features.sources import EncoderSource
from facemae_probes.results.result import ProbeResult, compare_results
from facemae_probes.runner import run_probe
from facemae_probes.tour.settings import Places, Settings


@dataclass(frozen=True)
class Question:
    """One thing the features are asked.

    Attributes:
        name: What it is called.
        label: Label column or pattern.
        metric: The metric shown.
        split: Column that says which part a sample belongs to.
        about: What the test part is.
    """

    name: str
    label: str
    metric: str
    split: str
    about: str


QUESTIONS = (
    Question("expression", "expression", "accuracy", "split", "persons never seen in training"),
    Question("action units", "AU??", "macro_f1", "split", "persons never seen in training"),
    Question(
        "identity",
        "identity",
        "accuracy",
        "identity_split",
        "images of the training persons, held out from the probe; the encoder saw them without labels",
    ),
)
METRIC_NAMES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}


def probe_everything(places: Places, settings: Settings, say: Say) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Ask every question of both encoders.

    Returns:
        One row a question and probe kind, and the pictures by name, relative to the tour's folder.
    """
    from facemae.features.extractor import load

    sources = {
        "random": EncoderSource(load(places.run, random_init=settings.seed), name="random encoder"),
        "pretrained": EncoderSource(load(places.run), name="pretrained encoder"),
    }
    plan = ProbePlan(
        probes=("linear", "knn"),
        layers=settings.layers,
        poolings=settings.poolings,
        strengths=settings.strengths,
        seed=settings.seed,
        replicates=settings.replicates,
    )
    rows: list[dict[str, Any]] = []
    pictures: dict[str, str] = {}
    begun = 0
    for question in QUESTIONS:
        results = {}
        for name, source in sources.items():
            begun += 1
            say(f"      {begun} of {len(QUESTIONS) * len(sources)}: {question.name} of the {source.name} …")
            out = places.probes / question.name.replace(" ", "-") / name
            results[name] = run_probe(
                places.shards,
                source,
                question.label,
                plan=plan,
                kind="multilabel" if "?" in question.label else "classes",
                split=question.split,
                out=out,
                cache=places.probes / "features",
            )
            if name == "pretrained" and question.name != "identity":
                pictures[f"{question.name}: confusion"] = _picture(places.root, out, results[name])
        for probe in plan.probes:
            rows.append(_row(question, probe, results["random"], results["pretrained"], settings))
            say(_line(rows[-1]))
    return rows, pictures


def _picture(root: Path, out: Path, result: ProbeResult) -> str:
    return str((out / result.data["results"]["linear"]["picture"]).relative_to(root))


def _row(
    question: Question, probe: str, random: ProbeResult, trained: ProbeResult, settings: Settings
) -> dict[str, Any]:
    gain = compare_results(
        trained,
        random,
        probes=(probe, probe),
        metric=question.metric,
        replicates=settings.replicates,
        seed=settings.seed,
    )

    def found(result: ProbeResult) -> dict[str, float]:
        test = result.data["results"][probe]["test"]
        bounds = test["intervals"][question.metric]
        return {"value": test[question.metric], "low": bounds["low"], "high": bounds["high"]}

    return {
        "question": question.name,
        "probe": probe,
        "metric": question.metric,
        "about": question.about,
        "classes": len(trained.data["task"]["classes"]),
        "images": len(trained.keys),
        "units": gain.units,
        "unit": gain.unit,
        "constant": trained.data["constant"][question.metric],
        "random": found(random),
        "pretrained": found(trained),
        "gain": {"value": gain.value, "low": gain.low, "high": gain.high},
    }


def _line(row: dict[str, Any]) -> str:
    name = METRIC_NAMES[row["metric"]]
    return (
        f"      {row['question']}, {row['probe']}: {name} {row['pretrained']['value']:.3f}; "
        f"random encoder {row['random']['value']:.3f}, constant answer {row['constant']:.3f}"
    )
