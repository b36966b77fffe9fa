from __future__ import annotations

import numpy as np
import torch

from sdclr.evaluation.features import extract_features
from sdclr.evaluation.rivals import Colours, Pixels


def test_pixels_are_means_of_blocks() -> None:
    images = torch.rand(3, 3, 32, 32)
    slow = images.view(3, 3, 8, 4, 8, 4).mean(dim=(3, 5)).flatten(1)
    torch.testing.assert_close(Pixels()(images), slow)


def test_colours_are_numpys_histogram() -> None:
    images = torch.randint(0, 256, (2, 3, 9, 7), dtype=torch.uint8)
    found = extract_features(Colours(), images)
    for image, bins in zip(images, found, strict=True):
        points = image.flatten(1).T.numpy() / 255
        slow, _ = np.histogramdd(points, bins=[np.linspace(0, 1, 5)] * 3)
        torch.testing.assert_close(bins, torch.from_numpy(slow.ravel() / 63).float())
