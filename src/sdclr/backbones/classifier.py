"""A classifier: a backbone and a linear head, in a folder of two files that belong together.

C classes, F feature dim. MODEL/backbone.safetensors is an ordinary backbone file; MODEL/classifier.safetensors holds
the head, the names of the classes, and the temperature of its confidences.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, model_validator
from torch import Tensor, nn

from sdclr.backbones.backbone import Backbone
from sdclr.backbones.weights import load_backbone, require_usable_weights, save_backbone
from sdclr.config import Section
from sdclr.errors import CheckpointError, ConfigError, MissingInputError
from sdclr.run.files import CLASSIFIER_FILE
from sdclr.safe_text import shown
from sdclr.storage.tensor_files import read_tensors, write_tensors

FORMAT = "sdclr classifier 1"
BACKBONE_FILE = "backbone.safetensors"


class ClassifierFacts(Section):
    """The metadata of a classifier file that are used; others are for people to read."""

    model_config = ConfigDict(extra="ignore")

    class_names: Annotated[tuple[str, ...], Field(min_length=2)]
    temperature: Annotated[float, Field(gt=0)] | None = None
    """The divisor of logits before the softmax; None where confidences are not calibrated."""
    backbone_sha256: str
    """The digest of the backbone file that this head was trained with."""
    exif_rotation: bool = True
    grey_bits: Annotated[int, Field(ge=8, le=16)] = 16

    @model_validator(mode="after")
    def _names_differ(self) -> ClassifierFacts:
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError("class_names has a name twice.")
        return self


class Classifier(nn.Module):
    """Images [B, channels, S, S] in [0, 1] -> logits [B, C]."""

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Linear,
        class_names: Sequence[str],
        temperature: float | None = None,
        *,
        exif_rotation: bool = True,
        grey_bits: int = 16,
    ) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.class_names = tuple(class_names)
        self.temperature = temperature
        """None where confidences are not calibrated."""
        self.exif_rotation, self.grey_bits = exif_rotation, grey_bits

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(images))
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probabilities of logits [N, C], calibrated where there is a temperature: rows sum to 1."""
        return (logits.double() / (self.temperature or 1.0)).softmax(dim=1)


def is_classifier(source: Path | str) -> bool:
    """Whether ``source`` is the folder of a classifier."""
    return Path(source, CLASSIFIER_FILE).is_file()


def save_classifier(
    folder: Path, classifier: Classifier, architecture: dict[str, Any], facts: Mapping[str, Any]
) -> None:
    """Write both files; the head's is last, and makes the folder a classifier. ``facts``: for people to read."""
    backbone = classifier.backbone
    described = {"image_size": backbone.image_size, "feature_dim": backbone.feature_dim}
    save_backbone(folder / BACKBONE_FILE, backbone, architecture, {**described, **facts})
    own = ClassifierFacts(
        class_names=classifier.class_names,
        temperature=classifier.temperature,
        backbone_sha256=_sha256(folder / BACKBONE_FILE),
        exif_rotation=classifier.exif_rotation,
        grey_bits=classifier.grey_bits,
    )
    tensors = {"weight": classifier.head.weight.detach(), "bias": classifier.head.bias.detach()}
    write_tensors(folder / CLASSIFIER_FILE, tensors, {"format": FORMAT, **own.to_dict(), **facts})


def load_classifier(source: Path | str, network: nn.Module | None = None) -> Classifier:
    """The classifier that :func:`sdclr.finetune` has written, in eval mode: images [B, channels, S, S] in
    [0, 1] -> logits [B, C].

    ``network``: your own module, for a backbone that is one. ``classifier.class_names`` names the columns,
    ``classifier.probabilities(logits)`` makes calibrated probabilities, ``classifier.backbone.preprocess(pil_image)``
    the input of an image. Raises MissingInputError for a folder without one, CheckpointError for damaged files and for
    two that do not belong together.

    >>> import sdclr, torch
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> model = sdclr.finetune(run, config.data, "models/tiny", epochs=5)
    >>> classifier = sdclr.load_classifier(model)
    >>> classifier(torch.rand(2, 3, 8, 8)).shape, classifier.class_names[:2]
    (torch.Size([2, 10]), ('0', '1'))
    """
    folder = Path(source)
    path = folder / CLASSIFIER_FILE
    if not path.is_file():
        raise MissingInputError(
            f"{shown(folder)} is not a finished model: it has no {CLASSIFIER_FILE}. sdclr finetune writes one; where "
            "it was interrupted, give its command again."
        )
    tensors, facts = read_tensors(path)
    described = _described(path, tensors, facts)
    backbone_path = folder / BACKBONE_FILE
    if not backbone_path.is_file():
        raise MissingInputError(
            f"{shown(backbone_path)} is missing; the head alone is not a model."
        )
    if _sha256(backbone_path) != described.backbone_sha256:
        raise CheckpointError(
            f"{path} and {BACKBONE_FILE} do not belong together: the head was trained with another backbone. Put "
            "both files of one model back."
        )
    backbone = load_backbone(backbone_path, network)
    num_classes, feature_dim = tensors["weight"].shape
    if backbone.feature_dim not in (None, feature_dim):
        raise CheckpointError(
            f"{path} takes {feature_dim} features, and its backbone gives {backbone.feature_dim}."
        )
    head = nn.Linear(feature_dim, num_classes, dtype=tensors["weight"].dtype)
    head.load_state_dict(tensors)
    return Classifier(
        backbone,
        head,
        described.class_names,
        described.temperature,
        exif_rotation=described.exif_rotation,
        grey_bits=described.grey_bits,
    ).eval()


def _described(path: Path, tensors: Mapping[str, Tensor], facts: dict[str, Any]) -> ClassifierFacts:
    if facts.get("format") != FORMAT:
        raise CheckpointError(f"{path} holds no classifier; sdclr finetune writes one.")
    try:
        described = ClassifierFacts.parse(facts)
    except (ConfigError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} does not describe its classes: {shown(error, 600)}"
        ) from None
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    num = len(described.class_names)
    feature_dim = shapes.get("weight", (0, 0))[-1:]
    if shapes != {"weight": (num, *feature_dim), "bias": (num,)} or feature_dim == (0,):
        raise CheckpointError(f"{path} holds no head for its {num} classes: {shown(shapes)}.")
    require_usable_weights(tensors, str(path))
    if tensors["weight"].dtype not in (torch.float32, torch.float64):
        raise CheckpointError(f"{path} holds a head of {tensors['weight'].dtype}.")
    return described


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
