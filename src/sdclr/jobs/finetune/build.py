"""Build the parts of a fine-tuning from settings, a start and labelled images."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdclr.any_progress import AnyProgress
from sdclr.backbones import Backbone, BackboneConfig
from sdclr.backbones.backbone import measure_feature_dim
from sdclr.backbones.classifier import is_classifier, load_classifier
from sdclr.backbones.config import WeightsMatch
from sdclr.backbones.encoder import open_encoder
from sdclr.compute.device import (
    device_of_draws,
    parameter_dtype,
    resolve_memory_format,
    resolve_precision,
)
from sdclr.compute.optim import build_optimizer
from sdclr.data.collections.images import Images
from sdclr.data.config import ViewsConfig
from sdclr.data.decoding.decode import printable
from sdclr.data.views.parameters import ViewSpec
from sdclr.errors import ConfigError, DataError, MissingInputError, NonFiniteError
from sdclr.evaluation.features import extract_features, require_finite
from sdclr.evaluation.logistic_regression import LogisticRegression
from sdclr.jobs.finetune.balance import balanced
from sdclr.jobs.finetune.config import FinetuneConfig
from sdclr.jobs.finetune.labelled import Labelled
from sdclr.jobs.finetune.training import Training
from sdclr.processes.exchange import gather_rows, of_first_process
from sdclr.processes.world import ALONE, World
from sdclr.run import Run
from sdclr.run.files import FINETUNE_FILE
from sdclr.storage.row_parts import RowParts

KEPT_FEATURES = "features-{part}.partial"
"""Folders of features, kept until the model is written."""
SMALLEST_CROP = 0.25
"""Smallest share of the image that a crop of augment=crops covers: it should contain the labelled object."""


@dataclass(frozen=True, eq=False)
class Start:
    """What a fine-tuning starts from."""

    backbone: Backbone
    architecture: BackboneConfig
    image_size: int
    feature_dim: int
    name: str
    digest: str
    views: ViewsConfig
    """Those of the pre-training, if the start records them; else the default ones."""
    records_views: bool
    head: nn.Linear | None = None
    """The head of an earlier model, whose classes are ``class_names``."""
    class_names: tuple[str, ...] = ()


def open_start(
    source: Path | str,
    config: FinetuneConfig,
    weights: Path | None,
    weights_match: WeightsMatch,
    network: nn.Module | None,
) -> Start:
    """Open a run, a backbone file, an earlier model, or a network of timm or torchvision."""
    encoder = open_encoder(
        source,
        weights=weights,
        weights_match=weights_match,
        image_size=config.image_size,
        network=network,
    )
    backbone, size = encoder.backbone, encoder.image_size
    backbone.checks_input = False
    backbone.image_size, backbone.feature_dim = size, measure_feature_dim(backbone, size)
    views = _views_of(source, size)
    start = Start(
        backbone,
        encoder.architecture.model_copy(update={"pretrained": False}),
        size,
        backbone.feature_dim,
        encoder.name,
        encoder.digest,
        ViewsConfig(size=size) if views is None else views,
        views is not None,
    )
    if isinstance(source, str) and source.startswith(("timm:", "torchvision:")):
        return start
    if not is_classifier(source):
        return start
    earlier = load_classifier(source, network)
    digest = hashlib.sha256(earlier.head.weight.detach().numpy().tobytes()).hexdigest()[:16]
    return replace(
        start,
        digest=f"{encoder.digest} {digest}",
        head=earlier.head,
        class_names=earlier.class_names,
    )


def _views_of(source: Path | str, size: int) -> ViewsConfig | None:
    """The views of the pre-training that a run, its backbone's file or an earlier model records; None without any."""
    path = Path(source)
    run = Run(path.parent if path.name == "backbone.safetensors" else path)
    with contextlib.suppress(DataError, MissingInputError, ConfigError):
        if (run.folder / FINETUNE_FILE).is_file():
            views = run.read_json(FINETUNE_FILE).get("views")
        elif run.exists:
            views = run.settings().get("views")
        else:
            return None
        if isinstance(views, dict):
            # the user's own views are only resolved where they are used
            return ViewsConfig.parse(views | {"size": size}, foreign=True)
    return None


def used_views(config: FinetuneConfig, start: Start) -> str:
    """How training images are augmented, for the line that says what begins."""
    if config.augment == "crops":
        return f"augment crops (flip {start.views.flip:g})"
    return f"augment {config.augment}"


def build(
    start: Start,
    labelled: Labelled,
    config: FinetuneConfig,
    device: torch.device,
    folder: Path,
    show: AnyProgress,
    world: World = ALONE,
) -> tuple[Training, Callable[[], Tensor] | None]:
    """All parts, and a function that returns the logits of the validation images [N, C] on the CPU; None without any.

    Features that do not change are computed once, part by part in ``folder``, so that a killed command can resume.
    Several processes divide the parts, and only the first one has them all; ``agree`` broadcasts what is derived from
    them.
    """
    precision = resolve_precision(config.precision, device)
    dtype = parameter_dtype(precision)
    layout = resolve_memory_format("auto", start.backbone, device)
    backbone = start.backbone.to(device=device, dtype=dtype).to(memory_format=layout)
    num_classes = len(labelled.class_names)
    head = nn.Linear(start.feature_dim, num_classes, device=device, dtype=dtype)
    is_full = config.mode == "full"
    if not is_full:
        backbone.requires_grad_(False)
    identity = f"{start.digest} {labelled.fingerprint} {dtype}"
    if world.several and is_full:
        _require_norms_of_images(backbone)
    extract = partial(_kept_features, backbone, start, folder, identity, show, world)
    features = extract(labelled.train, "training").to(device)
    validation_features = None
    if len(labelled.validation) and not is_full:
        validation_features = extract(labelled.validation, "validation")
    mean, std = _mean_and_std(features)
    training = Training(
        config=config,
        backbone=backbone,
        head=head,
        mean=mean,
        std=std,
        optimizer=_optimizer(backbone if is_full else None, head, config),
        images=labelled.train.to(device),
        labels=torch.from_numpy(labelled.labels[0]).to(device),
        balanced=balanced(labelled.labels[0], num_classes, config.balance).to(device, mean.dtype),
        spec=_spec(config, start),
        features=features if config.fixes_features else None,
        device=device,
        precision=precision,
        world=world,
    )
    if world.is_first:
        _start_head(training, start, labelled, features, show)
    if not len(labelled.validation):
        return training, None
    return training, partial(_logits, training, labelled.validation, validation_features)


def _mean_and_std(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of features [N, F], [F] each; placeholders if this process has no features."""
    if not len(features):
        return features.new_zeros(features.shape[1]), features.new_ones(features.shape[1])
    mean, std = features.mean(dim=0), features.std(dim=0, correction=0)
    # a constant feature is not rescaled
    return mean, torch.where(std > 1e-6 * std.max().clamp(min=1e-30), std, torch.ones_like(std))


def _require_norms_of_images(backbone: Backbone) -> None:
    """Raise ConfigError for a batch norm without running statistics: it would only see this process's images."""
    for name, module in backbone.named_modules():
        is_batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if is_batch_norm and module.running_mean is None:
            raise ConfigError(
                f"the backbone's batch norm {name} keeps no running statistics, so that several processes would not "
                "train what one does. Start one process, or use --mode linear."
            )


def _start_head(
    training: Training, start: Start, labelled: Labelled, features: Tensor, show: AnyProgress
) -> None:
    """Set the head to that of an earlier model of the same classes; otherwise to a linear fit in mode full, or zero.

    A backbone trained with an uninformed head loses what it has learned (Kumar et al., ICLR 2022).
    """
    head, mean, std = training.head, training.mean, training.std
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    if start.head is not None and tuple(labelled.class_names) == start.class_names:
        weight, bias = (one.detach().to(mean) for one in (start.head.weight, start.head.bias))
        weight, bias = weight * std, bias + weight @ mean
    elif training.is_full:
        standardised = training.standardised(features).float()
        weight, bias = _linear_fit(standardised, training.labels, len(labelled.class_names))
    else:
        if start.head is not None:
            show.print("the classes are not those of the earlier model: its head is not used.")
        return
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)


def _linear_fit(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Logistic regression of labels on standardised features [N, F]: weights [C, F] and intercepts [C]."""
    where = device_of_draws(features.device)
    found = LogisticRegression(features.to(where), labels.to(where), num_classes).fit(1.0).weights
    missing = num_classes - len(found.intercept)  # with two classes, the first scores 0
    return F.pad(found.weight.T, (0, 0, missing, 0)), F.pad(found.intercept, (missing, 0))


def _optimizer(
    backbone: nn.Module | None, head: nn.Linear, config: FinetuneConfig
) -> torch.optim.Optimizer:
    """AdamW over the head and, if given, the backbone; every group stores its peak learning rate."""

    def adamw(module: nn.Module, peak: float) -> torch.optim.Optimizer:
        optimizer = build_optimizer(
            module.parameters(),
            name="adamw",
            momentum=0.9,
            weight_decay=config.weight_decay,
            decay_norms_and_biases=False,
        )
        for group in optimizer.param_groups:
            group["peak"] = peak
        return optimizer

    optimizer = adamw(head, config.head_learning_rate)
    if backbone is not None:
        for group in adamw(backbone, config.backbone_learning_rate).param_groups:
            optimizer.add_param_group(group)
    return optimizer


def _spec(config: FinetuneConfig, start: Start) -> ViewSpec | None:
    if config.augment == "none":
        return None
    views = start.views
    if config.augment == "crops":
        views = ViewsConfig(
            size=start.image_size,
            area=(SMALLEST_CROP, 1.0),
            flip=views.flip,  # digits and letters are not flipped
            jitter_probability=0.0,
            grey=0.0,
        )
    spec = views.spec()
    return replace(spec, single=True)


def _kept_features(
    backbone: Backbone,
    start: Start,
    folder: Path,
    identity: str,
    show: AnyProgress,
    world: World,
    images: Images,
    part: str,
) -> Tensor:
    """Features of all images [N, F] on the CPU, including those that an earlier command has finished.

    Each of several processes computes a shard; all but the first return an empty tensor [0, F].
    """
    parts = RowParts(folder / KEPT_FEATURES.format(part=part), identity, team=world.messages)

    def features_of(
        places: npt.NDArray[np.int64], advance: Callable[[int], None]
    ) -> npt.NDArray[np.floating]:
        some = images.at(places)
        name = partial(_name, some.names)
        return extract_features(backbone, some.stills(start.image_size), advance, name).numpy()

    parts.compute(len(images), f"features of {len(images)} {part} images", features_of, show)
    if not world.is_first:
        dtype = next(backbone.parameters()).dtype
        return torch.zeros(0, start.feature_dim, dtype=dtype)
    return torch.from_numpy(np.concatenate(list(parts.parts())))


def _name(names: Sequence[str], row: int) -> str:
    return printable(str(names[row]))


@torch.no_grad()
def _logits(training: Training, images: Images, features: Tensor | None) -> Tensor:
    """Logits of the validation images, from fixed features if given; equal on all processes that share steps."""
    training.head.eval()
    if training.is_shared:
        return _shared_logits(training, images, features)
    if features is None:
        features = _features(training, images)
    return _logits_of(training, features).cpu()


def _features(training: Training, images: Images) -> Tensor:
    size = training.backbone.image_size
    assert size is not None
    return extract_features(training.backbone, images.stills(size), precision=training.precision)


def _logits_of(training: Training, features: Tensor) -> Tensor:
    return training.head(training.standardised(features.to(training.mean)))


def _shared_logits(training: Training, images: Images, features: Tensor | None) -> Tensor:
    """Each process computes a shard, which are then gathered; fixed features are all in the first process."""
    world, num_classes = training.world, training.head.out_features
    if features is not None:
        logits = training.mean.new_empty(len(images), num_classes)
        if world.is_first:
            logits = _logits_of(training, features).contiguous()
        return of_first_process(logits).cpu()
    own = world.shard(torch.arange(len(images)))
    logits = training.mean.new_zeros(len(own), num_classes)
    if len(own):
        try:
            logits = _logits_of(training, _features(training, images.at(own.numpy())))
        except NonFiniteError:
            logits.fill_(torch.nan)  # so that all processes raise the error
    share = world.share(len(images))
    assert share is not None
    whole = gather_rows(logits, share).cpu()
    require_finite(whole, lambda row: printable(str(images.names[row])))
    return whole
