"""Optional packages: a missing one is told by the extra that brings it."""

import contextlib
from collections.abc import Iterator

from facemae.errors import MissingExtraError


@contextlib.contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Turn a failing import in the block into an error that says what to install.

    Imports stay ordinary statements, so that type checkers see them::

        with needs_extra("video", "reading videos"):
            import av

    Args:
        extra: The optional extra of facemae that holds the packages: "video".
        purpose: What they are needed for, for the message: "reading videos".

    Raises:
        MissingExtraError: An import in the block failed.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs an optional package: {error}",
            expected=f"the packages of the extra '{extra}'",
            fix=f"pip install 'facemae[{extra}]'",
        ) from error
