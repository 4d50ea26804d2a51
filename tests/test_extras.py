"""A missing optional package names the extra that brings it."""

import pytest

from facemae.errors import MissingExtraError
from facemae.extras import needs_extra


def test_a_failing_import_names_package_purpose_and_extra() -> None:
    with (
        pytest.raises(MissingExtraError, match=r"reading videos needs .*no_such_codec.*") as caught,
        needs_extra("video", "reading videos"),
    ):
        import no_such_codec  # type: ignore[import-not-found]  # noqa: F401
    assert "pip install 'facemae[video]'" in str(caught.value)


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError), needs_extra("video", "reading videos"):
        _ = 1 // 0
