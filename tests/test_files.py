"""Files: whole or not there, and an error that names what the person can act on."""

import errno
from pathlib import Path

import pytest

from facemae.errors import StorageError
from facemae.files import atomic_write, storage_errors, write_text


def failing(path: Path, number: int, named: Path | None = None, doing: str = "writing") -> str:
    """The message of an error of the operating system in a block about a path."""
    with pytest.raises(StorageError) as caught, storage_errors(path, doing):
        raise OSError(number, "as the system says", None if named is None else str(named))
    return str(caught.value)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_text(path, "old")

    def fill() -> None:
        with atomic_write(path) as out:
            out.write(b"new")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match=r"the disk is full: writing .*file\.json failed"):
        fill()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file.json"]


def test_a_parent_that_cannot_be_made_is_advice_about_writing(tmp_path: Path) -> None:
    text = failing(tmp_path / "a" / "b" / "file.json", errno.EACCES, tmp_path / "a")
    assert text.startswith(f"writing {tmp_path}/a/b/file.json is not permitted")
    assert "a folder this user may write" in text
    assert f"permissions of {tmp_path}," in text


@pytest.mark.parametrize("inside", ["step-1.tmp/model.safetensors", ".f00.tmp.step-1", "step-1/model.safetensors"])
def test_a_full_disk_names_what_is_still_there_and_not_the_temporary_name(tmp_path: Path, inside: str) -> None:
    text = failing(tmp_path / "checkpoints" / "step-1", errno.ENOSPC, tmp_path / "checkpoints" / inside)
    assert f"writing {tmp_path}/checkpoints/step-1 failed" in text
    assert f"the volume of {tmp_path} and" in text
    assert "tmp." not in text.replace(str(tmp_path), "")


def test_a_file_that_cannot_be_read_is_advice_about_that_file(tmp_path: Path) -> None:
    text = failing(tmp_path / "in.json", errno.EACCES, doing="reading")
    assert "a file this user may read" in text
    assert f"permissions of {tmp_path}/in.json," in text


def test_an_error_about_an_unrelated_file_is_not_blamed_on_this_one(tmp_path: Path) -> None:
    text = failing(tmp_path / "out" / "file.json", errno.ENOENT, tmp_path / "elsewhere" / "input.png")
    assert text.startswith(f"using {tmp_path}/elsewhere/input.png failed")
