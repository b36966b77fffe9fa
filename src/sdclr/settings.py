"""Everything that decides the outcome of a pre-training run, as one strict model. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from sdclr.addresses import is_address, redacted
from sdclr.backbones.config import (
    BackboneConfig,
    WeightsMatch,
    settings_without_effect,
    unset_value,
)
from sdclr.compute.device_choices import Compile, MemoryFormat, Precision
from sdclr.config import INCIDENTAL, LARGEST_SEED, Section
from sdclr.data.config import DataConfig, ViewsConfig
from sdclr.data.table import SOURCES
from sdclr.errors import ConfigError
from sdclr.methods.config import MethodConfig
from sdclr.methods.table import METHODS
from sdclr.methods.table import SECTION as METHOD_SECTION
from sdclr.safe_text import shown


class OptimizerConfig(Section):
    """How the weights are updated (method.md: SGD 0.5, momentum 0.9, weight decay 1e-4 on all parameters)."""

    name: Literal["sgd", "lars", "adamw"] = "sgd"
    """sgd (the paper's), lars (timm's, trust coefficient 0.001) or adamw."""
    learning_rate: Annotated[float, Field(gt=0, le=3e38)] = 0.5
    """Peak learning rate; used as it is, not scaled by the batch size."""
    final_learning_rate: Annotated[float, Field(ge=0, le=3e38)] = 1e-6
    """Learning rate of the very last step."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of sgd and lars; beta1 of adamw."""
    weight_decay: Annotated[float, Field(ge=0, le=3e38)] = 1e-4
    """L2 penalty (sgd, lars) or decoupled decay (adamw)."""
    decay_norms_and_biases: bool = True
    """Whether weight decay also applies to norms and biases, as in the paper's recipes."""
    warmup_epochs: Annotated[float, Field(ge=0, le=1e7)] | None = None
    """Linear warm-up from 0, in epochs. None: min(10, epochs / 10)."""


class PretrainConfig(Section):
    """Everything that decides the outcome of a pre-training run.

    >>> from sdclr import recipe
    >>> config = recipe("digits_sdclr").with_values({"epochs": 5, "method.prune_ratio": 0.5})
    >>> config.epochs, config.method.prune_ratio, config.optimizer.name
    (5, 0.5, 'sgd')
    """

    recipe: str = "custom"
    """The recipe that these settings started from; for the record only."""
    data: DataConfig
    views: ViewsConfig = ViewsConfig()
    backbone: BackboneConfig = BackboneConfig()
    method: Annotated[MethodConfig, METHOD_SECTION]
    optimizer: OptimizerConfig = OptimizerConfig()
    epochs: Annotated[int, Field(ge=1, le=10**7)] = 2000
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=2, le=2**24)] = 512
    """Images per step; each gives two views. The short last batch of an epoch is kept."""
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 10
    """Decides initial weights, order and views."""
    precision: Precision = "auto"
    """fp32, bf16 (autocast; losses stay fp32), fp64, or auto: bf16 on a CUDA device that has it, else fp32."""
    device: str = "auto"
    """cpu, cuda, cuda:N, mps (Apple's GPU), or auto: CUDA where there is one, else the CPU."""
    memory_format: MemoryFormat = "auto"
    """Layout of images and convolution weights; auto is channels_last, the faster one, where that is safe and pays."""
    compile: Compile = "auto"
    """torch.compile of the method, in one graph; auto: on one CUDA device, for runs of 10,000 steps or more.
    cuda-graphs (small images, CUDA only): also replay each pass's kernels in one launch; a third faster for SDCLR on an
    H100. auto does so for SimCLR and SDCLR in the package's ResNets on views up to 64 px, where tests on a device have
    shown that it trains the same. A method that does not compile runs uncompiled; on several processes it is an
    error."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more compute, same gradients."""
    checkpoint_every_epochs: Annotated[int, Field(ge=1, le=10**7)] | None = Field(
        default=None, json_schema_extra=INCIDENTAL
    )
    """How often a checkpoint is written; one is always written at the end and on a signal. None: every 10 epochs, or
    less often, so that the steps wait for it at most 2 % of the time."""
    checkpoint_every_minutes: Annotated[
        float, Field(gt=0, le=1e9, json_schema_extra=INCIDENTAL)
    ] = 10.0
    """Longest time between two checkpoints, however long an epoch lasts; has no influence on the result."""
    start_seconds: Annotated[float, Field(gt=0, le=1e9, json_schema_extra=INCIDENTAL)] = 300.0
    """For several processes: how long they wait for each other until the first step is done, while images are listed
    and networks built. Slow file systems and many processes need more."""
    patience_seconds: Annotated[float, Field(gt=0, le=1e9, json_schema_extra=INCIDENTAL)] = 120.0
    """For several processes: how long one waits for another's answer before the run ends; more than a save may take."""
    health_every_epochs: Annotated[
        int | None, Field(ge=0, le=10**7, json_schema_extra=INCIDENTAL)
    ] = None
    """How often the health of the training is measured on a few of its images (docs/health.md); 0: never. None: after
    the first and the last epoch, and between them as often as costs at most 0.5 % of the time. Changes no weight."""
    record_images: bool = False
    """Keep loss, COLT's mass and disagreement of every image by epoch: RUN/image_records.f32, and images.parquet at the
    end. Changes no weight; 12 bytes per image and epoch."""
    weights: str | None = None
    """What the backbone starts from: a run folder, a backbone.safetensors, or a file of weights from another program
    (.safetensors, .pt, .pth, .ckpt, .bin, or a Hugging Face folder): docs/backbones.md."""
    weights_match: WeightsMatch = "exact"
    """How a file from another program must fit: exact; partial: missing tensors stay fresh; order: by the order of its
    tensors, whatever their names."""

    @field_validator("weights")
    @classmethod
    def _is_on_a_disk(cls, value: str | None) -> str | None:
        if value is not None and is_address(value):
            raise ValueError(
                f"{shown(redacted(value))} is an address, and weights are read from a path on this machine. "
                "Copy them there."
            )
        return value

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, foreign: bool = False) -> Self:
        """Validate plain nested values; see :meth:`Section.parse`.

        For images with other than 3 channels, colour settings that are not given are 0; with views.own, settings of
        views that are not given leave the callable's views as they are.
        """
        return super().parse(_completed_views(values), foreign=foreign)

    @model_validator(mode="after")
    def _views_fit_the_channels(self) -> PretrainConfig:
        channels, views = self.data.channels, self.views
        if channels != 3 and (views.grey or any(views.jitter[2:])):
            brightness, contrast = views.jitter[:2]
            raise ValueError(
                f"views.grey={views.grey:g} and views.jitter={list(views.jitter)} change colours (saturation, hue, "
                f"grey), which images of {channels} channels (data.channels) do not have. Set views.grey=0 and "
                f"views.jitter=[{brightness:g},{contrast:g},0,0], or leave both out."
            )
        return self

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """A copy with dotted names set to plain values, validated again.

        Where they choose other than 3 channels, colours are no longer jittered; jittering them anyway raises
        ConfigError. Where they choose another backbone, settings of this config that do not apply to it (the width of a
        ResNet) go back to their defaults; giving such a setting in ``values`` raises ConfigError. Where they choose
        another method, all of its settings start at that method's own defaults: values for one need not suit the other.
        Where they choose another data set, settings of this config's data that do not suit it (the imbalance ratio of
        generated splits, for images as they are) go back to their defaults.
        """
        return super().with_values(self._left_behind(values) | dict(values))

    def _left_behind(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values that reset the settings that another data set, backbone or method does not use."""
        taken_back = self._data_left_behind(values) | self._views_left_behind(values)
        name = values.get("backbone.name", self.backbone.name)
        if isinstance(name, str) and "backbone" not in values:
            for field, words in settings_without_effect(name).items():
                if f"backbone.{field}" in values:
                    raise ConfigError(words)
                if "backbone.name" in values:
                    taken_back[f"backbone.{field}"] = unset_value(field)
        place: str = "method"
        current: MethodConfig | None = self.method
        while current is not None:
            chosen = values.get(f"{place}.name")
            is_method = isinstance(chosen, str) and chosen in METHODS
            if is_method and chosen != current.name and place not in values:
                taken_back[place] = {"name": chosen}
                break
            place, current = f"{place}.base", getattr(current, "base", None)
        return taken_back

    def _data_left_behind(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values that reset the settings of the images that do not suit the chosen data set."""
        name = values.get("data.name")
        if "data" in values or not isinstance(name, str) or name not in SOURCES:
            return {}
        if name == self.data.name:
            return {}
        subset = str(values.get("data.subset", self.data.subset))
        unfit = self.data.unfit_for(name, subset)
        return {f"data.{field}": value for field, value in unfit.items()}

    def _views_left_behind(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values that reset the settings of views that do not suit the chosen channels, or the user's own views."""
        if "views" in values:
            return {}
        section = values.get("data")
        within = section.get("channels") if isinstance(section, Mapping) else None
        found: dict[str, Any] = {}
        if values.get("data.channels", within) not in (None, 3):
            found |= _colourless(self.views.jitter)
        if values.get("views.own") is not None and self.views.own is None:
            found |= NOTHING_BUT_OWN
        named = {f"views.{name}": value for name, value in found.items()}
        return {name: value for name, value in named.items() if name not in values}


NOTHING_BUT_OWN: Mapping[str, Any] = {
    "area": [1.0, 1.0],
    "aspect": [1.0, 1.0],
    "flip": 0.0,
    "jitter_probability": 0.0,
    "grey": 0.0,
    "blur": 0.0,
}
"""Settings of views that change nothing in the views of a user's own callable."""


def _colourless(jitter: Sequence[float]) -> dict[str, Any]:
    """Settings of views that leave colours alone."""
    return {"jitter": [*jitter[:2], 0.0, 0.0], "grey": 0.0}


def _completed_views(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same settings, where those of the views that are not given suit the channels and views.own."""
    data, views = values.get("data"), values.get("views", {})
    if not isinstance(data, Mapping) or not isinstance(views, Mapping):
        return values
    chosen: dict[str, Any] = {}
    if data.get("channels", 3) != 3:
        chosen |= _colourless(ViewsConfig().jitter)
    if views.get("own") is not None:
        chosen |= NOTHING_BUT_OWN
    return {**values, "views": chosen | dict(views)} if chosen else values
