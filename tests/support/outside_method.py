"""Methods as a user would write them, outside of the package: one that uses all of the contract, and bad ones."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from sdclr.batch import Views
from sdclr.methods import Method, MethodConfig, Parts
from sdclr.methods.nt_xent import nt_xent


class HardImagesConfig(MethodConfig):
    name: Literal["hard_images"] = "hard_images"
    memory: Annotated[float, Field(ge=0, lt=1)] = 0.5


class HardImages(Method):
    """Images with a high loss come more often, and in weaker colours."""

    config = HardImagesConfig
    display_name = "Hard images"

    average: Tensor
    weights: Tensor

    def __init__(self, network: nn.Module, num_images: int, memory: float) -> None:
        super().__init__()
        self.network, self.memory = network, memory
        self.register_per_image("average", torch.zeros(num_images))
        self.register_buffer("weights", torch.ones(num_images))

    @classmethod
    def from_config(cls, config: HardImagesConfig, parts: Parts) -> Self:
        return cls(parts.network(2, 16), parts.num_images, config.memory)

    def on_epoch_end(self, epoch: int) -> None:
        self.weights.copy_(1 + self.average / self.average.max().clamp(min=1e-6))

    def sampling_weights(self) -> Tensor:
        return self.weights

    def view_strength(self) -> Tensor:
        return 1 / self.weights

    def forward(self, views: Views) -> Tensor:
        z_a, z_b = self.network(torch.cat([views.a, views.b])).chunk(2)
        losses = nt_xent(z_a, z_b, 0.2, views.share)
        average = self.memory * self.average[views.index] + (1 - self.memory) * losses.detach()
        self.average[views.index] = average.to(self.average.dtype)
        return losses

    def measurements(self) -> dict[str, Tensor]:
        return {"hardest": self.average.max()}


class PlainConfig(MethodConfig):
    name: Literal["plain"] = "plain"


class Plain(Method):
    """SimCLR once more; the bad ones differ from it in one thing each."""

    config: type[MethodConfig] = PlainConfig
    display_name = "Plain"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.temperature = 0.2

    @classmethod
    def from_config(cls, config: MethodConfig, parts: Parts) -> Self:
        return cls(parts.network(2, 16))

    def forward(self, views: Views) -> Tensor:
        z_a, z_b = self.network(torch.cat([views.a, views.b])).chunk(2)
        return nt_xent(z_a, z_b, self.temperature, views.share)


class AttributeConfig(MethodConfig):
    name: Literal["bad_attribute"] = "bad_attribute"


class ChangingAttribute(Plain):
    config = AttributeConfig
    display_name = "A plain attribute that changes from epoch to epoch"

    def on_epoch_start(self, epoch: int) -> None:
        self.temperature = 0.2 + 0.1 * epoch


class ForgottenConfig(MethodConfig):
    name: Literal["bad_buffer"] = "bad_buffer"


class ForgottenBuffer(Plain):
    config = ForgottenConfig
    display_name = "A buffer that no checkpoint holds"

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.register_buffer("steps", torch.zeros(()), persistent=False)

    def forward(self, views: Views) -> Tensor:
        self.steps += 1
        return super().forward(views) * self.steps


class ShareConfig(MethodConfig):
    name: Literal["bad_share"] = "bad_share"


class IgnoredShare(Plain):
    config = ShareConfig
    display_name = "An ignored share"

    def forward(self, views: Views) -> Tensor:
        return super().forward(views._replace(share=None))


class MeanConfig(MethodConfig):
    name: Literal["bad_mean"] = "bad_mean"


class MeanLoss(Plain):
    config = MeanConfig
    display_name = "A loss that is a mean already"

    def forward(self, views: Views) -> Tensor:
        return super().forward(views).mean()


class SpreadMeanConfig(MethodConfig):
    name: Literal["bad_spread"] = "bad_spread"


class SpreadMean(Plain):
    config = SpreadMeanConfig
    display_name = "A mean, written to every image"

    def forward(self, views: Views) -> Tensor:
        losses = super().forward(views)
        return losses.mean().expand_as(losses)


class DetachedConfig(MethodConfig):
    name: Literal["bad_detached"] = "bad_detached"


class Detached(Plain):
    config = DetachedConfig
    display_name = "A network that gets no gradient"

    def forward(self, views: Views) -> Tensor:
        return super().forward(views).detach().requires_grad_()


BAD = (ChangingAttribute, ForgottenBuffer, IgnoredShare, MeanLoss, SpreadMean, Detached)
