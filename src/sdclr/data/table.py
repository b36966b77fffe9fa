"""SOURCES: everything the rest of the program needs to know about a data set, by its name in settings.

Rows are lightweight: help, lists and settings import no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from sdclr.errors import ConfigError
from sdclr.outside import Table, is_outside, load_outside, origin_of, summary_of
from sdclr.safe_text import shown

Conventions = Literal["cifar", "imagenet"]
"""Which of the paper's conventions apply: thirds of the classes and its CIFAR probe, or > 100 / < 20 images and that of
ImageNet."""
Splits = Literal["generated", "usual", "authors", "own"]
"""Where a split comes from: drawn with a long tail; drawn as most papers on CIFAR-LT do; the authors' lists alone; the
images as they are."""


class SourceRow(NamedTuple):
    """One data set, or one way to use your own."""

    name: str
    summary: str
    reader: str
    """ "module:function": DataConfig, whether to download, folders to leave out -> LabelledImages."""
    splits: Splits = "generated"
    conventions: Conventions = "cifar"
    takes_path: bool = True
    on_disk: bool = False
    """Whether its images are files, read while a run trains."""
    authors_lists: bool = False
    """Whether the authors published split lists, which data.splits_dir holds."""
    all_is_as_given: bool = False
    """Whether data.subset=all is the set as it is, long-tailed by itself, from which no tail is drawn."""
    origin: str = ""
    """ "module:Name" of an entry from outside the package; empty for the package's own."""
    own: Callable[..., Any] | None = None
    """The reader of a data set from outside; its keyword arguments are data.options."""


_READ = "sdclr.data.build:"

SOURCES: Table[SourceRow] = Table(
    "data set",
    [
        SourceRow(
            "digits",
            "scikit-learn's 8 x 8 digits; no download.",
            f"{_READ}digits",
            takes_path=False,
        ),
        SourceRow(
            "cifar10",
            "CIFAR-10, torchvision's folder or a .npz.",
            f"{_READ}cifar",
            authors_lists=True,
        ),
        SourceRow(
            "cifar100",
            "CIFAR-100, torchvision's folder or a .npz.",
            f"{_READ}cifar",
            authors_lists=True,
        ),
        SourceRow(
            "cifar10_50k",
            "CIFAR-10 with the usual long tail, of all 50,000 training images: 12,406 at ratio 100.",
            f"{_READ}cifar",
            splits="usual",
        ),
        SourceRow(
            "cifar100_50k",
            "CIFAR-100 with the usual long tail, of all 50,000 training images: 10,847 at ratio 100.",
            f"{_READ}cifar",
            splits="usual",
        ),
        SourceRow("arrays", "Your own images as one .npz.", f"{_READ}arrays", all_is_as_given=True),
        SourceRow(
            "given",
            "Images out of Python objects: sdclr.pretrain(images=...).",
            f"{_READ}given",
            splits="own",
            takes_path=False,
        ),
        SourceRow(
            "images", "Your own image files.", f"{_READ}own_images", splits="own", on_disk=True
        ),
        SourceRow(
            "imagenet100",
            "ImageNet-100-LT: ImageNet's folder and the authors' lists.",
            f"{_READ}imagenet",
            splits="authors",
            conventions="imagenet",
            on_disk=True,
            authors_lists=True,
        ),
        SourceRow(
            "imagenet_lt_exp",
            "ImageNet-LT-exp: ImageNet's folder and the authors' lists.",
            f"{_READ}imagenet",
            splits="authors",
            conventions="imagenet",
            on_disk=True,
            authors_lists=True,
        ),
        SourceRow(
            "places_lt",
            "Places-LT: the folder of Places and the published lists.",
            f"{_READ}published_lists",
            splits="authors",
            conventions="imagenet",
            on_disk=True,
            authors_lists=True,
        ),
        SourceRow(
            "inaturalist2018",
            "iNaturalist 2018: its folder and the published lists.",
            f"{_READ}published_lists",
            splits="authors",
            conventions="imagenet",
            on_disk=True,
            authors_lists=True,
        ),
    ],
)
"""Name -> row."""


def register_source(
    read: Callable[..., Any],
    name: str | None = None,
    *,
    conventions: Conventions = "cifar",
    summary: str | None = None,
) -> str:
    """Add a data set of your own to :data:`SOURCES`; returns its name.

    ``read(path, **options)`` returns :class:`~sdclr.data.LabelledImages`, or a mapping of arrays as in a .npz:
    ``train_images`` uint8 [N, H, W, 3], ``train_labels`` int [N], and optionally ``test_images``, ``test_labels``,
    ``class_names``. ``path`` is data.path (None where none was given), ``options`` data.options. ``name``: its name in
    settings; default: that of the function in lower case. ``conventions``: how its classes are grouped. Long-tailed
    splits are drawn from it as from CIFAR. Raises ConfigError for a name that is taken or not plain. See
    docs/extending.md.

    >>> import numpy as np
    >>> def noise(path, count=20):
    ...     "Random pictures."
    ...     images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    ...     return {"train_images": images, "train_labels": np.arange(count) % 2}
    >>> with SOURCES.temporarily():
    ...     register_source(noise)
    'noise'
    """
    if problem := why_no_source(read):
        raise ConfigError(f"{shown(repr(read))} cannot be a data set: {problem}.")
    name = name or str(read.__name__).lower()
    SOURCES.add(
        SourceRow(
            name,
            summary or summary_of(read),
            f"{_READ}from_outside",
            conventions=conventions,
            origin=origin_of(read),
            own=read,
        )
    )
    return name


def why_no_source(found: Any) -> str:
    """What keeps an object from being registered as a data set, in words; empty where nothing does."""
    if isinstance(found, type) or not callable(found) or not hasattr(found, "__name__"):
        return "it is not a function"
    return ""


def named_source(text: str) -> str:
    """The name of a data set that a user typed: "cifar10", or "module:function", which is registered."""
    if not is_outside(text):
        return text
    return register_source(load_outside(text, "data set", why_no_source))
