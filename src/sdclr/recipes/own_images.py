"""Settings for an unknown collection of images, each with its reason.

    sdclr pretrain ./photos --out runs/photos

SDCLR with one budget of steps whatever the number of images. Labels are not needed. Everything can be overridden;
`--dry-run` shows the cost first. There is no expected score, since there are no labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sdclr.backbones import BackboneConfig, offers_pretrained
from sdclr.backbones.build import require_known_network
from sdclr.backbones.image_sizes import OFFERED_SIZES, fitted_to, named_sizes, takes
from sdclr.data import DataConfig, steps_per_epoch
from sdclr.errors import ConfigError, DataError
from sdclr.methods import SDCLRConfig
from sdclr.safe_text import counted
from sdclr.settings import PretrainConfig

FEWEST_IMAGES = 32
VIEW_SIZES = (32, 64, 96, 128, 160, 224)
LARGEST_VIEW_ON_CPU = 96
SMALL_STEM_UP_TO = 64
STEPS = {"cpu": 400, "cuda": 20_000}
BATCH = {"cpu": 64, "cuda": 256}
LEARNING_RATES = {
    "sgd": (0.5, 512, "the paper's 0.5 for 512 images, in proportion"),
    "lars": (0.3, 256, "SimCLR's 0.3 for 256 images, in proportion"),
    "adamw": (5e-4, 256, "DINO's 0.0005 for 256 images, in proportion"),
}
"""Peak learning rate, the batch size it was published for, and the reason; by optimiser."""
MEGABYTES_PER_VIEW = {"resnet10": 15, "resnet18": 25, "resnet34": 38, "resnet50": 90}
"""fp32 activations of a view at 224 px, large stem, width 64: rules of thumb."""
OTHER_MEGABYTES_PER_VIEW = 120
"""The same for other libraries' networks: a safe value for those of ordinary size."""
FAST_BF16 = 1.5
"""Smallest speed-up of a convolution, forward and backward, in bf16 over fp32 for which a CPU uses bf16. A step is then
1.5 to 2 times as fast; on CPUs with slower bf16, such as Intel's before AMX, so is the step."""
FROM_SCRATCH_NEEDS = 10_000
"""Images below which a network from scratch rarely learns good features: a rule of thumb, not a measurement."""


class Choice(NamedTuple):
    """One automatic setting."""

    setting: str
    value: object
    reason: str


class _Chooser:
    """Fills in settings that the user left open. Each choice reads the settings made so far, so order matters."""

    def __init__(self, config: PretrainConfig, given: Mapping[str, Any]) -> None:
        self.config, self.given = config, given
        self.choices: list[Choice] = []

    def choose(self, setting: str, value: object, reason: str) -> None:
        if setting in self.given:
            return
        self.config = self.config.with_values({setting: value})
        self.choices.append(Choice(setting, value, reason))


def own_images(
    data: DataConfig,
    *,
    num_images: int,
    typical_side: int,
    device: str,
    free_memory_bytes: int,
    given: Mapping[str, Any] | None = None,
    trained: BackboneConfig | None = None,
    remarks: Sequence[str] = (),
    bf16_speedup: float | None = None,
) -> tuple[PretrainConfig, list[Choice]]:
    """A complete config for ``num_images`` images whose short side is typically ``typical_side`` pixels.

    ``device``: "cpu" or "cuda"; ``free_memory_bytes`` of it. ``given``: the user's own settings by dotted name. They
    take precedence, and every choice that depends on one of them follows it. ``trained``: the network of the weights
    that the run starts from. ``remarks``: what was left out of the collection, for the error if too little is left.
    ``bf16_speedup``: speed-up of a convolution on the device, forward and backward, in bf16 over fp32; it decides the
    precision, which is not chosen without it. Returns the config and the choices that were made, without the given
    settings.
    Raises DataError for fewer than 32 images and ConfigError for a given setting that is not valid.
    """
    if num_images < FEWEST_IMAGES:
        raise DataError(
            f"{data.path} holds {counted(num_images, 'image')}; at least {FEWEST_IMAGES} are needed: contrastive "
            f"learning compares the images of a batch with one another{''.join(f'; {one}' for one in remarks)}."
        )
    given = _by_setting(given or {})
    if given.get("precision") == "auto":  # explicitly left open
        given = {name: value for name, value in given.items() if name != "precision"}
    method = {"name": given.get("method.name", "sdclr")}
    start = {"recipe": "own_images", "data": data.to_dict(), "method": method}
    chooser = _Chooser(PretrainConfig.parse(start).with_values(given), given)
    if "backbone.name" in given and chooser.config.backbone.name != "custom":
        require_known_network(chooser.config.backbone.name)
    _choose_views_and_network(
        chooser, num_images, typical_side, on_cpu=device == "cpu", trained=trained
    )
    # raises for a network that does not accept such views
    fitted_to(chooser.config.backbone, chooser.config.views.size)
    _choose_length(chooser, num_images, device, free_memory_bytes)
    _choose_method(chooser)
    if bf16_speedup is not None:
        chooser.choose("precision", *_precision(bf16_speedup))
    return chooser.config, chooser.choices


def _by_setting(given: Mapping[str, Any]) -> dict[str, Any]:
    """Split a whole section, such as views={"size": 64}, into single settings."""
    settings: dict[str, Any] = {}
    for name, value in given.items():
        is_section = name in ("views", "backbone", "method", "optimizer") and isinstance(
            value, Mapping
        )
        settings |= (
            {f"{name}.{key}": v for key, v in value.items()} if is_section else {name: value}
        )
    return settings


def _choose_views_and_network(
    chooser: _Chooser, num_images: int, side: int, *, on_cpu: bool, trained: BackboneConfig | None
) -> None:
    fitting = [size for size in VIEW_SIZES if size <= max(side, VIEW_SIZES[0])]
    size = min(fitting[-1], LARGEST_VIEW_ON_CPU) if on_cpu else fitting[-1]
    reason = _size_reason(size, side, on_cpu)
    if "views.size" not in chooser.given:
        requested = chooser.config.backbone
        start = (
            trained if trained is not None and _is_asked_for(trained, chooser.given) else requested
        )
        chooser.choose("views.size", *_size_taken(start, size, reason))
    if trained is not None and _is_asked_for(trained, chooser.given):
        for field, value in trained.to_dict().items():
            if field != "pretrained" and value != getattr(chooser.config.backbone, field):
                chooser.choose(
                    f"backbone.{field}", value, "the network of the weights it starts from"
                )
        return
    large = not on_cpu and num_images >= 100_000
    if on_cpu:
        why = "the smallest usual network, for a CPU"
    else:
        why = "100,000 images or more" if large else "fewer than 100,000 images"
    chooser.choose("backbone.name", "resnet50" if large else "resnet18", why)
    backbone, size = chooser.config.backbone, chooser.config.views.size
    if not backbone.is_ours:
        return  # a stem is a setting of our ResNets
    if backbone.pretrained:
        chooser.choose("backbone.stem", "large", "the network that was trained on ImageNet")
    elif size <= SMALL_STEM_UP_TO:
        chooser.choose("backbone.stem", "small", f"views of {size} px: no early down-sampling")
    else:
        chooser.choose("backbone.stem", "large", f"views of {size} px")


def _size_taken(backbone: BackboneConfig, size: int, reason: str) -> tuple[int, str]:
    """``size``, or the nearest that a network built for few sizes accepts, and why. Raises ConfigError if none is."""
    if sizes := named_sizes(backbone):
        return sizes[0], f"{backbone.name} is built for it (backbone.options, or the weights' own)"
    for candidate in sorted({size, *OFFERED_SIZES}, key=lambda one: abs(one - size)):
        if takes(backbone, candidate):
            return (
                candidate,
                reason if candidate == size else f"{backbone.name} does not take {size} px",
            )
    fitted_to(backbone, size)  # raises, and says why
    raise AssertionError("a size that is not taken is refused")


def _is_asked_for(trained: BackboneConfig, given: Mapping[str, Any]) -> bool:
    return trained.name != "custom" and given.get("backbone.name", trained.name) == trained.name


def _choose_length(chooser: _Chooser, num_images: int, device: str, free_memory_bytes: int) -> None:
    """Batch size, epochs and learning rate: one budget of steps."""
    if "batch_size" not in chooser.given:
        batch, why = _batch_size(num_images, BATCH[device], chooser.config, free_memory_bytes)
        chooser.choose("batch_size", batch, why)
    batch, steps = chooser.config.batch_size, STEPS[device]
    epochs = max(1, min(1000, round(steps / -(-num_images // batch))))
    chooser.choose("epochs", epochs, f"about {steps:,} steps in all, at most 1,000 epochs")
    peak, of_images, why = LEARNING_RATES[chooser.config.optimizer.name]
    chooser.choose("optimizer.learning_rate", peak * batch / of_images, why)
    every = max(1, chooser.config.epochs // 20)
    chooser.choose(
        "checkpoint_every_epochs", every, "about 20 times in a run, at most once an epoch"
    )


def _choose_method(chooser: _Chooser) -> None:
    small = chooser.config.views.size <= SMALL_STEM_UP_TO
    like = "the paper's for small images" if small else "the paper's for photographs"
    if isinstance(chooser.config.method, SDCLRConfig):
        at_random = chooser.config.method.random_share
        ratio = 0.9 if small else 0.3
        reason = like if at_random <= ratio else "method.random_share"
        chooser.choose("method.prune_ratio", max(ratio, at_random), reason)
        chooser.choose("method.projector_layers", 3, "the paper's for SDCLR")
        chooser.choose(
            "method.prunable",
            "auto",
            "convolutions where they hold half of the weights, else linear layers too",
        )
    if chooser.config.views.own is not None:
        return  # the user's own views choose their crops
    chooser.choose("views.area", [0.1 if small else 0.08, 1.0], like)
    chooser.choose("views.blur", 0.0 if small else 0.5, like)


def advice(config: PretrainConfig, num_images: int) -> str | None:
    """Expert advice before the start; None if there is none."""
    if num_images >= FROM_SCRATCH_NEEDS or config.backbone.pretrained or config.weights is not None:
        return None
    few = f"{num_images} images are few for a network from scratch."
    stem = " backbone.stem=large" if config.backbone.is_ours else ""
    if not offers_pretrained(config.backbone.model_copy(update={"stem": "large"} if stem else {})):
        return few
    return (
        f"{few} backbone.pretrained=true{stem} starts from ImageNet weights (one download), which is rarely worse on "
        "photographs."
    )


def _size_reason(size: int, side: int, on_cpu: bool) -> str:
    if on_cpu and size == LARGEST_VIEW_ON_CPU and side > size:
        return f"the images' short side is typically {side} px, but a CPU is slow above {LARGEST_VIEW_ON_CPU}"
    return f"the largest usual size up to the images' short side, typically {side} px"


def _batch_size(
    num_images: int, target: int, config: PretrainConfig, free_memory_bytes: int
) -> tuple[int, str]:
    """The largest batch that memory, the number of images and the last batch of an epoch allow, and why."""
    affordable = int(0.6 * free_memory_bytes / (2 * _bytes_per_view(config)))
    batch, why = target, "the usual size for this device"
    if affordable < batch:
        batch, why = max(affordable, 2), f"{free_memory_bytes / 1e9:.1f} GB of memory are free"
    if num_images < batch:
        batch, why = num_images, "all of the images"
    for smaller in range(batch, 1, -1):  # a last batch of one image cannot be trained on
        try:
            steps_per_epoch(num_images, smaller)
        except ConfigError:
            continue
        return (
            smaller,
            why if smaller == batch else f"{why}; {batch} would leave a last batch of one image",
        )
    raise AssertionError("a batch of all images always works")


def _precision(bf16_speedup: float) -> tuple[str, str]:
    """The precision and its reason; recorded in the config, so that the run keeps it on any machine."""
    if not bf16_speedup:
        return "fp32", "this CPU has no instructions for bf16"
    measured = f"this CPU does a convolution {bf16_speedup:.1f} times as fast in bf16 as in fp32"
    if bf16_speedup >= FAST_BF16:
        return "bf16", measured
    return "fp32", f"{measured}, which does not pay off"


def _bytes_per_view(config: PretrainConfig) -> float:
    """Activations of one view in the network that the run will have."""
    backbone = config.backbone
    megabytes: float = MEGABYTES_PER_VIEW.get(backbone.name, OTHER_MEGABYTES_PER_VIEW)
    if backbone.is_ours:
        megabytes *= backbone.width / 64
        # no down-sampling: 4 x 4 times as many positions
        megabytes *= 16 if backbone.stem == "small" else 1
    if config.precision == "fp64":
        megabytes *= 2
    return 1e6 * megabytes * (config.views.size / 224) ** 2
