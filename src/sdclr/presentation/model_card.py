"""A model card (README.md of a Hugging Face folder): a network, its training data, its accuracy and its limits.

Contains no paths of the machine, and does not choose a licence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import binomtest

from sdclr.presentation.tables import percent
from sdclr.safe_text import counted, markdown

HEADER = """---
library_name: timm
pipeline_tag: image-feature-extraction
tags:
- timm
- image-feature-extraction
- self-supervised-learning
- sdclr
---
"""


@dataclass(frozen=True)
class ClassifierCard:
    """What is known of a classifier that was trained on labels."""

    class_names: Sequence[str]
    temperature: float | None
    settings: Mapping[str, Any]
    start: str
    num_train: int | None
    validation: Mapping[str, Any]
    """As in model.json; empty if nothing was held out."""
    calibration: Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """One probe of one evaluation. Accuracies are fractions."""

    protocol: str
    probe: str
    tested_on: str
    dataset: str
    accuracy: float | None
    """Share of the test images that are predicted correctly; None if their number is unknown."""
    num_tested: int | None
    summary: Mapping[str, float]
    """all, many, medium, few, group_std; nan for an empty group."""
    chance: float


@dataclass(frozen=True)
class CardFacts:
    """What is known of a network; unknown facts are empty or None."""

    name: str
    network: str
    num_parameters: int
    image_size: int
    feature_dim: int
    mean: Sequence[float]
    std: Sequence[float]
    dataset: str | None
    num_images: int | None
    class_counts: Sequence[int]
    method: str | None
    method_settings: Mapping[str, Any]
    training: Mapping[str, Any]
    start: str
    measured: Sequence[Measured]
    versions: Mapping[str, str]
    classifier: ClassifierCard | None = None
    sees_whole_images: bool = False
    """Whether images are resized without cropping."""
    turns_by_exif: bool = False
    """Whether photographs are rotated according to their EXIF tag."""


def model_card(facts: CardFacts) -> str:
    """The card as Markdown, with the header that the Hugging Face hub reads."""
    if facts.classifier is not None:
        return _classifier_card(facts, facts.classifier)
    parts = [
        f"{HEADER}\n# {markdown(facts.name)}\n",
        f"Image features from a {markdown(facts.network)} that was pre-trained without labels"
        f"{f' by {markdown(facts.method)}' if facts.method else ''}: images of {facts.image_size} x "
        f"{facts.image_size} px to {facts.feature_dim:,} numbers. It has {facts.num_parameters:,} parameters "
        "and no classifier.\n",
        _use(facts),
        _data(facts),
        _method(facts),
        _numbers(facts.measured),
        _limits(facts),
        LICENCE,
        _origin(facts),
    ]
    return "\n".join(parts)


LICENCE = (
    "## Licence\n\nNot chosen. If you pass this network on, choose one that fits its images, and add "
    "`license: ...` to the header of this file.\n"
)


def _classifier_card(facts: CardFacts, classifier: ClassifierCard) -> str:
    names = classifier.class_names
    header = HEADER.replace("image-feature-extraction", "image-classification")
    how = "a linear head on frozen features"
    if classifier.settings.get("mode") == "full":
        how = "all layers were trained"
    rows = [
        f"| {markdown(name)} | {markdown(str(value))} |"
        for name, value in classifier.settings.items()
        if value is not None and name != "device"
    ]
    table = "\n".join(["| setting | value |", "|---|---|", *rows])
    number = (
        f" on {counted(classifier.num_train, 'labelled image')}" if classifier.num_train else ""
    )
    parts = [
        f"{header}\n# {markdown(facts.name)}\n",
        f"A {markdown(facts.network)} that tells {len(names):,} classes apart: images of {facts.image_size} x "
        f"{facts.image_size} px to {len(names):,} logits. It has {facts.num_parameters:,} parameters before its "
        "classifier.\n",
        _use_of_classifier(facts, classifier),
        f"## Classes\n\n{', '.join(map(markdown, names))}\n",
        f"## Training\n\nFrom {markdown(classifier.start)}{number}: {how}.\n\n{table}\n",
        _numbers_of_classifier(classifier),
        "## Limits\n\n- Every image gets one of these classes, also one that shows none of them.\n"
        "- Rare classes have few images to learn from and few to be measured on; their numbers vary most.\n"
        "- Labels carry whatever bias the people and the images have.\n",
        LICENCE,
        _origin(facts),
    ]
    return "\n".join(parts)


def _imports(facts: CardFacts) -> str:
    return "from PIL import Image, ImageOps" if facts.turns_by_exif else "from PIL import Image"


def _opened(facts: CardFacts) -> str:
    """Code that opens a photograph, rotated according to its EXIF tag if the run has rotated its own."""
    opened = 'Image.open("a.jpg")'
    return (
        f'{f"ImageOps.exif_transpose({opened})" if facts.turns_by_exif else opened}.convert("RGB")'
    )


def _prepares(facts: CardFacts) -> str:
    if facts.sees_whole_images:
        return "resizes the whole image, as the run saw its own,"
    return "resizes, takes the middle"


def _use_of_other_channels(facts: CardFacts, outcome: str) -> str:
    """Loading without timm's transforms, which only accept photographs."""
    channels = len(facts.mean)
    return f"""## How to load it

```python
import numpy as np
import timm
import torch

network = timm.create_model("local-dir:PATH", pretrained=True).eval()   # PATH: this folder
pixels = torch.from_numpy(np.load("a.npy"))    # uint8 [{facts.image_size}, {facts.image_size}, {channels}]
mean, std = torch.tensor({_list(facts.mean)}), torch.tensor({_list(facts.std)})
image = ((pixels / 255 - mean) / std).permute(2, 0, 1)
with torch.no_grad():
    {outcome}
```

Images have {channels} channels: {"each whole" if facts.sees_whole_images else "the middle of each"}, resized to
{facts.image_size} px.
"""


def _use_of_classifier(facts: CardFacts, classifier: ClassifierCard) -> str:
    if len(facts.mean) != 3:
        scaled = f" / {classifier.temperature:.6g}" if classifier.temperature else ""
        outcome = f"probabilities = (network(image[None]){scaled}).softmax(dim=1)"
        return _use_of_other_channels(facts, outcome)
    divided = f" / {classifier.temperature:.6g}" if classifier.temperature else ""
    description = "calibrated by this temperature" if divided else "not calibrated"
    return f"""## How to load it

```python
import timm
import torch
{_imports(facts)}

network = timm.create_model("local-dir:PATH", pretrained=True).eval()   # PATH: this folder
prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
image = prepare({_opened(facts)})
with torch.no_grad():
    probabilities = (network(image[None]){divided}).softmax(dim=1)
label = network.pretrained_cfg["label_names"][int(probabilities.argmax())]
```

The probabilities are {description}. The transform {_prepares(facts)} and normalises the channels:
mean {_list(facts.mean)}, std {_list(facts.std)}, of images in [0, 1]. Greys of
16 bits have to be made 8 bits first: `convert` clips them.
"""


def _numbers_of_classifier(classifier: ClassifierCard) -> str:
    found = classifier.validation
    if not found:
        return "## Numbers\n\nNo image was held out: how good this classifier is, is not known.\n"
    low, high = found["accuracy_interval"]
    rows = [
        "| class | training images | validation images | right, % |",
        "|---|---|---|---|",
    ]
    for one in found["classes"]:
        right = "-" if one["accuracy"] is None else percent(one["accuracy"])
        numbers = f"{one['num_train']:,} | {one['num_validation']:,} | {right}"
        rows.append(f"| {markdown(one['name'])} | {numbers} |")
    table = "\n".join(rows)
    error = classifier.calibration.get("ece_after")
    calibrated = f" Expected calibration error: {error:.3f}." if error is not None else ""
    return f"""## Numbers

{percent(found["accuracy"])} % of {found["num_images"]:,} validation images are right (95 % interval {percent(low)} to
{percent(high)}, Wilson's); the mean over the classes is {percent(found["balanced_accuracy"])} %.{calibrated}
{found["note"]}

{table}
"""


def _use(facts: CardFacts) -> str:
    if len(facts.mean) != 3:
        return _use_of_other_channels(facts, "features = network(image[None])")
    return f"""## How to load it

```python
import timm
import torch
{_imports(facts)}

network = timm.create_model("local-dir:PATH", pretrained=True).eval()   # PATH: this folder
prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
image = prepare({_opened(facts)})
with torch.no_grad():
    features = network(image[None])                                     # [1, {facts.feature_dim}]
```

The transform {_prepares(facts)} and normalises the channels: mean {_list(facts.mean)},
std {_list(facts.std)}, of images in [0, 1]. Greys of 16 bits have to be made 8 bits first: `convert` clips them.
"""


def _data(facts: CardFacts) -> str:
    lines = ["## Data\n"]
    if facts.dataset is None:
        lines.append(
            "Not known: this folder was written from a file of weights, without its run.\n"
        )
        return "\n".join(lines)
    number = f": {counted(facts.num_images, 'training image')}" if facts.num_images else ""
    lines.append(f"{markdown(facts.dataset)}{number}. No label was used for training.")
    if facts.class_counts:
        counts = facts.class_counts
        lines.append(
            f"The images are of {len(counts):,} classes, with "
            f"{min(counts):,} to {max(counts):,} images a class."
        )
    return "\n".join(lines) + "\n"


def _method(facts: CardFacts) -> str:
    if facts.method is None:
        return "## Training\n\nNot known.\n"
    settings = {**facts.method_settings, **facts.training}
    rows = [
        f"| {markdown(name)} | {markdown(str(value))} |"
        for name, value in settings.items()
        if not isinstance(value, Mapping)
    ]
    table = "\n".join(["| setting | value |", "|---|---|", *rows])
    return f"## Training\n\n{markdown(facts.method)}, from {markdown(facts.start)}.\n\n{table}\n"


def _numbers(measured: Sequence[Measured]) -> str:
    if not measured:
        return "## Numbers\n\nNot evaluated: how good these features are is not known.\n"
    head = "| probe | protocol | tested on | n | right, % (95 % interval) | All | Many | Medium | Few | Std | chance |"
    rows = [head, "|---|---|---|---|---|---|---|---|---|---|---|"]
    for one in measured:
        cells = [one.probe, one.protocol, f"{one.dataset}, {one.tested_on}"]
        numbers = [
            "-" if one.num_tested is None else f"{one.num_tested:,}",
            _with_interval(one),
            *(percent(one.summary[key]) for key in ("all", "many", "medium", "few", "group_std")),
            percent(one.chance),
        ]
        rows.append(f"| {' | '.join([*map(markdown, cells), *numbers])} |")
    table = "\n".join(rows)
    return f"""## Numbers

Accuracies of probes on the frozen features, in percent.

{table}

n: test images. The interval is Wilson's, over the test images alone. This is one run on one split (n = 1): how much
another seed or split would change is not part of it. All is the mean over the classes, Many, Medium and Few that over
groups of them by their number of training images, Std the spread of the three groups (lower is better).
"""


def _with_interval(one: Measured) -> str:
    if one.accuracy is None or not one.num_tested:
        return "-"
    right = round(one.accuracy * one.num_tested)
    interval = binomtest(right, one.num_tested).proportion_ci(method="wilson")
    return f"{percent(one.accuracy)} ({percent(interval.low)} to {percent(interval.high)})"


def _limits(facts: CardFacts) -> str:
    limits = [
        f"It was trained on images of {facts.image_size} x {facts.image_size} px; of other sizes its features are "
        "not tested.",
        "What its training images do not show, it has not learned. Rare kinds of images have weaker features than "
        "common ones, unless the numbers above say otherwise.",
        "Features carry whatever bias the images have. Nothing was filtered or balanced for people or places.",
        "It is not a classifier: add a probe, a neighbour search or fine-tuning on top of it.",
    ]
    return "## Limits\n\n" + "\n".join(f"- {one}" for one in limits) + "\n"


def _origin(facts: CardFacts) -> str:
    versions = ", ".join(
        f"{markdown(name)} {markdown(one)}" for name, one in facts.versions.items()
    )
    with_versions = f" with {versions}" if versions else ""
    return f"Written by `sdclr export --format huggingface`{with_versions}.\n"


def _list(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values) + "]"
