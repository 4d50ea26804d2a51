"""What every block of the recipe tree shares: strictness, settings nothing reads, and lengths counted in samples."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Config(BaseModel):
    """Base of every block: immutable, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


@dataclass(frozen=True)
class OnlyWith:
    """Annotates a setting that is read with some values of another one of its block alone.

    It stays allowed beside other values, since one override is enough to change the other.

    Attributes:
        field: The other setting.
        fits: Whether it is read beside a value of that one; by default beside any but null.
    """

    field: str
    fits: Callable[[Any], bool] = lambda value: value is not None

    def idle(self, block: Config) -> str | None:
        """Why the setting is not read; None where it is."""
        found = getattr(block, self.field)
        return None if self.fits(found) else f"{self.field}={'null' if found is None else found}"


def idle_settings(block: object, path: str = "") -> Iterator[str]:
    """Settings of a block and of those in it that have been changed and that nothing reads, each with its path."""
    if isinstance(block, Mapping):
        for key, value in block.items():
            yield from idle_settings(value, f"{path}.{key}")
    elif isinstance(block, tuple):
        for number, value in enumerate(block):
            yield from idle_settings(value, f"{path}.{number}")
    elif isinstance(block, Config):
        for name, field in type(block).model_fields.items():
            value, here = getattr(block, name), f"{path}.{name}".removeprefix(".")
            changed = value != field.get_default(call_default_factory=True)
            for mark in field.metadata:
                if isinstance(mark, OnlyWith) and changed and (reason := mark.idle(block)):
                    yield f"{here} is set, and nothing reads it with {reason}"
            yield from idle_settings(value, here)


_Unit = Literal["samples", "epochs", "percent"]
_SPELLINGS = {"": "samples", "sample": "samples", "epoch": "epochs", "%": "percent"}


def _parse_span(value: object) -> object:
    if isinstance(value, str):
        parts = re.fullmatch(r"(\S*?)\s*([A-Za-z%]*)", value.strip())
        number, unit = parts.groups() if parts else (value, value)
        unit = _SPELLINGS.get(unit, unit)
        if unit not in get_args(_Unit):
            raise ValueError(
                f"{value!r} is no length: its unit is one of {', '.join(get_args(_Unit))}, and samples where none is "
                "given; a step has optim.batch_size samples"
            )
        return {"amount": number.replace("_", ""), "unit": unit}
    if isinstance(value, int | float):
        return {"amount": value, "unit": "samples"}
    return value


class SpanConfig(Config):
    """A length of training, written ``"50 epochs"``, ``"2_000_000 samples"`` or ``"5 percent"`` (of the whole run)."""

    amount: float = Field(ge=0, allow_inf_nan=False)
    """How many."""
    unit: _Unit = "samples"
    """Of what."""

    def samples(self, *, epoch: int, total: int | None = None) -> int:
        """The length in samples.

        Args:
            epoch: Samples in one epoch of the run's streams.
            total: Samples in the whole run; needed for percent.
        """
        if self.unit == "samples":
            return round(self.amount)
        if self.unit == "epochs":
            return round(self.amount * epoch)
        if total is None:
            raise ValueError("a percentage needs the total it is a part of")
        return round(self.amount / 100 * total)


Span = Annotated[SpanConfig, BeforeValidator(_parse_span)]
