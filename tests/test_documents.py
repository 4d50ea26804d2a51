"""Recipes and systems that documents show, as somebody would copy them."""

import json
import re
from pathlib import Path

import pytest

from facemae.recipe import load_recipe
from facemae_probes.studies.systems import read_systems

DOCS = Path(__file__).parents[1] / "docs"
SHOWN = [
    (path.name, text)
    for path in sorted(DOCS.glob("*.md"))
    for text in re.findall(r"^```yaml\n(schema: .*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
]


def test_documents_show_recipes() -> None:
    assert len(SHOWN) >= 2


@pytest.mark.parametrize(("name", "text"), SHOWN)
def test_a_shown_recipe_is_one(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    assert load_recipe(tmp_path / "mine.yaml").name in text, name


@pytest.mark.parametrize("study", ["equal-time", "equal-time-options"])
def test_systems_of_a_result_are_those_of_its_units(study: str) -> None:
    folder = DOCS / "results" / study
    units = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "units").glob("*.json")]
    measured = {
        unit["name"]: (unit["from_recipe"], tuple(unit["overrides"]), unit["about"])
        for unit in units
        if unit["kind"] == "system"
    }
    systems = read_systems(folder / "systems.yaml")
    assert {system.name: (system.recipe, system.overrides, system.about) for system in systems} == measured
