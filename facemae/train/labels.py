"""What a run learns from labels: looked at in the metadata columns before it starts, not in the middle of it."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facemae.checkpoint_folders import step_folders
from facemae.config import ObjectiveConfig, Recipe
from facemae.data.index import ShardIndex
from facemae.data.loader import Stream
from facemae.data.select import column_names, value_counts
from facemae.data.selection import choose_samples, open_shards
from facemae.objectives.base import Objective
from facemae.objectives.pretraining import PretrainModel
from facemae.recipe import load_recipe
from facemae.train.saving.folder import RunFolder

Counts = dict[str, dict[str, dict[Any, int]]]
"""By stream and column, how many of its samples have each value."""


def complete_recipe(recipe: Recipe, run: Path) -> Recipe:
    """Fill in what objectives leave to the data, such as the names of classes.

    Decided once: a run that has saved keeps what it was started with, also where shards were added since.

    Args:
        recipe: The recipe.
        run: The run folder.

    Raises:
        FacemaeError: A stream cannot be read, or has no samples of the kind it asks for.
    """
    if not any(objective.label_columns() for objective in recipe.objectives):
        return recipe
    started: Sequence[ObjectiveConfig | None] = ()
    saved = RunFolder(run).recipe
    if step_folders(run) and saved.is_file():
        started = load_recipe(saved).objectives
    started = [*started, *[None] * len(recipe.objectives)][: len(recipe.objectives)]
    objectives = tuple(
        objective.completed(functools.partial(_counts_of, recipe, objective), before)
        for objective, before in zip(recipe.objectives, started, strict=True)
    )
    return recipe.model_copy(update={"objectives": objectives})


def check_labels(recipe: Recipe, model: PretrainModel, streams: Sequence[Stream]) -> list[str]:
    """Let every objective look at the labels of those of a run's streams that its views are made of.

    Args:
        recipe: The recipe.
        model: The model with its objectives.
        streams: The streams of the run.

    Returns:
        Sentences for the log.

    Raises:
        FacemaeError: Labels are missing, or have values that mean nothing to the objective.
    """
    sentences = []
    for name, objective in zip(model.names, model.objectives, strict=True):
        assert isinstance(objective, Objective)
        columns = objective.config.label_columns()
        if columns:
            seen = [stream for stream in streams if _sees(recipe, objective.config, stream.name)]
            found = {stream.name: _present(stream.index, columns, stream.order.subset) for stream in seen}
            sentence = objective.check_labels(found)
            sentences += [] if sentence is None else [f"{name}: {sentence}"]
    return sentences


def _counts_of(recipe: Recipe, objective: ObjectiveConfig) -> Counts:
    found: Counts = {}
    for number, stream in enumerate(recipe.data.streams):
        if not _sees(recipe, objective, stream.name):
            continue
        index = open_shards(stream, number)
        subset, _ = choose_samples(index, stream)
        found[stream.name] = _present(index, objective.label_columns(), subset)
    return found


def _sees(recipe: Recipe, objective: ObjectiveConfig, stream: str) -> bool:
    """Whether a view of the objective is made of the stream: others' labels are never learnt."""
    made_of = [recipe.views[name].streams for name in objective.view_names()]
    return any(streams is None or stream in streams for streams in made_of)


def _present(index: ShardIndex, columns: Sequence[str], chosen: Any) -> dict[str, dict[Any, int]]:
    names = column_names(index)
    return value_counts(index, [column for column in columns if column in names], chosen)
