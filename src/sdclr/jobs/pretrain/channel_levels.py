"""Measure the brightness of the channels of a run's images, to normalise inputs that are not photographs.

ImageNet's constants are for red, green and blue. Images with other channels are measured instead.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch

from sdclr.backbones import Normalisation
from sdclr.compute.stateless_random import Stream, derive, permutation
from sdclr.data import Images

SAMPLE = 512
"""Images measured: the mean of a channel is then known to a few hundredths of its standard deviation."""


def measured_normalisation(images: Images, size: int, seed: int) -> Normalisation:
    """Mean and standard deviation of each channel over the pixels of a random sample, the same for equal arguments.

    A constant channel is only shifted, with a warning.
    """
    order = permutation(derive(seed, Stream.CHANNELS), len(images)).numpy()
    sample = images.at(np.sort(order[:SAMPLE])).to(torch.device("cpu"))
    total = squares = torch.zeros(images.channels, dtype=torch.float64)
    count = 0
    for batch in sample.stills(size):
        pixels = batch.double() / 255
        total = total + pixels.sum(dim=(0, 2, 3))
        squares = squares + pixels.square().sum(dim=(0, 2, 3))
        count += pixels.numel() // pixels.shape[1]
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    flat = [number for number, value in enumerate(std.tolist()) if value < 1e-4]
    if flat:
        warnings.warn(
            f"channels {', '.join(map(str, flat))} (counted from 0) have the same level in every pixel of "
            f"{len(sample)} images: nothing can be learned from them. Leave them out, or look at data.grey_bits.",
            stacklevel=2,
        )
        std[flat] = 1.0
    return Normalisation(mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def normalisation_words(measured: Normalisation) -> str:
    """A line on the normalisation for the user who starts the run."""
    mean, std = (
        " ".join(f"{value:.3g}" for value in values) for values in (measured.mean, measured.std)
    )
    return (
        f"input normalisation, measured on up to {SAMPLE} images: mean {mean}, std {std} "
        '(backbone.normalisation={"mean": [...], "std": [...]} would set it)'
    )
