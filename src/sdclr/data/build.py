"""Settings -> images, labels and split: the one place that calls every reader of a data set."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sdclr.addresses import Place
from sdclr.config import user_path, user_place
from sdclr.data.choices import Unlabelled
from sdclr.data.collections.contents import digest_of, read_contents
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.collections.images import Images, LabelledImages
from sdclr.data.config import DataConfig
from sdclr.data.decoding.decode import NPY_SUFFIX
from sdclr.data.given import AT_HAND
from sdclr.data.grouping import Groups, group_images, require_apart, require_held_out_apart
from sdclr.data.sources.arrays import (
    labelled_arrays,
    read_cifar,
    read_digits,
    read_npz,
    with_classes_as_given,
)
from sdclr.data.sources.exclusion import Exclusion
from sdclr.data.sources.imagenet import read_imagenet
from sdclr.data.sources.own_images import read_own_images
from sdclr.data.sources.published_lists import read_published_lists
from sdclr.data.sources.split_files import read_authors_cifar_split
from sdclr.data.sources.wanted import Reading, Wanted
from sdclr.data.splits import Positions, Split, draw_long_tail, natural_split
from sdclr.data.table import Conventions
from sdclr.data.usual_splits import draw_usual_long_tail
from sdclr.errors import ConfigError, DataError
from sdclr.outside import load

Reader = Callable[[DataConfig, bool, Iterable[Path | str]], LabelledImages]
"""Settings, whether to download, folders to leave out -> images. A row of SOURCES names one."""


@dataclass(frozen=True)
class Data:
    """One data set with one split, and what the evaluation protocols need to know about it."""

    name: str
    train: Images
    """The whole training pool; the split's positions point into it."""
    test: Images | None
    class_names: list[str]
    split: Split | None
    """None for unlabelled images."""
    conventions: Conventions = "cifar"
    """How classes are grouped and how the linear probe is scheduled."""
    remarks: tuple[str, ...] = ()
    """What a reader should know about how the images were found, such as the files that were left out."""
    groups: Groups | None = None
    """Which images of ``train`` belong together (data.group_by)."""

    def pretraining_images(self, subset: str) -> Images:
        """The images a run trains on: long_tail, balanced or all."""
        if self.split is None:
            if subset != "all":
                raise ConfigError(
                    f"data.subset={subset} needs labels, and these images have none. Use data.subset=all."
                )
            return self.train
        if subset == "balanced" and self.split.source == "as given":
            raise ConfigError(
                f"data.subset=balanced is not available for {self.name}: a set that is taken as it is has no balanced "
                "twin. Use data.subset=long_tail, the whole set."
            )
        return self.train.at(self.split.train if subset == "all" else self.split.subset(subset))

    def long_tail_counts(self) -> list[int]:
        """Images of each class [C] in the long tail: they define many, medium and few, whatever a run trains on."""
        labels, num_classes = self.train.labels, len(self.class_names)
        assert labels is not None
        if self.split is None:
            return np.bincount(labels, minlength=num_classes).tolist()
        return self.split.counts("long_tail", labels, num_classes)

    def part(self, name: str) -> Images:
        """The test images, or the subset long_tail, balanced, few_shot, train or validation of the split."""
        if name == "test":
            assert self.test is not None
            return self.test
        split = self.labelled_split() if self.split is None else self.split
        return self.train.at(split.subset(name))

    def files(self, subset: str) -> dict[str, ImageFiles]:
        """The image files that a run on ``subset`` records, by part: those it trains on, and the test set.

        For a user's own images, every training file. Empty for images in memory, whose pixels are in the fingerprint.
        """
        train = self.train if self.name == "images" else self.pretraining_images(subset)
        parts = {"train": train, "test": self.test}
        return {
            part: images.files
            for part, images in parts.items()
            if images is not None and images.files is not None
        }

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over the split's positions and every image and label: equal fingerprints, equal data.

        For images on disk, their names are hashed in place of their pixels.
        """
        digest = hashlib.sha256((self.split.fingerprint if self.split else "no split").encode())
        for part in (self.train, self.test):
            for content in part.content() if part is not None else ():
                digest.update(content)
        return digest.hexdigest()[:16]

    @cached_property
    def pool_fingerprint(self) -> str:
        """16 hex digits over every image, label and class name: equal for all splits of one data set.

        For images on disk, their names are hashed in place of their pixels.
        """
        digest = hashlib.sha256("\0".join(self.class_names).encode("utf-8", "surrogateescape"))
        for part in (self.train, self.test):
            digest.update(b"none" if part is None else b"images")
            for content in part.content() if part is not None else ():
                digest.update(content)
        return digest.hexdigest()[:16]

    @cached_property
    def test_contents(self) -> str | None:
        """16 hex digits over the test images' file contents; None without a test set and for images in memory."""
        files = None if self.test is None else self.test.files
        return None if files is None else digest_of(read_contents(files))

    def groups_of(self, subset: str) -> Positions | None:
        """The group of each image of a subset of the split, int64; None where images are not grouped."""
        if self.groups is None or self.split is None:
            return None
        return self.groups.of_image[self.split.subset(subset)]

    def labelled_split(self) -> Split:
        """The split, for a protocol that needs labels and a test set; DataError where there are none."""
        if self.split is None or self.test is None or self.test.labels is None:
            raise DataError(
                f"{self.name} cannot be evaluated: it needs training labels and a labelled test set "
                "(arrays: train_labels, test_images and test_labels in the .npz; images: data.labels=folders or a list "
                "with labels, and data.test_path)."
            )
        return self.split

    def manifest(self) -> dict[str, Any]:
        """split.json: data set, class names, counts, fingerprint."""
        facts: dict[str, Any] = {"dataset": self.name, "class_names": self.class_names}
        if self.split is None or self.train.labels is None:
            return facts | {
                "number": None,
                "source": "unlabelled",
                "fingerprint": self.fingerprint,
                "counts": {},
            }
        split = self.split.manifest(self.train.labels, len(self.class_names))
        if self.test is not None and self.test.labels is not None:
            counts = [int((self.test.labels == c).sum()) for c in range(len(self.class_names))]
            split["counts"]["test"] = counts
        return (
            facts
            | {"name": f"{self.name} split {self.split.number}", "fingerprint": self.fingerprint}
            | split
        )


def build_data(
    config: DataConfig,
    *,
    download: bool = False,
    exclude: Iterable[Path | str] = (),
    given: LabelledImages | None = None,
    for_classifier: bool = False,
    unlabelled: Unlabelled = "keep_all",
    use_labels: bool = True,
) -> Data:
    """Read the images and draw or read the split. Raises before any work when something does not fit.

    ``exclude``: folders that are left out where a folder of images is searched, such as a run folder inside it.
    ``given``: the images of data.name=given. ``for_classifier``: of a user's own images, a folder val is the validation
    set, not the test set, even where there is no folder test. ``unlabelled``: what becomes of those without a label
    where others have one. ``use_labels``: False takes the training images as if they had none.
    """
    if given is not None:
        labelled = _with_its_classes(given)
    elif config.name == "images":
        labelled = own_images(
            config, download, exclude, for_classifier=for_classifier, unlabelled=unlabelled
        )
    else:
        read: Reader = load(config.row.reader)
        labelled = read(config, download, exclude)
    if not use_labels:
        train = labelled.train.with_labels(None)
        labelled = replace(labelled, train=train, class_names=[], split=None, validation=None)
    _require_channels(config, labelled)
    groups = None if config.group_by is None else group_images(labelled.train, config.group_by)
    if groups is not None and labelled.test is not None and config.group_by is not None:
        require_apart(groups, group_images(labelled.test, config.group_by))
    split = _split(config, labelled, groups)
    if groups is not None and split is not None:
        require_held_out_apart(groups, split.train, split.validation)
    names, remarks = labelled.class_names, labelled.remarks
    conventions = config.row.conventions
    return Data(
        config.name, labelled.train, labelled.test, names, split, conventions, remarks, groups
    )


def _require_channels(config: DataConfig, labelled: LabelledImages) -> None:
    """ConfigError for images, given or read by a registered reader, whose channels are not data.channels."""
    for images in (labelled.train, labelled.test):
        if images is None or images.channels == config.channels:
            continue
        how = f"data.channels={images.channels}"
        if config.name == "given":
            how = f"sdclr.given(images, channels={config.channels})"
        raise ConfigError(
            f"the images of {config.name} have {images.channels} channels, and data.channels is {config.channels}. "
            f"Use {how}."
        )


def _place(config: DataConfig) -> Place:
    if config.path is None:
        whose = "" if config.name == "images" else f" of {config.name}"
        raise ConfigError(
            f"data.path is missing: say where the images{whose} are, with --data PATH."
        )
    return user_place(config.path)


def _path(config: DataConfig) -> Path:
    """The path of a data set that must be on a disk, which DataConfig has checked."""
    place = _place(config)
    assert isinstance(place, Path)
    return place


def _splits_dir(config: DataConfig) -> Path:
    if config.splits_dir is None:
        raise ConfigError(
            f"data.splits_dir is missing: {config.name} is split by the authors' lists. Give their folder "
            "with --splits-dir FOLDER."
        )
    return user_path(config.splits_dir)


def digits(config: DataConfig, download: bool, exclude: Iterable[Path | str]) -> LabelledImages:
    return read_digits(config.channels)


def cifar(config: DataConfig, download: bool, exclude: Iterable[Path | str]) -> LabelledImages:
    # the images are the same for both families of splits
    return read_cifar(config.name.removesuffix("_50k"), _path(config), download=download)


def arrays(config: DataConfig, download: bool, exclude: Iterable[Path | str]) -> LabelledImages:
    as_given = config.splits == "own"
    return read_npz(_path(config), config.channels, config.grey_bits, as_given=as_given)


def given(config: DataConfig, download: bool, exclude: Iterable[Path | str]) -> LabelledImages:
    if (found := AT_HAND.get()) is None:
        raise ConfigError(
            "these images were given from Python, and only Python can give them again: pass images=... as before, or "
            "work on the run inside `with sdclr.given(images):`."
        )
    return _with_its_classes(found)


def _with_its_classes(given: LabelledImages) -> LabelledImages:
    found = with_classes_as_given(given.train, given.test, given.class_names, "the images given")
    return replace(found, split=given.split, remarks=(*given.remarks, *found.remarks))


def from_outside(
    config: DataConfig, download: bool, exclude: Iterable[Path | str]
) -> LabelledImages:
    """Read a data set that a user has registered."""
    assert config.row.own is not None
    found = config.row.own(_optional_path(config.path), **config.options)
    if isinstance(found, LabelledImages):
        return found
    origin = config.row.origin
    if not isinstance(found, Mapping):
        raise DataError(
            f"{origin} must return sdclr.data.LabelledImages or a mapping of arrays, got {type(found).__name__}."
        )
    arrays = {name: np.asarray(array) for name, array in found.items()}
    return labelled_arrays(arrays, origin, channels=config.channels)


def own_images(
    config: DataConfig,
    download: bool,
    exclude: Iterable[Path | str],
    *,
    for_classifier: bool = False,
    unlabelled: Unlabelled = "keep_all",
) -> LabelledImages:
    wanted = Wanted(
        root=_optional_path(config.root),
        class_folders=config.labels == "folders",
        in_splits=config.layout == "splits",
        left_out_folders=tuple(exclude),
        unwanted=Exclusion(config.exclude),
        links=config.links,
        path_column=config.path_column,
        label_column=config.label_column,
        unlabelled=unlabelled,
        boxes=config.boxes,
        box_categories=config.box_categories,
        min_confidence=config.min_confidence,
        also=() if config.channels == 3 else (NPY_SUFFIX,),
    )
    return read_own_images(
        _place(config),
        wanted,
        Reading(config.exif_rotation, config.grey_bits, config.channels, config.num_workers),
        test_path=None if config.test_path is None else user_place(config.test_path),
        validation_is_drawn=config.validation_per_class > 0,
        val_is_test=not for_classifier,
    )


def _optional_path(path: str | None) -> Path | None:
    return None if path is None else user_path(path)


def imagenet(config: DataConfig, download: bool, exclude: Iterable[Path | str]) -> LabelledImages:
    folders = _path(config), _splits_dir(config)
    return read_imagenet(config.name, *folders, num_workers=config.num_workers, links=config.links)


def published_lists(
    config: DataConfig, download: bool, exclude: Iterable[Path | str]
) -> LabelledImages:
    folders = _path(config), _splits_dir(config)
    return read_published_lists(
        config.name, *folders, num_workers=config.num_workers, links=config.links
    )


def _split(config: DataConfig, labelled: LabelledImages, groups: Groups | None) -> Split | None:
    if labelled.split is not None:
        return labelled.split
    if config.splits_dir is not None:
        return read_authors_cifar_split(_splits_dir(config), config.name, config.split)
    if labelled.train.labels is None:
        if config.validation_per_class and config.splits == "own":
            warnings.warn(
                f"data.validation_per_class={config.validation_per_class} holds nothing out: the images have no "
                "labels.",
                stacklevel=4,
            )
        return None
    if config.splits == "own":
        return natural_split(
            labelled.train.labels,
            validation_per_class=config.validation_per_class,
            validation=labelled.validation,
            groups=None if groups is None else groups.of_image,
            seed=config.split,
        )
    if config.row.splits == "usual":
        return draw_usual_long_tail(
            labelled.train.labels, imbalance_ratio=config.imbalance_ratio, seed=config.split
        )
    return draw_long_tail(
        labelled.train.labels,
        imbalance_ratio=config.imbalance_ratio,
        profile=config.profile,
        validation_per_class=config.validation_per_class,
        seed=config.split,
    )
