"""What very many images in shards cost before the first pixel is read: the index, an epoch's order, finding images.

    python benchmarks/shard_index.py [--images N ...] [--json FILE] [--folder FOLDER]

For N images in N / 10,000 shards of synthetic indices (names of 13 letters, no classes), each N in a process of its
own: seconds until the collection is there, until the first epoch's order is there, and until the places of 1,000
batches of 256 images are known; the memory that the process has grown by when the collection is there and at its peak,
in bytes an image. Shards "lie" in memory, so that the question whether each has changed, one request a shard, costs no
network. Indices take 36 bytes an image in FOLDER (a temporary one by default) and are removed afterwards.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import torch

from sdclr.addresses import Address
from sdclr.compute.device import describe_device
from sdclr.data.epoch_order import epoch_batches
from sdclr.data.remote.ranges import version_of
from sdclr.data.sources.own_images import read_own_images
from sdclr.data.sources.shard_index import kept_arrays
from sdclr.data.sources.tar_shards import kept_images_name
from sdclr.data.sources.wanted import Reading
from sdclr.storage.array_files import Arrays

PER_SHARD = 10_000
BATCHES, BATCH = 1_000, 256
CREATED = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
ROOT = "memory://synthetic"
UNUSED = {"links": 0, "hidden": 0, "service": 0, "unwanted": 0, "classes": []}
UNUSED |= {"beside": {}, "pictures": {}, "others": {}}


def shard_names(number: int) -> list[str]:
    return [f"train-{shard:06d}.tar" for shard in range(-(-number // PER_SHARD))]


def write_shards(number: int) -> None:
    """A byte for each shard; the indices are of this very state of it, whichever process asks."""
    files = fsspec.filesystem("memory")
    for name in shard_names(number):
        files.pipe(f"/synthetic/{name}", b"x")
        files.store[f"/synthetic/{name}"].created = CREATED


def write_indices(number: int) -> None:
    """An index for each shard, as if its headers had been read."""
    rng = np.random.default_rng(0)
    names = "".join(f"{row:09d}.jpg" for row in range(PER_SHARD)).encode()
    for name in shard_names(number):
        sizes = rng.integers(20_000, 200_000, PER_SHARD)
        arrays: dict[str, Any] = {
            "letters": np.frombuffer(names, np.uint8),
            "lengths": np.full(PER_SHARD, 13, np.int32),
            "starts": np.cumsum(sizes + 512) - sizes,
            "sizes": sizes,
            "label_of": np.full(PER_SHARD, -1, np.int32),
        }
        address = f"{ROOT}/{name}"
        found = Arrays({"labels": [], "unused": UNUSED}, arrays)
        kept_arrays(address, version_of(address), kept_images_name(()), partial(copy, found))


def grown(before: int) -> int:
    """Bytes of memory at the peak, beyond ``before``."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def resident() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def measure(number: int) -> dict[str, float]:
    """One point, in this process."""
    write_shards(number)
    before, start = resident(), time.perf_counter()
    pattern = f"{ROOT}/train-{{000000..{len(shard_names(number)) - 1:06d}}}.tar"
    images = read_own_images(Address(pattern), reading=Reading(exif_rotation=True)).train
    ready, held = time.perf_counter(), resident() - before
    found = images.files
    assert found is not None
    assert len(images) == number
    batches = epoch_batches(number, BATCH, seed=0, epoch=0)
    first = next(batches)
    ordered = time.perf_counter()
    count = 0
    for batch in (first, *(one for _, one in zip(range(BATCHES - 1), batches, strict=False))):
        for position in batch.tolist():
            found.file(position)
            count += 1
    return {
        "images": number,
        "seconds until the collection": ready - start,
        "seconds until an epoch's order": ordered - ready,
        "seconds for 1,000 batches": (time.perf_counter() - ordered) * BATCHES * BATCH / count,
        "bytes an image, held": held / number,
        "bytes an image, at the peak": grown(before) / number,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    points: list[dict[str, Any]] = []
    for number in options.images:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            os.environ["SDCLR_CACHE"] = folder
            write_shards(number)
            write_indices(number)
            command = [sys.executable, __file__, "--one", str(number)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        points.append(json.loads(done.stdout))
        print(json.dumps(points[-1], indent=1), flush=True)
    if options.json:
        facts = {"device": describe_device(torch.device("cpu")), "points": points}
        options.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
