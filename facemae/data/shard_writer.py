"""Writing shards: plain tar files whose bytes depend on names and content alone."""

import io
import tarfile
from pathlib import Path

from facemae.errors import StorageError
from facemae.files import fsync_file, storage_errors


class ShardWriter:
    """Writes the shards of one set into a folder, one after the other.

    Args:
        folder: Folder for `shard-000000.tar`, `shard-000001.tar`, …
        shard_size: Samples a shard.
    """

    def __init__(self, folder: Path, shard_size: int) -> None:
        self.folder = folder
        self.shard_size = shard_size
        self.written = 0
        self.shards = 0
        self._tar: tarfile.TarFile | None = None
        self._path = folder

    def write(self, key: str, members: dict[str, bytes]) -> None:
        """Append one sample; begins a new shard where the last one is full."""
        if self.written % self.shard_size == 0:
            self.close()
            self._path = self.folder / f"shard-{self.shards:06d}.tar"
            self._tar = tarfile.open(self._path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
            self.shards += 1
        assert self._tar is not None
        for extension, data in members.items():
            add_member(self._tar, f"{key}.{extension}", data)
        self.written += 1

    def close(self) -> None:
        """End the last shard and flush it to the disk."""
        if self._tar is not None:
            self._tar.close()
            self._tar = None
            fsync_file(self._path)

    def abandon(self) -> None:
        """Let go of a shard that was not ended; nothing after `close`."""
        if self._tar is not None and self._tar.fileobj is not None:
            # TarFile.close would write the end mark, which a full disk refuses a second time.
            self._tar.fileobj.close()
            self._tar = None


class PartWriter:
    """Writes the samples of one source into a tar of its own, which appears when it is complete.

    Args:
        path: The tar. Nothing is made where no sample is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._tar: tarfile.TarFile | None = None

    def write(self, key: str, members: dict[str, bytes]) -> tuple[int, int]:
        """Append one sample.

        Returns:
            First byte and end of its members in the tar; see `read_range`.

        Raises:
            StorageError: Writing failed.
        """
        with storage_errors(self.path):
            if self._tar is None:
                self._tar = tarfile.open(self._temporary, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
            start = self._tar.offset
            for extension, data in members.items():
                add_member(self._tar, f"{key}.{extension}", data)
            return start, self._tar.offset

    def close(self) -> None:
        """End the tar, flush it to the disk and give it its name.

        Raises:
            StorageError: Writing failed.
        """
        if self._tar is not None:
            with storage_errors(self.path):
                self._tar.close()
                self._tar = None
                fsync_file(self._temporary)
                self._temporary.replace(self.path)

    def abandon(self) -> None:
        """Remove a tar that was not ended; nothing after `close`."""
        if self._tar is not None and self._tar.fileobj is not None:
            self._tar.fileobj.close()
            self._tar = None
        self._temporary.unlink(missing_ok=True)


def read_range(path: Path, start: int, stop: int) -> tuple[str, dict[str, bytes]]:
    """One sample that `PartWriter` wrote: its key and members.

    Raises:
        StorageError: The file cannot be read, or is not what was written.
    """
    with storage_errors(path, "reading"), path.open("rb") as file:
        file.seek(start)
        data = file.read(stop - start)
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            found = [(entry.name.split(".", 1), tar.extractfile(entry)) for entry in tar]
            members = {name[1]: file.read() for name, file in found if file is not None}
    except (tarfile.TarError, IndexError) as error:
        raise StorageError(f"{path} is damaged: {error}", fix="remove its folder and pack again") from error
    return found[0][0][0], members


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Append a member whose header depends on name and size alone."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    header.mode = 0o644
    tar.addfile(header, io.BytesIO(data))
