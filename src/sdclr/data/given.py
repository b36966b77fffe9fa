"""Images from Python objects, available inside a with block: data.name=given reads these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import numpy as np

from sdclr.data.collections.images import LabelledImages
from sdclr.data.sources.python_objects import given_images
from sdclr.errors import DataError
from sdclr.safe_text import shown

AT_HAND: ContextVar[LabelledImages | None] = ContextVar("given", default=None)


@contextmanager
def given(
    images: Any,
    labels: Sequence[Any] | None = None,
    *,
    test_images: Any = None,
    test_labels: Sequence[Any] | None = None,
    channels: int | None = None,
    grey_bits: int = 16,
    advance: Callable[[int], None] = lambda done: None,
) -> Iterator[LabelledImages]:
    """Provide, inside the block, the images of a run that was trained on ``images=...``.

    For :func:`evaluate`, :func:`compare`, :func:`embed`, :func:`mine`, :func:`examine`, :func:`resume` and reports.
    ``images`` and ``labels``: those of :func:`pretrain`, in the same order; functions that compare them with the run's
    raise an error for other images. ``test_images``, ``test_labels``: a test set; a run to be evaluated on it must be
    trained inside such a block, too, since all images are checked together. ``channels``, ``grey_bits``: data.channels
    and data.grey_bits of the run. ``advance`` is called with the number of images read. Raises DataError for anything
    that is not an image, and for test labels that no training image has.

    >>> import numpy as np
    >>> import sdclr
    >>> images = np.random.default_rng(0).integers(0, 256, (24, 12, 12, 3), dtype=np.uint8)
    >>> labels = ["cat", "dog"] * 12
    >>> small = {"epochs": 1, "batch_size": 8, "views.size": 8, "backbone.width": 4}
    >>> config = sdclr.recipe("digits_simclr").with_values(small)
    >>> run = sdclr.pretrain(config, "runs/given", images=images, labels=labels)
    >>> with sdclr.given(images, labels):
    ...     print(sdclr.evaluate(run, probes=["knn"]).class_names)
    ['cat', 'dog']
    """
    read = partial(given_images, channels=channels, grey_bits=grey_bits, advance=advance)
    found = read(images, labels)
    if test_images is not None:
        test = read(test_images, test_labels)
        found = LabelledImages(found.train, _in_terms_of(found, test), found.class_names)
    elif test_labels is not None:
        raise DataError("test_labels are those of test_images; give both.")
    before = AT_HAND.set(found)
    try:
        yield found
    finally:
        AT_HAND.reset(before)


def _in_terms_of(found: LabelledImages, test: LabelledImages) -> Any:
    """The test images with the classes of the training images."""
    if test.train.labels is None:
        raise DataError("the test images have no labels; give them as test_labels.")
    if unknown := [name for name in test.class_names if name not in found.class_names]:
        raise DataError(
            f"no training image is of class {shown(unknown[0])}, which test images have; the classes are "
            f"{', '.join(map(shown, found.class_names)) or 'none, for want of labels'}."
        )
    numbers = np.array([found.class_names.index(name) for name in test.class_names], dtype=np.int64)
    return test.train.with_labels(numbers[test.train.labels])
