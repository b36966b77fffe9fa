"""Batched augmentation: every image of a batch gets its own crop, colours and blur, by operations on whole tensors.

B images, C channels, H x W source pixels, S view size. Pixels are floats in [0, 1]. Crop + resize + flip is one
separable product out = Ry · image · Rx^T with antialiased Keys-cubic rows (a = -0.5), equal to torchvision's
antialiased bicubic; colour operations equal torchvision's float functionals; blur equals PIL's (three extended box
blurs). The order is the reference's: crop, flip, jitter, grey, blur. With other than 3 channels, each is treated as a
grey image of its own, with the same parameters; saturation, hue and grey are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice

import torch
from torch import Tensor

from sdclr.batch import Views
from sdclr.compute.compiling import compiled
from sdclr.compute.device import device_of_draws
from sdclr.data.views.parameters import (
    ORDERS,
    ViewParameters,
    ViewSpec,
    draw_two_views,
    draw_view_parameters,
)
from sdclr.data.views.random_operations import apply_operations

_PIXELS_IN_CACHE = 1 << 16
"""Pixels on which a CPU applies one colour operation after another within its cache."""
_FEW_PIXELS = 1 << 17
"""Pixels of a batch up to which the number of operations costs more than gathering their rows."""
_LUMA = (0.2989, 0.587, 0.114)  # torchvision's rgb_to_grayscale


def make_views(images: Tensor, index: Tensor, spec: ViewSpec, *, seed: int, epoch: int) -> Views:
    """Two views of the images at positions ``index`` [B] of ``images`` [N, C, H, W] (uint8), on the images' device.

    ``index`` may be the draws of :func:`~sdclr.data.epoch_order.epoch_draws`; that of the views is positions. Where the
    device has no 64-bit floats, ``index`` and all drawn parameters stay on the CPU.
    """
    index = index.to(device_of_draws(images.device))
    height, width = images.shape[-2:]
    both = draw_two_views(spec, index, height, width, seed=seed, epoch=epoch)
    return _views_of(images, index, both, spec, seed=seed, epoch=epoch)


DRAWN_AT_ONCE = 64
"""Batches whose parameters are drawn together on CUDA: 4 MB of them at 512 images per batch."""


def make_views_of_batches(
    images: Tensor, batches: Iterable[Tensor], spec: ViewSpec, *, seed: int, epoch: int
) -> Iterator[Views]:
    """:func:`make_views` for one batch of positions, or draws, after another.

    On CUDA the parameters of many batches are drawn together: some 230 launches for all of them instead of for each.
    """
    if not images.is_cuda:
        for index in batches:
            draws = index.to(device_of_draws(images.device))
            yield make_views(images, draws, spec, seed=seed, epoch=epoch)
        return
    yield from _in_groups(images, batches, spec, seed=seed, epoch=epoch)


def _in_groups(
    images: Tensor, batches: Iterable[Tensor], spec: ViewSpec, *, seed: int, epoch: int
) -> Iterator[Views]:
    height, width = images.shape[-2:]
    remaining = iter(batches)
    while some := list(islice(remaining, DRAWN_AT_ONCE)):
        draws = torch.cat(some).to(images.device, non_blocking=True)
        sizes = [len(index) for index in some]
        views = [
            draw_view_parameters(spec, draws, height, width, seed=seed, epoch=epoch, view=view)
            for view in spec.view_numbers
        ]
        parts = [[tensor.split(sizes) for tensor in drawn] for drawn in views]
        for number, index in enumerate(draws.split(sizes)):
            tuples = zip(*parts, strict=True)
            both = ViewParameters(*(torch.cat([one[number] for one in some]) for some in tuples))
            yield _views_of(images, index, both, spec, seed=seed, epoch=epoch)


def _views_of(
    images: Tensor,
    draws: Tensor,
    both: ViewParameters,
    spec: ViewSpec,
    *,
    seed: int,
    epoch: int,
) -> Views:
    index = (draws % len(images)).to(images.device)
    batch = images[index]
    apply = _compiled_apply_views() if images.is_cuda and spec.compile_views else apply_views
    x = apply(torch.cat([batch] * len(spec.view_numbers)), both, spec)
    return finish_views(x, both, draws, index, spec, seed=seed, epoch=epoch)


def finish_views(
    x: Tensor,
    drawn: ViewParameters,
    draws: Tensor,
    index: Tensor,
    spec: ViewSpec,
    *,
    seed: int,
    epoch: int,
    names: Sequence[str] = (),
) -> Views:
    """The views [V * B, C, S, S] after random operations and views.own_batch, split, with the positions ``index`` [B].

    ``draws`` [B] and ``names`` (of all images) are for errors of views.own_batch, and for its seed.
    """
    x = apply_operations(x, drawn.operations)
    if spec.own_batch is not None:
        x = spec.own_batch.views(x, draws, seed=seed, epoch=epoch, names=names)
    a, b = x.tensor_split([len(index)])
    return Views(a, b, index.to(x.device, non_blocking=True))


@cache
def _compiled_apply_views() -> Callable[[Tensor, ViewParameters, ViewSpec], Tensor]:
    """On CUDA: 14 fused kernels instead of 330 launches that each read and write every pixel."""
    return compiled(apply_views, "views")


@cache
def _compiled_colour_views() -> Callable[[Tensor, ViewParameters, ViewSpec], Tensor]:
    return compiled(colour_views, "colours of views")


def coloured(x: Tensor, parameters: ViewParameters, spec: ViewSpec) -> Tensor:
    """:func:`colour_views` in the way that is fast on the pixels' device; may write into ``x``."""
    colour = _compiled_colour_views() if x.is_cuda and spec.compile_views else colour_views
    return colour(x, parameters, spec)


def apply_views(images: Tensor, parameters: ViewParameters, spec: ViewSpec) -> Tensor:
    """float32 views [B, C, S, S] in [0, 1] of uint8 images [B, C, H, W], one set of parameters per image."""
    x = resized_crop(images, parameters.box, parameters.flip, spec.size).mul_(1 / 255).clamp_(0, 1)
    return colour_views(x, parameters, spec)


def colour_views(x: Tensor, parameters: ViewParameters, spec: ViewSpec) -> Tensor:
    """Jitter, grey and blur of cut and flipped views [B, C, S, S] in [0, 1]; may write into ``x``.

    Without 3 channels only brightness, contrast (around each channel's own mean) and blur apply.
    """
    has_colours = x.shape[1] == 3
    # work on the rows an operation applies to; elsewhere static shapes win
    if x.device.type == "cpu":
        if spec.jitter_probability and any(spec.jitter):
            are_few = x[:, 0].numel() <= _FEW_PIXELS
            jitter = _jitter_in_place if are_few else _jitter_grouped
            x = jitter(x, parameters.factors, parameters.order)
        if spec.grey and has_colours:
            rows = parameters.grey.nonzero().squeeze(1)
            x[rows] = greyscale(x[rows]).expand(-1, 3, -1, -1)
        if spec.blur:
            rows = (parameters.sigma > 0).nonzero().squeeze(1)
            x[rows] = gaussian_blur(x[rows], parameters.sigma[rows])
        return x
    # the drawn parameters may be on the CPU
    if spec.jitter_probability and any(spec.jitter):
        x = _jitter_static(x, parameters.factors.to(x.device), parameters.order.to(x.device))
    if spec.grey and has_colours:
        grey = parameters.grey.to(x.device)[:, None, None, None]
        x = torch.where(grey, greyscale(x), x)
    return gaussian_blur(x, parameters.sigma) if spec.blur else x


def resize_images(images: Tensor, size: int) -> Tensor:
    """uint8 [N, C, S, S] of uint8 images [N, C, H, W], bicubic and antialiased; the same tensor if it has that size."""
    if tuple(images.shape[2:]) == (size, size):
        return images
    where = device_of_draws(images.device)
    whole = torch.tensor([0, 0, *images.shape[2:]]).to(where, non_blocking=True)
    unflipped = torch.zeros(len(images), dtype=torch.bool, device=where)
    return (
        resized_crop(images, whole.expand(len(images), 4), unflipped, size)
        .round_()
        .clamp_(0, 255)
        .byte()
    )


# ---- crop, resize, flip


def resized_crop(images: Tensor, box: Tensor, flip: Tensor, size: int) -> Tensor:
    """Crop ``box`` [B, 4] out of images [B, C, H, W], resize it to S x S (bicubic, antialiased), and flip by ``flip``.

    float32, in the units of the input, on their device; box and flip may be on the CPU. The filter never sees a pixel
    outside the crop. Values may leave the input's range by the cubic's overshoot.
    """
    batch, channels, height, width = images.shape
    rows = resize_matrix(box[:, 0], box[:, 2], height, size)  # [B, S, H]
    columns = resize_matrix(box[:, 1], box[:, 3], width, size, flip)  # [B, S, W]
    rows, columns = rows.to(images.device), columns.to(images.device)
    # [B, H, C, W], channels between the axes: both products are then one plain batched matmul, without a copy between
    source = images.permute(0, 2, 1, 3).to(torch.float32, memory_format=torch.contiguous_format)
    tall = rows @ source.reshape(batch, height, channels * width)  # [B, S, C * W]
    out = tall.view(batch, size * channels, width) @ columns.transpose(1, 2)  # [B, S * C, S]
    return out.view(batch, size, channels, size).permute(0, 2, 1, 3).contiguous()


def resize_matrix(
    start: Tensor, length: Tensor, full: int, size: int, flip: Tensor | None = None
) -> Tensor:
    """float32 [B, S, full]: row o holds the weights of the pixels along one axis for output pixel o.

    ``start``, ``length`` [B]: the crop along this axis. Rows sum to 1 and are zero outside the crop; ``flip`` [B]
    reverses their order.
    """
    # fp64: the crop's edge must be exact
    start, length = start.double()[:, None], length.double()[:, None]
    scale = length / size  # [B, 1] source pixels per output pixel
    stretch = scale.clamp(min=1)  # the filter widens when shrinking (antialiasing), never narrows
    output = torch.arange(size, device=start.device, dtype=torch.float64)[None] + 0.5
    if flip is not None:
        output = torch.where(flip[:, None], size - output, output)
    # [B, full], the centres of the pixels from the crop's edge
    source = torch.arange(full, device=start.device, dtype=torch.float64)[None] + 0.5 - start
    outside = (source < 0) | (source > length)
    source = torch.where(outside, 1e9, source / stretch)  # far from every centre: weight zero
    distance = (source[:, None] - (output * scale / stretch)[:, :, None]).float()  # [B, S, full]
    weights = _keys_cubic(distance)
    return weights.mul_(1 / weights.sum(dim=2, keepdim=True))


def _keys_cubic(distance: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5, the kernel of PIL's and torchvision's antialiased bicubic."""
    x = distance.abs_()
    # each polynomial is 0 where the other one applies
    near, far = x.clamp(max=1), x.clamp(min=1, max=2)
    return ((1.5 * near - 2.5) * near * near + 1) + (((-0.5 * far + 2.5) * far - 4) * far + 2)


# ---- colour


def greyscale(x: Tensor) -> Tensor:
    """[B, 1, S, S] luma of [B, 3, S, S]."""
    r, g, b = x.unbind(1)
    return (_LUMA[0] * r + _LUMA[1] * g + _LUMA[2] * b).unsqueeze(1)


def rotate_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue of [B, 3, S, S] by ``shift`` [B] turns, through HSV without a branch."""
    r, g, b = x.unbind(1)
    value = torch.maximum(torch.maximum(r, g), b)
    chroma = value - torch.minimum(torch.minimum(r, g), b)
    per_chroma = 1 / chroma.clamp(min=1e-12)  # grey pixels: 0 * 1e12 = 0
    # masks as numbers: where() is ten times slower on a CPU
    red, green = (value == r).float(), (value == g).float()
    below_red = 4 + (r - g) * per_chroma
    below_red = below_red + green * (2 + (b - r) * per_chroma - below_red)
    sector = below_red + red * ((g - b) * per_chroma - below_red)  # hue in sixths of a turn
    sector = sector + 6 * shift[:, None, None]
    channels = [value - chroma * _trapezoid(sector + offset) for offset in (5, 3, 1)]
    return torch.stack(channels, 1).clamp_(0, 1)


def _trapezoid(sixths: Tensor) -> Tensor:
    k = sixths - 6 * (sixths * (1 / 6)).floor()
    return torch.minimum(k, 4 - k).clamp_(0, 1)


def _blend(x: Tensor, other: Tensor | float, factor: Tensor) -> Tensor:
    factor = factor[:, None, None, None]
    return (factor * x + (1 - factor) * other).clamp_(0, 1)


def _operate(operation: int, x: Tensor, factor: Tensor) -> Tensor:
    """One colour operation (its number in OPERATIONS) on [n, C, S, S] with factors [n]."""
    if operation == 0:
        return (factor[:, None, None, None] * x).clamp_(0, 1)
    if x.shape[1] != 3:  # the channels are not colours
        return _blend(x, x.mean(dim=(2, 3), keepdim=True), factor) if operation == 1 else x
    if operation == 1:
        return _blend(x, greyscale(x).mean(dim=(1, 2, 3), keepdim=True), factor)
    if operation == 2:
        return _blend(x, greyscale(x), factor)
    return rotate_hue(x, factor)


def _jitter_in_place(x: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Jitter with the rows of one operation gathered and put back: 16 calls, where grouping makes up to 64."""
    # [B, 4]; -1 takes the last of ORDERS, which is masked out below
    operation_at = torch.tensor(ORDERS)[order]
    jittered = order >= 0
    for position in range(4):
        for operation in range(4):
            rows = (jittered & (operation_at[:, position] == operation)).nonzero().squeeze(1)
            if len(rows):
                x[rows] = _operate(operation, x[rows], factors[rows, operation])
    return x


def _jitter_grouped(x: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Jitter with rows sorted by their order, so that every operation works on contiguous slices: fast on a CPU."""
    by_order = order.argsort(stable=True)
    x, factors = x[by_order], factors[by_order]
    piece = max(1, _PIXELS_IN_CACHE // x[0, 0].numel())
    ends = torch.searchsorted(order[by_order], torch.arange(-1, len(ORDERS)), right=True).tolist()
    for position in range(4):
        for operation, first, last in _runs(position):
            # the untouched rows (-1) end at ends[0]
            for start in range(ends[first], ends[last], piece):
                rows = slice(start, min(start + piece, ends[last]))
                x[rows] = _operate(operation, x[rows], factors[rows, operation])
    return torch.empty_like(x).index_copy_(0, by_order, x)


def _runs(position: int) -> list[tuple[int, int, int]]:
    """(operation, first order, last order + 1): maximal runs of ORDERS that have one operation at ``position``."""
    runs: list[tuple[int, int, int]] = []
    for number, operations in enumerate(ORDERS):
        if runs and runs[-1][0] == operations[position]:
            runs[-1] = (runs[-1][0], runs[-1][1], number + 1)
        else:
            runs.append((operations[position], number, number + 1))
    return runs


def _jitter_static(x: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Jitter with static shapes and no host synchronisation: four blends and four hue rotations for every row."""
    orders = torch.tensor(ORDERS).to(x.device, non_blocking=True)
    table = orders[order.clamp(min=0)]  # [B, 4] operation at each position
    for position in range(4):
        operation = table[:, position]
        factor = factors.gather(1, operation[:, None]).squeeze(1)
        which = operation[:, None, None, None]
        if x.shape[1] != 3:
            x = _jitter_channels(x, factor, which, order)
            continue
        grey = greyscale(x)
        other = torch.where(
            which == 0, 0.0, torch.where(which == 1, grey.mean(dim=(1, 2, 3), keepdim=True), grey)
        )
        x_new = torch.where(which == 3, rotate_hue(x, factor), _blend(x, other, factor))
        x = torch.where(order[:, None, None, None] >= 0, x_new, x)
    return x


def _jitter_channels(x: Tensor, factor: Tensor, which: Tensor, order: Tensor) -> Tensor:
    """One position of the jitter where channels are not colours: only brightness and contrast."""
    other = torch.where(which == 0, 0.0, x.mean(dim=(2, 3), keepdim=True))
    applies = (which <= 1) & (order[:, None, None, None] >= 0)
    return torch.where(applies, _blend(x, other, factor), x)


# ---- blur


def gaussian_blur(x: Tensor, sigma: Tensor) -> Tensor:
    """PIL's GaussianBlur of [B, C, S, S] with ``sigma`` [B] pixels; sigma 0 leaves the image as it is."""
    blur = blur_matrix(sigma, x.shape[-1]).to(x.device)[:, None]  # [B, 1, S, S]
    return blur @ x @ blur.transpose(2, 3)


def blur_matrix(sigma: Tensor, size: int) -> Tensor:
    """float32 [B, S, S]: three extended box blurs along one axis, edges replicated, as PIL approximates a Gaussian."""
    radius = _box_radius(sigma.double())[:, None, None]  # [B, 1, 1]
    whole = radius.floor()
    inner = 1 / (2 * radius + 1)
    outer = (1 - (2 * whole + 1) * inner) / 2  # weight of the two partly covered pixels
    position = torch.arange(size, device=sigma.device, dtype=torch.float64)
    offset = (position[None, :] - position[:, None]).abs()[None]  # [1, S, S]
    box = torch.where(offset <= whole, inner, torch.where(offset == whole + 1, outer, 0.0))
    # weight beyond an edge goes to the edge pixel: total weight beyond distance d
    # nearest pixel outside, seen from each output
    beyond_left, beyond_right = position + 1, size - position
    for edge, nearest in ((0, beyond_left), (size - 1, beyond_right)):
        d = nearest[None, :, None]
        tail = (whole - d + 1).clamp(min=0) * inner + torch.where(d <= whole + 1, outer, 0.0)
        box[:, :, edge] += tail[:, :, 0]
    box = box.float()
    return box @ box @ box


def _box_radius(sigma: Tensor) -> Tensor:
    """Radius of the extended box whose threefold repetition has variance sigma² (Gwosdek et al., 2011)."""
    variance = sigma**2 / 3
    whole = ((torch.sqrt(12 * variance + 1) - 1) / 2).floor()
    part = (
        (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    )
    return whole + part
