"""The optional libraries of this room, imported where they are used."""

from types import ModuleType

from facemae.extras import needs_extra


def pyav() -> ModuleType:
    """PyAV, which reads and writes video files of all kinds.

    Raises:
        MissingExtraError: It is not installed.
    """
    with needs_extra("video", "reading and writing video"):
        import av
    return av
