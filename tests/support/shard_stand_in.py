"""Small tar shards as WebDataset's writer leaves them. No tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path


def write_shard(file: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """An uncompressed tar of these members, in this order."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def shards_of(
    folder: Path, paths: list[str], out: Path, num_shards: int, *, classes: list[str] | None = None
) -> Path:
    """The files ``paths`` of a folder in OUT/train-000.tar, ...; keys are numbers. ``classes``: adds a .cls to each."""
    per_shard = -(-len(paths) // num_shards)
    for number in range(num_shards):
        members: list[tuple[str, bytes]] = []
        for row, path in enumerate(
            paths[number * per_shard : (number + 1) * per_shard], start=number * per_shard
        ):
            members.append((f"{row:06d}.jpg", (folder / path).read_bytes()))
            if classes is not None:
                members.append((f"{row:06d}.cls", str(classes.index(path.split("/")[0])).encode()))
        write_shard(out / f"train-{number:03d}.tar", members)
    return out
