"""What feeding photographs costs on one core, as ratios from one run: files and store against the reference's chain.

    python benchmarks/images.py [--images 64] [--size 224] [--repeats 7] [--json FILE]
    python benchmarks/images.py --listing 1000000 [--repeats 3] [--json FILE]

The process is pinned to one core; the variants take turns, so that a drifting machine hits them alike; ratios are
medians over rounds. The images are JPEGs of 400 x 533 (height x width), cut out of a real photograph, in the cache of
the file system. The reference's __getitem__ is re-stated here, not copied: decode, then twice crop, flip, jitter, grey,
blur, to tensor, all with Pillow. "pixels" are what a device would be fed (uint8, every image as large as it is, copied
into a buffer that is there); "cuts" are both views before their colours change, which is what a core does where a
device makes these changes; "views" are both finished views; "32px" is both views of images of 32 px in memory, as
CIFAR's. With --listing: seconds to list a folder of so many empty files, a thousand to a folder.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
import torch
from bench.reference import PillowPairs
from bench.rounds import round_ratios, timed
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_image
from torch import Tensor
from torchvision import transforms

from sdclr.compute.device import describe_device
from sdclr.compute.process_state import keep_freed_memory
from sdclr.data import ViewSpec, make_views
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.collections.image_store import build_store
from sdclr.data.decoding.decode import open_bytes
from sdclr.data.sources.listing import list_images
from sdclr.data.sources.own_images import read_own_images
from sdclr.data.sources.wanted import Wanted
from sdclr.stills import whole

HEIGHT, WIDTH = 400, 533
CPU = torch.device("cpu")
FILES_PER_FOLDER = 1000

RATIOS = {
    "pil_views_over_pixels_of_files": ("pil_views", "pixels_of_files"),
    "pil_views_over_pixels_of_store": ("pil_views", "pixels_of_store"),
    "pil_views_over_cuts_of_files": ("pil_views", "cuts_of_files"),
    "pil_views_over_views_of_files": ("pil_views", "views_of_files"),
    "pil_views_over_views_of_store": ("pil_views", "views_of_store"),
    "pil_views_over_views_32px": ("pil_views_32px", "views_32px"),
    "listing_over_links_anywhere": ("listing", "listing_links_anywhere"),
    "list_over_links_anywhere": ("list", "list_links_anywhere"),
}


def write_photographs(folder: Path, number: int) -> ImageFiles:
    """JPEGs of quality 90, each another part of one photograph."""
    photograph, rng = load_sample_image("china.jpg"), np.random.default_rng(0)
    paths = tuple(f"{row:05d}.jpg" for row in range(number))
    for path in paths:
        top, left = (
            rng.integers(0, photograph.shape[0] - HEIGHT + 1),
            rng.integers(0, photograph.shape[1] - WIDTH + 1),
        )
        patch = photograph[top : top + HEIGHT, left : left + WIDTH]
        Image.fromarray(np.ascontiguousarray(patch)).save(folder / path, "JPEG", quality=90)
    return ImageFiles(folder, paths, None)


def blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def pil_views(files: ImageFiles, size: int) -> Callable[[], object]:
    """The reference's dataset, one image at a time: decode once, draw two views."""
    bicubic = transforms.InterpolationMode.BICUBIC
    chain = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, (0.08, 1.0), interpolation=bicubic),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([transforms.Lambda(blurred)], p=0.5),
            transforms.ToTensor(),
        ]
    )

    def getitem(position: int) -> tuple[Tensor, Tensor]:
        with open_bytes(files.file(position)) as file, Image.open(file) as opened:
            image = opened.convert("RGB")
        return chain(image), chain(image)

    return lambda: [getitem(position) for position in range(len(files))]


def pixels(read: Callable[[int], npt.NDArray[np.uint8]], number: int) -> Callable[[], object]:
    """Every image as uint8 [H, W, 3] in a buffer that is there already."""
    canvas = np.zeros((HEIGHT, WIDTH, 3), np.uint8)

    def fill() -> None:
        for position in range(number):
            np.copyto(canvas, read(position))

    return fill


def variants(files: ImageFiles, folder: Path, size: int) -> dict[str, Callable[[], object]]:
    """One pass over all images each."""
    store, spec = build_store(files, folder / "store"), ViewSpec(size, area=(0.08, 1.0), blur=0.5)
    plain = replace(spec, jitter_probability=0.0, grey=0.0, blur=0.0)
    batches = list(torch.arange(len(files)).split(32))
    small = torch.cat(list(files.stills(32)))
    pairs, index = PillowPairs(small, 32), torch.arange(len(files))
    return {
        "pil_views": pil_views(files, size),
        "pixels_of_files": pixels(lambda position: whole(files.picture(position)), len(files)),
        "pixels_of_store": pixels(lambda position: store.picture(position).whole, len(files)),
        "cuts_of_files": lambda: list(files.views(batches, plain, seed=0, epoch=0)),
        "views_of_files": lambda: list(files.views(batches, spec, seed=0, epoch=0)),
        "views_of_store": lambda: list(store.views(batches, spec, seed=0, epoch=0)),
        "pil_views_32px": lambda: [pairs[row] for row in range(len(pairs))],
        "views_32px": lambda: make_views(small, index, ViewSpec(32), seed=0, epoch=0),
    }


def listing(folder: Path, number: int) -> dict[str, Callable[[], object]]:
    """One listing of ``number`` empty files, and one reading of a list of them."""
    for first in range(0, number, FILES_PER_FOLDER):
        (folder / f"{first:09d}").mkdir()
        for row in range(first, min(first + FILES_PER_FOLDER, number)):
            os.close(os.open(folder / f"{first:09d}" / f"{row:09d}.jpg", os.O_CREAT | os.O_WRONLY))
    paths = list_images(folder).paths
    assert len(paths) == number
    file = folder / "list.txt"
    file.write_text("".join(f"{path}\n" for path in paths))
    return {
        "listing": lambda: list_images(folder),
        "listing_links_anywhere": lambda: list_images(folder, links="anywhere"),
        "list": lambda: read_own_images(file),
        "list_links_anywhere": lambda: read_own_images(file, Wanted(links="anywhere")),
    }


def measure(actions: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every action in every round but the first, which warms caches up."""
    rounds = [
        {name: timed(action, CPU)() for name, action in actions.items()} for _ in range(repeats + 1)
    ]
    return {name: [taken[name] for taken in rounds[1:]] for name in actions}


def facts(arguments: argparse.Namespace, times: dict[str, list[float]]) -> dict[str, Any]:
    """What the run measured."""
    ratios = {
        name: round_ratios(times[a], times[b]) for name, (a, b) in RATIOS.items() if a in times
    }
    number = arguments.listing or arguments.images
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "hardware": describe_device(CPU),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "setting": {k: v for k, v in vars(arguments).items() if k != "json"},
        "median_seconds": medians,
        "spread": {name: [min(values), max(values)] for name, values in times.items()},
        "images_per_core_second": {name: number / median for name, median in medians.items()},
        "ratios": {name: statistics.median(values) for name, values in ratios.items()},
        "ratio_spread": {name: [min(values), max(values)] for name, values in ratios.items()},
    }


def show(found: dict[str, Any], repeats: int) -> None:
    print(
        f"{found['hardware']}, torch {found['torch']}, Pillow {found['pillow']}, {found['setting']}"
    )
    for name, value in found["median_seconds"].items():
        low, high = found["spread"][name]
        rate = found["images_per_core_second"][name]
        print(
            f"  {name:<32} {value * 1e3:9.2f} ms   ({low * 1e3:.2f} .. {high * 1e3:.2f}, n = {repeats})",
            end="",
        )
        print(f"   {rate:10.0f} images a second")
    for name, value in found["ratios"].items():
        low, high = found["ratio_spread"][name]
        print(f"  {name:<32} {value:6.2f}      ({low:.2f} .. {high:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--listing", type=int, help="number of empty files to list, instead of everything else"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.listing:
            actions = listing(folder, arguments.listing)
        else:
            actions = variants(write_photographs(folder, arguments.images), folder, arguments.size)
        found = facts(arguments, measure(actions, arguments.repeats))
    show(found, arguments.repeats)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
