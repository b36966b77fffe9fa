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
"""AdamW moves each weight by about this much a step."""


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
    """What rare classes get: none; weights: each class the same weight in the loss; sampling: each class drawn equally
    often; logits: logit adjustment (Menon et al., ICLR 2021), the log of the classes' shares is added in training."""
    epochs: Annotated[int, Field(ge=1, le=100_000)] = _of_mode("epochs")
    """At most; by default 100, and 30 for full."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 64
    """Images of a step. A last batch of one image joins the one before it."""
    head_learning_rate: LearningRate = _of_mode("head_learning_rate")
    """AdamW's at its peak; by default 0.01, and 0.001 for full. The head sees standardised features."""
    backbone_learning_rate: LearningRate = BACKBONE_LEARNING_RATE
    """full: that of the backbone."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.01
    """AdamW's, of weights; norms and biases have none."""
    augment: Augment = _of_mode("augment")
    """What an image looks like in training: none, as it is tested; crops, random crops and flips; views, one view as in
    the pre-training of the run. By default none, and crops for full."""
    validation_share: ProperFraction = VALIDATION_SHARE
    """Of each class, held out to choose the epoch, to calibrate and to measure; 0 holds nothing out."""
    early_stop_epochs: Annotated[int, Field(ge=0, le=100_000)] = 10
    """Training stops after so many epochs without a better balanced accuracy on validation images and without a log
    loss there that is smaller than the least so far by more than 1 %; not before the warm-up is over. 0: never."""
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 1
    """Of the validation images, the order and the views."""
    precision: Precision = "auto"
    """fp32, bf16, fp64 or auto, as in pre-training."""
    image_size: Annotated[int, Field(ge=4, le=8192)] | None = None
    """Side in pixels of what the network sees; None: as it was trained."""
    device: Annotated[str, Field(json_schema_extra=INCIDENTAL)] = "auto"
    """cpu, cuda, cuda:N, mps or auto."""

    @property
    def fixes_features(self) -> bool:
        """Whether neither the backbone nor what it sees changes: features are then computed once."""
        return self.mode == "linear" and self.augment == "none"

    @model_validator(mode="after")
    def _settings_do_something(self) -> FinetuneConfig:
        if self.mode == "linear" and self.backbone_learning_rate != BACKBONE_LEARNING_RATE:
            raise ValueError(
                "backbone_learning_rate does nothing in mode linear, which leaves the backbone as it is; it is for "
                "mode full. Leave it out."
            )
        return self
