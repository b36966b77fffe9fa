"""Which images to train on and how an image becomes two views, as settings. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from sdclr.addresses import is_address, local_path, redacted, without_secrets
from sdclr.config import INCIDENTAL, LARGEST_SEED, Fraction, Section, allows_foreign
from sdclr.data.choices import (
    MEGADETECTOR_CATEGORIES,
    MEGADETECTOR_CONFIDENCE,
    MOST_CHANNELS,
    Links,
    OnError,
    Placement,
    WantedBoxes,
)
from sdclr.data.own_views import OWN_VIEWS, OwnViewsRow
from sdclr.data.sources.exclusion import glob_problem
from sdclr.data.table import SOURCES, SourceRow, Splits
from sdclr.errors import ConfigError
from sdclr.safe_text import shown

if TYPE_CHECKING:
    from sdclr.data.views.parameters import ViewSpec

Place = Annotated[str | None, Field(json_schema_extra=INCIDENTAL)]
"""A file or folder: its contents decide results, and are recognised by their fingerprint; its location does not."""


class DataConfig(Section):
    """Which images to pre-train on."""

    name: str
    """digits, cifar10, cifar100, cifar10_50k, cifar100_50k, arrays, images, imagenet100, imagenet_lt_exp, places_lt,
    inaturalist2018, or one that you have registered. digits comes with scikit-learn; the others need a path, and the
    four that are split by lists need a splits_dir too. Names ending in _50k have the usual long tail of all training
    images (docs/data.md)."""
    path: Place = None
    """CIFAR: folder or .npz; arrays: .npz; images: folder, list, table, glob, zip, tar, also at s3:// or https://;
    ImageNet: train/ and val/."""
    channels: Annotated[int, Field(ge=1, le=MOST_CHANNELS)] = 3
    """Channels of every image: 3 for red, green and blue, to which grey images are converted; 1 for grey; any other
    number is kept as it is, from TIFF, .npy, .npz or Python. The network and the views adapt; other than 3 have no
    colour jitter (saturation, hue, grey). docs/data.md lists which files hold how many."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for the reader of a data set that you have registered."""
    subset: Literal["long_tail", "balanced", "all"] = "long_tail"
    """long_tail D_i, its balanced twin D_b, or every training image (validation excepted where labels are known). For
    arrays, all takes the set as it is: no tail is drawn, and every class keeps its size."""
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
    group_by: str | None = None
    """images: which of them belong together (a burst, a tile, a patient, a camera): a column of the table, or folder,
    or an expression such as '(.*)_[0-9]+' whose parentheses find the group in a path. No group is both trained and
    tested on."""
    root: Place = None
    """images: the folder that the paths of a list or .csv are relative to; without it, the list's own folder."""
    path_column: str | None = None
    """images: the column of a table that holds the paths, where its name is not path, file, filename or image."""
    label_column: str | None = None
    """images: the column of a table that holds the labels, where it is not called label, class or target."""
    labels: Literal["none", "folders"] = "none"
    """images: whether the sub-folders of a folder are its classes; a list or .csv brings its own labels."""
    boxes: WantedBoxes = "none"
    """images: pixels or fractions: each row of a table is a box (columns x, y, width, height or xmin, ymin, xmax, ymax)
    and an image of its own, cut out when it is read; none: whole pictures; auto: boxes where there are such columns,
    whose unit must be unambiguous. sdclr pretrain TABLE uses auto. MegaDetector's JSON is always read as boxes."""
    box_categories: tuple[str, ...] = MEGADETECTOR_CATEGORIES
    """images: which categories of MegaDetector's JSON are cut out, by name or number."""
    min_confidence: Fraction = MEGADETECTOR_CONFIDENCE
    """images: the lowest confidence at which a box of MegaDetector's JSON is cut out."""
    layout: Literal["flat", "splits"] = "flat"
    """images: splits: the sub-folders train, val and test of the folder are parts of one set: train is trained on, an
    evaluation uses the others; flat: all images count. sdclr pretrain FOLDER recognises the former by itself."""
    test_path: Place = None
    """images: a second folder, list or .csv, the labelled test set for evaluation."""
    on_error: OnError = "raise"
    """images: what happens before training to undecodable files; skip leaves out at most max_skipped of them."""
    max_skipped: Annotated[int | float, Field(ge=0, json_schema_extra=INCIDENTAL)] = 0.01
    """images: how many files data.on_error=skip may leave out: a whole number is a count, a number below 1 a share of
    the files (at least one file). More bad ones are a sign that something else is wrong."""
    exif_rotation: bool = Field(default_factory=lambda data: data.get("name") == "images")
    """images: rotate every image by its EXIF tag, as photos from phones need; the reference does not. TIFF and HEIC
    files are always rotated."""
    grey_bits: Annotated[int, Field(ge=8, le=16)] = 16
    """images, arrays, given: how many bits 16-bit greys use; 12, for data of many cameras, makes level 4,095 white."""
    exclude: tuple[str, ...] = ()
    """images: globs of what to leave out, such as thumbs or *_mask.png. Each is matched against the path below the
    folder (or the list's root), the path of every folder above, and their names. * matches / too; case matters."""
    links: Annotated[Links, Field(json_schema_extra=INCIDENTAL)] = "inside"
    """Images on disk: where links below their folder, or below the root of a list, may lead; outside is refused."""
    store: Place = None
    """Images on disk: a folder for their decoded pixels, made at the first use; views then cost no decoding."""
    placement: Annotated[Placement, Field(json_schema_extra=INCIDENTAL)] = "auto"
    """A store's pixels: on the CUDA device, in pinned memory, or mapped; auto: the first of these that they fit in."""
    num_workers: Annotated[int | None, Field(ge=1, le=4096, json_schema_extra=INCIDENTAL)] = None
    """Images on disk: threads that read, decode and cut; None: one for every core. Changes nothing but speed."""

    @property
    def row(self) -> SourceRow:
        """The row of this data set in the table."""
        return SOURCES[self.name]

    @property
    def splits(self) -> Splits:
        """Where the split comes from."""
        return _splits(self.row, self.subset)

    def unfit_for(self, name: str, subset: str) -> dict[str, Any]:
        """The settings of this data set that do not suit ``subset`` of the data set ``name``, with the latter's
        defaults.
        """
        row = SOURCES[name]
        unfit = ["options"]  # of another reader
        if _splits(row, subset) != self.splits:
            unfit += [*GENERATED_SPLITS_ONLY, "validation_per_class"]
        if row.splits == "authors":
            unfit.append("split")
        if not row.takes_path:
            unfit.append("path")
        if not row.authors_lists:
            unfit.append("splits_dir")
        if not row.on_disk:
            unfit += ["store", "placement", "num_workers", "links"]
        if name in _IN_COLOURS:
            unfit.append("channels")
        if name != "images":
            unfit += [f for f in _IMAGES_ONLY if f != "grey_bits" or name != "arrays"]
        return {field: _default_of(field, name) for field in unfit}

    @field_validator("name")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in SOURCES:
            raise ValueError(f"there is no data set {shown(repr(value))}. {SOURCES.choice(value)}")
        return value

    @field_validator("path", "test_path")
    @classmethod
    def _without_secrets(cls, value: str | None) -> str | None:
        return None if value is None else without_secrets(local_path(value))

    @field_validator("root", "splits_dir", "store")
    @classmethod
    def _is_on_a_disk(cls, value: str | None) -> str | None:
        if value is not None and is_address(value):
            raise ValueError(
                f"{shown(redacted(value))} is an address; this must be a folder on a disk. Only shards (data.path, "
                "data.test_path) are read from other machines."
            )
        return None if value is None else local_path(value)

    @model_validator(mode="after")
    def _path_fits(self) -> DataConfig:
        if (
            self.path is not None
            and is_address(self.path)
            and self.name != "images"
            and self.row.own is None
        ):
            raise ValueError(
                f"{shown(self.path)} is an address, where only shards of images are read (name=images); "
                f"{self.name} must be on a disk. Copy it there."
            )
        if self.path is not None and not self.row.takes_path:
            why = "come with scikit-learn" if self.name == "digits" else "come from Python"
            raise ValueError(
                f"{self.name} {why} and take no path: leave out {shown(self.path)}, or choose another data.name."
            )
        if self.options and self.row.own is None:
            raise ValueError(
                f"options are for data sets that you have registered; leave them out for {self.name}."
            )
        if self.splits_dir is not None and not self.row.authors_lists:
            known = ", ".join(name for name, row in SOURCES.items() if row.authors_lists)
            raise ValueError(f"splits_dir holds lists for {known} only, not for {self.name}.")
        if self.channels != 3 and self.store is not None:
            raise ValueError(
                f"store keeps images of 3 channels, and channels is {self.channels}. Leave it out."
            )
        if self.channels != 3 and self.name in _IN_COLOURS:
            raise ValueError(
                f"channels={self.channels} is not for {self.name}, whose images have 3. Leave it out."
            )
        if self.row.splits == "usual":
            if self.split > 2**32:
                raise ValueError(
                    f"split must be at most {2**32}, got {self.split}: NumPy's legacy generator, which draws the "
                    f"splits of {self.name}, takes no greater seed."
                )
            for field in ("profile", "validation_per_class"):
                if getattr(self, field) != type(self).model_fields[field].default:
                    raise ValueError(
                        f"{field}={getattr(self, field)} is not for {self.name}, whose sets have an "
                        "exponential profile and hold nothing out. Leave it out, or use the data set of the name "
                        "without _50k."
                    )
        if self.row.splits == "authors" and self.split != 1:
            raise ValueError(
                f"split must be 1, got {self.split}: the authors published one split of {self.name}."
            )
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
                raise ValueError(
                    f"must be a whole number (a count) or a number below 1 (a share), got {value}."
                )
            return int(value)
        return value

    @model_validator(mode="after")
    def _settings_do_something(self) -> DataConfig:
        on_disk = self.row.on_disk
        for field in ("store", "num_workers"):
            if getattr(self, field) is not None and not on_disk:
                raise ValueError(
                    f"{field} is for images on disk, and those of {self.name} are in memory. Leave it out."
                )
        if self.links != "inside" and not on_disk:
            raise ValueError(
                f"links={self.links} is for images on disk, and {self.name} has no links. Leave it out."
            )
        if self.placement != "auto" and self.store is None:
            raise ValueError(
                f"placement={self.placement} is for the pixels of a store. Add data.store=FOLDER."
            )
        # a recipe's ratio may remain set for arrays that are taken as they are
        for field in GENERATED_SPLITS_ONLY if self.row.splits == "own" else ():
            if (value := getattr(self, field)) != _default_of(field, self.name):
                raise ValueError(
                    f"{field}={value} does nothing for images, which are taken as they are. Leave it out."
                )
        for field in () if self.name == "images" else _IMAGES_ONLY:
            if field == "grey_bits" and self.name in ("arrays", "given"):
                continue
            if getattr(self, field) != _default_of(field, self.name):
                raise ValueError(
                    f"{field} is for name=images only, not for {self.name}. Leave it out."
                )
        return self


def _splits(row: SourceRow, subset: str) -> Splits:
    return "own" if row.all_is_as_given and subset == "all" else row.splits


_IN_COLOURS = frozenset(
    name for name, row in SOURCES.items() if name not in ("arrays", "images", "given", "digits")
)
"""Data sets of the package whose images are photographs."""
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
    "group_by",
)
GENERATED_SPLITS_ONLY = ("imbalance_ratio", "profile")
"""Settings of a long tail that is drawn."""


def _default_of(field: str, name: str) -> Any:
    """The default of a setting for the data set of this name."""
    described = DataConfig.model_fields[field]
    return described.get_default(call_default_factory=True, validated_data={"name": name})


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
    jitter: tuple[Fraction, Fraction, Fraction, Annotated[float, Field(ge=0, le=0.5)]] = (
        0.4,
        0.4,
        0.4,
        0.1,
    )
    """Strengths of brightness, contrast, saturation and hue."""
    jitter_probability: Fraction = 0.8
    """Probability that the colours are jittered at all."""
    grey: Fraction = 0.2
    """Probability of a grey view."""
    blur: Fraction = 0.0
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur, in pixels of the view."""

    own: str | None = None
    """A callable of yours that makes each view of a whole image, in place of the crop: module:name on the command line
    (docs/own-views.md). Flip, jitter, grey and blur are then applied only where they are set."""
    own_batch: str | None = None
    """A module of yours that changes the finished views of a batch, [B, C, S, S] to the same: module:name."""

    @property
    def is_foreign(self) -> bool:  # type: ignore[override]
        """Whether it names a callable that is not known here."""
        names = {self.own, self.own_batch} - {None}
        return not names <= OWN_VIEWS.keys()

    @field_validator("own", "own_batch")
    @classmethod
    def _is_registered(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None or value in OWN_VIEWS or allows_foreign(info):
            return value
        raise ValueError(_unknown_views(value))

    @model_validator(mode="after")
    def _own_views_are_whole(self) -> ViewsConfig:
        if self.own is not None and (self.area != (1, 1) or self.aspect != (1, 1)):
            raise ValueError(
                "own makes the whole view, and nothing is cropped after it. Leave area and aspect out, or set both to "
                "[1, 1]."
            )
        return self

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
        from sdclr.data.views.own import OwnBatch, OwnView
        from sdclr.data.views.parameters import ViewSpec

        plain = self.model_dump(exclude={"own", "own_batch"})
        return ViewSpec(
            **plain,
            own=None if self.own is None else OwnView.of(_require_views(self.own)),
            own_batch=None
            if self.own_batch is None
            else OwnBatch.of(_require_views(self.own_batch)),
        )


def _unknown_views(name: str) -> str:
    return (
        f"there are no views {shown(repr(name))} here. Name their code: --use module:name (of a new run "
        "views.own=module:name), or sdclr.register_views(...) from Python."
    )


def _require_views(name: str) -> OwnViewsRow:
    if name not in OWN_VIEWS:
        raise ConfigError(_unknown_views(name))
    return OWN_VIEWS[name]
