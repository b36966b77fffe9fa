"""How a classifier is trained, as settings. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sdclr.compute.device_choices import Precision
from sdclr.config import INCIDENTAL, LARGEST_SEED, ProperFraction, Section

Mode = Literal["linear", "full"]
Balance = Literal["none", "weights", "sampling", "logits"]
Augment = Literal["none", "crops", "views"]

_BY_MODE: dict[str, dict[str, Any]] = {
    "linear": {"epochs": 100, "head_learning_rate": 0.01, "augment": "none"},
    "full": {"epochs": 30, "head_learning_rate": 0.001, "augment": "crops"},
}
BACKBONE_LEARNING_RATE = 1e-4
VALIDATION_SHARE = 0.2
LearningRate = Annotated[float, Field(gt=0, le=1000)]
"""AdamW moves each weight by about this much per step."""


def _of_mode(name: str) -> Any:
    return Field(default_factory=lambda data: _BY_MODE[data.get("mode", "linear")][name])


class FinetuneConfig(Section):
    """How a classifier is trained on labelled images.

    >>> FinetuneConfig(mode="full", balance="logits").epochs
    30
    """

    mode: Mode = "linear"
    """linear: a linear head on frozen features, seconds to minutes. full: the backbone is trained, too."""
    balance: Balance = "none"
    """How rare classes are compensated. none: not at all; weights: each class has the same weight in the loss;
    sampling: each class is drawn equally often; logits: logit adjustment (Menon et al., ICLR 2021), the log of the
    classes' shares is added to the logits in training."""
    epochs: Annotated[int, Field(ge=1, le=100_000)] = _of_mode("epochs")
    """The most epochs; by default 100, and 30 for full."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 64
    """Images per step. A last batch of one image is joined to the one before it."""
    head_learning_rate: LearningRate = _of_mode("head_learning_rate")
    """AdamW's peak learning rate; by default 0.01, and 0.001 for full. The head sees standardised features."""
    backbone_learning_rate: LearningRate = BACKBONE_LEARNING_RATE
    """full: the backbone's peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.01
    """AdamW's, for weights; norms and biases have none."""
    augment: Augment = _of_mode("augment")
    """How images are augmented in training: none, as in testing; crops, random crops and flips; views, one view as in
    the pre-training of the run. By default none, and crops for full."""
    validation_share: ProperFraction = VALIDATION_SHARE
    """Share of each class held out to choose the epoch, to calibrate and to measure; 0 holds nothing out."""
    early_stop_epochs: Annotated[int, Field(ge=0, le=100_000)] = 10
    """Training stops after this many epochs in which neither the balanced accuracy on validation images improved nor
    the log loss there fell more than 1 % below its minimum; not before the warm-up is over. 0: never."""
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 1
    """Determines the validation images, the order and the views."""
    precision: Precision = "auto"
    """fp32, bf16, fp64 or auto, as in pre-training."""
    image_size: Annotated[int, Field(ge=4, le=8192)] | None = None
    """Side of the network's input in pixels; None: as it was trained."""
    device: Annotated[str, Field(json_schema_extra=INCIDENTAL)] = "auto"
    """cpu, cuda, cuda:N, mps or auto."""

    @property
    def fixes_features(self) -> bool:
        """Whether neither the backbone nor its input changes: features are then computed once."""
        return self.mode == "linear" and self.augment == "none"

    @model_validator(mode="after")
    def _settings_do_something(self) -> FinetuneConfig:
        if self.mode == "linear" and self.backbone_learning_rate != BACKBONE_LEARNING_RATE:
            raise ValueError(
                "backbone_learning_rate does nothing in mode linear, which leaves the backbone as it is; it is for "
                "mode full. Leave it out."
            )
        return self
