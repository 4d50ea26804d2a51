"""What may be expected of a run that goes on: which of its numbers are those of a run that was never interrupted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from facemae.train.hardware.numerics import drawing_changes, loss_tolerance, ordering_changes, rounding_changes

_SAMPLES = "the same samples"
_KEYS = f"{_SAMPLES}, views and masks"
_OTHER_ORDER = "another order of samples from here, since the data is another"


@dataclass(frozen=True)
class Promise:
    """What holds for a continuation.

    Attributes:
        text: The sentence that says so.
        changed_at: Steps done at the last start that went on on other terms, this one included; None where every start
            kept them, so that the weights will be bitwise those of an undisturbed run.
    """

    text: str
    changed_at: int | None

    @property
    def bitwise(self) -> bool:
        """Whether the weights will be bitwise those of an undisturbed run, from its first step on."""
        return self.changed_at is None


def resume_promise(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    step: int = 0,
    sounds: bool = False,
    changed_at: int | None = None,
    other_order: bool = False,
    erased: bool = False,
    longer: tuple[int, int] | None = None,
) -> Promise:
    """Which promise holds for a continuation.

    Args:
        old: Machine facts and library versions of the checkpoint, in one mapping.
        new: The same of this process.
        step: Steps done at the checkpoint.
        sounds: Whether views are spectrograms too.
        changed_at: `Promise.changed_at` of the start that wrote the checkpoint.
        other_order: The streams are no longer those of the checkpoint.
        erased: Samples of the streams were erased since.
        longer: Samples of the whole run before and now, where it was extended.
    """
    rounding = rounding_changes(old, new)
    said = _order_and_views(ordering_changes(old, new), drawing_changes(old, new, sounds=sounds), other_order)
    if erased:
        said.append("samples that were erased since are read as their substitutes")
    if longer is not None:
        said.append(f"another learning rate from here, for {longer[1]} samples in place of {longer[0]}")
    if rounding is not None:
        tolerance = loss_tolerance(old, new)
        within = f"{tolerance:g}" if tolerance is not None else "rounding, unless changed otherwise"
        said.append(f"loss of the next steps within {within}, because {rounding}")
    if other_order or erased or longer is not None:
        if rounding is None:
            said.append(f"bitwise the weights of a run that changed likewise at step {step}, not of an undisturbed one")
        return Promise("; ".join(said), step)
    if rounding is not None:
        return Promise("; ".join(said), step)
    if changed_at is not None:
        return Promise(
            f"{_KEYS}, and bitwise as if not interrupted since step {changed_at}, where the run went on on other terms",
            changed_at,
        )
    return Promise(f"{_KEYS}, and bitwise the weights of an undisturbed run", None)


def _order_and_views(ordering: str | None, drawing: str | None, other_order: bool) -> list[str]:
    if ordering is not None and not other_order:
        return [f"{_KEYS} unless changed by other {drawing}"]
    if drawing is None:
        return [_OTHER_ORDER if other_order else _KEYS]
    return [
        _OTHER_ORDER if other_order else _SAMPLES,
        f"the same views and masks unless changed by other {drawing}",
    ]
