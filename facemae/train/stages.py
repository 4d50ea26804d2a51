"""What a run says when a view of it changes."""

from facemae.config import Recipe
from facemae.recipe import view_specs
from facemae.train.schedule import Lengths


def stages_begun(recipe: Recipe, lengths: Lengths, step: int) -> list[str]:
    """A sentence for each view of which a stage begins with a step.

    Args:
        recipe: The recipe.
        lengths: The run's lengths.
        step: The optimiser step.
    """
    before = step * lengths.batch
    if not any(before - lengths.batch < begin <= before for begins in lengths.stages.values() for begin in begins):
        return []
    sentences = []
    for spec in view_specs(recipe, lengths.stages):
        old, new = spec.at(before - lengths.batch), spec.at(before)
        if old == new:
            continue
        text = f"step {step}: view {spec.name} has {new.image_size} pixels"
        if new.mask is not None:
            rows, columns = new.mask.grid
            text += f" and {new.mask.keep} of {rows * columns} patches visible"
        sentences.append(text)
    return sentences
