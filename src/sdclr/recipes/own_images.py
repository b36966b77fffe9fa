"""Settings for a collection of images that nobody has tried before, each with the reason for it.

    sdclr pretrain ./photos --out runs/photos

SDCLR with one budget of steps whatever the number of images. Labels are not needed. Everything can be overridden;
`--dry-run` shows the cost first. There is no expected score: nobody has the labels.
"""

from __future__ import annotations

from typing import NamedTuple

from sdclr.backbones import BackboneConfig
from sdclr.data import DataConfig, ViewsConfig, steps_per_epoch
from sdclr.errors import ConfigError, DataError
from sdclr.jobs.pretrain import PretrainConfig
from sdclr.methods import SDCLRConfig
from sdclr.optim import OptimizerConfig

FEWEST_IMAGES = 32
VIEW_SIZES = (32, 64, 96, 128, 160, 224)
LARGEST_VIEW_ON_CPU = 96
SMALL_STEM_UP_TO = 64
STEPS = {"cpu": 400, "cuda": 20_000}
BATCH = {"cpu": 64, "cuda": 256}
FROM_SCRATCH_NEEDS = 10_000
"""Images below which a network from scratch rarely learns good features: a rule of thumb, not a measurement."""


class Choice(NamedTuple):
    """One automatic setting."""

    setting: str
    value: object
    reason: str


def own_images(
    data: DataConfig, *, num_images: int, typical_side: int, device: str, free_memory_bytes: int
) -> tuple[PretrainConfig, list[Choice]]:
    """A complete config for ``num_images`` images whose short side is typically ``typical_side`` pixels.

    ``device``: "cpu" or "cuda"; ``free_memory_bytes`` of it. Raises DataError for fewer than 32 images.
    """
    if num_images < FEWEST_IMAGES:
        raise DataError(
            f"{data.path} holds {num_images} images; at least {FEWEST_IMAGES} are needed: contrastive learning "
            "compares the images of a batch with one another."
        )
    on_cpu = device == "cpu"
    fitting = [size for size in VIEW_SIZES if size <= max(typical_side, VIEW_SIZES[0])]
    size = min(fitting[-1], LARGEST_VIEW_ON_CPU) if on_cpu else fitting[-1]
    small = size <= SMALL_STEM_UP_TO
    large_network = not on_cpu and num_images >= 100_000
    backbone = BackboneConfig(name="resnet50" if large_network else "resnet18", stem="small" if small else "large")
    batch, why = _batch_size(num_images, BATCH[device], size, backbone, free_memory_bytes)
    epochs = max(1, min(1000, round(STEPS[device] / -(-num_images // batch))))
    prune_ratio = 0.9 if small else 0.3
    like = "the paper's for small images" if small else "the paper's for photographs"
    if on_cpu:
        network = "the smallest usual network, for a CPU"
    else:
        network = "100,000 images or more" if large_network else "fewer than 100,000 images"
    choices = [
        Choice("views.size", size, _size_reason(size, typical_side, on_cpu)),
        Choice("backbone.name", backbone.name, network),
        Choice("backbone.stem", backbone.stem, f"views of {size} px{': no early down-sampling' if small else ''}"),
        Choice("batch_size", batch, why),
        Choice("epochs", epochs, f"about {STEPS[device]:,} steps in all, at most 1,000 epochs"),
        Choice("optimizer.learning_rate", 0.5 * batch / 512, "the paper's 0.5 for 512 images, in proportion"),
        Choice("method.prune_ratio", prune_ratio, like),
        Choice("views.blur", 0.0 if small else 0.5, like),
    ]
    config = PretrainConfig(
        recipe="own_images",
        data=data,
        views=ViewsConfig(size=size, area=(0.1 if small else 0.08, 1.0), blur=0.0 if small else 0.5),
        backbone=backbone,
        method=SDCLRConfig(projector_layers=3, prune_ratio=prune_ratio),
        optimizer=OptimizerConfig(learning_rate=0.5 * batch / 512),
        epochs=epochs,
        batch_size=batch,
        checkpoint_every_epochs=max(1, epochs // 20),
    )
    return config, choices


def advice(config: PretrainConfig, num_images: int) -> str | None:
    """What a person who knows the field would say before the start."""
    if num_images >= FROM_SCRATCH_NEEDS or config.backbone.pretrained or config.weights is not None:
        return None
    return (
        f"{num_images} images are few for a network from scratch. backbone.pretrained=true backbone.stem=large starts "
        "from ImageNet weights (one download), which is rarely worse on photographs."
    )


def _size_reason(size: int, side: int, on_cpu: bool) -> str:
    if on_cpu and size == LARGEST_VIEW_ON_CPU and side > size:
        return f"the images' short side is typically {side} px, but a CPU is slow above {LARGEST_VIEW_ON_CPU}"
    return f"the largest usual size up to the images' short side, typically {side} px"


def _batch_size(
    num_images: int, target: int, size: int, backbone: BackboneConfig, free_memory_bytes: int
) -> tuple[int, str]:
    """The largest batch that memory, the number of images and the last batch of an epoch allow, and why."""
    # rules of thumb: fp32 activations of a ResNet-18 with the large stem take 25 MB a view at 224 px, a ResNet-50's 90
    per_view = {"resnet18": 25e6, "resnet50": 90e6}[backbone.name] * (size / 224) ** 2
    per_view *= 16 if backbone.stem == "small" else 1  # no down-sampling in the stem: 4 x 4 as many positions
    affordable = int(0.6 * free_memory_bytes / (2 * per_view))
    batch, why = target, "the usual size for this device"
    if affordable < batch:
        batch, why = max(affordable, 2), f"{free_memory_bytes / 1e9:.1f} GB of memory are free"
    if num_images < batch:
        batch, why = num_images, "all images there are"
    for smaller in range(batch, 1, -1):  # a last batch of one image cannot be trained on
        try:
            steps_per_epoch(num_images, smaller)
        except ConfigError:
            continue
        return smaller, why if smaller == batch else f"{why}; {batch} would leave a last batch of one image"
    raise AssertionError("a batch of all images always works")
