"""Images that stay on disk: files below a folder or in archives, decoded in threads whenever they are used.

N images. One pass can decode all of them before training, so that no bad file ends a run; the pixels of that pass are
not kept (:mod:`sdclr.data.collections.image_store` keeps them). :mod:`sdclr.data.views.cutting` cuts them.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from sdclr.addresses import Place
from sdclr.data.choices import OnError
from sdclr.data.collections.boxes import Boxes, OutsideError
from sdclr.data.collections.images import MOST_SKIPPED, BadFile, MaxSkipped, allowed_to_skip
from sdclr.data.collections.members import Members
from sdclr.data.collections.opened_pictures import OpenedPictures
from sdclr.data.collections.packed_names import names_at
from sdclr.data.decoding.decode import (
    ALL_GREY_BITS,
    Source,
    bits_used,
    open_picture,
    printable,
    read_size,
    size_in_bytes,
)
from sdclr.data.look_ahead import in_pieces
from sdclr.data.splits import Positions
from sdclr.errors import ChangedDataError, DataError, MissingInputError, RemoteError, SdclrError
from sdclr.planes import cut_out
from sdclr.stills import Picture

CPU = torch.device("cpu")
HEADERS_PER_CALL = 256
IMAGES_PER_CALL = 8
NAMES_AT_ONCE = 65_536
SHOWN = 5
"""Bad files that an error shows with their causes; it only counts the others."""


@dataclass(frozen=True)
class ImageFiles(OpenedPictures):
    """Image files of any size and format that :mod:`sdclr.data.decoding.decode` reads."""

    root: Place
    paths: Sequence[str]
    """[N], below root, with / between folders."""
    labels: Positions | None
    """int64 [N], or None."""
    device: torch.device = CPU
    """The device of views, stills and crops."""
    exif_rotation: bool = False
    """Whether images are rotated by their EXIF tag."""
    grey_bits: int = ALL_GREY_BITS
    """How many bits 16-bit greys use."""
    channels: int = 3
    """Of every image; 3 are colours, to which greys are converted."""
    num_workers: int | None = None
    """Threads that read and decode; None: one for every core. Nothing but speed depends on it."""
    members: Members | None = None
    """Where the images are in archives; None for files."""
    boxes: Boxes | None = None
    """Which boxes are cut out of which files, where images are boxes; ``paths`` are then FILE#x,y,width,height."""
    columns: Mapping[str, npt.NDArray[np.object_]] = field(default_factory=dict)
    """Further columns of a table, by name: [N] texts. Nothing here depends on them."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def names(self) -> Sequence[str]:
        return self.paths

    @property
    def files(self) -> ImageFiles:
        return self

    @property
    def cut_on_device(self) -> bool:
        return False

    def describe(self) -> None:
        return None

    def decoded_bytes(self) -> int:
        return self.channels * int(self.sizes.prod(axis=1).sum())

    def at(self, positions: Positions) -> ImageFiles:
        labels = None if self.labels is None else self.labels[positions]
        members = None if self.members is None else self.members.at(positions)
        return replace(
            self,
            paths=names_at(self.paths, positions),
            labels=labels,
            members=members,
            boxes=None if self.boxes is None else self.boxes.at(positions),
            columns={name: cells[positions] for name, cells in self.columns.items()},
        )

    def with_labels(self, labels: Positions | None) -> ImageFiles:
        return replace(self, labels=labels)

    def to(self, device: torch.device) -> ImageFiles:
        """The same files, after finding each of them and reading its header; their views are on ``device``."""
        return replace(self, device=device).with_sizes(self.sizes)

    def with_sizes(self, sizes: Positions) -> ImageFiles:
        """The same files with known ``sizes``, int64 [N, 2], heights and widths: their headers need not be read."""
        known = replace(self)
        known.__dict__["sizes"] = sizes
        return known

    def verified(
        self,
        on_error: OnError,
        advance: Callable[[int], None],
        max_skipped: MaxSkipped = MOST_SKIPPED,
    ) -> tuple[ImageFiles, list[BadFile]]:
        """The files that can be decoded, and those that cannot: every file is decoded once.

        ``advance`` is called with the number of files done. Raises an error that counts the bad files and shows the
        first; with ``on_error`` skip only where these are more than ``max_skipped`` or all files.
        """
        deep: dict[str, int] = {}  # the largest level of every image of 16 bits

        def decoded_size(row: int) -> tuple[int, int]:
            file = self.file(row)
            picture, largest = self._decoded(file)
            if largest is not None:
                deep[printable(file)] = largest
            return self._size_in(row, *picture.size[::-1])

        sizes, failures = self._measure(decoded_size, IMAGES_PER_CALL, advance)
        _warn_of_dark(deep, self.grey_bits)
        allowed = allowed_to_skip(max_skipped, len(self))
        if failures and on_error == "raise":
            more = f" data.max_skipped={len(failures)}" if len(failures) > allowed else ""
            raise self._summary(
                failures,
                f"Restore them, or leave them out with data.on_error=skip{more} (data.name=images).",
            )
        if len(failures) > allowed:
            raise self._summary(
                failures,
                f"data.max_skipped={max_skipped:g} leaves out at most {allowed} of {len(self)}. Restore them, or allow "
                f"more: data.max_skipped={len(failures)} (a whole number is a count, a number below 1 a share).",
            )
        if failures and len(failures) == len(self):
            raise self._summary(failures, "None is left.")
        good = np.array([row for row in range(len(self)) if row not in failures], dtype=np.int64)
        return self.at(good).with_sizes(sizes[good]), [
            BadFile(self.paths[row], str(error)) for row, error in failures.items()
        ]

    @cached_property
    def sizes(self) -> Positions:
        """int64 [N, 2]: height and width from the headers, read once.

        Raises one MissingInputError (all are absent) or DataError that counts the files whose headers are bad and shows
        the first.
        """
        sizes, failures = self._measure(self.size, HEADERS_PER_CALL, lambda done: None)
        if failures:
            most = allowed_to_skip(MOST_SKIPPED, len(self))
            more = f" data.max_skipped={len(failures)} (or more)" if len(failures) > most else ""
            raise self._summary(
                failures,
                f"Restore them, leave them out with data.on_error=skip{more}, or give the folder that holds them (of a "
                "list: data.root).",
                of_headers=True,
            )
        return sizes

    def size(self, position: int) -> tuple[int, int]:
        """(height, width) of one image, from the header of its file."""
        height, width = read_size(
            self.file(position), exif_rotation=self.exif_rotation, channels=self.channels
        )
        return self._size_in(position, height, width)

    def _size_in(self, position: int, height: int, width: int) -> tuple[int, int]:
        """(height, width) of an image whose file holds a picture of this size: that of its box, if it is one."""
        if self.boxes is None:
            return height, width
        left, top, right, bottom = self._box(position, height, width)
        return bottom - top, right - left

    def _box(self, position: int, height: int, width: int) -> tuple[int, int, int, int]:
        assert self.boxes is not None
        try:
            return self.boxes.pixels(position, width, height)
        except OutsideError as error:
            raise DataError(
                f"image {printable(self.file(position))}: {error}. Fix it, or take it off its list."
            ) from None

    def picture(self, position: int) -> Picture:
        """One decoded image. DataError if its size is not the one read from its header before."""
        picture, _ = self._decoded(self.file(position))
        if self.boxes is not None:
            width, height = picture.size
            picture = cut_out(picture, self._box(position, height, width))
        if picture.size[::-1] != tuple(self.sizes[position]):
            raise DataError(
                f"image {printable(self.file(position))} has changed its size since its header was read."
            )
        return picture

    def content(self) -> Iterator[bytes | memoryview]:
        """Labels, then names: not the pixels, so that a million files need not be read, and not the root."""
        yield f"{len(self)} files".encode()
        yield b"unlabelled" if self.labels is None else self.labels.tobytes()
        for first in range(0, len(self), NAMES_AT_ONCE):
            names = "\0".join(self.paths[first : first + NAMES_AT_ONCE])
            yield ("\0" * (first > 0) + names).encode("utf-8", "surrogateescape")
        if self.exif_rotation:
            yield b"turned by EXIF"
        if self.boxes is not None:
            yield f"boxes in {self.boxes.unit}".encode()
        if self.grey_bits != ALL_GREY_BITS:
            yield f"grey of {self.grey_bits} bits".encode()
        if self.channels != 3:
            yield f"{self.channels} channels".encode()

    def sizes_digest(self) -> str:
        """16 hex digits over the sizes of all files in bytes, which differ for other files under the same names."""
        digest = hashlib.sha256()
        for position in range(len(self)):
            digest.update(f"{size_in_bytes(self.file(position))} ".encode())
        return digest.hexdigest()[:16]

    def file(self, position: int) -> Source:
        """Where the image is stored."""
        path = self.paths[position]
        if self.members is not None:
            return self.members.member(self.root, position, path)
        return os.path.join(self.root, path if self.boxes is None else self.boxes.files[position])

    def box(self, position: int) -> tuple[float, ...] | None:
        """The key of the box that is cut out of the file, equal for equal boxes; None for the whole picture."""
        return None if self.boxes is None else self.boxes.key(position)

    def _decoded(self, file: Source) -> tuple[Picture, int | None]:
        """The image in a file, and its largest level if it came with 16 bits."""
        return open_picture(
            file,
            channels=self.channels,
            exif_rotation=self.exif_rotation,
            grey_bits=self.grey_bits,
        )

    def _measure(
        self,
        measure: Callable[[int], tuple[int, int]],
        files_per_call: int,
        advance: Callable[[int], None],
    ) -> tuple[Positions, dict[int, SdclrError]]:
        """What ``measure`` returns for every position, int64 [N, 2], and by position, in order, what it raised."""
        sizes = np.zeros((len(self), 2), np.int64)
        failures: dict[int, SdclrError] = {}

        def call(rows: range) -> None:
            for row in rows:
                try:
                    sizes[row] = measure(row)
                # no image is bad because its server does not answer, or its archive was replaced
                except (RemoteError, ChangedDataError):
                    raise
                except SdclrError as error:
                    failures[row] = error

        in_pieces(len(self), files_per_call, call, advance, num_workers=self.num_workers)
        return sizes, {row: failures[row] for row in sorted(failures)}

    def _summary(
        self, failures: dict[int, SdclrError], cure: str, *, of_headers: bool = False
    ) -> SdclrError:
        """``of_headers``: nothing else was read, and the data after a sound header may be bad, too."""
        errors = list(failures.values())
        kind = (
            MissingInputError
            if all(isinstance(error, MissingInputError) for error in errors)
            else DataError
        )
        shown = "\n  ".join(map(str, errors[:SHOWN]))
        if len(errors) > SHOWN:
            shown += f"\n  and {len(errors) - SHOWN} more"
        counts = f"{'at least ' if of_headers else ''}{len(errors)} of {len(self)} images"
        return kind(f"{counts} below {printable(self.root)} cannot be used:\n  {shown}\n{cure}")


def _warn_of_dark(deep: Mapping[str, int], grey_bits: int) -> None:
    """Warn of images of 16 bits that are almost black, since their data have fewer bits than their files."""
    if not deep or (bits := bits_used(list(deep.values()))) >= min(grey_bits, ALL_GREY_BITS):
        return
    first = min(deep, key=os.fsencode)
    warnings.warn(
        f"{len(deep)} images have 16 bits and use the lowest {bits} of them only (largest level "
        f"{max(deep.values()):,}, first: {first}): they are almost black. If they are grey, use "
        f"data.grey_bits={bits} (name=images); convert colours to 8 bits.",
        stacklevel=3,
    )
