"""Networks with a classifier: a library's own, whose last layer is the trained head, or any network before a head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sdclr.backbones.build import head_of_torchvision, torchvision_options
from sdclr.backbones.config import BackboneConfig
from sdclr.compute.process_state import default_generators
from sdclr.errors import CheckpointError, ConfigError
from sdclr.storage.named_tensors import load_strictly


class NoSuchHead(Exception):
    """A library's network has no linear classifier on the same features; the message describes what it has."""


class HeadedNetwork(nn.Module):
    """Any network and a linear head; tensors have the network's names, and classifier.weight and classifier.bias."""

    def __init__(self, network: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.network(images))
        return logits

    def named_tensors(self) -> dict[str, Tensor]:
        """The tensors of both parts, without the names of the parts."""
        tensors = dict(self.network.state_dict())
        own = {f"classifier.{name}": one for name, one in self.head.state_dict().items()}
        if taken := tensors.keys() & own.keys():
            raise ConfigError(
                f"this network has a {sorted(taken)[0]} of its own, so the head cannot take that name. Use --format "
                "torch-export or onnx."
            )
        return tensors | own

    def load_tensors(self, tensors: dict[str, Tensor], where: str) -> None:
        """Load the result of :meth:`named_tensors`, strictly."""
        # by their whole names: the network may have a classifier.0.weight of its own
        own = {f"classifier.{name}": name for name in self.head.state_dict()}
        network = {name: one for name, one in tensors.items() if name not in own}
        load_strictly(self.network, network, where)
        head = {own[name]: one for name, one in tensors.items() if name in own}
        load_strictly(self.head, head, where)


def headed_network(architecture: BackboneConfig, num_classes: int) -> nn.Module:
    """A library's network with a fresh classifier. Raises NoSuchHead where it cannot have one."""
    library, _, name = architecture.name.rpartition(":")
    options = architecture.options
    try:
        with default_generators(0, torch.device("cpu")):
            if library == "timm":
                import timm

                return timm.create_model(name, num_classes=num_classes, **options)
            import torchvision

            given = torchvision_options(name, options) | {"num_classes": num_classes}
            if name == "maxvit_t" and options:
                return torchvision.models.MaxVit(**given)
            return torchvision.models.get_model(name, weights=None, **given)
    except (TypeError, ValueError, KeyError, RuntimeError, AssertionError) as error:
        raise NoSuchHead(f"{library} cannot build {name}: {error}") from error


def headed_like(architecture: BackboneConfig, net: nn.Module, head: nn.Linear) -> nn.Module:
    """A library's network whose layers are ``net`` and whose classifier is ``head``. Raises NoSuchHead."""
    network = headed_network(architecture, len(head.weight)).to(head.weight.dtype)
    place = _place_of_head(architecture, network)
    tensors = dict(net.state_dict())
    tensors |= {f"{place}.weight": head.weight.detach(), f"{place}.bias": head.bias.detach()}
    try:
        load_strictly(network, tensors, "it")
    except CheckpointError:
        raise NoSuchHead(f"{architecture.name} has other layers") from None
    return network


def _place_of_head(architecture: BackboneConfig, network: nn.Module) -> str:
    """The name of the linear layer that is the classifier."""
    library, _, name = architecture.name.rpartition(":")
    if library == "torchvision":
        place = head_of_torchvision(network, name)
        found: object = network.get_submodule(place)
    else:
        found = network.get_classifier()  # type: ignore[operator]
        places = [key for key, module in network.named_modules() if module is found]
        place = places[0] if places else ""
    if not isinstance(found, nn.Linear) or not place:
        raise NoSuchHead(f"the classifier of {architecture.name} is not a linear layer")
    return place


def headed_code(architecture: BackboneConfig, num_classes: int) -> str:
    """Python code that makes the network, ready for load_state_dict."""
    library, _, name = architecture.name.rpartition(":")
    if library == "timm":
        words = "".join(f", {key}={value!r}" for key, value in architecture.options.items())
        return f'network = timm.create_model("{name}", num_classes={num_classes}{words})'
    given = torchvision_options(name, architecture.options) | {"num_classes": num_classes}
    words = ", ".join(f"{key}={value!r}" for key, value in given.items())
    if name == "maxvit_t" and architecture.options:
        return f"network = torchvision.models.MaxVit({words})"
    return f'network = torchvision.models.get_model("{name}", {words})'
