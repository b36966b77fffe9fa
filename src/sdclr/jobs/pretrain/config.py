"""Everything that decides the outcome of a pre-training run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sdclr.backbones import BackboneConfig
from sdclr.config import INCIDENTAL, Section
from sdclr.data import DataConfig, ViewsConfig
from sdclr.device import Compile, MemoryFormat, Precision
from sdclr.methods import MethodConfig
from sdclr.optim import OptimizerConfig
from sdclr.stateless_random import LARGEST_SEED


class PretrainConfig(Section):
    """Everything that decides the outcome of a pre-training run."""

    recipe: str = "custom"
    """Where these settings started from; for the record only."""
    data: DataConfig
    views: ViewsConfig = ViewsConfig()
    backbone: BackboneConfig = BackboneConfig()
    method: MethodConfig
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
    """cpu, cuda, cuda:N, or auto: CUDA where there is one."""
    memory_format: MemoryFormat = "auto"
    """Layout of images and convolution weights; auto is channels_last, the faster one, where that is safe and pays."""
    compile: Compile = "auto"
    """torch.compile of the method, in one graph; auto: on one CUDA device only. cuda-graphs (small images, CUDA only):
    also replay each pass's kernels in one launch; nobody has tried that on a device yet. What does not compile runs as
    it is; on several processes it is an error."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more compute, same gradients."""
    checkpoint_every_epochs: Annotated[int, Field(ge=1, le=10**7)] | None = Field(
        default=None, json_schema_extra=INCIDENTAL
    )
    """How often a checkpoint is written; one is always written at the end and on a signal. None: every 10 epochs, or as
    seldom as keeps the steps from waiting for it for more than 2 % of the time."""
    checkpoint_every_minutes: Annotated[float, Field(gt=0, le=1e9, json_schema_extra=INCIDENTAL)] = 10.0
    """Longest time between two checkpoints, whatever an epoch lasts; has no influence on the result."""
    patience_seconds: Annotated[float, Field(gt=0, le=1e9, json_schema_extra=INCIDENTAL)] = 120.0
    """Of several processes: how long one waits for another's answer before the run ends; more than a save may take."""
    weights: str | None = None
    """A run folder or backbone.safetensors to start the backbone from."""
