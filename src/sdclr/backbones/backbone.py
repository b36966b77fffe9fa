"""A backbone: any network behind its input normalisation, with its feature size measured instead of typed in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sdclr.checkpoint import is_storable
from sdclr.errors import ConfigError
from sdclr.wrapped_modules import unwrapped, wraps_another

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """Images [B, 3, S, S] in [0, 1] -> features [B, F]. ``net`` is the stock network with its own plain keys.

    A network that torch.compile or DataParallel wraps is taken out of its wrapper.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, net: nn.Module, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> None:
        super().__init__()
        self.net = unwrapped(net)
        # not persistent: constants of the architecture, written to the weights file's metadata instead
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.net((images - self.mean) / self.std)


def require_trainable_and_storable(network: nn.Module) -> None:
    """ConfigError unless a network of the user's own can be trained, saved as tensors and loaded by its plain keys."""
    for name, module in network.named_modules():
        if wraps_another(module):
            raise ConfigError(
                f"{name} is wrapped ({type(module).__name__}), which puts a prefix before the names of its weights. "
                "Give the network without it; sdclr compiles the whole step itself (compile=auto)."
            )
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigError("the network has no parameter that requires a gradient, so there is nothing to train.")
    for name, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            raise ConfigError(
                f"{name} of the network is a {type(value).__name__}, and files of a run hold tensors only. Return a "
                "tensor from get_extra_state, or keep the value elsewhere."
            )
        if not is_storable(value):
            raise ConfigError(f"{name} of the network ({value.dtype}, {value.layout}) cannot be stored in a file.")


@torch.no_grad()
def measure_feature_dim(backbone: nn.Module, image_size: int) -> int:
    """F, from one forward of two grey images in eval mode. Raises ConfigError when the output is not [B, F]."""
    training = backbone.training
    reference = next(backbone.parameters(), None)
    if reference is None:
        raise ConfigError("the backbone has no parameters, so there is nothing to train.")
    images = torch.full((2, 3, image_size, image_size), 0.5, device=reference.device, dtype=reference.dtype)
    try:
        features = backbone.eval()(images)
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise ConfigError(
            f"the backbone cannot process images of {image_size} x {image_size} px: {error} "
            "Change views.size, or give the network its image size (backbone.options)."
        ) from error
    finally:
        backbone.train(training)
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != 2:
        shape = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ConfigError(
            f"the backbone must map [2, 3, {image_size}, {image_size}] images to [2, F] features, got {shape}. "
            "Remove its classifier head and end it in global pooling and flatten(1)."
        )
    return features.shape[1]
