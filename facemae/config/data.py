"""Where samples come from."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from facemae.config.base import Config


def as_texts(value: object) -> object:
    """YAML reads `{AU12: 1}` as a number; metadata is compared as text, written as the metadata columns write it."""
    return {name: as_text(item) for name, item in value.items()} if isinstance(value, dict) else value


def as_text(value: object) -> object:
    """A number as metadata is compared: as text, written as the metadata columns write it. Anything else stays."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float) else value


Where = Annotated[dict[str, str], BeforeValidator(as_texts)]
"""Only samples whose metadata has these values, for example `{split: train}`."""


class StreamConfig(Config):
    """One source of samples."""

    name: str = "faces"
    """What the stream is called in logs and state."""
    shards: str = ""
    """Folder of the indexed shard set. Given on the command line: `--data DIR`."""
    where: Where = Field(default_factory=dict)
    """Only samples whose metadata has these values, for example `{split: train}`."""
    keys: str | None = None
    """Text file with the keys of the samples to read, one a line, such as a fold; null reads all that pass `where`. The
    run is pinned to what the file says, not to where it lies."""
    share: int = Field(default=1, ge=1)
    """How many parts of each global batch come from this stream."""


class DataConfig(Config):
    """Where samples come from and in which order."""

    streams: tuple[StreamConfig, ...] = (StreamConfig(),)
    """The sources; one is the usual case."""
    lanes: int = Field(default=8, ge=1)
    """Parallel runs an epoch is cut into. Legal numbers of processes divide it."""
    block: int | None = Field(default=None, ge=1)
    """Shuffle within blocks of this many samples; null shuffles a whole lane. Set it for slow random access."""
    max_damage: float = Field(default=0.001, ge=0, le=1)
    """Highest share of samples that may be replaced because they do not decode; above it the run stops."""
