"""What commands that read folders of files let one choose, and the options that go with a choice."""

from collections.abc import Iterable
from enum import StrEnum

import typer


class Files(StrEnum):
    """What is taken of folders that hold images and videos."""

    AUTO = "auto"
    IMAGES = "images"
    VIDEOS = "videos"


class People(StrEnum):
    """Whose faces are taken of videos."""

    MAIN = "main"
    ALL = "all"


def given_options(context: typer.Context, names: Iterable[str]) -> list[str]:
    """Those of some options that the command line has, as they are written: `--sound-rate`.

    Args:
        context: Of the command.
        names: The parameters' names, as in Python.
    """
    # By its name: typer keeps click, and with it the enumeration, in a module of its own that is not public.
    sources = {name: getattr(context.get_parameter_source(name), "name", "") for name in names}
    return [f"--{name.replace('_', '-')}" for name, source in sources.items() if source == "COMMANDLINE"]
