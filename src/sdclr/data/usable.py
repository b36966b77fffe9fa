"""The one place that decides which images of a collection can be used, and reports which cannot."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import torch

from sdclr.any_progress import AnyProgress
from sdclr.data.choices import OnError
from sdclr.data.collections.images import MOST_SKIPPED, BadFile, Images, MaxSkipped, left_out
from sdclr.data.config import DataConfig
from sdclr.errors import DataError, MissingInputError


def look_at(
    images: Images,
    on_error: OnError,
    show: AnyProgress,
    *,
    max_skipped: MaxSkipped = MOST_SKIPPED,
    part: str = "",
) -> tuple[Images, list[BadFile]]:
    """Decode every file once; return the images that can be used, and those that cannot.

    ``part``: what they are called on the display, such as "test". Images in memory are all usable. Raises DataError or
    MissingInputError for a bad file, with ``on_error`` skip only for more than ``max_skipped``.
    """
    if images.files is None or not len(images):
        return images, []
    what = f"looking at {len(images)} {part} images" if part else f"looking at {len(images)} images"
    task = show.add(what, total=len(images), unit="images")
    usable, bad = images.verified(on_error, lambda done: show.advance(task, done), max_skipped)
    show.finish(task, f"{len(bad)} left out" if bad else "")
    return usable, bad


def usable_images(
    images: Images, config: DataConfig, show: AnyProgress, *, fate: str = "are left out"
) -> tuple[Images, list[BadFile]]:
    """The images, after reading their headers; with data.on_error=skip, all are decoded once and bad ones left out.

    A warning lists them, and what becomes of them (``fate``). For callers that use each image once or a few times.
    """
    if config.on_error == "raise":
        return images.to(torch.device("cpu")), []
    usable, bad = look_at(images, config.on_error, show, max_skipped=config.max_skipped)
    warn_of_bad_files(bad, len(images), fate=fate)
    return usable, bad


@contextlib.contextmanager
def skip_advised(config: DataConfig) -> Iterator[None]:
    """Inside the block, the error for an image that cannot be decoded advises how to continue without such files."""
    try:
        yield
    except (DataError, MissingInputError) as error:
        # the decoder's messages about a file begin with this
        if config.on_error == "skip" or not str(error).startswith("image "):
            raise
        raise type(error)(
            f"{error} To continue without what cannot be read: data.on_error=skip."
        ) from None


def warn_of_bad_files(
    bad: Sequence[BadFile], num_found: int, part: str = "", *, fate: str = "are left out"
) -> None:
    """Warn how many cannot be used, with the first causes; do nothing where there are none."""
    if bad:
        text = left_out(bad, num_found, fate=fate)
        warnings.warn(f"{part}: {text}" if part else text, stacklevel=3)
