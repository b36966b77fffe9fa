"""RandAugment's operations: Pillow's results on 8-bit pixels, and draws that depend on image, epoch and view alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from sdclr.batch import RandomOperations
from sdclr.data import make_views
from sdclr.data.views.parameters import ViewSpec
from sdclr.data.views.random_operations import OPERATIONS, apply_operations, draw_operations

NAMES = [operation.name for operation in OPERATIONS]


@pytest.fixture(scope="module")
def levels(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "bcl_randaug_levels.json").read_text())


@pytest.fixture(scope="module")
def images(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "bcl_randaug_images.npz") as file:
        return {name: file[name] for name in file.files}


def test_the_operations_and_their_ranges_are_the_authors(levels: dict[str, Any]) -> None:
    assert levels["operations"] == NAMES
    for operation in OPERATIONS:
        assert levels["ranges"][operation.name] == [operation.low, operation.high]
        found = [
            operation.low + level / 30 * (operation.high - operation.low)
            for level in levels["levels"]
        ]
        np.testing.assert_allclose(found, levels["values"][operation.name], rtol=1e-12, atol=1e-13)
    assert levels["signed"] == [operation.name for operation in OPERATIONS if operation.signed]


@pytest.mark.parametrize("number", range(len(OPERATIONS)), ids=NAMES)
def test_every_operation_is_pillows_at_every_level(
    number: int, levels: dict[str, Any], images: dict[str, np.ndarray]
) -> None:
    """Six levels in one batch, with both signs where there are two."""
    operation = OPERATIONS[number]
    stored = torch.from_numpy(images["image"]).permute(2, 0, 1)
    x, y = images["cutout_centre_xy"]
    centre = torch.tensor([x / stored.shape[2], y / stored.shape[1]], dtype=torch.float64)
    for sign, word in ((1, "plus"), (-1, "minus"))[: 1 + operation.signed]:
        value = sign * torch.tensor(levels["values"][operation.name], dtype=torch.float64)
        batch = stored.expand(len(value), -1, -1, -1)
        found = operation.apply(batch, value, centre.expand(len(value), 2))
        for level in range(len(value)):
            expected = images[f"{operation.name}_{word}_{level}"]
            np.testing.assert_array_equal(found[level].permute(1, 2, 0).numpy(), expected)


def by_pillow(name: str, image: Image.Image, value: float) -> Image.Image:
    enhanced = {"Contrast", "Color", "Brightness", "Sharpness"}
    moved = {
        "ShearX": (1, value, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, value, 1, 0),
        "TranslateX": (1, 0, value * image.width, 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, value * image.height),
    }
    if name in moved:
        return image.transform(image.size, Image.Transform.AFFINE, moved[name])
    if name in enhanced:
        return getattr(ImageEnhance, name)(image).enhance(value)
    if name == "Rotate":
        return image.rotate(value)
    if name == "Solarize":
        return ImageOps.solarize(image, value)  # type: ignore[arg-type]  # takes a float as well
    if name == "Posterize":
        return ImageOps.posterize(image, int(value))
    return getattr(ImageOps, name.lower())(image)


@pytest.mark.parametrize("number", range(len(OPERATIONS) - 1), ids=NAMES[:-1])
def test_every_operation_is_pillows_on_images_of_all_kinds(number: int) -> None:
    """Noise, few levels, one colour, a ramp; a parameter of its own for each."""
    operation = OPERATIONS[number]
    random = np.random.default_rng(number)
    noise = random.integers(0, 256, (12, 3, 9, 9))
    noise[3:6] = noise[3:6] // 64 * 50
    noise[6:8] = noise[6:8, :, :1, :1]
    noise[8:10] = np.arange(9) * 20 + 30
    pixels = torch.from_numpy(noise).byte()
    value = torch.from_numpy(random.uniform(operation.low, operation.high, len(pixels)))
    if operation.signed:
        value *= torch.from_numpy(random.choice([-1.0, 1.0], len(value)))
    found = operation.apply(pixels, value, torch.zeros(len(value), 2))
    for row, one in enumerate(pixels):
        image = Image.fromarray(one.permute(1, 2, 0).numpy())
        expected = np.asarray(by_pillow(operation.name, image, float(value[row])))
        np.testing.assert_array_equal(found[row].permute(1, 2, 0).numpy(), expected)


def asked(weight: float | Tensor, number: int = 2, lowest: float = 5.0) -> RandomOperations:
    return RandomOperations(torch.as_tensor(weight).expand(4000), number, lowest)


def test_each_operation_is_applied_with_the_images_probability() -> None:
    drawn = draw_operations(asked(0.3), torch.arange(4000), seed=1, epoch=2, view=0)
    assert drawn.shape == (4000, 2, 4)
    applied = drawn[..., 0] >= 0
    assert float(applied.double().mean()) == pytest.approx(0.3, abs=0.02)
    both = float(applied.all(dim=1).double().mean())
    assert both == pytest.approx(0.09, abs=0.02), "one is drawn independently of the other"
    counts = drawn[..., 0][applied].long().bincount(minlength=15)
    assert (counts > 100).all()
    assert len(counts) == 15


@pytest.mark.parametrize(("number", "lowest"), [(1, 10.0), (2, 5.0), (2, 0.0)])
def test_strengths_lie_where_the_authors_have_them_and_both_views_share_them(
    number: int, lowest: float
) -> None:
    """Brightness tells the strength: 0.1 at 0, 1.9 at 30."""
    weight = torch.linspace(0, 1, 4000)
    want = asked(weight, number, lowest)
    strengths = []
    for view in (0, 1):
        drawn = draw_operations(want, torch.arange(4000), seed=1, epoch=2, view=view)
        bright = drawn[..., 0] == NAMES.index("Brightness")
        strength = (drawn[..., 1] - 0.1) / 1.8 * 30
        strengths.append(torch.where(bright, strength, torch.nan).nanmean(dim=1))
        highest = lowest + (30 - lowest) * weight[:, None].expand_as(bright)
        if number == 1:  # nothing is drawn: the weight says it all
            torch.testing.assert_close(strength[bright], highest[bright].double())
        else:
            share = ((strength - lowest) / (highest - lowest))[bright]
            assert share.min() > -1e-6
            assert share.max() < 1 + 1e-6
            assert float(share.mean()) == pytest.approx(0.5, abs=0.05)
    both = ~(strengths[0].isnan() | strengths[1].isnan())
    assert both.any()
    torch.testing.assert_close(strengths[0][both], strengths[1][both])


def test_what_is_drawn_depends_on_the_image_and_not_on_its_batch() -> None:
    whole = draw_operations(asked(0.5), torch.arange(20), seed=1, epoch=2, view=0)
    part = draw_operations(asked(0.5), torch.tensor([7, 3]), seed=1, epoch=2, view=0)
    assert torch.equal(part, whole[[7, 3]])
    other = draw_operations(asked(0.5), torch.arange(20), seed=1, epoch=3, view=0)
    assert not torch.equal(other, whole)


def test_a_weight_of_zero_leaves_every_view_bit_for_bit_as_it_is() -> None:
    images = torch.randint(0, 256, (6, 3, 10, 10), generator=torch.Generator().manual_seed(0))
    index, plain = torch.arange(6), ViewSpec(size=8)
    expected = make_views(images.byte(), index, plain, seed=3, epoch=0)
    weight = torch.tensor([0.0, 1.0]).repeat(3)
    spec = ViewSpec(size=8, operations=RandomOperations(weight, 2, 5.0))
    found = make_views(images.byte(), index, spec, seed=3, epoch=0)
    for view, before in ((found.a, expected.a), (found.b, expected.b)):
        assert torch.equal(view[0::2], before[0::2])
        assert not torch.equal(view[1::2], before[1::2])
        assert view.min() >= 0
        assert view.max() <= 1


def test_operations_come_one_after_another_in_the_order_drawn() -> None:
    view = torch.randint(0, 256, (1, 3, 6, 6), generator=torch.Generator().manual_seed(0)) / 255
    posterize, invert = (NAMES.index(name) for name in ("Posterize", "Invert"))
    drawn = torch.zeros(1, 2, 4, dtype=torch.float64)
    drawn[0, :, :2] = torch.tensor([[posterize, 4.0], [invert, 0.0]])
    pixels = view.mul(255).round().long()
    expected = 255 - pixels // 16 * 16
    torch.testing.assert_close(apply_operations(view.clone(), drawn), expected / 255)
    turned = apply_operations(view.clone(), drawn.flip(1))
    torch.testing.assert_close(turned, (255 - pixels) // 16 * 16 / 255)


def test_an_image_that_comes_again_in_an_epoch_gets_other_views_and_operations() -> None:
    images = torch.randint(0, 256, (3, 3, 10, 10), generator=torch.Generator().manual_seed(0))
    strength = torch.tensor([0.0, 1.0, 2.0])
    asked = RandomOperations(torch.tensor([1.0, 0.0, 1.0]), 1, 10.0)
    spec = ViewSpec(size=8, strength=strength, operations=asked)
    found = make_views(images.byte(), torch.tensor([1, 4, 0, 3]), spec, seed=3, epoch=0)
    assert found.index.tolist() == [1, 1, 0, 0]
    for first, second in ((0, 1), (2, 3)):
        assert not torch.equal(found.a[first], found.a[second])
    plain = make_views(images.byte(), torch.tensor([1]), spec, seed=3, epoch=0)
    assert torch.equal(found.a[:1], plain.a)
