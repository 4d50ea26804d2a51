"""What a run says when a view of it changes."""

from facemae.config import Recipe
from facemae.recipe_specs import view_specs
from facemae.train.optim.schedule import Lengths


def stages_begun(recipe: Recipe, lengths: Lengths, step: int, positions: range) -> list[str]:
    """A sentence for each view of which a stage begins with a step.

    Args:
        recipe: The recipe.
        lengths: The run's lengths.
        step: The optimiser step.
        positions: The global batches of the order from the one after the step before's to this step's own: more than
            one only where the run went back and passes some over.
    """
    last, now = (positions.start - 1) * lengths.batch, positions[-1] * lengths.batch
    if not any(last < begin <= now for begins in lengths.stages.values() for begin in begins):
        return []
    sentences = []
    for spec in view_specs(recipe, lengths.stages):
        old, new = spec.at(last), spec.at(now)
        if old == new:
            continue
        text = f"step {step}: view {spec.name} has {new.image_size} pixels"
        if new.mask is not None:
            rows, columns = new.mask.grid
            text += f" and {new.mask.keep} of {new.mask.steps * rows * columns} patches visible"
        sentences.append(text)
    return sentences
