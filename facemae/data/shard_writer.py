"""Writing shards: plain tar files whose bytes depend on names and content alone."""

import io
import tarfile
from pathlib import Path

from facemae.files import fsync_file


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


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Append a member whose header depends on name and size alone."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    header.mode = 0o644
    tar.addfile(header, io.BytesIO(data))
