"""Room: images, labels, splits and views. Never sees a network; hands out positions, uint8 images and view batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from sdclr.config import INCIDENTAL, Fraction, Section, user_path
from sdclr.data.boxes import MEGADETECTOR_CATEGORIES, MEGADETECTOR_CONFIDENCE, WantedBoxes
from sdclr.data.epoch_order import epoch_batches, steps_per_epoch
from sdclr.data.exclusion import glob_problem
from sdclr.data.image_arrays import read_cifar, read_digits, read_npz
from sdclr.data.image_files import ImageFiles
from sdclr.data.image_store import Placement
from sdclr.data.imagenet import AUTHORS_IMAGENET_LISTS, read_imagenet
from sdclr.data.images import BadFile, Images, LabelledImages, OnError
from sdclr.data.links import Links
from sdclr.data.own_images import read_own_images
from sdclr.data.split_files import AUTHORS_CIFAR_FOLDERS, read_authors_cifar_split
from sdclr.data.splits import Split, draw_long_tail, natural_split
from sdclr.data.view_parameters import ViewSpec
from sdclr.data.views import make_views
from sdclr.errors import ConfigError, DataError
from sdclr.stateless_random import LARGEST_SEED

__all__ = [
    "BadFile",
    "Data",
    "DataConfig",
    "Images",
    "ViewSpec",
    "ViewsConfig",
    "build_data",
    "draw_long_tail",
    "epoch_batches",
    "make_views",
    "steps_per_epoch",
]


Place = Annotated[str | None, Field(json_schema_extra=INCIDENTAL)]
"""A file or folder: what is there decides, and is recognised by its fingerprint; where it lies does not."""


class DataConfig(Section):
    """Which images to pre-train on."""

    name: Literal["digits", "cifar10", "cifar100", "arrays", "images", "imagenet100", "imagenet_lt_exp"]
    """digits comes with scikit-learn; the others need a path, and imagenet100 and imagenet_lt_exp a splits_dir too."""
    path: Place = None
    """CIFAR: folder or .npz; arrays: .npz; images: folder, list, table, glob, zip, tar; ImageNet: train/ and val/."""
    subset: Literal["long_tail", "balanced", "all"] = "long_tail"
    """long_tail D_i, its balanced twin D_b, or every training image (validation excepted where labels are known)."""
    split: Annotated[int, Field(ge=1, le=LARGEST_SEED)] = 1
    """Which long-tailed split: the seed of a generated one, or the number of the authors' list (ImageNet has one)."""
    splits_dir: Place = None
    """The authors' split folder; without it, splits of CIFAR's structure are generated from the number."""
    imbalance_ratio: Annotated[float, Field(ge=1, le=1e9)] = 100.0
    """Images of the largest class / images of the smallest one, for generated splits."""
    profile: Literal["exponential", "pareto"] = "exponential"
    """Shape of the tail, for generated splits."""
    validation_per_class: Annotated[int, Field(ge=0, le=2**31)] = 0
    """Images of each class held out of all training sets, for generated splits and for images."""
    root: Place = None
    """images: the folder where the paths of a list or .csv begin; without it, the list's own folder."""
    path_column: str | None = None
    """images: the column of a table that holds the paths, where its name is not path, file, filename or image."""
    label_column: str | None = None
    """images: the column of a table that holds the labels, where it is not called label, class or target."""
    labels: Literal["none", "folders"] = "none"
    """images: whether the sub-folders of a folder are its classes; a list or .csv brings its own labels."""
    boxes: WantedBoxes = "none"
    """images: pixels or fractions: each row of a table is a box (columns x, y, width, height or xmin, ymin, xmax, ymax)
    and an image of its own, cut out when it is read; none: whole pictures; auto: boxes where there are such columns,
    whose unit must be sure. sdclr pretrain TABLE uses auto. MegaDetector's JSON is boxes in any case."""
    box_categories: tuple[str, ...] = MEGADETECTOR_CATEGORIES
    """images: of MegaDetector's JSON, which categories are cut out, by name or number."""
    min_confidence: Fraction = MEGADETECTOR_CONFIDENCE
    """images: of MegaDetector's JSON, from which confidence on."""
    layout: Literal["flat", "splits"] = "flat"
    """images: splits: the sub-folders train, val and test of the folder are parts of one set: train is trained on, an
    evaluation uses the others; flat: all images count. sdclr pretrain FOLDER recognises the former by itself."""
    test_path: Place = None
    """images: a second folder, list or .csv, the labelled test set for evaluation."""
    on_error: OnError = "raise"
    """images: what a file that cannot be decoded does before training; skip leaves out at most max_skipped files."""
    max_skipped: Annotated[int | float, Field(ge=0, json_schema_extra=INCIDENTAL)] = 0.01
    """images: how many files data.on_error=skip may leave out: a whole number is a count, a number below 1 a share of
    the files (one file in any case). More bad ones are a sign that something else is wrong."""
    exif_rotation: bool = Field(default_factory=lambda data: data.get("name") == "images")
    """images: turn every image as its EXIF tag says, as phones mean it; the reference does not. TIFF and HEIC files are
    turned in any case."""
    grey_bits: Annotated[int, Field(ge=8, le=16)] = 16
    """images: how many bits 16-bit grey files use; 12, for data of many cameras, makes level 4,095 white."""
    exclude: tuple[str, ...] = ()
    """images: globs of what to leave out, such as thumbs or *_mask.png: compared with the path below the folder (or the
    list's root), with that of every folder above, and with their names. * matches / too; capitals matter."""
    links: Annotated[Links, Field(json_schema_extra=INCIDENTAL)] = "inside"
    """Images on disk: where links below their folder, or below the root of a list, may lead; outside is refused."""
    store: Place = None
    """Images on disk: a folder for their decoded pixels, made at the first use; views then cost no decoding."""
    placement: Annotated[Placement, Field(json_schema_extra=INCIDENTAL)] = "auto"
    """Of a store's pixels: on the CUDA device, in pinned memory, or mapped; auto: the first of these they fit in."""
    num_workers: Annotated[int | None, Field(ge=1, le=4096, json_schema_extra=INCIDENTAL)] = None
    """Images on disk: threads that read, decode and cut; None: one for every core. Changes nothing but speed."""

    @model_validator(mode="after")
    def _path_fits(self) -> DataConfig:
        if self.name == "digits" and self.path is not None:
            raise ValueError("digits come with scikit-learn and take no path.")
        if self.splits_dir is not None and self.name not in (*AUTHORS_CIFAR_FOLDERS, *AUTHORS_IMAGENET_LISTS):
            known = ", ".join([*AUTHORS_CIFAR_FOLDERS, *AUTHORS_IMAGENET_LISTS])
            raise ValueError(f"splits_dir holds lists for {known} only, not for {self.name}.")
        if self.name in AUTHORS_IMAGENET_LISTS and self.split != 1:
            raise ValueError(f"split must be 1, got {self.split}: the authors published one split of {self.name}.")
        return self

    @field_validator("exclude", "box_categories", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        if isinstance(value, str):
            return (value,)
        return tuple(value) if isinstance(value, list) else value

    @field_validator("exclude")
    @classmethod
    def _globs_can_match(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for glob in value:
            if problem := glob_problem(glob):
                raise ValueError(f"{problem}.")
        return value

    @field_validator("max_skipped")
    @classmethod
    def _count_or_share(cls, value: int | float) -> int | float:
        if isinstance(value, float) and value >= 1:
            if not value.is_integer():
                raise ValueError(f"must be a whole number (a count) or a number below 1 (a share), got {value}.")
            return int(value)
        return value

    @model_validator(mode="after")
    def _settings_do_something(self) -> DataConfig:
        on_disk = self.name in ("images", *AUTHORS_IMAGENET_LISTS)
        for field in ("store", "num_workers"):
            if getattr(self, field) is not None and not on_disk:
                raise ValueError(
                    f"{field} is for images on disk, and those of {self.name} are in memory. Leave it out."
                )
        if self.links != "inside" and not on_disk:
            raise ValueError(f"links={self.links} is for images on disk, and {self.name} has no links. Leave it out.")
        if self.placement != "auto" and self.store is None:
            raise ValueError(f"placement={self.placement} is for the pixels of a store. Add data.store=FOLDER.")
        useless = _GENERATED_SPLITS_ONLY if self.name == "images" else _IMAGES_ONLY
        for field in useless:
            value = getattr(self, field)
            default = (
                type(self)
                .model_fields[field]
                .get_default(call_default_factory=True, validated_data={"name": self.name})
            )
            if value == default:
                continue
            if self.name == "images":
                raise ValueError(f"{field}={value} does nothing for images, which are taken as they are. Leave it out.")
            raise ValueError(f"{field} is for name=images only, not for {self.name}. Leave it out.")
        return self


_IMAGES_ONLY = (
    "root",
    "path_column",
    "label_column",
    "labels",
    "boxes",
    "box_categories",
    "min_confidence",
    "layout",
    "test_path",
    "on_error",
    "max_skipped",
    "exif_rotation",
    "grey_bits",
    "exclude",
)
_GENERATED_SPLITS_ONLY = ("imbalance_ratio", "profile")


class ViewsConfig(Section):
    """How an image becomes two views; the defaults are the paper's for CIFAR."""

    size: Annotated[int, Field(ge=4, le=8192)] = 32
    """Side of a view in pixels."""
    area: tuple[Fraction, Fraction] = (0.1, 1.0)
    """Smallest and largest share of the image that a crop covers."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width / height of a crop."""
    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    jitter: tuple[Fraction, Fraction, Fraction, Annotated[float, Field(ge=0, le=0.5)]] = (0.4, 0.4, 0.4, 0.1)
    """Strengths of brightness, contrast, saturation and hue."""
    jitter_probability: Fraction = 0.8
    """Probability that the colours are jittered at all."""
    grey: Fraction = 0.2
    """Probability of a grey view."""
    blur: Fraction = 0.0
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur, in pixels of the view."""

    @model_validator(mode="after")
    def _ranges_ascend(self) -> ViewsConfig:
        for name in ("area", "aspect", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1e4:
                raise ValueError(
                    f"{name} must be (smallest, largest) with 0 < smallest <= largest <= 10,000, got {low}, {high}."
                )
        return self

    def spec(self) -> ViewSpec:
        return ViewSpec(**self.model_dump())


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
    conventions: Literal["cifar", "imagenet"] = "cifar"
    """Which of the paper's conventions apply: how classes are grouped and how the linear probe is scheduled."""
    remarks: tuple[str, ...] = ()
    """What a reader should know of how the images were found, such as the files that were left out."""

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
                f"data.subset=balanced is not there for {self.name}: a set that is taken as it is has no balanced "
                "twin. Use data.subset=long_tail, the whole set."
            )
        return self.train.at(self.split.train if subset == "all" else self.split.subset(subset))

    def part(self, name: str) -> Images:
        """The test images, or the subset long_tail, balanced, few_shot, train or validation of the split."""
        if name == "test":
            assert self.test is not None
            return self.test
        split = self.labelled_split() if self.split is None else self.split
        return self.train.at(split.subset(name))

    def files(self, subset: str) -> dict[str, ImageFiles]:
        """The image files by part that a run on ``subset`` vouches for: what it trains on, and the test set.

        Of somebody's own images every training file; empty for images in memory, whose pixels are in the fingerprint.
        """
        train = self.train if self.name == "images" else self.pretraining_images(subset)
        parts = {"train": train, "test": self.test}
        return {part: images for part, images in parts.items() if isinstance(images, ImageFiles)}

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over the split's positions and every image and label: equal fingerprints, equal data.

        Of images on disk, the names stand for the pixels.
        """
        digest = hashlib.sha256((self.split.fingerprint if self.split else "no split").encode())
        for part in (self.train, self.test):
            for content in part.content() if part is not None else ():
                digest.update(content)
        return digest.hexdigest()[:16]

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
            return facts | {"number": None, "source": "unlabelled", "fingerprint": self.fingerprint, "counts": {}}
        split = self.split.manifest(self.train.labels, len(self.class_names))
        if self.test is not None and self.test.labels is not None:
            counts = [int((self.test.labels == c).sum()) for c in range(len(self.class_names))]
            split["counts"]["test"] = counts
        return facts | {"name": f"{self.name} split {self.split.number}", "fingerprint": self.fingerprint} | split


def build_data(config: DataConfig, *, download: bool = False, exclude: Iterable[Path | str] = ()) -> Data:
    """Read the images and draw or read the split. Raises before any work when something does not fit.

    ``exclude``: folders that are left out where a folder of images is searched, such as a run folder inside it.
    """
    labelled = _read_images(config, exclude) if config.name == "images" else _READERS[config.name](config, download)
    split = _split(config, labelled)
    conventions: Literal["cifar", "imagenet"] = "imagenet" if config.name in AUTHORS_IMAGENET_LISTS else "cifar"
    names, remarks = labelled.class_names, labelled.remarks
    return Data(config.name, labelled.train, labelled.test, names, split, conventions, remarks)


def _path(config: DataConfig) -> Path:
    if config.path is None:
        raise ConfigError(f"data.path is missing: say where {config.name} is, with --data PATH.")
    return user_path(config.path)


def _splits_dir(config: DataConfig) -> Path:
    if config.splits_dir is None:
        raise ConfigError(
            f"data.splits_dir is missing: {config.name} is split by the authors' lists. Say where their split "
            "folder is, with --splits-dir FOLDER."
        )
    return user_path(config.splits_dir)


def _read_images(config: DataConfig, exclude: Iterable[Path | str]) -> LabelledImages:
    return read_own_images(
        _path(config),
        root=_optional_path(config.root),
        class_folders=config.labels == "folders",
        in_splits=config.layout == "splits",
        validation_is_drawn=config.validation_per_class > 0,
        test_path=_optional_path(config.test_path),
        exif_rotation=config.exif_rotation,
        grey_bits=config.grey_bits,
        num_workers=config.num_workers,
        exclude=exclude,
        unwanted=config.exclude,
        links=config.links,
        path_column=config.path_column,
        label_column=config.label_column,
        boxes=config.boxes,
        box_categories=config.box_categories,
        min_confidence=config.min_confidence,
    )


def _optional_path(path: str | None) -> Path | None:
    return None if path is None else user_path(path)


def _read_imagenet(config: DataConfig, download: bool) -> LabelledImages:
    folders = _path(config), _splits_dir(config)
    return read_imagenet(config.name, *folders, num_workers=config.num_workers, links=config.links)


_READERS: dict[str, Callable[[DataConfig, bool], LabelledImages]] = {
    "digits": lambda config, download: read_digits(),
    "cifar10": lambda config, download: read_cifar("cifar10", _path(config), download=download),
    "cifar100": lambda config, download: read_cifar("cifar100", _path(config), download=download),
    "arrays": lambda config, download: read_npz(_path(config)),
    "imagenet100": _read_imagenet,
    "imagenet_lt_exp": _read_imagenet,
}


def _split(config: DataConfig, labelled: LabelledImages) -> Split | None:
    if labelled.split is not None:
        return labelled.split
    if config.splits_dir is not None:
        return read_authors_cifar_split(_splits_dir(config), config.name, config.split)
    if labelled.train.labels is None:
        return None
    if config.name == "images":
        return natural_split(
            labelled.train.labels,
            validation_per_class=config.validation_per_class,
            validation=labelled.validation,
            seed=config.split,
        )
    return draw_long_tail(
        labelled.train.labels,
        imbalance_ratio=config.imbalance_ratio,
        profile=config.profile,
        validation_per_class=config.validation_per_class,
        seed=config.split,
    )
