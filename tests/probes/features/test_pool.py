"""Which shard sets a probe may read."""

from pathlib import Path

import pytest

from facemae.errors import ProbeError
from facemae_probes.features.pool import Pool
from tests.data.test_loader_clips import LONG, members, write


def test_packed_clips_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    shards = write(tmp_path / "talk", {"a": members(LONG)})
    with pytest.raises(
        ProbeError, match=r"talk holds no image, only flac, json, mjpeg\n.*cannot be probed yet\n.*facemae extract"
    ):
        Pool.of(shards)
