"""Protocols by what is written on the command line."""

from facemae.errors import UsageError
from facemae_probes.protocols.base import Protocol
from facemae_probes.protocols.few_shot import FewShot
from facemae_probes.protocols.folds import GivenFolds, KFold, LeaveOneOut
from facemae_probes.protocols.official import Official
from facemae_probes.protocols.paper import PREFIX, Paper

FORMS = tuple(kind.form for kind in (Official, KFold, GivenFolds, LeaveOneOut, FewShot, Paper))
_EXAMPLES = {
    "official": "official",
    "loso": "loso",
    "kfold": "kfold:5, with two folds or more",
    "folds": "folds:COLUMN, the metadata column of the folds",
    "few-shot": "few-shot:5 for images a class, or few-shot:1% of the training units",
    "paper": "paper:SYSTEM or paper:SYSTEM@folds:COLUMN",
}


def parse_protocol(text: str, *, draws: int = 10) -> Protocol:
    """A protocol by its written form, see `FORMS`.

    Args:
        text: Such as `official`, `kfold:5`, `folds:fold`, `loso`, `few-shot:5`, `few-shot:1%`, `paper:hicmae`.
        draws: Draws of a few-shot protocol.

    Raises:
        UsageError: It has none of these forms.
    """
    name, _, value = text.strip().partition(":")
    if name == "official" and not value:
        return Official()
    if name == "loso" and not value:
        return LeaveOneOut()
    if name == "kfold" and value.isdecimal() and int(value) > 1:
        return KFold(int(value))
    if name == "folds" and value:
        return GivenFolds(value)
    if name == "few-shot" and (shots := _shots(value)) is not None and draws > 0:
        return FewShot(shots, draws)
    if f"{name}:" == PREFIX and value:
        system, _, folds = value.partition("@")
        return Paper(system, parse_protocol(folds, draws=draws) if folds else None)
    example = _EXAMPLES.get(name)
    raise UsageError(
        f"--protocol {text}" + ("" if example is None else f", which lacks what {name} needs or has more than that"),
        expected=f"one of {', '.join(FORMS)}",
        fix=None if example is None else f"write {example}",
    )


def _shots(text: str) -> float | None:
    if text.endswith("%"):
        try:
            share = float(text[:-1]) / 100
        except ValueError:
            return None
        return share if 0 < share < 1 else None
    return float(text) if text.isdecimal() and int(text) > 0 else None
