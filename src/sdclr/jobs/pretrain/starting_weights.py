"""The weights that a run starts from: a run's, a file's, or ImageNet's; and their input normalisation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from sdclr.any_progress import AnyProgress
from sdclr.backbones import Backbone, BackboneConfig, Normalisation, input_constants
from sdclr.backbones.build import normalisation_of_library
from sdclr.backbones.image_sizes import SIZE_OPTIONS
from sdclr.backbones.others_weights import is_others, load_others, read_others
from sdclr.backbones.weights import load_weights, normalisation_of
from sdclr.config import user_path
from sdclr.errors import CheckpointError, ConfigError
from sdclr.settings import PretrainConfig
from sdclr.storage.named_tensors import first_not_finite


def load_starting_weights(
    backbone: Backbone, config: PretrainConfig, architecture: BackboneConfig, show: AnyProgress
) -> None:
    if config.weights is not None and config.backbone.pretrained:
        raise ConfigError(
            "weights and backbone.pretrained=true are two starting points; give one of them."
        )
    if config.weights is not None and is_others(user_path(config.weights)):
        _start_from_others(backbone, config, show)
    elif config.weights is not None:
        file = load_weights(backbone, config.weights)
        if name := first_not_finite(backbone.net.state_dict()):
            raise CheckpointError(
                f"weights={config.weights}: {name} holds a number that is not finite. Start from other weights."
            )
        _take_over_normalisation(backbone, config, file.described.normalisation, show)
        _warn_of_other_options(config, architecture, file.described.architecture)
    elif config.backbone.pretrained:
        backbone_config = config.backbone
        from sdclr.backbones.pretrained import load_pretrained

        load_pretrained(
            backbone,
            backbone_config.name,
            backbone_config.width,
            backbone_config.stem,
            architecture.options,
        )
        if not normalisation_of(backbone).is_like(input_constants(_fresh(architecture))):
            show.print(
                f"input normalisation of the pre-trained weights: {_constants_words(backbone)}"
            )


def _start_from_others(backbone: Backbone, config: PretrainConfig, show: AnyProgress) -> None:
    file = read_others(user_path(str(config.weights)))
    account = load_others(backbone.net, file, config.weights_match)
    show.print(account.words())
    if account.missing:
        warnings.warn(
            f"{len(account.missing)} of the network's tensors are not in {file.path} and stay fresh "
            f"({', '.join(account.missing[:3])}, ...), as weights_match=partial allows.",
            stacklevel=5,
        )
    theirs = file.normalisation or normalisation_of_library(config.backbone.name)
    if theirs is not None:
        _take_over_normalisation(backbone, config, theirs, show)


def _fresh(architecture: BackboneConfig) -> BackboneConfig:
    return architecture.model_copy(update={"pretrained": False})


def _take_over_normalisation(
    backbone: Backbone, config: PretrainConfig, theirs: Normalisation, show: AnyProgress
) -> None:
    """Use the input normalisation that the weights were trained with, unless the user has set another."""
    if normalisation_of(backbone).is_like(theirs):
        return
    if config.backbone.normalisation == "auto":
        backbone.normalise_with(theirs.mean, theirs.std)
        other = " (backbone.normalisation=imagenet would take ImageNet's)"
        show.print(
            f"input normalisation of the weights: {_constants_words(backbone)}"
            f"{other if backbone.channels == 3 else ''}"
        )
        return
    show.print(
        f"input normalisation: {_constants_words(backbone)}, as backbone.normalisation says; "
        f"the weights were trained with mean {_numbers(theirs.mean)}, std {_numbers(theirs.std)}"
    )


def _constants_words(backbone: Backbone) -> str:
    used = normalisation_of(backbone)
    return f"mean {_numbers(used.mean)}, std {_numbers(used.std)}"


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _warn_of_other_options(
    config: PretrainConfig, architecture: BackboneConfig, theirs: BackboneConfig
) -> None:
    """Warn of other options: some leave no trace in the weights, which then belong to another network."""
    ours, others = (
        {key: value for key, value in one.options.items() if key not in SIZE_OPTIONS}
        for one in (architecture, theirs)
    )
    if architecture.name == theirs.name and ours != others:
        warnings.warn(
            f"weights={config.weights} were trained with backbone.options={others}, and this run has {ours}: the "
            "weights fit, and the network may compute something else with them.",
            stacklevel=4,
        )
