"""What every block of the recipe tree shares: strictness, and lengths counted in samples."""

import re
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Config(BaseModel):
    """Base of every block: immutable, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


_Unit = Literal["samples", "epochs", "percent"]


def _parse_span(value: object) -> object:
    if isinstance(value, str):
        parts = re.fullmatch(r"(\S*?)\s*([A-Za-z%]*)", value.strip())
        number, unit = parts.groups() if parts else (value, value)
        unit = unit or "samples"
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

    amount: float = Field(ge=0)
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
