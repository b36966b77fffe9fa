"""Pixels against second libraries: torchvision's float functionals, PIL's blur and PIL's whole chain.

A level is 1 / 255.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_image
from torch import Tensor
from torchvision.transforms import InterpolationMode

from sdclr.data.sources.split_files import read_image_list
from sdclr.data.views import augment as views_module
from sdclr.data.views.augment import (
    _in_groups,
    apply_views,
    blur_matrix,
    gaussian_blur,
    greyscale,
    make_views,
    resize_images,
    resize_matrix,
    resized_crop,
    rotate_hue,
)
from sdclr.data.views.parameters import (
    OPERATIONS,
    ORDERS,
    ViewParameters,
    ViewSpec,
    draw_two_views,
    draw_view_parameters,
)

SPEC = ViewSpec(size=32, blur=0.5)
PLAIN = ViewSpec(size=32, area=(1, 1), aspect=(1, 1), flip=0, jitter_probability=0, grey=0, blur=0)
LEVEL = 1 / 255
ADJUST = {
    "brightness": TF.adjust_brightness,
    "contrast": TF.adjust_contrast,
    "saturation": TF.adjust_saturation,
    "hue": TF.adjust_hue,
}


def patches(num: int, height: int, width: int) -> Tensor:
    """uint8 [num, 3, height, width] cut out of a real photograph."""
    photo = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)
    rng = np.random.default_rng(0)
    corners = zip(
        rng.integers(0, 427 - height, num), rng.integers(0, 640 - width, num), strict=True
    )
    return torch.stack([photo[:, top : top + height, left : left + width] for top, left in corners])


def clothes(folder: Path, num: int) -> Tensor:
    """uint8 [num, 3, 64, 48] of whole photographs, made small."""
    paths = read_image_list(folder / "clothing_lt" / "train.txt").paths[:: 495 // num][:num]
    arrays = []
    for path in paths:
        with Image.open(folder / "clothing_lt" / path) as image:
            arrays.append(
                np.asarray(image.convert("RGB").resize((48, 64), Image.Resampling.BICUBIC))
            )
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


@pytest.fixture(params=["china", "clothing"])
def photos(request: pytest.FixtureRequest) -> Tensor:
    """uint8 [100, 3, 64, 48]."""
    if request.param == "china":
        return patches(100, 64, 48)
    return clothes(request.getfixturevalue("sdclr_data"), 100)


def colours(num: int = 96) -> Tensor:
    """float [num, 3, 16, 16] in [0, 1]: photographs, noise, and the awkward cases."""
    torch.manual_seed(1)
    x = patches(num, 16, 16).float() / 255
    x[0], x[1], x[2] = 0, 1, 0.5
    x[3] = x[3].mean(dim=0, keepdim=True)  # grey
    x[4] = torch.rand(3, 16, 16)
    x[5] = (
        torch.rand(3, 16, 16) > 0.5
    ).float()  # corners of the colour cube: saturated pixels and ties
    x[6] = torch.rand(1, 16, 16) * torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    x[7, 0] = x[7, 1]  # two channels tie everywhere
    x[8, 2] = x[8, 1]
    return x


def jitter_parameters(num: int) -> tuple[Tensor, Tensor]:
    """Wide factors [num, 4] and every order, some of them -1 (untouched)."""
    generator = torch.Generator().manual_seed(2)
    factors = torch.rand(num, 4, generator=generator) * torch.tensor([2.0, 2.0, 2.0, 1.0])
    factors[:, 3] -= 0.5
    order = torch.arange(num) % 25 - 1
    factors[order < 0] = torch.tensor([1.0, 1.0, 1.0, 0.0])
    return factors, order


# ---- crop, resize, flip


@pytest.mark.parametrize(
    ("height", "width", "size"), [(64, 48, 32), (32, 32, 32), (20, 90, 32), (64, 48, 7)]
)
def test_resized_crops_equal_torchvisions_antialiased_bicubic(
    height: int, width: int, size: int
) -> None:
    rng = np.random.default_rng(4)
    num = 130
    h, w = rng.integers(1, height + 1, num), rng.integers(1, width + 1, num)
    h[:3], w[:3] = (1, 1, height), (1, width, 1)
    h[3], w[3] = height, width
    boxes = np.stack(
        [rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w], axis=1
    )
    images = patches(num, height, width)
    images[::2] = torch.from_numpy(
        rng.integers(0, 256, images[::2].shape)
    ).byte()  # noise: the hardest to resample
    ours = resized_crop(images, torch.from_numpy(boxes), torch.zeros(num, dtype=torch.bool), size)
    for row, box in enumerate(boxes.tolist()):
        theirs = TF.resized_crop(
            images[row].double(), *box, [size, size], InterpolationMode.BICUBIC, antialias=True
        )
        assert (ours[row].double() - theirs).abs().max() <= 1e-3, box


def test_a_flip_is_the_exact_reverse() -> None:
    images = patches(64, 64, 48)
    box = draw_view_parameters(SPEC, torch.arange(64), 64, 48, seed=1, epoch=1, view=0).box
    never, always = torch.zeros(64, dtype=torch.bool), torch.ones(64, dtype=torch.bool)
    matrix = resize_matrix(box[:, 1], box[:, 3], 48, 32, never)
    assert torch.equal(resize_matrix(box[:, 1], box[:, 3], 48, 32, always), matrix.flip(1))
    straight = resized_crop(images, box, never, 32)
    torch.testing.assert_close(
        resized_crop(images, box, always, 32), straight.flip(3), rtol=0, atol=1e-4
    )
    mixed = torch.arange(64) % 2 == 0
    chosen = torch.where(mixed[:, None, None, None], straight.flip(3), straight)
    torch.testing.assert_close(resized_crop(images, box, mixed, 32), chosen, rtol=0, atol=1e-4)


def test_pixels_outside_the_crop_are_never_seen() -> None:
    images = patches(64, 64, 48)
    box = draw_view_parameters(SPEC, torch.arange(64), 64, 48, seed=2, epoch=1, view=0).box
    flip = torch.arange(64) % 2 == 0
    outside = torch.ones(64, 1, 64, 48, dtype=torch.bool)
    for row, (top, left, height, width) in enumerate(box.tolist()):
        outside[row, :, top : top + height, left : left + width] = False
    assert outside.any()
    expected = resized_crop(images, box, flip, 32)
    for filler in (0, 255):
        assert torch.equal(
            resized_crop(images.masked_fill(outside, filler), box, flip, 32), expected
        )


@pytest.mark.parametrize(("full", "size"), [(64, 32), (9, 32), (500, 32), (1, 8)])
def test_rows_of_the_resize_matrix_sum_to_one_and_stay_inside(full: int, size: int) -> None:
    rng = np.random.default_rng(5)
    length = torch.from_numpy(rng.integers(1, full + 1, 50))
    start = torch.from_numpy(rng.integers(0, full - length.numpy() + 1))
    matrix = resize_matrix(start, length, full, size)
    assert matrix.shape == (50, size, full)
    torch.testing.assert_close(matrix.sum(dim=2), torch.ones(50, size), rtol=0, atol=1e-5)
    position = torch.arange(full)[None, None]
    outside = (position < start[:, None, None]) | (position >= (start + length)[:, None, None])
    assert (matrix.masked_select(outside) == 0).all()


def test_a_crop_of_the_views_own_size_is_copied() -> None:
    images = patches(8, 64, 48)
    box = torch.tensor([10, 5, 32, 32]).expand(8, 4)
    copied = resized_crop(images, box, torch.zeros(8, dtype=torch.bool), 32)
    torch.testing.assert_close(copied, images[:, :, 10:42, 5:37].float(), rtol=0, atol=1e-4)


def test_images_that_fit_are_not_resized() -> None:
    images = patches(4, 32, 32)
    assert resize_images(images, 32) is images


@pytest.mark.parametrize(("height", "width"), [(64, 48), (8, 8)])
def test_resized_images_equal_torchvisions(height: int, width: int) -> None:
    images = patches(40, height, width)
    ours = resize_images(images, 32)
    theirs = (
        TF.resize(images.double(), [32, 32], InterpolationMode.BICUBIC, antialias=True)
        .round()
        .clamp(0, 255)
    )
    assert ours.dtype == torch.uint8
    difference = (ours.double() - theirs).abs()
    assert difference.max() <= 1, "a value within float precision of a half may round either way"
    assert (difference > 0).double().mean() < 1e-4


# ---- colour


def test_greyscale_is_torchvisions() -> None:
    x = colours()
    assert (greyscale(x) - TF.rgb_to_grayscale(x)).abs().max() <= 1e-3 * LEVEL


@pytest.mark.parametrize("shift", [-0.5, -0.3, -0.1, 0.0, 0.04, 1 / 6, 0.25, 0.5])
def test_hue_rotation_is_torchvisions(shift: float) -> None:
    x = colours()
    ours = rotate_hue(x, torch.full((len(x),), shift))
    theirs = TF.adjust_hue(x, shift)
    assert (ours - theirs).abs().max() <= 1e-3 * LEVEL


def test_a_hue_shift_leaves_grey_alone() -> None:
    x = colours()[:4]
    torch.testing.assert_close(rotate_hue(x, torch.full((4,), 0.37)), x, rtol=0, atol=1e-6)


def jitter_by_loop(x: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """One image and one torchvision call after the other, in float64."""
    rows = []
    for image, factor, number in zip(x.double(), factors.double(), order.tolist(), strict=True):
        for operation in ORDERS[number] if number >= 0 else ():
            image = ADJUST[OPERATIONS[operation]](image, float(factor[operation]))
        rows.append(image)
    return torch.stack(rows)


@pytest.mark.parametrize("execution", ["_jitter_in_place", "_jitter_grouped", "_jitter_static"])
def test_jitter_equals_torchvision_in_every_order(execution: str) -> None:
    x = colours(300)
    factors, order = jitter_parameters(300)
    ours = getattr(views_module, execution)(x.clone(), factors, order)
    theirs = jitter_by_loop(x, factors, order)
    assert set(order.tolist()) == set(range(-1, 24))
    assert (ours.double() - theirs).abs().max() <= 1e-3 * LEVEL


@pytest.mark.parametrize("untouched", ["some", "none", "all"])
def test_all_executions_of_the_jitter_agree(untouched: str) -> None:
    x = colours(200)
    factors, order = jitter_parameters(200)
    if untouched == "none":
        order = order.clamp(min=0)
    elif untouched == "all":
        order = torch.full_like(order, -1)
    grouped = views_module._jitter_grouped(x.clone(), factors, order)
    in_place = views_module._jitter_in_place(x.clone(), factors, order)
    assert torch.equal(in_place, grouped), "a batch that is a little larger has the same bits"
    static = views_module._jitter_static(x.clone(), factors, order)
    torch.testing.assert_close(grouped, static, rtol=0, atol=1e-6)
    assert torch.equal(grouped[order < 0], x[order < 0])


# ---- blur

SIGMAS = [0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.1, 1.25, 1.5, 1.75, 1.9, 2.0, 3.0, 5.0, 9.0]


@pytest.mark.parametrize("size", [32, 16])
def test_blur_is_within_three_levels_of_pils(size: int) -> None:
    """PIL rounds after each of six passes; that is all that differs: half a level on average on photographs."""
    photographs = patches(6, size, size)
    noise = torch.from_numpy(np.random.default_rng(6).integers(0, 256, photographs.shape)).byte()
    for sigma in SIGMAS:
        ours = gaussian_blur(torch.cat([photographs, noise]).float(), torch.full((12,), sigma))
        pil = [
            TF.to_pil_image(image).filter(ImageFilter.GaussianBlur(sigma))
            for image in (*photographs, *noise)
        ]
        theirs = torch.from_numpy(np.stack([np.asarray(image) for image in pil])).permute(
            0, 3, 1, 2
        )
        difference = (ours - theirs).abs()
        assert difference.max() <= 3, sigma
        assert difference[:6].mean() <= 0.5, sigma


def test_blur_weights_are_means_with_the_variance_that_was_asked_for() -> None:
    sigma = torch.tensor(SIGMAS)
    matrix = blur_matrix(sigma, 161).double()
    torch.testing.assert_close(
        matrix.sum(dim=2), torch.ones(len(sigma), 161).double(), rtol=0, atol=1e-5
    )
    assert (matrix >= 0).all()
    offset = torch.arange(161).double() - 80
    middle = matrix[:, 80]  # far from every edge
    torch.testing.assert_close(middle @ offset, torch.zeros(len(sigma)).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close((middle @ offset**2).sqrt(), sigma.double(), rtol=1e-4, atol=0)


def test_a_blur_of_sigma_zero_is_the_identity() -> None:
    x = colours()
    assert torch.equal(gaussian_blur(x, torch.zeros(len(x))), x)


# ---- the whole chain


def chain_by_pil(image: Tensor, parameters: ViewParameters, row: int, spec: ViewSpec) -> np.ndarray:
    """The reference's PIL chain with given parameters: uint8 [S, S, 3]."""
    pil = TF.to_pil_image(image)
    pil = TF.resized_crop(
        pil, *parameters.box[row].tolist(), [spec.size, spec.size], InterpolationMode.BICUBIC
    )
    if parameters.flip[row]:
        pil = TF.hflip(pil)
    for operation in ORDERS[parameters.order[row]] if parameters.order[row] >= 0 else ():
        pil = ADJUST[OPERATIONS[operation]](pil, float(parameters.factors[row, operation]))
    if parameters.grey[row]:
        pil = TF.to_grayscale(pil, 3)
    if parameters.sigma[row]:
        pil = pil.filter(ImageFilter.GaussianBlur(float(parameters.sigma[row])))
    return np.asarray(pil)


def test_whole_views_are_those_of_the_pil_chain(photos: Tensor) -> None:
    index = torch.arange(len(photos))
    drawn = [
        draw_view_parameters(SPEC, index, 64, 48, seed=1, epoch=1, view=view) for view in range(3)
    ]
    differences = []
    for parameters in drawn:
        ours = (apply_views(photos, parameters, SPEC) * 255).permute(0, 2, 3, 1).numpy()
        theirs = [chain_by_pil(image, parameters, row, SPEC) for row, image in enumerate(photos)]
        differences.append(np.abs(ours - np.stack(theirs)))
    difference = np.stack(differences)
    assert difference.mean() <= 1.6
    assert (difference <= 4).mean() >= 0.98


def test_a_view_alone_is_the_view_in_its_batch(photos: Tensor) -> None:
    views = make_views(photos, torch.arange(64), SPEC, seed=5, epoch=2)
    for row in range(0, 64, 5):
        alone = make_views(photos, torch.tensor([row]), SPEC, seed=5, epoch=2)
        torch.testing.assert_close(alone.a[0], views.a[row], rtol=0, atol=1e-6)
        torch.testing.assert_close(alone.b[0], views.b[row], rtol=0, atol=1e-6)


def test_views_come_with_their_index_and_stay_in_the_unit_range(photos: Tensor) -> None:
    index = torch.tensor([7, 3, 99, 7])
    views = make_views(photos, index, SPEC, seed=1, epoch=1)
    assert torch.equal(views.index, index)
    for view in (views.a, views.b):
        assert view.shape == (4, 3, 32, 32)
        assert view.dtype == torch.float32
        assert view.min() >= 0
        assert view.max() <= 1
    assert torch.equal(views.a[0], views.a[3]), "the same image of the same epoch is the same view"
    assert (views.a - views.b).abs().amax(dim=(1, 2, 3)).min() > 0.01


def test_views_use_the_parameters_of_their_number() -> None:
    images, index = patches(20, 64, 48), torch.arange(20)
    views = make_views(images, index, SPEC, seed=9, epoch=4)
    for number, view in enumerate((views.a, views.b)):
        parameters = draw_view_parameters(SPEC, index, 64, 48, seed=9, epoch=4, view=number)
        torch.testing.assert_close(view, apply_views(images, parameters, SPEC), rtol=0, atol=1e-6)


def test_views_do_not_alter_the_images() -> None:
    images = patches(20, 64, 48)
    before = images.clone()
    make_views(images, torch.arange(20), SPEC, seed=1, epoch=1)
    assert torch.equal(images, before)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 32), (9, 9)])
def test_without_any_chance_a_view_is_a_plain_resize(height: int, width: int) -> None:
    images = patches(10, height, width)
    views = make_views(images, torch.arange(10), PLAIN, seed=1, epoch=1)
    expected = (
        TF.resize(images.double(), [32, 32], InterpolationMode.BICUBIC, antialias=True).clamp(
            0, 255
        )
        / 255
    )
    assert torch.equal(views.a, views.b)
    assert (views.a.double() - expected).abs().max() <= 1e-3 * LEVEL


def test_grey_views_have_three_equal_channels() -> None:
    views = make_views(
        patches(10, 64, 48), torch.arange(10), replace(SPEC, grey=1.0), seed=1, epoch=1
    )
    torch.testing.assert_close(views.a, views.a[:, :1].expand(-1, 3, -1, -1), rtol=0, atol=1e-6)


def test_a_one_pixel_image_becomes_a_flat_view() -> None:
    image = torch.tensor([200, 100, 50], dtype=torch.uint8).view(1, 3, 1, 1)
    view = make_views(image, torch.tensor([0]), PLAIN, seed=1, epoch=1).a
    torch.testing.assert_close(
        view[0].mean(dim=(1, 2)) * 255, torch.tensor([200.0, 100, 50]), rtol=0, atol=1e-3
    )
    assert view.var(dim=(2, 3)).max() < 1e-10


def device_form(images: Tensor, parameters: ViewParameters, size: int) -> Tensor:
    """What apply_views does on an accelerator, on whatever device the images are."""
    x = resized_crop(images, parameters.box, parameters.flip, size).mul_(1 / 255).clamp_(0, 1)
    x = views_module._jitter_static(x, parameters.factors, parameters.order)
    x = torch.where(parameters.grey[:, None, None, None], greyscale(x), x)
    return gaussian_blur(x, parameters.sigma)


def test_the_device_form_equals_the_cpu_form(photos: Tensor) -> None:
    parameters = draw_view_parameters(SPEC, torch.arange(100), 64, 48, seed=1, epoch=1, view=0)
    cpu = apply_views(photos, parameters, SPEC)
    torch.testing.assert_close(device_form(photos, parameters, 32), cpu, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_compiled_device_form_equals_the_eager_one() -> None:
    images = patches(16, 64, 48)
    parameters = draw_view_parameters(SPEC, torch.arange(16), 64, 48, seed=1, epoch=1, view=0)
    compiled = torch.compile(device_form, fullgraph=True)
    expected = device_form(images, parameters, 32)
    torch.testing.assert_close(compiled(images, parameters, 32), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("together", [1, 3, 64])
def test_views_drawn_for_many_batches_together_are_those_of_each_batch(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdclr.data.views.augment.DRAWN_AT_ONCE", together)
    images, order = patches(50, 24, 20), torch.arange(100).roll(7)  # draws: every image comes twice
    batches, spec = order.split(17), ViewSpec(16, blur=0.5)
    expected = [make_views(images, index, spec, seed=3, epoch=2) for index in batches]
    found = list(_in_groups(images, batches, spec, seed=3, epoch=2))
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours.index, theirs.index)
        torch.testing.assert_close(ours.a, theirs.a, rtol=0, atol=1e-6)
        torch.testing.assert_close(ours.b, theirs.b, rtol=0, atol=1e-6)


@pytest.mark.gpu
def test_views_on_a_cuda_device_equal_views_on_the_cpu() -> None:
    images, index = patches(100, 64, 48), torch.arange(100)
    here = make_views(images, index, SPEC, seed=1, epoch=1)
    there = make_views(images.cuda(), index.cuda(), SPEC, seed=1, epoch=1)
    torch.testing.assert_close(there.a.cpu(), here.a, rtol=0, atol=1e-4)
    torch.testing.assert_close(there.b.cpu(), here.b, rtol=0, atol=1e-4)


@pytest.mark.gpu
def test_compiled_views_on_a_cuda_device_equal_eager_ones() -> None:
    images = patches(16, 64, 48).cuda()
    for number in (16, 5):  # the short last batch has a graph of its own
        index = torch.arange(number, device="cuda")
        both = draw_two_views(SPEC, index, 64, 48, seed=1, epoch=1)
        eager = apply_views(torch.cat([images[:number]] * 2), both, SPEC)
        views = make_views(images, index, SPEC, seed=1, epoch=1)
        torch.testing.assert_close(torch.cat([views.a, views.b]), eager, rtol=0, atol=1e-5)
