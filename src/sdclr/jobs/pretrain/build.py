"""Settings -> a Training: data, network, method and optimiser, before anything is written."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from sdclr.any_progress import AnyProgress, NoProgress
from sdclr.backbones import (
    IMAGENET,
    Backbone,
    BackboneConfig,
    build_backbone,
    checkpoint_activations,
    contiguous_tails,
    input_constants,
    measure_feature_dim,
)
from sdclr.backbones.backbone import require_trainable_and_storable
from sdclr.backbones.image_sizes import fitted_to
from sdclr.backbones.weights import normalisation_of, require_loadable
from sdclr.compute.compiling import Compiled, CompiledAs, compiled, compiles_views, resolve_compile
from sdclr.compute.device import (
    parameter_dtype,
    resolve_device,
    resolve_memory_format,
    resolve_precision,
)
from sdclr.compute.device_choices import Precision
from sdclr.compute.optim import build_optimizer
from sdclr.compute.process_state import default_generators
from sdclr.compute.stateless_random import Stream, derive
from sdclr.data import Data, Images, LabelledImages, build_data, steps_per_epoch
from sdclr.data.choices import Unlabelled
from sdclr.data.collections.contents import require_recorded
from sdclr.data.trained_images import had_labels
from sdclr.errors import ConfigError
from sdclr.jobs.pretrain.channel_levels import measured_normalisation, normalisation_words
from sdclr.jobs.pretrain.own_views import own_view_facts
from sdclr.jobs.pretrain.starting_weights import load_starting_weights
from sdclr.jobs.pretrain.training import VIEWS_CUT_BY_DEVICE, VIEWS_CUT_BY_HOST, Training
from sdclr.jobs.pretrain.usable import training_images
from sdclr.methods import ContrastiveMethod, Method, Parts, build_method
from sdclr.methods.config import SDCLRConfig
from sdclr.methods.contract import facts_of, require_rows_per_image
from sdclr.processes.synchronised_norm import synchronise_norms
from sdclr.processes.world import ALONE, World
from sdclr.run import Run
from sdclr.run.files import CONTENTS_FILE
from sdclr.settings import PretrainConfig

GRAPHED_SIDE = 64
"""The largest side of views, in pixels, for CUDA graphs: with larger ones, kernels take longer than their launches."""


def build(
    config: PretrainConfig,
    network: nn.Module | None = None,
    *,
    show: AnyProgress,
    run: Run | None = None,
    world: World = ALONE,
    download: bool = False,
    given: LabelledImages | None = None,
) -> Training:
    """Build everything that a run needs; anything that does not fit is an error here.

    ``run``: its folder, which may already contain a partial run; None for a preview. ``network``: the user's
    own module. ``given``: the images of data.name=given.
    """
    device = world.device(resolve_device(config.device))
    # an unsupported compile setting is rejected before anything is read
    resolve_compile(config.compile, device, several=world.several)
    data = _data(config, run, show, download=download, given=given)
    images, image_facts = training_images(data, config.data, device, run, show)
    steps = steps_per_epoch(len(images), config.batch_size)
    world.require_images(len(images) - (steps - 1) * config.batch_size)
    num_steps, side = config.epochs * steps, config.views.size
    compiling = resolve_compile(
        config.compile,
        device,
        several=world.several,
        num_steps=num_steps,
        graphs_hold=network is None and graphs_hold(config),
    )
    warmup_epochs = _warmup_epochs(config)
    made = _method(config, network, images, device, compiling, world, run, show)
    require_rows_per_image(made.method, len(images))
    compiled_method = _compiled(made.method, config, compiling, world)
    placed, views_cut_by = _placed(images, device, show)
    training = Training(
        config=config,
        world=world,
        device=device,
        precision=made.precision,
        compile=compiling,
        compiles_views=compiles_views(config.compile, num_steps, side),
        memory_format=made.memory_format,
        data=data,
        images=placed,
        image_facts=image_facts,
        steps_per_epoch=steps,
        warmup_epochs=warmup_epochs,
        backbone=made.backbone,
        architecture=made.architecture,
        feature_dim=made.feature_dim,
        method=made.method,
        compiled=compiled_method,
        loss_per_image=compiled_method or made.method,
        optimizer=_optimizer(made.method, config),
        resolved=made.resolved | own_view_facts(placed, config, show),
        views_cut_by=views_cut_by,
    )
    if images.channels != 3:
        training.operations()  # raises now rather than when the first epoch begins
    return training


class _Made(NamedTuple):
    """The method on its device, and its parts."""

    method: Method
    backbone: Backbone
    architecture: BackboneConfig
    feature_dim: int
    precision: Precision
    memory_format: torch.memory_format
    resolved: dict[str, Any]


def _method(
    config: PretrainConfig,
    network: nn.Module | None,
    images: Images,
    device: torch.device,
    compiling: CompiledAs,
    world: World,
    run: Run | None,
    show: AnyProgress,
) -> _Made:
    """The method around the starting backbone, in the run's precision and layout."""
    precision = resolve_precision(config.precision, device)
    recorded = _recorded_choices(run, config)
    architecture = _architecture(config, recorded)
    if words := _fitted_words(architecture, config):
        show.print(words)
    with default_generators(derive(config.seed, Stream.WEIGHTS), device):
        backbone, feature_dim = _starting_backbone(
            config, network, architecture, images, recorded, run, show
        )
        layout = resolve_memory_format(config.memory_format, backbone, device)
        fused = device.type == "cuda" and not compiling
        prepare = partial(synchronise_norms, fused=fused) if world.several else nn.Identity()
        parts = Parts(backbone, feature_dim, len(images), config.epochs, config.seed, prepare)
        method = build_method(config.method.as_resolved(recorded or {}), parts)
        if config.record_images:
            _recording(method).start_recording(len(images))
        resolved = _choices(architecture, backbone, method)
        method = method.to(device, parameter_dtype(precision)).to(memory_format=layout)
    if config.memory_format == "auto" and device.type == "cpu":
        contiguous_tails(method, config.views.size)
    return _Made(method, backbone, architecture, feature_dim, precision, layout, resolved)


def _optimizer(method: Method, config: PretrainConfig) -> torch.optim.Optimizer:
    names = {"name", "momentum", "weight_decay", "decay_norms_and_biases"}
    return build_optimizer(method.parameters(), **config.optimizer.model_dump(include=names))


def _recording(method: Method) -> ContrastiveMethod:
    if isinstance(method, ContrastiveMethod):
        return method
    raise ConfigError(
        f"record_images is for methods that contrast two projections of every image; {type(method).__name__} does not "
        "say what they are. Make it a subclass of sdclr.methods.ContrastiveMethod, or leave record_images out."
    )


def memory_advice(config: PretrainConfig) -> str:
    """What to change when memory runs out."""
    cost = f"batch_size (now {config.batch_size}), views.size (now {config.views.size}) or backbone.width"
    return f"Lower {cost}; or set activation_checkpointing=true, or precision=bf16."


def _data(
    config: PretrainConfig,
    run: Run | None,
    show: AnyProgress,
    *,
    download: bool,
    given: LabelledImages | None,
) -> Data:
    exclude = [run.folder] if run is not None else []
    labelled = had_labels(run) if run is not None and run.exists else None
    unlabelled: Unlabelled = "refuse" if labelled else "keep_all"
    data = build_data(
        config.data,
        download=download,
        exclude=exclude,
        given=given,
        unlabelled=unlabelled,
        use_labels=labelled is not False,  # they came after it began
    )
    if run is not None and run.exists:
        _require_same_names(run, config, data)  # before every file is decoded
    for remark in data.remarks:
        show.print(remark)
    return data


def _require_same_names(run: Run, config: PretrainConfig, data: Data) -> None:
    """Raise ConfigError, counting the files that were added or removed since the run began."""
    saved = run.read_json("split.json", "fingerprint")["fingerprint"]
    if saved != data.fingerprint:
        files = data.files(config.data.subset)
        require_recorded(run.folder / CONTENTS_FILE, files, saved, data.fingerprint)


def _warmup_epochs(config: PretrainConfig) -> float:
    given = config.optimizer.warmup_epochs
    epochs = min(10.0, config.epochs / 10) if given is None else given
    if epochs >= config.epochs:
        warnings.warn(
            f"optimizer.warmup_epochs={epochs:g} is not shorter than the run ({config.epochs} epochs): the learning "
            "rate never reaches its peak.",
            stacklevel=4,
        )
    return epochs


def _starting_backbone(
    config: PretrainConfig,
    network: nn.Module | None,
    architecture: BackboneConfig,
    images: Images,
    recorded: dict[str, Any] | None,
    run: Run | None,
    show: AnyProgress,
) -> tuple[Backbone, int]:
    """The network with its starting weights, and its feature dim; a resumed run loads its own weights later."""
    backbone = _backbone(architecture, network, images.channels)
    feature_dim = measure_feature_dim(backbone, config.views.size)
    resuming = run is not None and (bool(run.checkpoints) or run.backbone_path.is_file())
    if recorded is None and images.channels != 3 and config.backbone.normalisation == "auto":
        measured = measured_normalisation(images, config.views.size, config.seed)
        backbone.normalise_with(measured.mean, measured.std)
        show.print(normalisation_words(measured))
    if not resuming:  # otherwise a checkpoint contains the trained weights
        if not config.backbone.is_ours and network is None:  # fail now rather than hours later
            require_loadable(backbone, architecture, config.views.size)
        load_starting_weights(
            backbone, config, architecture, show if recorded is None else NoProgress()
        )
    if recorded is not None:
        backbone.normalise_with(**recorded["normalisation"])
    if config.activation_checkpointing:
        checkpoint_activations(backbone.net)
    return backbone, feature_dim


def graphs_hold(config: PretrainConfig) -> bool:
    """Whether CUDA graphs were verified, on a device, to train such a run exactly as it is trained without them.

    These are SimCLR and SDCLR with the package's ResNets on small images, which are also limited by kernel launches.
    """
    method = config.method
    plain = method.name == "simclr" or (
        method.name == "sdclr"  # not those that build on it
        and isinstance(method, SDCLRConfig)
        and not (method.dropout or method.stale)
    )
    return (
        plain
        and config.backbone.is_ours
        and config.views.size <= GRAPHED_SIDE
        and not config.activation_checkpointing
        and not config.record_images
    )


def _compiled(
    method: Method, config: PretrainConfig, compiling: str | bool, world: World
) -> Compiled | None:
    if not compiling:
        return None
    return compiled(
        # with several processes, gradient averaging wraps it, which does not compile
        method.forward if world.several else method,
        f"method {config.method.name}",
        cuda_graphs=compiling == "cuda-graphs",
        required=world.several,
    )


def _placed(images: Images, device: torch.device, show: AnyProgress) -> tuple[Images, str]:
    """The images on the device of their views, and where the views are cut."""
    placed = images.to(device)
    if (line := placed.describe()) is not None:
        show.print(line)
    return placed, VIEWS_CUT_BY_DEVICE if placed.cut_on_device else VIEWS_CUT_BY_HOST


def _recorded_choices(run: Run | None, config: PretrainConfig) -> dict[str, Any] | None:
    """How an existing run has resolved the settings that leave something open; None for a new one.

    A run of an earlier version continues as before: the network by its options, and ImageNet's normalisation unless
    backbone.normalisation is set or the network is timm's.
    """
    if run is None or not run.exists:
        return None
    found: dict[str, Any] | None = run.read_json("environment.json").get("resolved")
    if found is not None:
        return found
    backbone = config.backbone
    asked_for = backbone.normalisation != "auto" or backbone.name.startswith("timm:")
    constants = input_constants(backbone) if asked_for else IMAGENET
    return {"backbone_options": backbone.options, "normalisation": constants.to_dict()}


def _architecture(config: PretrainConfig, recorded: dict[str, Any] | None) -> BackboneConfig:
    """The network's config, adapted to views.size."""
    if recorded is not None:
        return config.backbone.model_copy(update={"options": recorded["backbone_options"]})
    return fitted_to(config.backbone, config.views.size)


def _fitted_words(architecture: BackboneConfig, config: PretrainConfig) -> str | None:
    """A line on how the network was adapted to views.size; None if it was not."""
    added = {
        key: value
        for key, value in architecture.options.items()
        if key not in config.backbone.options
    }
    if not added:
        return None
    options = ", ".join(f"{key}={value}" for key, value in added.items())
    return f"{architecture.name} is built for views of {config.views.size} px ({options})"


def _choices(architecture: BackboneConfig, backbone: Backbone, method: Method) -> dict[str, Any]:
    """The resolved choices, for environment.json and for resuming the run."""
    return {
        "backbone_options": architecture.options,
        "normalisation": normalisation_of(backbone).to_dict(),
        **facts_of(method),
    }


def _backbone(architecture: BackboneConfig, network: nn.Module | None, channels: int) -> Backbone:
    if (network is None) == (architecture.name == "custom"):
        raise ConfigError(
            "backbone.name=custom and network=<your module> go together: give both or neither."
        )
    if network is None:
        return build_backbone(architecture, channels)
    constants = input_constants(architecture, channels)
    backbone = Backbone(network, constants.mean, constants.std)
    require_trainable_and_storable(backbone.net)
    return backbone
