"""Backbones on disk: ``backbone.safetensors`` holds the stock network's plain keys, its metadata everything else."""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from sdclr.backbones import BackboneConfig, Normalisation, build_backbone
from sdclr.backbones.backbone import Backbone, measure_feature_dim
from sdclr.backbones.config import no_normalisation
from sdclr.backbones.image_sizes import named_sizes
from sdclr.backbones.table import row_of
from sdclr.backbones.without_data import without_data
from sdclr.compute.process_state import default_generators
from sdclr.config import Section
from sdclr.errors import CheckpointError, ConfigError, MissingInputError
from sdclr.run import Run
from sdclr.run.consistency import require_own_backbone
from sdclr.safe_text import shown
from sdclr.storage.named_tensors import check_fit, load_strictly
from sdclr.storage.tensor_files import is_storable, read_tensors, write_tensors

FORMAT = "sdclr-backbone-1"


def save_backbone(
    path: Path, backbone: Backbone, architecture: dict[str, Any], facts: dict[str, Any]
) -> None:
    """Write ``backbone.net`` with its architecture and input normalisation."""
    described = {
        "architecture": architecture,
        "normalisation": normalisation_of(backbone).to_dict(),
    }
    write_tensors(path, backbone.net.state_dict(), {"format": FORMAT} | described | facts)


def normalisation_of(backbone: Backbone) -> Normalisation:
    """The constants by which a backbone normalises its input."""
    return Normalisation.parse(
        {"mean": backbone.mean.flatten().tolist(), "std": backbone.std.flatten().tolist()}
    )


class BackboneFacts(Section):
    """The metadata of a backbone file that describe its network; other facts are for people to read."""

    model_config = ConfigDict(extra="ignore")

    architecture: BackboneConfig
    normalisation: Normalisation
    image_size: Annotated[int, Field(ge=1, le=16_384)] | None = None
    """Side of the images in pixels that the network was trained on."""
    feature_dim: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True)
class BackboneFile:
    """A backbone file, its metadata checked."""

    path: Path
    tensors: dict[str, Tensor]
    described: BackboneFacts
    facts: dict[str, Any]
    """All the metadata."""

    @property
    def dtype(self) -> torch.dtype:
        """The type that the whole network computes in: that of its first weights."""
        floats = (t.dtype for t in self.tensors.values() if t.is_floating_point())
        return next(floats, torch.float32)

    def require_image_size(self) -> int:
        """The size of its images in pixels; CheckpointError for a file without it."""
        if self.described.image_size is None:
            raise CheckpointError(
                f"{self.path} does not record for which image size its network was trained."
            )
        return self.described.image_size


def read_backbone(source: Path | str) -> BackboneFile:
    """A run folder's backbone or a backbone file.

    Raises MissingInputError where there is none, CheckpointError for a damaged or foreign file, metadata that are not
    valid, and weights that are not finite, and ConfigError for a backbone that another run has trained.
    """
    path = Path(source)
    if path.is_dir():
        require_own_backbone(Run(path))
        path = path / "backbone.safetensors"
        if not path.is_file():
            raise MissingInputError(
                f"{path} does not exist: the run is not finished, or {source} is not a run folder."
            )
    elif not path.exists():
        raise MissingInputError(f"there is no run folder or backbone file {shown(path)}.")
    tensors, facts = read_tensors(path)
    if facts.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} holds no backbone; give a run folder or its backbone.safetensors."
        )
    try:
        described = BackboneFacts.parse(facts)
    except (ConfigError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} does not describe its network: {shown(error, 600)}"
        ) from None
    require_usable_weights(tensors, str(path))
    return BackboneFile(path, tensors, described, facts)


def load_backbone(
    source: Path | str, network: nn.Module | None = None, *, normalise: bool = True
) -> Backbone:
    """The trained target backbone in eval mode: images [B, C, S, S] in [0, 1] -> features [B, F].

    ``source``: a run folder or a backbone.safetensors. ``network``: your own module, for a run with a custom one.
    ``normalise``: whether the backbone normalises its input as it did in training (by the constants in the file). The
    input of a ``network`` that normalises it itself, and was trained with backbone.normalisation=none, is not
    normalised twice; with ``normalise=False``, nor is it where the run had another setting.

    ``backbone.preprocess(pil_image)`` makes the input of an image; ``backbone.image_size`` and ``backbone.feature_dim``
    are those of the training. Images that are not floats in [0, 1] raise DataError. Raises MissingInputError or
    CheckpointError; a partial match is never accepted.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> backbone = sdclr.load_backbone(run)
    >>> backbone(torch.rand(2, 3, 8, 8)).shape, backbone.image_size
    (torch.Size([2, 32]), 8)
    """
    file = read_backbone(source)
    architecture, normalisation = file.described.architecture, file.described.normalisation
    if network is None and architecture.name == "custom":
        raise ConfigError(
            f"{source} was trained with your own network; pass it: load_backbone(..., network=...)."
        )
    if network is None:
        network = _network_of(file)
    if not normalise:
        normalisation = no_normalisation(normalisation.channels)
    backbone = Backbone(network, *_constants(normalisation))
    load_strictly(backbone.net, file.tensors, str(source))
    backbone = backbone.to(file.dtype).eval()
    backbone.image_size = file.described.image_size
    backbone.feature_dim = file.described.feature_dim or _measured_dim(backbone)
    backbone.checks_input = True
    return backbone


def _measured_dim(backbone: Backbone) -> int | None:
    """F for a file without it; None for a network that only takes images of an unknown size."""
    with contextlib.suppress(ConfigError):
        return measure_feature_dim(backbone, backbone.image_size or 224)
    return None


def load_weights(backbone: Backbone, source: Path | str) -> BackboneFile:
    """Start a new run's backbone from trained weights of the same architecture; returns the file."""
    file = read_backbone(source)
    sizes = named_sizes(file.described.architecture)
    try:
        load_strictly(backbone.net, file.tensors, str(source))
    except CheckpointError as error:
        if not sizes:
            raise
        raise CheckpointError(
            f"{error} That network was built for images of {sizes[0]} px: views.size={sizes[0]}."
        ) from None
    return file


def require_loadable(backbone: Backbone, architecture: BackboneConfig, image_size: int) -> None:
    """ConfigError unless a file of this backbone would give the same network back: tried in memory, before training.

    Writes nothing, and leaves the default generators unchanged.
    """
    name = architecture.name
    advice = f"Choose another backbone.name, or train it from Python: backbone.name=custom, network=<your {name}>."
    tensors = {key: tensor.detach() for key, tensor in backbone.net.state_dict().items()}
    odd = [
        key
        for key, tensor in tensors.items()
        if not isinstance(tensor, Tensor) or not is_storable(tensor)
    ]
    if odd:
        raise ConfigError(f"{shown(odd[0])} of {name} cannot be stored in a file. {advice}")
    try:
        described = {
            "architecture": json.loads(json.dumps(architecture.to_dict())),
            "normalisation": normalisation_of(backbone).to_dict(),
        }
        file = BackboneFile(Path("its file"), tensors, BackboneFacts.parse(described), described)
        loaded = Backbone(_network_of(file), *_constants(file.described.normalisation))
        load_strictly(loaded.net, tensors, "its file")
    except Exception as error:  # networks of others fail in their own ways
        reason = str(error) or type(error).__name__
        raise ConfigError(
            f"what a run with {name} would save could not be loaded again: {reason} {advice}"
        ) from error
    if not _same_features(backbone, loaded, image_size):
        raise ConfigError(
            f"{name} gives other features after it was saved and loaded: a part of it that is not in its state_dict "
            f"is drawn at random. {advice}"
        )


def _constants(normalisation: Normalisation) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return normalisation.mean, normalisation.std


@torch.no_grad()
def _same_features(backbone: Backbone, loaded: Backbone, image_size: int) -> bool:
    training = backbone.training
    shape = 2, backbone.channels, image_size, image_size
    images = torch.linspace(0, 1, math.prod(shape)).view(shape)
    try:
        with default_generators(0, torch.device("cpu")):  # for layers that draw even in eval mode
            before = backbone.eval()(images)
        with default_generators(0, torch.device("cpu")):
            after = loaded.eval()(images)
    finally:
        backbone.train(training)
    return torch.allclose(
        before, after, rtol=1e-3, atol=1e-4 * float(before.abs().max()), equal_nan=True
    )


def _network_of(file: BackboneFile) -> nn.Module:
    """The network that a file describes. The claims of the description are checked before memory is allocated."""
    architecture, channels = file.described.architecture, file.described.normalisation.channels
    where, num_tensors = str(file.path), len(file.tensors)
    if row_of(architecture.name) is None:
        raise CheckpointError(
            f"{where} was trained with the backbone {shown(architecture.name)}, which is not part of sdclr. Name "
            "its code: --use module:Name, or sdclr.register_backbone(...) from Python."
        )
    _require_ordinary_options(architecture.options, where)
    # as many modules as can have the file's tensors, and some more without weights
    limit = MODULES_PER_TENSOR * num_tensors + FREE_MODULES
    try:
        try:
            with without_data(), at_most_modules(limit):
                claimed = _described(architecture, channels, where).net
        except CheckpointError:
            # some constructors read numbers, which device meta does not have: torchvision's RegNets
            return _network_on_cpu(file, limit)
        check_fit(claimed.state_dict(), file.tensors, where)
        _require_memory(claimed, file)
    except TooManyModules as error:
        raise CheckpointError(
            f"{where} describes a network with {error}, but holds {num_tensors} tensors."
        ) from None
    # its first weights are replaced, so the caller's draws are not affected
    with default_generators(0, torch.device("cpu")):
        return _described(architecture, channels, where).net


def _network_on_cpu(file: BackboneFile, limit: int) -> nn.Module:
    """The same network where it cannot be built without data; stops as soon as it outgrows the file."""
    where = str(file.path)
    elements = sum(tensor.numel() for tensor in file.tensors.values()) + FREE_ELEMENTS
    with (
        default_generators(0, torch.device("cpu")),
        at_most_modules(limit),
        at_most_elements(elements),
    ):
        described = file.described
        network = _described(described.architecture, described.normalisation.channels, where).net
    check_fit(network.state_dict(), file.tensors, where)
    _require_memory(network, file)
    return network


MODULES_PER_TENSOR, FREE_MODULES = 20, 2_000
LARGEST_OPTION, MOST_OPTIONS = 100_000, 1_000
FREE_BYTES = 2**28
FREE_ELEMENTS = 2**26
"""Parameters that a constructor may make beyond those in the file, for a classifier that is removed again."""


def _require_ordinary_options(options: Mapping[str, Any], where: str) -> None:
    """Refuse numbers and lists that no real network has, before a constructor gets them."""
    waiting, seen = list(options.values()), 0
    while waiting:
        value = waiting.pop()
        seen += 1
        too_large = isinstance(value, int | float) and not abs(value) <= LARGEST_OPTION
        if too_large or seen > MOST_OPTIONS:
            what = (
                f"{shown(value)} among its options"
                if too_large
                else f"more than {MOST_OPTIONS} options"
            )
            raise CheckpointError(f"{where} does not describe its network: it has {what}.")
        if isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, Mapping):
            waiting += value.values()


def _require_memory(claimed: nn.Module, file: BackboneFile) -> None:
    """Refuse a network whose unsaved buffers are far larger than its file: an attention mask for a huge image."""
    stored = sum(tensor.nbytes for tensor in file.tensors.values())
    needed = sum(buffer.nbytes for buffer in claimed.buffers())
    if needed > 4 * stored + FREE_BYTES:
        raise CheckpointError(
            f"{file.path} describes a network with {needed / 1e9:.1f} GB of buffers, but holds {stored / 1e9:.3f} GB."
        )


def _described(architecture: BackboneConfig, channels: int, where: str) -> Backbone:
    # the file's own input normalisation counts, not the settings of its run
    fresh = architecture.model_copy(update={"pretrained": False, "normalisation": "auto"})
    try:
        return build_backbone(fresh, channels)
    except TooManyModules:
        raise
    except Exception as error:  # networks of others fail in their own ways at unusual settings
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{where} does not describe its network: {shown(reason, 600)}"
        ) from None


class TooManyModules(Exception):
    """A network under construction has grown beyond its limit."""


@contextlib.contextmanager
def at_most_modules(limit: int) -> Iterator[None]:
    """Raise TooManyModules as soon as this thread has registered more than ``limit`` modules inside the block."""
    thread, count = threading.get_ident(), 0

    def counted(*_: object) -> None:
        nonlocal count
        if threading.get_ident() == thread:
            count += 1
            if count > limit:
                raise TooManyModules(f"more than {limit:,} layers")

    handle = register_module_module_registration_hook(counted)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def at_most_elements(limit: int) -> Iterator[None]:
    """Raise TooManyModules as soon as this thread's parameters have more than ``limit`` numbers inside the block."""
    thread, count = threading.get_ident(), 0

    def counted(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        nonlocal count
        if threading.get_ident() == thread and parameter is not None:
            count += parameter.numel()
            if count > limit:
                raise TooManyModules(f"more than {limit:,} parameters")

    handle = register_module_parameter_registration_hook(counted)
    try:
        yield
    finally:
        handle.remove()


def require_usable_weights(tensors: Mapping[str, Tensor], where: str) -> None:
    """CheckpointError, naming the tensor, for an unusable type, a number that is not finite, or a negative variance."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        if tensor.dtype not in WEIGHT_TYPES:
            raise CheckpointError(
                f"{where}: {shown(name)} has the type {tensor.dtype}, which no layer computes in."
            )
        if not tensor.isfinite().all():
            raise CheckpointError(
                f"{where}: {shown(name)} holds numbers that are not finite. Use weights from "
                "before the training diverged."
            )
        if name.endswith("running_var") and (tensor < 0).any():
            raise CheckpointError(
                f"{where}: {shown(name)} holds a negative variance; the file is damaged."
            )


WEIGHT_TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
