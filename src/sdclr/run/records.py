"""What the JSON files of a run folder may hold: strict models, so that a damaged file is reported and not used.

Further fields that an earlier or later version writes are kept as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, ValidationError

from sdclr.errors import DataError
from sdclr.safe_text import shown


def _require_text(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("must be a text")
    return value


Count = Annotated[int, Field(ge=0, le=2**53)]
"""A whole number that every reader of JSON reads exactly."""
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(max_length=100_000)]
Name = Annotated[Any, AfterValidator(_require_text)]
"""A file name of any bytes, which pydantic's own strings cannot hold."""
PairOfNames = Annotated[list[Name], Field(min_length=2, max_length=2)]
PictureName = Annotated[str, Field(pattern=r"^[a-z]+-[0-9]{4}(-[ab])?\.jpg$")]
"""A file name in examination/, which cannot lead out of it."""


class Record(BaseModel):
    """Base: strict, finite numbers only, further fields allowed."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Epoch(Record):
    """A line of metrics.jsonl: what one epoch measured."""

    __pydantic_extra__: dict[str, float | None]

    epoch: Annotated[int, Field(ge=1, le=2**53)]
    step: Count | None = None
    loss: float | None = None


class SplitNamed(Record):
    """The split of an evaluation."""

    number: Count | None
    fingerprint: Text
    name: Text | None = None


class LabelsRecord(Record):
    """Where the labels of an evaluation come from, if not from the training."""

    source: Text
    num_labelled: Count
    num_images: Count
    num_unknown_names: Count | None = None
    """Names in the file of labels that are not images of the run."""
    test_set: Text | None = None


class ProbeMeasured(Record):
    """One probe of evaluation/<protocol>.json."""

    per_class_accuracy: list[Share | None]
    """Share of each class's test images that are predicted right, [C]; None: not tested."""
    num_test: list[Count] | None = None
    """Test images of each class [C]."""
    seconds: float | None = None
    detail: Text | None = None
    """What was chosen on validation, and anything a reader should know."""
    display_name: Text | None = None
    """Its heading in tables; an earlier version did not write it."""
    origin: Text | None = None
    """ "module:Name" of a probe from outside the package. A string: reading it imports nothing."""
    settings: dict[str, Any] | None = None
    """The settings that it was built with."""


class EvaluationMade(Record):
    """evaluation/<protocol>.json."""

    protocol: Text | None = None
    dataset: Text
    group_convention: Literal["thirds", "thresholds"]
    """How the classes are grouped: thirds of them, or thresholds as for ImageNet."""
    train_counts: list[Count]
    """Long-tailed training images of each class [C], which define the groups."""
    class_names: list[Text]
    """[C]"""
    split: SplitNamed
    chance: Share
    """Accuracy of guessing among the classes that a probe was trained on."""
    backbone: Text | None = None
    """16 hex digits over the weights that were measured."""
    tested_on: Literal["test set", "cross-validation"] | None = None
    features_in: Literal["bf16"] | None = None
    """The precision of the backbone's passes, where it is not the backbone's own."""
    kept_together: Text | None = None
    """What images were grouped by (data.group_by): no group was both trained and tested on."""
    test_contents: Text | None = None
    """16 hex digits over the contents of the test images' files; an earlier version did not write it."""
    pool: Text | None = None
    """16 hex digits over all images and labels, whatever the split; an earlier version did not write it."""
    trained_on: Text | None = None
    """Fingerprint of the training's data, where the labels or the test set are the evaluation's own."""
    labels: LabelsRecord | None = None
    """Where the labels come from, if not from the training."""
    probes: dict[str, Any]
    """By name, in the order in which they were measured."""


class SplitMade(Record):
    """split.json."""

    fingerprint: Text
    dataset: Text | None = None
    class_names: list[Text] | None = None
    counts: dict[str, list[Count]] | None = None
    number: Count | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    source: Text | None = None
    name: Text | None = None


class SettingChosen(Record):
    """A setting that was chosen for the user."""

    setting: Text
    value: Any
    reason: Text


class SettingsChosen(Record):
    """choices.json."""

    choices: list[SettingChosen]


class Picture(Record):
    """A small image in examination/."""

    file: PictureName
    path: Text
    similarity: float | None = None


class PairOfViews(Record):
    """An image and its two views."""

    image: Picture
    a: PictureName
    b: PictureName


class Neighbours(Record):
    """An image and those whose features are nearest."""

    image: Picture
    neighbours: list[Picture]


class NetworkMeasured(Record):
    """One network on a sample of the images."""

    effective_rank: float
    view_distance: float
    view_distance_half_width: float
    found: Share
    found_half_width: float


class Examination(Record):
    """examination/numbers.json."""

    backbone: Text
    num_images: Count
    feature_dim: Count
    chance_to_find: Share
    trained: NetworkMeasured
    before: NetworkMeasured | None = None
    why_no_comparison: Text | None = None
    views: list[PairOfViews]
    gallery: list[Neighbours]


class PlaceOnMap(Record):
    """An image of the sample on the map of the features."""

    path: Text
    x: float
    y: float
    label: Text | None = None
    picture: Text
    """A small JPEG, in base64."""


class EmbeddingMapped(Record):
    """examination/map.json."""

    backbone: Text
    num_images: Count
    explained: Share
    """Of the variance of the features, by the two axes."""
    images: list[PlaceOnMap]


class LayerMasked(Record):
    """The share of one layer that the competitor keeps."""

    name: Text
    density: Share
    num_weights: Count


class LayersMasked(Record):
    """examination/layers.json."""

    backbone: Text
    layers: list[LayerMasked]


class GroupEpoch(Record):
    """What the records of the images show about the groups in one epoch."""

    __pydantic_extra__: dict[str, float | None]

    epoch: Annotated[int, Field(ge=1, le=2**53)]


class BinsCounted(Record):
    """A distribution: the edges of its bins, and the images of each group in every bin."""

    edges: list[float]
    counts: dict[str, list[Count]]


class GroupsRecorded(Record):
    """examination/groups.json."""

    why_no_groups: Text | None = None
    num_images: dict[str, Count]
    """Training images of each group."""
    epochs: list[GroupEpoch]
    disagreement: BinsCounted


class DifferencePaired(Record):
    """A difference of accuracies with its interval."""

    difference: float
    low: float
    high: float


class RivalMeasured(Record):
    """One probe of one rival compared with the run's."""

    probe: Text
    rival: Text
    ours: Share
    theirs: Share
    all: DifferencePaired
    few: DifferencePaired | None = None
    """Over the few classes; None where none of them is tested."""
    num_tested: Count
    num_few_tested: Count | None = None
    """The tested images of the few classes; an earlier version did not write it."""
    num_ways: Count | None = None
    """The number of ways of drawing folds over which accuracies are averaged; an earlier version did not write it."""
    verdict: Literal["better", "worse", "open"]


class RivalsCompared(Record):
    """against.json."""

    backbone: Text | None = None
    """16 hex digits over the weights that were measured; an earlier version did not write them."""
    fingerprint: Text | None = None
    """Of the data; an earlier version wrote neither this nor what follows."""
    tested_on: Literal["test set", "cross-validation"] | None = None
    kept_together: Text | None = None
    num_groups: Count | None = None
    """Groups of tested images that were resampled whole; None where single images were."""
    features_in: Literal["bf16"] | None = None
    test_contents: Text | None = None
    pairs: list[RivalMeasured]
    num_leaks: Count | None = None
    verdict: Text


class FewLabelsMeasured(Record):
    """One point of few_labels.json: a probe on sets of labelled images of one size."""

    protocol: Text
    probe: Text
    """Its heading in tables."""
    kind: Literal["labels_per_class", "label_share", "file"]
    value: float | None = None
    """Images of each class, or the share of each; None for a file."""
    source: Text | None = None
    """The file's name."""
    sha256: Text | None = None
    num_labelled: Annotated[int, Field(ge=1, le=2**53)]
    """Labelled images in a set."""
    num_classes: Annotated[int, Field(ge=1, le=2**53)]
    """Classes that have a labelled image."""
    seeds: Annotated[list[Count], Field(min_length=1)]
    """The seeds with which the sets were drawn; [0] for a file."""
    accuracies: Annotated[list[Share], Field(min_length=1)]
    """Mean over the classes, for each seed."""
    few: list[Share | None]
    """Over the few classes only, for each seed."""


class FewLabels(Record):
    """few_labels.json."""

    backbone: Text
    """16 hex digits over the weights that were measured."""
    fingerprint: Text
    """Of the data."""
    tested_on: Literal["test set", "cross-validation"] | None = None
    """An earlier version wrote neither this nor what follows."""
    kept_together: Text | None = None
    features_in: Literal["bf16"] | None = None
    test_contents: Text | None = None
    points: list[FewLabelsMeasured]


class ImagesLookedAt(Record):
    """images.json."""

    fingerprint: Text
    skipped: list[PairOfNames]
    found: Count | None = None
    duplicates: list[list[Name]] | None = None
    test_copies: list[PairOfNames] | None = None


class ConstantsUsed(Record):
    """The constants with which a backbone's input is normalised."""

    mean: Annotated[list[float], Field(min_length=1)]
    std: Annotated[list[PositiveFloat], Field(min_length=1)]


class ChoicesMade(Record):
    """A run's choices where its settings leave something open; a resumed run keeps them."""

    backbone_options: dict[str, Any]
    normalisation: ConstantsUsed
    prunable: Literal["conv", "conv+linear"] | None = None
    prunable_share: Share | None = None


class EnvironmentRecord(Record):
    """environment.json."""

    resolved: ChoicesMade | None = None
    device: Text | None = None
    world_size: Annotated[int, Field(ge=1)] | None = None
    views_cut_by: Text | None = None
    adopted: dict[str, Any] | None = None


class StatusRecord(Record):
    """status.json."""

    state: Literal["running", "done", "preempted", "failed"]
    step: Count | None = None
    total_steps: Count | None = None
    checkpoint_step: Count | None = None
    exit_code: Annotated[int, Field(ge=0, le=255)] | None = None
    error: Text | None = None
    message: Text | None = None
    next: Text | None = None
    pid: Count | None = None
    host: Text | None = None
    started: Text | None = None


KINDS: Mapping[str, type[Record]] = {
    "split.json": SplitMade,
    "environment.json": EnvironmentRecord,
    "status.json": StatusRecord,
    "choices.json": SettingsChosen,
    "images.json": ImagesLookedAt,
    "against.json": RivalsCompared,
    "few_labels.json": FewLabels,
    "examination/numbers.json": Examination,
    "examination/map.json": EmbeddingMapped,
    "examination/layers.json": LayersMasked,
    "examination/groups.json": GroupsRecorded,
}
"""File -> its model."""


def check(model: type[Record], content: Any, where: str) -> None:
    """DataError that names ``where`` and the first fields of ``content`` that do not fit ``model``."""
    try:
        model.model_validate(content)
    except ValidationError as error:
        problems = [f"{_field(one['loc'])} {_described(one)}" for one in error.errors()[:3]]
        raise DataError(f"{where} is damaged: {'; '.join(problems)}.") from None
    except RecursionError:
        raise DataError(f"{where} is damaged: it nests too deep.") from None


def sound_evaluation(content: Any, where: str) -> dict[str, Any]:
    """The content of an evaluation's file, checked; a damaged probe is left out with a warning.

    ``where``: the file's path, for messages. Raises DataError where the file itself is damaged.
    """
    check(EvaluationMade, content, where)
    num_classes = len(content["class_names"])
    if len(content["train_counts"]) != num_classes:
        raise DataError(
            f"{where} is damaged: train_counts has not {num_classes} entries, one for each class."
        )
    sound: dict[str, Any] = {}
    for probe, measured in content["probes"].items():
        try:
            _check_probe(measured, f"probe {shown(probe)} in {where}", num_classes)
            sound[probe] = measured
        except DataError as error:
            warnings.warn(f"{error} It is left out; evaluate again to replace it.", stacklevel=3)
    return content | {"probes": sound}


def _check_probe(measured: Any, where: str, num_classes: int) -> None:
    check(ProbeMeasured, measured, where)
    for key in ("per_class_accuracy", "num_test"):
        values = measured.get(key)
        if values is not None and len(values) != num_classes:
            raise DataError(
                f"{where} is damaged: {key} has {len(values)} entries for {num_classes} classes."
            )


def _field(location: tuple[int | str, ...]) -> str:
    return shown(".".join(map(str, location)) or "it")


def _described(error: Any) -> str:
    if error["type"] == "missing":
        return "is missing"
    description = (
        error["msg"].replace("Input should be", "must be").replace("Field required", "is missing")
    )
    return f"{description}, got {shown(repr(error['input']), 40)}"
