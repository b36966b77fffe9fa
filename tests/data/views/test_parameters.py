"""Draws against torchvision: the same crops from the same uniforms, the same distributions, and pure functions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import RandomResizedCrop

from sdclr.data.views.parameters import (
    ORDERS,
    ViewParameters,
    ViewSpec,
    crop_boxes,
    draw_view_parameters,
)

SPEC = ViewSpec(size=32, blur=0.5)
CIFAR_AREA, IMAGENET_AREA, ASPECT = (0.1, 1.0), (0.08, 1.0), (3 / 4, 4 / 3)
NUM = 24_000


def draw(
    spec: ViewSpec = SPEC, num: int = NUM, *, seed: int = 3, epoch: int = 5, view: int = 0
) -> ViewParameters:
    return draw_view_parameters(spec, torch.arange(num), 64, 48, seed=seed, epoch=epoch, view=view)


# ---- crops


def box_by_loop(
    u: list[float], height: int, width: int, area: tuple, aspect: tuple
) -> tuple[int, int, int, int]:
    """RandomResizedCrop.get_params, one candidate after the other, its random calls replaced by given uniforms."""
    for attempt in range(10):
        target_area = height * width * (area[0] + u[attempt] * (area[1] - area[0]))
        low, high = math.log(aspect[0]), math.log(aspect[1])
        ratio = math.exp(low + u[10 + attempt] * (high - low))
        w, h = round(math.sqrt(target_area * ratio)), round(math.sqrt(target_area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(u[20] * (height - h + 1)), int(u[21] * (width - w + 1)), h, w
    w, h = width, height
    if width / height < min(aspect):
        h = round(w / min(aspect))
    elif width / height > max(aspect):
        w = round(h * max(aspect))
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(
    ("area", "aspect"),
    [(CIFAR_AREA, ASPECT), (IMAGENET_AREA, ASPECT), ((0.9, 1.0), (0.5, 0.7)), ((1.0, 1.0), (1, 1))],
)
def test_boxes_equal_torchvisions_loop_fed_the_same_uniforms(area: tuple, aspect: tuple) -> None:
    rng = np.random.default_rng(0)
    num = 6_000
    sides = rng.integers(1, 700, (num, 2))
    sides[: num // 2] = rng.integers(1, 40, (num // 2, 2))
    sides[:400] = np.repeat([[1, 1], [10, 20_000], [20_000, 10], [1, 20_000]], 100, axis=0)
    u = torch.from_numpy(rng.random((num, 22))).float()
    boxes = crop_boxes(
        u, torch.from_numpy(sides[:, 0]), torch.from_numpy(sides[:, 1]), area, aspect
    )
    slow = [
        box_by_loop(row, h, w, area, aspect)
        for row, (h, w) in zip(u.tolist(), sides.tolist(), strict=True)
    ]
    mismatches = (boxes != torch.tensor(slow)).any(dim=1).sum()
    assert mismatches == 0
    top, left, height, width = boxes.T.numpy()
    assert (np.minimum(top, left) >= 0).all()
    assert (np.minimum(height, width) >= 1).all()
    assert (top + height <= sides[:, 0]).all()
    assert (left + width <= sides[:, 1]).all()


def test_extreme_uniforms_stay_inside_the_image() -> None:
    almost_one = 1 - 2.0**-24
    for value in (0.0, almost_one):
        u = torch.full((1, 22), value)
        for height, width in ((1, 1), (2, 2), (32, 32), (7, 640), (20_000, 10)):
            box = crop_boxes(u, height, width, CIFAR_AREA, ASPECT)[0].tolist()
            assert box == list(box_by_loop(u[0].tolist(), height, width, CIFAR_AREA, ASPECT))
            assert box[0] + box[2] <= height
            assert box[1] + box[3] <= width


@pytest.mark.parametrize(
    ("height", "width", "area"), [(64, 48, CIFAR_AREA), (375, 500, IMAGENET_AREA)]
)
def test_crops_are_distributed_as_torchvisions(height: int, width: int, area: tuple) -> None:
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, list(area), list(ASPECT)) for _ in range(4_000)]
    )
    spec = ViewSpec(size=32, area=area)
    drawn = draw_view_parameters(spec, torch.arange(20_000), height, width, seed=1, epoch=1, view=0)
    quantities = {
        "area": lambda box: box[:, 2] * box[:, 3] / (height * width),
        "aspect": lambda box: np.log(box[:, 3] / box[:, 2]),
        "top": lambda box: box[:, 0],
        "left": lambda box: box[:, 1],
        "bottom": lambda box: box[:, 0] + box[:, 2],
    }
    for name, quantity in quantities.items():
        p = stats.ks_2samp(quantity(drawn.box.numpy()), quantity(theirs)).pvalue
        assert p > 1e-3, name


def test_every_image_of_a_batch_may_have_its_own_size() -> None:
    heights, widths = torch.tensor([32, 500, 7]), torch.tensor([32, 375, 90])
    index = torch.tensor([4, 8, 15])
    together = draw_view_parameters(SPEC, index, heights, widths, seed=1, epoch=1, view=1)
    for row in range(3):
        alone = draw_view_parameters(
            SPEC, index[row : row + 1], int(heights[row]), int(widths[row]), seed=1, epoch=1, view=1
        )
        assert torch.equal(together.box[row], alone.box[0])


# ---- colours, flips, blur


def assert_share(flags: Tensor, probability: float) -> None:
    assert stats.binomtest(int(flags.sum()), len(flags), probability).pvalue > 1e-3


def test_probabilities_are_those_of_the_specification() -> None:
    drawn = draw(ViewSpec(size=32, flip=0.3, jitter_probability=0.7, grey=0.1, blur=0.6))
    assert_share(drawn.flip, 0.3)
    assert_share(drawn.order >= 0, 0.7)
    assert_share(drawn.grey, 0.1)
    assert_share(drawn.sigma > 0, 0.6)
    both = drawn.flip & drawn.grey & (drawn.order >= 0) & (drawn.sigma > 0)
    assert_share(both, 0.3 * 0.7 * 0.1 * 0.6)


@pytest.mark.parametrize("certain", [0.0, 1.0])
def test_probabilities_of_zero_and_one_are_certain(certain: float) -> None:
    drawn = draw(
        ViewSpec(size=32, flip=certain, jitter_probability=certain, grey=certain, blur=certain),
        2_000,
    )
    for flags in (drawn.flip, drawn.order >= 0, drawn.grey, drawn.sigma > 0):
        assert bool(flags.all()) == bool(flags.any()) == bool(certain)


def test_the_24_orders_are_equally_likely() -> None:
    assert len(set(ORDERS)) == 24
    assert {tuple(sorted(order)) for order in ORDERS} == {(0, 1, 2, 3)}
    order = draw().order
    counts = torch.bincount(order[order >= 0], minlength=24)
    assert len(counts) == 24
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_factors_are_uniform_in_their_ranges() -> None:
    drawn = draw(ViewSpec(size=32, jitter=(0.4, 0.3, 0.9, 0.1)))
    factors = drawn.factors[drawn.order >= 0].numpy()
    for column, (low, high) in enumerate([(0.6, 1.4), (0.7, 1.3), (0.1, 1.9), (-0.1, 0.1)]):
        assert factors[:, column].min() >= np.float32(low) - 1e-6
        assert factors[:, column].max() <= np.float32(high) + 1e-6
        assert stats.kstest(factors[:, column], stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_strengths_above_one_stop_at_zero_and_leave_the_hue_two_sided() -> None:
    """ColorJitter(brightness=1.5, hue=0.1): brightness in [0, 2.5], hue in [-0.1, 0.1]."""
    drawn = draw(ViewSpec(size=32, jitter=(1.5, 0.4, 0.4, 0.1)))
    factors = drawn.factors[drawn.order >= 0].numpy()
    assert stats.kstest(factors[:, 0], stats.uniform(0, 2.5).cdf).pvalue > 1e-3
    assert stats.kstest(factors[:, 3], stats.uniform(-0.1, 0.2).cdf).pvalue > 1e-3


def test_images_that_are_not_jittered_have_neutral_factors() -> None:
    drawn = draw()
    untouched = drawn.factors[drawn.order < 0]
    assert len(untouched)
    assert (untouched == torch.tensor([1.0, 1.0, 1.0, 0.0])).all()
    assert set(drawn.order.tolist()) == set(range(-1, 24))


def test_sigmas_are_uniform_where_blurred_and_zero_elsewhere() -> None:
    sigma = draw(ViewSpec(size=32, blur=0.5, blur_sigma=(0.3, 1.7))).sigma
    blurred = sigma[sigma != 0].numpy()
    assert blurred.min() >= 0.3 - 1e-6
    assert blurred.max() <= 1.7 + 1e-6
    assert stats.kstest(blurred, stats.uniform(0.3, 1.4).cdf).pvalue > 1e-3


# ---- independence


def as_table(drawn: ViewParameters) -> np.ndarray:
    """[B, 13] every number of the parameters."""
    columns = [part.double().reshape(len(part), -1) for part in drawn]
    return torch.cat(columns, dim=1).numpy()


@pytest.mark.parametrize(
    "change",
    [{"view": 1}, {"epoch": 6}, {"seed": 4}, {"epoch": 4, "view": 1}, {"seed": 2, "epoch": 6}],
)
def test_draws_of_another_view_epoch_or_seed_are_independent(change: dict) -> None:
    table, other = as_table(draw()), as_table(draw(**change))
    num = table.shape[1]
    correlation = np.corrcoef(table, other, rowvar=False)[:num, num:]
    assert np.abs(correlation).max() < 5 / math.sqrt(NUM)
    assert (table != other).any(axis=1).mean() > 0.999


def test_neighbouring_images_are_independent() -> None:
    table = as_table(draw())
    num = table.shape[1]
    correlation = np.corrcoef(table[:-1], table[1:], rowvar=False)[:num, num:]
    assert np.abs(correlation).max() < 5 / math.sqrt(NUM)


def test_the_same_counters_give_the_same_parameters() -> None:
    for first, again in zip(draw(num=500), draw(num=500), strict=True):
        assert torch.equal(first, again)


def test_an_images_parameters_do_not_depend_on_its_batch() -> None:
    everything = draw(num=1_000)
    index = torch.tensor([999, 3, 500, 3])
    some = draw_view_parameters(SPEC, index, 64, 48, seed=3, epoch=5, view=0)
    for whole, part in zip(everything, some, strict=True):
        assert torch.equal(whole[index], part)


def test_parameters_have_the_documented_types() -> None:
    drawn = draw(num=8)
    assert [part.dtype for part in drawn] == [
        torch.int64, torch.bool, torch.float32, torch.int64, torch.bool, torch.float32, torch.float64,
    ]  # fmt: skip
    assert [tuple(part.shape) for part in drawn] == [
        (8, 4), (8,), (8, 4), (8,), (8,), (8,), (8, 0, 4),
    ]  # fmt: skip


def test_strength_per_image_multiplies_the_jitter_of_each_image() -> None:
    spec = ViewSpec(size=8, jitter_probability=1.0)
    index = torch.arange(3000)
    plain = draw_view_parameters(spec, index, 8, 8, seed=1, epoch=0, view=0)
    strength = torch.tensor([0.0, 1.0, 0.5]).repeat(1000)
    scaled = draw_view_parameters(
        replace(spec, strength=strength), index, 8, 8, seed=1, epoch=0, view=0
    )
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0])
    assert torch.equal(scaled.factors[0::3], neutral.expand(1000, 4))
    assert torch.equal(scaled.factors[1::3], plain.factors[1::3]), "a strength of 1 changes no bit"
    expected = neutral + 0.5 * (plain.factors[2::3] - neutral)
    torch.testing.assert_close(scaled.factors[2::3], expected, rtol=1e-5, atol=1e-6)
    for name in ("box", "flip", "order", "grey", "sigma"):
        assert torch.equal(getattr(scaled, name), getattr(plain, name))
