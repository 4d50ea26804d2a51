"""What decides a number is in its identity: every module that is imported on the way, unless it is exempt here."""

import ast
import shutil
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import facemae
import facemae_probes
from facemae.data.card import CARD, read_card
from facemae.data.schema import CropRecipe, ModelInput
from facemae.files import write_text
from facemae_probes.choosing.plan import ProbePlan
from facemae_probes.contamination import check
from facemae_probes.features.sources import PixelSource
from facemae_probes.finetune import fold
from facemae_probes.results import identity
from facemae_probes.runner import run_probe

EXEMPT = {
    "facemae.data.card": "shown: its content is in the request",
    "facemae.data.columns": "storage: the index says by a digest what it holds",
    "facemae.data.erasure": "storage: the index says by a digest what it holds",
    "facemae.data.index_build": "storage: the index says by a digest what it holds",
    "facemae.data.scan": "storage: the index says by a digest what it holds",
    "facemae.data.splits": "storage: the index says by a digest what it holds",
    "facemae.checkpoint_folders": "storage: weights are known by a digest",
    "facemae.errors": "errors",
    "facemae.extras": "errors",
    "facemae.files": "files",
    "facemae.parallel": "machine: how many work, not on what",
    "facemae_probes.results.identity": "identity: what it says is compared",
    "facemae_probes.results.pictures": "report",
    "facemae_probes.results.report": "report",
    "facemae_probes.results.request": "identity: what it says is compared",
    "facemae_probes.results.result": "report",
    "facemae_probes.results.table": "report",
    "facemae_probes.results.words": "report",
}
"""Cannot change a number; why."""
EXEMPT_OF_PROBES = {
    "facemae.checkpoint": "storage: weights are known by a digest",
    "facemae.config": "by value: the encoder's settings are in the key",
    "facemae.data.metadata": "storage: the labels themselves are in the request",
    "facemae.models.init": "by value: weights are known by a digest",
    "facemae.objectives": "by value: names in a recipe's schema",
    "facemae_probes.finetune": "tuning: asked of the tuning code",
}
EXEMPT_OF_TUNING = {
    "facemae.config.monitor": "monitor",
    "facemae.data.quarantine": "record",
    "facemae.data.workers": "machine: how many work, not on what",
    "facemae.revision": "record",
    "facemae.train.announcement": "record: what a start says",
    "facemae.train.hardware.allocator": "machine",
    "facemae.train.hardware.device": "machine",
    "facemae.train.hardware.resident": "machine",
    "facemae.train.hardware.work": "record",
    "facemae.train.labels": "errors: looks at labels before a run starts",
    "facemae.train.monitor": "monitor",
    "facemae.train.processes": "machine: results are those of one process",
    "facemae.train.record": "record, loggers, progress",
    "facemae.train.saving": "storage",
    "facemae.train.stages": "progress",
}
EXEMPT_OF_CONTAMINATION = {"facemae.data.metadata": "storage: the splits themselves are in the key"}
EXEMPT_OF_STILLS = {
    "facemae.data.clips.settings": "clips: how videos are cut",
    "facemae.data.regions": "masks: maps beside a picture, none of its pixels",
    "facemae.features.clip_input": "clips: what an encoder expects of them",
    "facemae.sound.mel": "sound",
    "facemae.sound.wave": "sound",
    "facemae.video": "clips: frames of videos",
}
"""Imported by what clips and stills share; probes read stills."""
TUNING = ("facemae_probes.finetune.fold", "facemae.prediction")
CLIPS = "facemae.features.clips"


@cache
def _modules() -> dict[str, Path]:
    found = {}
    for package in (facemae, facemae_probes):
        root = Path(str(package.__file__)).parent
        for path in root.rglob("*.py"):
            parts = (root.name, *path.relative_to(root).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imports(source: str) -> Iterator[str]:
    """Names of modules that a module imports, within functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _reached(starts: Iterable[str], stop: Iterable[str] = ()) -> set[str]:
    known, seen, left = _modules(), set(stop), list(starts)
    while left:
        if (name := left.pop()) not in seen and name in known:
            seen.add(name)
            left += _imports(known[name].read_text(encoding="utf-8"))
    return seen - set(stop)


def _missing(reached: set[str], listed: Iterable[str], exempt: dict[str, str]) -> list[str]:
    known = {name.removesuffix(".__init__") for name in listed}
    within = tuple(f"{name}." for name in exempt)
    # A package of which only modules decide anything has nothing in its own file.
    says_nothing = {name for name in reached if _is_bare(name)}
    return sorted(name for name in reached - known - says_nothing if name not in exempt and not name.startswith(within))


def _is_bare(name: str) -> bool:
    path = _modules()[name]
    return path.name == "__init__.py" and len(ast.parse(path.read_text(encoding="utf-8")).body) <= 1


def test_every_module_on_the_way_to_a_result_is_in_its_identity() -> None:
    listed = [*identity.FEATURE_MODULES, *identity.probe_modules()]
    reached = _reached(["facemae_probes.runner"], stop=(*TUNING, CLIPS))
    assert {"facemae.data.decode", "facemae_probes.heads.linear", "facemae.rng"} <= reached
    exempt = EXEMPT | EXEMPT_OF_PROBES | EXEMPT_OF_STILLS
    assert not _missing(reached, listed, exempt), "list them in results/identity.py, or exempt them"


def test_every_module_on_the_way_to_a_tuned_net_is_in_its_identity() -> None:
    reached = _reached(TUNING)
    assert {"facemae.train.loop", "facemae.data.loader", "facemae.objectives.supervised"} <= reached
    assert not _missing(reached, fold.tuning_modules(), EXEMPT | EXEMPT_OF_TUNING), "list them in finetune/fold.py"


def test_every_module_on_the_way_to_contamination_is_in_its_identity() -> None:
    reached = _reached(["facemae_probes.contamination.check"])
    assert not _missing(reached, check.MODULES, EXEMPT | EXEMPT_OF_CONTAMINATION), "list them in contamination/check.py"


@pytest.mark.parametrize(
    "exempt", [EXEMPT, EXEMPT_OF_CONTAMINATION, EXEMPT_OF_PROBES, EXEMPT_OF_STILLS, EXEMPT_OF_TUNING]
)
def test_no_exemption_is_of_a_module_that_is_gone(exempt: dict[str, str]) -> None:
    assert not sorted(set(exempt) - set(_modules()))


def test_what_is_listed_exists_once() -> None:
    for names in (identity.FEATURE_MODULES, identity.probe_modules(), fold.tuning_modules()):
        assert len(set(names)) == len(names)
        for name in names:
            assert identity.source_bytes(name)


def test_imports_within_functions_are_found() -> None:
    source = "import a.b\ndef f():\n    from c.d import e\n    if f:\n        import g\n"
    assert set(_imports(source)) == {"a.b", "c.d", "c.d.e", "g"}


def test_a_result_of_another_card_or_model_name_is_not_read_back(labelled_shards: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(labelled_shards, shards)
    source = PixelSource(ModelInput(image_size=16, channels=1, mean=(0.5,), std=(0.5,)))
    plan = ProbePlan(probes=("knn",), neighbours=(1,), replicates=20)

    def is_read_back() -> bool:
        said: list[str] = []
        run_probe(shards, source, "emotion", plan=plan, out=tmp_path / "out", say=said.append)
        return any("this probe is done" in text for text in said)

    assert not is_read_back()
    assert is_read_back()
    card = read_card(shards)
    write_text(shards / CARD, card.model_copy(update={"crop": CropRecipe(detector="other", size=16)}).model_dump_json())
    assert not is_read_back()
    assert is_read_back()
    source.name = "other pixels"
    assert not is_read_back()
