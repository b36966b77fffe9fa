"""A store of decoded images: decoded once, then mapped into memory, so that a view costs a crop and not a decode.

N images. A store is a folder with two files:

    pixels.bin       the pixels [height, width, 3] uint8 of one image after another, nothing between them
    manifest.json    their shapes and checksums, and what they were decoded from and how

It is built in FOLDER.partial, which is renamed when it is complete: a folder of the right name is a finished store.
Next to the pixels of an unfinished one is a journal of what was written and synced, so that a killed build resumes.
Labels and names are not in a store: they come from the images it is opened for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import torch
from torch import Tensor

from sdclr.batch import Views
from sdclr.compute.memory import free_memory
from sdclr.data.choices import OnError, Placement
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.collections.images import BadFile, MaxSkipped
from sdclr.data.collections.opened_pictures import OpenedPictures
from sdclr.data.collections.store_files import (
    FORMAT,
    IDENTITY,
    JOURNAL,
    PIXELS,
    MappedFile,
    find_damage,
    layout,
    locked,
    require_ours,
    write_pixels,
)
from sdclr.data.decoding.decode import ALL_GREY_BITS, printable, state_of
from sdclr.data.splits import Positions
from sdclr.data.views.cutting_on_device import ResidentPixels
from sdclr.data.views.parameters import ViewSpec
from sdclr.errors import ConfigError, DataError, MissingInputError
from sdclr.stills import Bytes
from sdclr.storage.durable_files import storage_errors, sync_folder, write_atomically

VERSION = 1
MANIFEST = "manifest.json"
LARGEST_SHARE_OF_DEVICE = 0.4
"""Of the free memory on the device: the training step needs the rest."""
LARGEST_SHARE_OF_MEMORY = 0.5
"""Of the free memory: pinned pages are not available to other processes."""
COPIED_AT_ONCE = 1 << 28
"""Bytes."""


class StoredPicture(NamedTuple):
    """The pixels of one image, inside the store."""

    whole: Bytes
    """[H, W, 3]."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.whole.shape[1], self.whole.shape[0]

    def pixels(self, left: int, top: int, right: int, bottom: int) -> Bytes:
        """[bottom - top, right - left, 3] of a box inside the image, without a copy."""
        return self.whole[top:bottom, left:right]


@dataclass(frozen=True)
class DecodedStore(OpenedPictures):
    """Images with decoded pixels in a store; what the CPU cuts out of them equals that of their files, to the bit."""

    folder: Path
    files: ImageFiles
    """The files whose pixels these are, with their names and labels."""
    pixels: MappedFile
    """All bytes of the store."""
    starts: Positions
    """int64 [N], the first byte of each image."""
    sizes: Positions
    """int64 [N, 2]: heights and widths."""
    checksums: Positions
    """int64 [N], CRC-32 of the bytes of each image."""
    device: torch.device
    """The device of views, stills and crops."""
    placement: Placement = "auto"
    """Where the pixels are placed for training; auto: where they fit."""
    resident: ResidentPixels | None = None
    """The pixels on the device or in pinned memory; None: mapped, and views are cut by threads."""

    @property
    def labels(self) -> Positions | None:
        return self.files.labels

    @property
    def num_workers(self) -> int | None:
        """Threads that cut views; None: one for every core."""
        return self.files.num_workers

    def __len__(self) -> int:
        return len(self.files)

    @property
    def names(self) -> Sequence[str]:
        return self.files.names

    @property
    def cut_on_device(self) -> bool:
        return self.resident is not None

    def size(self, position: int) -> tuple[int, int]:
        height, width = self.sizes[position].tolist()
        return height, width

    @property
    def channels(self) -> int:
        return 3  # DataConfig refuses a store of others

    def decoded_bytes(self) -> int:
        return 3 * int(self.sizes.prod(axis=1).sum())

    def at(self, positions: Positions) -> DecodedStore:
        fields = {name: getattr(self, name)[positions] for name in ("starts", "sizes", "checksums")}
        return replace(self, files=self.files.at(positions), resident=None, **fields)

    def with_labels(self, labels: Positions | None) -> DecodedStore:
        return replace(self, files=self.files.with_labels(labels))

    def to(self, device: torch.device) -> DecodedStore:
        """The same images, with views on ``device``; for a CUDA device the pixels are moved by ``placement``.

        Raises ConfigError for a ``placement`` that this device does not support.
        """
        place = choose_placement(self.placement, len(self.pixels), device)
        if place == "mapped":
            return replace(self, device=device, resident=None)
        where = device if place == "device" else torch.device("cpu")
        pixels = torch.empty(
            len(self.pixels), dtype=torch.uint8, device=where, pin_memory=place == "pinned"
        )
        for start in range(0, len(pixels), COPIED_AT_ONCE):
            piece = slice(start, start + COPIED_AT_ONCE)
            pixels[piece] = torch.from_numpy(np.array(self.pixels.part(piece.start, piece.stop)))
        self.pixels.part(0, 0)  # what was written during the last copy is refused as well
        resident = ResidentPixels(
            pixels.view(-1, 3), self.starts // 3, self.sizes, device, self.names
        )
        return replace(self, device=device, resident=resident)

    def describe(self) -> str:
        """The size of the pixels, and where they are."""
        size = f"{len(self.pixels) / 1e9:.2f} GB of decoded pixels"
        if self.resident is None:
            return f"{size}, mapped from {printable(self.folder)}"
        return f"{size}, {'in pinned memory' if self.resident.pixels.is_pinned() else f'on {self.device}'}"

    def verified(
        self, on_error: OnError, advance: Callable[[int], None], max_skipped: MaxSkipped = 0.01
    ) -> tuple[DecodedStore, list[BadFile]]:
        """The store itself, after every byte was read and matches its checksum.

        Raises DataError otherwise, whatever ``on_error`` is: a damaged store is built again, not left out.
        """
        damaged = find_damage(
            self.pixels,
            self.starts,
            self.sizes,
            self.checksums,
            advance,
            num_workers=self.num_workers,
        )
        if damaged:
            name = printable(self.files.paths[damaged[0]])
            raise _damaged(
                self.folder, f"the pixels of {len(damaged)} images have changed (first: {name})"
            )
        return self, []

    def picture(self, position: int) -> StoredPicture:
        """One image, without a copy; ChangedDataError where the store was written since it was opened."""
        height, width = self.sizes[position].tolist()
        start = int(self.starts[position])
        content = self.pixels.part(start, start + height * width * 3)
        return StoredPicture(content.reshape(height, width, 3))

    def views(
        self, batches: Iterable[Tensor], spec: ViewSpec, *, seed: int, epoch: int
    ) -> Iterator[Views]:
        if self.resident is not None and spec.own is None:
            return self.resident.views(batches, spec, seed=seed, epoch=epoch)
        return super().views(batches, spec, seed=seed, epoch=epoch)

    def content(self) -> Iterator[bytes | memoryview]:
        """The content of the files: where the pixels come from does not matter."""
        return self.files.content()


def choose_placement(wanted: Placement, num_bytes: int, device: torch.device) -> Placement:
    """Where ``num_bytes`` of pixels go: to the device if they take up to 40 % of what is free there, else to pinned
    memory if they take up to half of what is free, else they stay mapped. Without a CUDA device they stay mapped.

    Raises ConfigError where ``wanted`` needs a CUDA device and there is none.
    """
    if device.type != "cuda":
        if wanted in ("device", "pinned"):
            raise ConfigError(
                f"data.placement={wanted} needs a CUDA device, and this run is on {device}. Use auto."
            )
        return "mapped"
    if wanted != "auto":
        return wanted
    if num_bytes <= LARGEST_SHARE_OF_DEVICE * free_memory(device):
        return "device"
    return (
        "pinned"
        if num_bytes <= LARGEST_SHARE_OF_MEMORY * free_memory(torch.device("cpu"))
        else "mapped"
    )


def open_store(folder: Path | str, images: ImageFiles) -> DecodedStore:
    """The finished store in ``folder``, for the images it was built from. Checks the state of every image file.

    Raises MissingInputError where there is no finished store, and DataError for one that is damaged or was built from
    other images: other names, sizes, times of change, or another ``exif_rotation`` or ``grey_bits``.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    expected = _facts(images)
    # earlier stores do not record it
    same_bits = manifest.get("grey_bits", ALL_GREY_BITS) == images.grey_bits
    if same_bits and manifest.items() >= expected.items():
        return _mapped(folder, manifest, images)
    if (manifest.get("format"), manifest.get("version")) != (FORMAT, VERSION):
        raise _damaged(
            folder, f"its format is {manifest.get('format')!r}, version {manifest.get('version')!r}"
        )
    raise DataError(
        f"the store {printable(folder)} was made from other images ({manifest.get('count')}, exif_rotation="
        f"{manifest.get('exif_rotation')}; now {len(images)}, exif_rotation={images.exif_rotation}): names, "
        f"sizes, bits or modification times differ. To decode them again, remove the folder {printable(folder)}."
    )


def build_store(
    images: ImageFiles, folder: Path | str, advance: Callable[[int], None] = lambda done: None
) -> DecodedStore:
    """Decode ``images`` into a store, resuming a build that was killed; a finished one is opened.

    ``advance`` receives the number of images done. Raises DataError for an image that cannot be decoded or a finished
    store of other images, StorageError when the disk is too small, and RunFolderError when it may not be written.
    """
    folder = Path(folder)
    if (folder / MANIFEST).is_file():
        store = open_store(folder, images)
        advance(len(images))
        return store
    if folder.exists():
        raise DataError(
            f"{printable(folder)} exists and is not a store of decoded pixels. Choose another data.store."
        )
    unfinished = folder.with_name(f"{folder.name}.partial")
    with storage_errors(unfinished):
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        with locked(unfinished):
            require_ours(unfinished)
            unfinished.mkdir(exist_ok=True)
            write_atomically(
                unfinished / IDENTITY, json.dumps({"format": FORMAT, "unfinished": True})
            )
            facts, sizes = _facts(images), images.sizes
            checksums = write_pixels(images, unfinished, facts, advance)
            manifest = facts | {
                "pillow": PIL.__version__,
                "shapes": sizes.tolist(),
                "crc32": checksums.tolist(),
            }
            write_atomically(unfinished / MANIFEST, json.dumps(manifest))
            unfinished.rename(folder)
            sync_folder(folder.parent)
            for name in (JOURNAL, IDENTITY):
                (folder / name).unlink()
    return open_store(folder, images)  # checks the files again: they may have changed meanwhile


# ---- what a store was made from


def _facts(images: ImageFiles) -> dict[str, Any]:
    """The facts that must be equal for a store to belong to the images."""
    digest = hashlib.sha256()
    for position, path in enumerate(images.paths):
        state = state_of(images.file(position))
        digest.update(
            f"{path}\0{state.size} {state.changed_ns}\n".encode("utf-8", "surrogateescape")
        )
    return {
        "format": FORMAT,
        "version": VERSION,
        "count": len(images),
        "exif_rotation": images.exif_rotation,
        "sources": digest.hexdigest(),
    } | ({} if images.grey_bits == ALL_GREY_BITS else {"grey_bits": images.grey_bits})


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise MissingInputError(
            f"{printable(folder)} holds no finished store of decoded images."
        ) from None
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"its manifest.json cannot be read ({error})") from None
    if not isinstance(manifest, dict):
        raise _damaged(folder, "its manifest.json holds no facts")
    return manifest


def _mapped(folder: Path, manifest: dict[str, Any], images: ImageFiles) -> DecodedStore:
    try:
        sizes = np.array(manifest["shapes"], dtype=np.int64).reshape(len(images), 2)
        checksums = np.array(manifest["crc32"], dtype=np.int64).reshape(len(images))
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise _damaged(folder, f"its manifest.json is not whole ({error})") from None
    starts, num_bytes = layout(sizes)
    file = folder / PIXELS
    found = file.stat().st_size if file.is_file() else 0
    if found != num_bytes:
        raise _damaged(folder, f"{PIXELS} has {found:,} bytes instead of {num_bytes:,}")
    return DecodedStore(
        folder, images, MappedFile.of(file), starts, sizes, checksums, images.device
    )


def _damaged(folder: Path, what: str) -> DataError:
    return DataError(
        f"the store {printable(folder)} cannot be used: {what}. To decode again, remove the folder."
    )
