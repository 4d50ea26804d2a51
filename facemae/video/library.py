"""The optional libraries of this room, imported where they are used."""

from types import ModuleType

from facemae.errors import MissingExtraError

EXTRA = "pip install 'facemae[video]'"


def pyav() -> ModuleType:
    """PyAV, which reads and writes video files of all kinds.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("reading and writing video needs PyAV, which is not installed", fix=EXTRA) from error
    return av
