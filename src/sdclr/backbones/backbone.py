"""A backbone: any network behind its input normalisation, with its feature size measured rather than configured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from sdclr.backbones.config import IMAGENET_MEAN, IMAGENET_STD
from sdclr.compute.wrapped_modules import unwrapped, wraps_another
from sdclr.errors import ConfigError, DataError
from sdclr.planes import (
    ArrayPicture,
    ChannelsError,
    levels_of_array,
    levels_of_picture,
    turned_by_exif,
)
from sdclr.stills import DecodedPicture, Picture, eight_bits, has_deep_grey, still
from sdclr.storage.tensor_files import is_storable

Array = npt.NDArray[Any]

SMALLEST_INPUT, LARGEST_INPUT = -0.5, 1.5
"""The accepted range of images in [0, 1]: a resize that sharpens edges overshoots; 0 .. 255 and mean 0 are far off."""


class Backbone(nn.Module):
    """Images [B, C, S, S] in [0, 1] -> features [B, F]. ``net`` is the stock network with its own plain keys.

    A network that torch.compile or DataParallel wraps is taken out of its wrapper. The input is normalised here, with
    ``mean`` and ``std``: a network that normalises itself needs a mean of 0 and a std of 1.
    """

    mean: Tensor
    std: Tensor
    image_size: int | None = None
    """Side in pixels of the images that the network was trained on; None where it is not known."""
    feature_dim: int | None = None
    """F; None for a network that was not loaded from a file."""
    checks_input: bool = False
    """Whether images that are not floats in [0, 1] are refused; :func:`~sdclr.load_backbone` turns it on."""

    def __init__(
        self,
        net: nn.Module,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.net = unwrapped(net)
        # not persistent: constants of the architecture, written to the weights file's metadata instead
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    @property
    def channels(self) -> int:
        """C: one mean and one std each."""
        return self.mean.shape[1]

    def forward(self, images: Tensor) -> Tensor:
        if self.checks_input:
            require_images(images, self.channels)
            self._require_own_precision(images)
        elif not isinstance(images, torch.fx.Proxy) and images.shape[1] != self.channels:
            # one mean would fit several channels
            raise other_channels(images.shape[1], self.channels)
        return self.net((images - self.mean) / self.std)

    def _require_own_precision(self, images: Tensor) -> None:
        """DataError for fp64 where the weights are of another type: a layer's own error would say less."""
        weight = next(self.parameters(), None)
        is_wider = isinstance(images, Tensor) and images.dtype == torch.float64
        if is_wider and weight is not None and weight.dtype != torch.float64:
            raise DataError(
                f"the backbone's weights are {weight.dtype}, and these images are torch.float64. Give images.float(), "
                "or convert the backbone: backbone.double()."
            )

    @torch.no_grad()
    def normalise_with(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Normalise the input with these constants from now on."""
        for buffer, values in ((self.mean, mean), (self.std, std)):
            buffer.copy_(torch.tensor(values).view_as(buffer))

    def preprocess(
        self,
        image: Image.Image | Array | Sequence[Image.Image | Array],
        size: int | None = None,
        *,
        exif_rotation: bool = True,
        grey_bits: int = 16,
    ) -> Tensor:
        """A PIL image as this backbone takes it: [C, S, S] in [0, 1]; for a list of images, a batch [B, C, S, S].

        An image may also be an array [H, W, C] or [C, H, W] of 8 or 16 bits, as is common for other than 3 channels.

        The middle of the image, resized so that ``size`` (default: ``image_size``) is 224/256 of its short side, as
        ``sdclr embed`` cuts image files. ``exif_rotation``: rotate a photograph by its EXIF tag. ``grey_bits``: how
        many bits 16-bit greys use, as data.grey_bits of the run; they are scaled as in training. The result is on the
        backbone's device and has its dtype. Raises ConfigError where the size is not known, and DataError for anything
        that is not an image, or has 32-bit greys, which have no agreed range.
        """
        side = size if size is not None else self.image_size
        if side is None:
            raise ConfigError(
                "this backbone does not know for which image size it was trained; give it: preprocess(image, size=224)."
            )
        if not isinstance(image, Image.Image | np.ndarray):
            if not isinstance(image, Sequence) or isinstance(image, str | bytes):
                raise _no_image(image)
            if not image:
                raise DataError("preprocess was given an empty list of images.")
            batch = [
                self.preprocess(one, side, exif_rotation=exif_rotation, grey_bits=grey_bits)
                for one in image
            ]
            return torch.stack(batch)
        picture = self._picture(image, exif_rotation, grey_bits)
        pixels = np.array(still(picture, side))  # [S, S, C]
        weight = next(self.parameters(), self.mean)
        tensor = torch.from_numpy(pixels).permute(2, 0, 1).to(weight.device, weight.dtype)
        return tensor / 255

    def _picture(self, image: Image.Image | Array, exif_rotation: bool, grey_bits: int) -> Picture:
        try:
            if isinstance(image, np.ndarray):
                return ArrayPicture(levels_of_array(image, self.channels, grey_bits).pixels)
            turned = turned_by_exif(image) if exif_rotation else image
            if self.channels == 3:
                return DecodedPicture(_rgb(turned, grey_bits))
            return ArrayPicture(levels_of_picture(turned, self.channels, grey_bits).pixels)
        except ChannelsError as error:
            raise DataError(f"an image {error}") from None
        except ValueError as error:
            raise DataError(f"an image is {error}.") from None


def require_images(images: Tensor, channels: int = 3) -> None:
    """DataError unless ``images`` are floats [B, C, H, W] in [0, 1].

    A resize may overshoot this range a little. The range is not checked while a compiler traces.
    """
    wanted = f"the backbone takes float images [B, {channels}, H, W] in [0, 1]"
    if isinstance(images, torch.fx.Proxy):  # torch.fx traces the network: there are no images
        return
    if not isinstance(images, Tensor):
        raise DataError(
            f"{wanted}, got {type(images).__name__}. "
            "backbone.preprocess(pil_image) makes them of PIL images, torch.as_tensor of arrays."
        )
    given = f"got {images.dtype} {list(images.shape)}"
    if not images.is_floating_point():
        raise DataError(
            f"{wanted}, {given}. "
            "Divide 8-bit images by 255: images.float() / 255, or use backbone.preprocess(pil_image)."
        )
    if images.ndim == 4 and images.shape[1] != channels != 3:
        raise other_channels(images.shape[1], channels)
    if images.ndim != 4 or images.shape[1] != channels:
        kind = "RGB images" if channels == 3 else f"images of {channels} channels"
        hint = (
            "Move the channels to the front."
            if images.shape[-1:] == (channels,)
            else f"Give {kind} in a batch."
        )
        raise DataError(f"{wanted}, {given}. {hint}")
    if torch.compiler.is_compiling() or images.is_meta or not images.numel():
        return
    low, high = (float(value) for value in images.detach().aminmax())
    if math.isnan(low):
        raise DataError(
            "the backbone takes images in [0, 1], and these contain nan. Fix or leave out the image."
        )
    if low < SMALLEST_INPUT or high > LARGEST_INPUT:
        cure = (
            "Do not normalise them, the backbone does that itself."
            if low < SMALLEST_INPUT
            else "Divide 8-bit values by 255."
        )
        raise DataError(
            f"the backbone takes images in [0, 1], got values from {low:.3g} to {high:.3g}. {cure} "
            "backbone.preprocess(pil_image) gives what it takes."
        )


def other_channels(read: int, channels: int) -> DataError:
    """The error for images that were read with other channels than a network takes."""
    return DataError(
        f"this network takes images of {channels} channels, and these were read with {read}. Set "
        f"data.channels={channels}, if that is what the images have."
    )


def _rgb(image: Image.Image, grey_bits: int) -> Image.Image:
    if has_deep_grey(image):
        levels = np.asarray(image).astype(np.uint32)
        if levels.size and int(levels.max()) >= 1 << grey_bits:
            raise DataError(
                f"an image holds grey levels up to {int(levels.max()):,}, which {grey_bits} bits cannot."
            )
        return Image.fromarray(eight_bits(levels, grey_bits)).convert("RGB")
    if image.mode.startswith("I") or image.mode == "F":
        raise DataError(
            f"an image of mode {image.mode} has no agreed range. Scale it to 8 bits first, then convert it to RGB."
        )
    if image.mode == "RGB":
        return image
    plain = image.copy()
    plain.info.pop("transparency", None)  # dropped, as Pillow would warn that it cannot keep it
    return plain.convert("RGB")


def _no_image(value: object) -> DataError:
    return DataError(
        f"preprocess takes a PIL image or a list of them, got {type(value).__name__}. "
        "PIL.Image.open(path) reads a file, PIL.Image.fromarray(array) takes pixels."
    )


def require_trainable_and_storable(network: nn.Module) -> None:
    """ConfigError unless a network of the user's own can be trained, saved as tensors and loaded by its plain keys."""
    for name, module in network.named_modules():
        if wraps_another(module):
            raise ConfigError(
                f"{name} is wrapped ({type(module).__name__}), which puts a prefix before the names of its weights. "
                "Give the network without it; sdclr compiles the whole step itself (compile=auto)."
            )
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigError(
            "the network has no parameter that requires a gradient, so there is nothing to train."
        )
    for name, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            raise ConfigError(
                f"{name} of the network is a {type(value).__name__}, and files of a run hold tensors only. Return a "
                "tensor from get_extra_state, or keep the value elsewhere."
            )
        if not is_storable(value):
            raise ConfigError(
                f"{name} of the network ({value.dtype}, {value.layout}) cannot be stored in a file."
            )


@torch.no_grad()
def measure_feature_dim(backbone: Backbone, image_size: int) -> int:
    """F, from one forward of two grey images in eval mode.

    Raises ConfigError when the output is not [B, F], of the images' type and finite.
    """
    training = backbone.training
    reference = next(backbone.parameters(), None)
    if reference is None:
        raise ConfigError("the backbone has no parameters, so there is nothing to train.")
    images = torch.full(
        (2, backbone.channels, image_size, image_size),
        0.5,
        device=reference.device,
        dtype=reference.dtype,
    )
    try:
        features = backbone.eval()(images)
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise ConfigError(
            f"the backbone cannot process images of {image_size} x {image_size} px: "
            f"{str(error) or type(error).__name__} "
            "Change views.size, or give the network its image size (backbone.options)."
        ) from error
    finally:
        backbone.train(training)
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != 2:
        shape = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ConfigError(
            f"the backbone must map {list(images.shape)} images to [2, F] features, got {shape}. "
            "Remove its classifier head and end it in global pooling and flatten(1)."
        )
    if features.dtype != images.dtype:
        raise ConfigError(
            f"the backbone must give features of the same type as its images, {images.dtype}, got {features.dtype}. "
            "Leave conversions to the setting precision."
        )
    if features.device.type != "meta" and not bool(features.isfinite().all()):
        raise ConfigError(
            "the backbone's features of a grey image are not finite. Look at its weights, and at what divides by a "
            "spread or a sum."
        )
    return features.shape[1]
