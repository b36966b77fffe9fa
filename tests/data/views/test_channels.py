"""Views of other than 3 channels: each channel is a grey image of its own, with the parameters of all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from torch import Tensor

from sdclr.data.collections.given_images import GivenImages
from sdclr.data.collections.image_arrays import ImageArrays
from sdclr.data.sources.python_objects import given_images
from sdclr.data.views.augment import (
    _jitter_grouped,
    _jitter_static,
    apply_views,
    colour_views,
)
from sdclr.data.views.parameters import (
    ORDERS,
    ViewParameters,
    ViewSpec,
    draw_two_views,
)

SPEC = ViewSpec(size=12, blur=0.5)
IMAGES = torch.from_numpy(
    np.random.default_rng(0).integers(0, 256, (24, 5, 20, 26), dtype=np.uint8)
)
INDEX = torch.arange(24)


def parameters(spec: ViewSpec = SPEC) -> ViewParameters:
    return draw_two_views(spec, INDEX, 20, 26, seed=3, epoch=1)


def test_views_of_five_channels_are_those_of_each_channel_alone() -> None:
    both = torch.cat([IMAGES, IMAGES])
    found = apply_views(both, parameters(), SPEC)
    assert found.shape == (48, 5, 12, 12)
    for channel in range(5):
        alone = apply_views(both[:, channel : channel + 1], parameters(), SPEC)
        torch.testing.assert_close(found[:, channel : channel + 1], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("jitter", [_jitter_grouped, _jitter_static])
def test_brightness_and_contrast_are_torchvisions_of_each_channel(channels: int, jitter) -> None:
    x = IMAGES[:, :channels].float() / 255
    drawn = parameters()
    factors, order = drawn.factors[:24], drawn.order[:24]
    found = jitter(x.clone(), factors, order)
    for row in range(24):
        expected = x[row]
        for operation in ORDERS[int(order[row])] if order[row] >= 0 else ():
            if operation == 0:
                # torchvision takes 1 and 3 channels
                each = [TF.adjust_brightness(one[None], float(factors[row, 0])) for one in expected]
                expected = torch.cat(each)
            if operation == 1:
                each = [TF.adjust_contrast(one[None], float(factors[row, 1])) for one in expected]
                expected = torch.cat(each)
        torch.testing.assert_close(found[row], expected, rtol=0, atol=2e-6)
    assert (order >= 0).any()


def test_colours_are_left_alone_where_there_are_none() -> None:
    """Whatever was drawn: grey views and turned hues need red, green and blue."""
    spec = replace(SPEC, jitter=(0.0, 0.0, 1.0, 0.5), jitter_probability=1.0, grey=1.0, blur=0.0)
    drawn = draw_two_views(spec, INDEX, 20, 26, seed=3, epoch=1)
    x = torch.cat([IMAGES, IMAGES])[:, :, :12, :12].float() / 255
    assert torch.equal(colour_views(x.clone(), drawn, spec), x)


def views(images: ImageArrays | GivenImages) -> Tensor:
    (found,) = images.views([INDEX], SPEC, seed=1, epoch=2)
    return torch.cat([found.a, found.b])


def test_given_images_and_arrays_have_like_views_in_any_number_of_channels() -> None:
    given = given_images(list(IMAGES.permute(0, 2, 3, 1).numpy())).train
    assert isinstance(given, GivenImages)
    assert given.channels == 5
    arrays = views(ImageArrays(IMAGES, None))
    # one is rounded to 8 bits between the passes, the other is not
    assert float((views(given) - arrays).abs().mean()) < 1 / 255
    for channel in range(5):
        grey = given_images(list(IMAGES[:, channel].numpy()), channels=1).train
        assert isinstance(grey, GivenImages)
        torch.testing.assert_close(
            views(given)[:, channel : channel + 1], views(grey), rtol=0, atol=1e-6
        )


def test_probe_crops_and_stills_have_the_channels_of_their_images() -> None:
    for images in (ImageArrays(IMAGES, None), given_images(list(IMAGES)).train):
        (crops,) = images.probe_crops([INDEX], 12, seed=0, epoch=1)
        assert crops.shape == (24, 5, 12, 12)
        assert torch.cat(list(images.stills(12))).shape == (24, 5, 12, 12)


def test_the_form_for_devices_is_one_graph_and_does_what_the_other_does() -> None:
    drawn = parameters()
    x = torch.cat([IMAGES, IMAGES]).float() / 255
    static = torch.compile(_jitter_static, fullgraph=True, backend="eager")
    torch.testing.assert_close(
        static(x, drawn.factors, drawn.order),
        _jitter_grouped(x.clone(), drawn.factors, drawn.order),
        rtol=0,
        atol=1e-6,
    )
