"""What a collection of images can do for a job, whether it is in memory or on disk.

N images, B images per batch, C channels, S side of a view in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor

from sdclr.batch import Views
from sdclr.data.choices import OnError
from sdclr.data.splits import Positions, Split
from sdclr.data.views.parameters import ViewSpec
from sdclr.stills import Picture

if TYPE_CHECKING:
    from sdclr.data.collections.image_files import ImageFiles

T = TypeVar("T")
MaxSkipped = int | float
"""How many files may be left out: a whole number is a count, a number below 1 a share of the collection."""


MOST_SKIPPED = 0.01
"""Share of a collection's files that may be left out by default."""


def allowed_to_skip(max_skipped: MaxSkipped, num_images: int) -> int:
    """How many files may be left out. A share allows at least one, or small folders could skip none."""
    if isinstance(max_skipped, int) or max_skipped == 0:
        return int(max_skipped)
    return max(int(max_skipped * num_images), 1)


class BadFile(NamedTuple):
    """An image that was left out."""

    path: str
    """Below the root of its collection."""
    cause: str


def left_out(
    bad: Sequence[BadFile], num_found: int, shown: int = 5, *, fate: str = "are left out"
) -> str:
    """A warning for images that cannot be used: how many, what becomes of them, and the first causes."""
    causes = "\n  ".join(one.cause for one in bad[:shown])
    if len(bad) > shown:
        causes += f"\n  and {len(bad) - shown} more"
    return f"{len(bad)} of {num_found} images cannot be decoded and {fate}:\n  {causes}"


class Images(Protocol):
    """N images, with labels where known. ``batches`` are positions, int64 [B] each."""

    @property
    def labels(self) -> Positions | None:
        """int64 [N], or None."""

    @property
    def names(self) -> Sequence[str]:
        """[N]: paths below the root of the collection, with / between folders; positions for images in memory."""

    @property
    def channels(self) -> int:
        """C, of every image."""

    @property
    def files(self) -> ImageFiles | None:
        """The image files whose pixels these are; None for images in memory."""

    @property
    def cut_on_device(self) -> bool:
        """Whether views are cut by the device, whose rounding differs."""

    def describe(self) -> str | None:
        """A line to display when a run starts: where the pixels are. None where there is nothing to display."""

    def size(self, position: int) -> tuple[int, int]:
        """Height and width of one image in pixels. Raises DataError for a file whose size cannot be read."""

    def decoded_bytes(self) -> int:
        """The bytes of all images with 8 bits per channel."""

    def __len__(self) -> int: ...

    def at(self, positions: Positions) -> Self:
        """The images at these positions."""

    def with_labels(self, labels: Positions | None) -> Self:
        """The same images with other labels, int64 [N], or with none."""

    def to(self, device: torch.device) -> Self:
        """The same images, with views on ``device``; of images on disk, all files are found and their headers read.

        Raises MissingInputError or DataError when files are missing or are not images.
        """

    def verified(
        self, on_error: OnError, advance: Callable[[int], None], max_skipped: MaxSkipped = 0.01
    ) -> tuple[Self, list[BadFile]]:
        """The images that can be used, and those that cannot; images on disk are all decoded once.

        ``advance`` is called with the number of images done. Raises MissingInputError or DataError for bad images; with
        ``on_error`` skip only for more than ``max_skipped``.
        """

    def views(
        self, batches: Iterable[Tensor], spec: ViewSpec, *, seed: int, epoch: int
    ) -> Iterator[Views]:
        """Two random views of every image: what pre-training sees. A batch is positions, or draws of epoch_draws.

        With ``spec.single``, one view, as ``a``; ``b`` is empty.
        """

    def stills(self, size: int) -> Iterator[Tensor]:
        """Every image once, in order, as it is: uint8 batches [B, C, S, S] for feature extraction."""

    def looked_at(
        self, size: int, look: Callable[[Picture], T]
    ) -> Iterator[tuple[Tensor, list[T]]]:
        """Batches of stills with what ``look`` returns for each whole picture, which is decoded once for both.

        ``look`` is called in threads.
        """

    def probe_crops(
        self, batches: Iterable[Tensor], size: int, *, seed: int, epoch: int
    ) -> Iterator[Tensor]:
        """Randomly cropped images, uint8 [B, C, S, S]: what the paper's linear probe trains on."""

    def content(self) -> Iterator[bytes | memoryview]:
        """Bytes for fingerprints: they change with an image or a label; for images on disk, with a name or a label."""


@dataclass(frozen=True)
class LabelledImages:
    """A data set as its readers return it: a training pool, a test set where there is one, class names."""

    train: Images
    test: Images | None
    class_names: list[str]
    split: Split | None = None
    """Set where the lists that name the images also split them."""
    validation: Positions | None = None
    """Positions in the pool that are held out for validation, where its folders define them."""
    remarks: tuple[str, ...] = ()
    """What a reader should know about how the images were found: files that were left out, and why."""
