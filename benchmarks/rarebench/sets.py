"""The sets of known truth: small pictures, labels, and groups where images were shot in bursts.

N images, S side in pixels. Pictures are resized to S x S without keeping their shape.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from sdclr.data import DataConfig, build_data

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "rarebench"
"""What can be made again: features, runs, pictures."""
SETS = (
    "digits",
    "clothing",
    "tiles",
    "plankton",
    *(f"cifar10_lt_{split}" for split in range(1, 6)),
)
FAMILIES = ("digits", "clothing", "tiles", "plankton", "cifar10_lt")
"""Splits of one data set are one family: all of it is left out at a time."""
SIDE = 96


@dataclass(frozen=True)
class Collection:
    """One set."""

    name: str
    pixels: npt.NDArray[np.uint8]
    """uint8 [N, S, S, 3]."""
    labels: npt.NDArray[np.int64]
    """[N], 0 .. C - 1."""
    groups: npt.NDArray[np.int64] | None = None
    """[N], the burst of each image."""

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Images of each class, [C]."""
        return np.bincount(self.labels)

    def of_smallest(self, share: float) -> npt.NDArray[np.bool_]:
        """Which images are of the smallest ``share`` of the classes, at least one, [N]."""
        by_size = np.argsort(-self.counts, kind="stable")
        smallest = by_size[-max(1, round(share * len(by_size))) :]
        return np.isin(self.labels, smallest)


def family(name: str) -> str:
    """
    >>> family("cifar10_lt_3"), family("tiles")
    ('cifar10_lt', 'tiles')
    """
    return next(one for one in FAMILIES if name.startswith(one))


def data_folder() -> Path | None:
    """Where the larger data lie: SDCLR_DATA."""
    return Path(os.environ["SDCLR_DATA"]) if os.environ.get("SDCLR_DATA") else None


def available() -> list[str]:
    """The sets that can be read here."""
    folder = data_folder()
    if folder is None:
        return ["digits"]
    there = {
        "clothing": "clothing_lt",
        "tiles": "tiles",
        "plankton": "plankton",
        "cifar10_lt": "cifar10",
    }
    return [name for name in SETS if name == "digits" or (folder / there[family(name)]).is_dir()]


def load(name: str) -> Collection:
    """Read a set; the training images alone."""
    if name == "digits":
        config = DataConfig(name="digits", imbalance_ratio=20, validation_per_class=18)
        return _from_arrays(name, config)
    folder = data_folder()
    if folder is None:
        raise SystemExit(f"{name} needs SDCLR_DATA, the folder with its data.")
    if name.startswith("cifar10_lt_"):
        splits = folder / "splits"
        config = DataConfig(
            name="cifar10", path=str(_cifar(folder)), splits_dir=str(splits), split=int(name[-1])
        )
        return _from_arrays(name, config)
    return _from_pictures(name, folder)


def _from_arrays(name: str, config: DataConfig) -> Collection:
    images = build_data(config).pretraining_images("long_tail")
    pixels = images.images.permute(0, 2, 3, 1).contiguous().numpy()  # type: ignore[attr-defined]
    return Collection(name, pixels, images.labels)  # type: ignore[arg-type]


def _cifar(folder: Path) -> Path:
    """CIFAR-10 as one .npz: as it lies there, or unpacked by the script beside its packs."""
    for place in (folder / "cifar10" / "cifar10.npz", BUILD / "cifar10" / "cifar10.npz"):
        if place.is_file():
            return place
    out = BUILD / "cifar10"
    out.mkdir(parents=True, exist_ok=True)
    packs = folder / "cifar10"
    subprocess.run([sys.executable, str(packs / "unpack.py"), str(packs), str(out)], check=True)
    return out / "cifar10.npz"


def _from_pictures(name: str, folder: Path) -> Collection:
    home = folder / {"clothing": "clothing_lt"}.get(name, name)
    lines = (home / "train.txt").read_text(encoding="utf-8").splitlines()
    paths = [line.rsplit(" ", 1)[0] for line in lines]
    labels = np.array([int(line.rsplit(" ", 1)[1]) for line in lines], dtype=np.int64)
    cache = BUILD / "pictures" / f"{name}.npy"
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.save(cache, _small_pictures(home, name, paths))
    pixels = np.load(cache)
    groups = None
    if (home / "groups.csv").exists():
        with (home / "groups.csv").open(encoding="utf-8") as file:
            tile_of = {row["path"]: int(row["tile"]) for row in csv.DictReader(file)}
        groups = np.array([tile_of[path] for path in paths], dtype=np.int64)
    return Collection(name, pixels, labels, groups)


def _small_pictures(home: Path, name: str, paths: list[str]) -> npt.NDArray[np.uint8]:
    small = np.empty((len(paths), SIDE, SIDE, 3), dtype=np.uint8)
    packed = home / f"{name}.tar"
    shard = tarfile.open(packed) if packed.exists() else None  # noqa: SIM115
    for i, path in enumerate(paths):
        file = shard.extractfile(path) if shard else (home / path)
        with Image.open(file) as picture:  # type: ignore[arg-type]
            square = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            small[i] = np.asarray(square)
    return small


def as_batch(pixels: npt.NDArray[np.uint8], size: int) -> torch.Tensor:
    """uint8 [B, S, S, 3] -> float [B, 3, size, size] in [0, 1]."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    if images.shape[-1] == size:
        return images
    resized: torch.Tensor = torch.nn.functional.interpolate(
        images, size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )
    return resized
