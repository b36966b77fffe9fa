"""A tiny stand-in for ImageNet on disk: the folders, small JPEGs of many sizes, and the authors' lists. No tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

LIST_NAMES = {
    "imagenet100": {
        "D_i": "imagenet-100/imageNet_100_LT_train.txt",
        "D_b": "imagenet-100/imageNet_100_BL_train.txt",
        "S_b": "imagenet-100/imageNet_100_sub_balance_train_0.01.txt",
        "train": "imagenet-100/ImageNet_100_train.txt",
        "val": "imagenet-100/ImageNet_100_val.txt",
        "test": "imagenet-100/ImageNet_100_test.txt",
    },
    "imagenet_lt_exp": {
        "D_i": "ImageNet_LT/imageNet_LT_exp_train.txt",
        "D_b": "ImageNet_LT/imageNet_BL_exp_train.txt",
        "S_b": "ImageNet_LT/imageNet_sub_balance_train_0.01.txt",
        "train": "ImageNet_LT/ImageNet_train.txt",
        "val": "ImageNet_LT/ImageNet_LT_val.txt",
        "test": "ImageNet_LT/ImageNet_LT_test.txt",
    },
}


class StandIn(NamedTuple):
    root: Path
    """Holds train/ and val/."""
    splits_dir: Path
    lists: dict[str, list[str]]
    """Lines of D_i, D_b, S_b, train, val and test, as written."""

    def list_path(self, part: str, name: str = "imagenet100") -> Path:
        return self.splits_dir / LIST_NAMES[name][part]

    def write_list(self, part: str, lines: list[str], name: str = "imagenet100") -> Path:
        path = self.list_path(part, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))
        return path


def make_imagenet(
    folder: Path,
    num_classes: int,
    *,
    name: str = "imagenet100",
    train_per_class: int = 12,
    validation_per_class: int = 2,
    test_per_class: int = 3,
    with_training_list: bool = False,
) -> StandIn:
    """Write FOLDER/images and FOLDER/split. Class c has label c; its long tail falls from most of it to one image."""
    rng = np.random.default_rng(0)
    lists: dict[str, list[str]] = {part: [] for part in LIST_NAMES[name]}
    available = train_per_class - validation_per_class
    counts = [
        max(1, round(available * (1 / available) ** (c / max(1, num_classes - 1))))
        for c in range(num_classes)
    ]
    for label in range(num_classes):
        folder_name = (
            f"n{90000000 - 1111 * label:08d}"  # names and labels run in opposite directions
        )
        files = [
            f"train/{folder_name}/{folder_name}_{number}.JPEG"
            for number in rng.permutation(train_per_class)
        ]
        tests = [
            f"val/{folder_name}/ILSVRC2012_val_{label:04d}{number:04d}.JPEG"
            for number in range(test_per_class)
        ]
        for path in (*files, *tests):
            write_photograph(folder / "images" / path, rng)
        rest = files[validation_per_class:]
        parts = {"val": files[:validation_per_class], "train": sorted(rest), "test": tests}
        parts |= {
            "D_i": rest[: counts[label]],
            "D_b": rest[-(sum(counts) // num_classes) :],
            "S_b": rest[:1],
        }
        for part, paths in parts.items():
            lists[part] += [f"{path} {label}" for path in paths]
    stand_in = StandIn(folder / "images", folder / "split", lists)
    for part, lines in lists.items():
        if part != "train" or with_training_list:
            stand_in.write_list(part, lines, name)
    return stand_in


def write_photograph(path: Path, rng: np.random.Generator) -> None:
    """A JPEG of 24 to 80 pixels a side, cut out of a real photograph."""
    height, width = rng.integers(24, 81, 2)
    top, left = rng.integers(0, 427 - height), rng.integers(0, 640 - width)
    path.parent.mkdir(parents=True, exist_ok=True)
    patch = _photograph()[top : top + height, left : left + width]
    Image.fromarray(np.ascontiguousarray(patch)).save(path, "JPEG", quality=90)


@cache
def _photograph() -> np.ndarray:
    return load_sample_image("china.jpg")
