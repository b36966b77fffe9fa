"""RandAugment's operations, batched: each image gets operations and strengths of its own.

The 15 operations and their ranges are those of BCL (Zhou et al., ICML 2022), and each gives
Pillow's result, bit for bit, on 8-bit pixels. B images, k operations drawn for each, n images that
share an operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sdclr.batch import STRONGEST, RandomOperations
from sdclr.compute.stateless_random import Stream, derive, uniforms

_SHARED_BY_VIEWS = 2
"""A number that no view has; draws with it are the same for both."""
_FIXED = 65536.0
"""Pillow computes the source of a pixel with 16 binary digits after the point."""
_CUTOUT_COLOUR = (125, 123, 114)


class Operation(NamedTuple):
    """One operation, and its parameters for strengths of 0 .. 30."""

    name: str
    low: float
    """Its parameter at strength 0."""
    high: float
    """Its parameter at strength 30."""
    signed: bool
    """Whether half of the images get the negative parameter."""
    apply: Callable[[Tensor, Tensor, Tensor], Tensor]
    """uint8 [n, 3, H, W], parameters [n], places [n, 2] as shares of the sides -> uint8 [n, 3, H, W]."""


def draw_operations(
    requested: RandomOperations | None, index: Tensor, *, seed: int, epoch: int, view: int
) -> Tensor:
    """float64 [B, k, 4] for the images ``index`` [B]: operation, parameter, place (x, y) in [0, 1).

    Operation -1 is none, and k is 0 where nothing is requested. Operations are drawn with replacement, and each is
    applied with the image's probability. The strength of an image is the same in both views; everything else is drawn
    for each view.
    """
    if requested is None:
        return torch.zeros(len(index), 0, 4, dtype=torch.float64, device=index.device)
    weight = requested.weight.to(index.device)[index % len(requested.weight)].double()  # [B]
    u = uniforms(derive(seed, Stream.OPERATIONS, epoch, view), index, 5 * requested.number)
    u = u.double().view(len(index), requested.number, 5)
    span = (STRONGEST - requested.lowest_strength) * weight
    if requested.number > 1:
        key = derive(seed, Stream.OPERATIONS, epoch, _SHARED_BY_VIEWS)
        span = span * uniforms(key, index, 1).squeeze(1)
    strength = (requested.lowest_strength + span)[:, None]  # [B, 1]
    operation = (u[..., 0] * len(OPERATIONS)).floor()
    parameter = _parameters(operation.long(), strength, negative=u[..., 2] < 0.5)
    operation = torch.where(u[..., 1] < weight[:, None], operation, -1.0)
    return torch.stack([operation, parameter, u[..., 3], u[..., 4]], dim=2)


def _parameters(operation: Tensor, strength: Tensor, *, negative: Tensor) -> Tensor:
    """Parameters of operations (int64, any shape) at strengths in 0 .. 30.

    ``negative``: where a signed parameter is negated.
    """
    table = torch.tensor([(one.low, one.high, one.signed) for one in OPERATIONS]).double()
    low, high, signed = table.to(operation.device)[operation].unbind(-1)
    parameter = low + strength / STRONGEST * (high - low)
    return torch.where(negative & (signed > 0), -parameter, parameter)


def apply_operations(x: Tensor, operations: Tensor) -> Tensor:
    """Views [V, 3, S, S] in [0, 1] after the operations drawn for them [V, k, 4].

    May write into ``x``. A view that gets an operation is rounded to 8 bits first; the others stay as they are. On CUDA
    the host waits once for the drawn operations. Pixels are moved to the device of ``operations`` and back.
    """
    if not operations.shape[1]:
        return x
    drawn = operations[..., 0].long().cpu()  # [V, k]
    touched = (drawn >= 0).any(dim=1).nonzero().squeeze(1)
    if not len(touched):
        return x
    pixels = x[touched].mul(255).round_().clamp_(0, 255).byte().to(operations.device)
    for slot in range(drawn.shape[1]):
        chosen, settings = drawn[touched, slot], operations[touched, slot]
        for number, operation in enumerate(OPERATIONS):
            rows = (chosen == number).nonzero().squeeze(1)
            if len(rows):
                here = settings[rows]
                pixels[rows] = operation.apply(pixels[rows], here[:, 1], here[:, 2:])
    x[touched] = pixels.to(x.device).to(x.dtype).mul_(1 / 255)
    return x


# ---- where pixels come from


def _move(pixels: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Pixels [n, 3, H, W] from columns ``x`` and rows ``y`` (int64 [n, H, W]); black from outside."""
    height, width = pixels.shape[2:]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    source = (y * width + x).where(inside, 0).flatten(1)[:, None].expand(-1, 3, -1)
    moved = pixels.flatten(2).gather(2, source).view_as(pixels)
    return moved * inside[:, None]


def _affine(pixels: Tensor, matrix: tuple[Tensor | float, ...]) -> Tensor:
    """Pillow's nearest affine transform: (x, y) comes from (a x + b y + c, d x + e y + f)."""
    a, b, c, d, e, f = (torch.as_tensor(one, dtype=torch.float64) for one in matrix)
    column = torch.arange(pixels.shape[3], device=pixels.device)
    row = torch.arange(pixels.shape[2], device=pixels.device)[:, None]

    def source(along_x: Tensor, along_y: Tensor, start: Tensor) -> Tensor:
        first = _fixed(start + along_x * 0.5 + along_y * 0.5)
        steps = _fixed(along_x), _fixed(along_y), first
        step_x, step_y, first = (one.reshape(-1, 1, 1).to(pixels.device) for one in steps)
        return (first + step_x * column + step_y * row) >> 16

    x, y = source(a, b, c), source(d, e, f)
    whole = len(pixels), *pixels.shape[2:]
    return _move(pixels, x.expand(whole), y.expand(whole))


def _fixed(value: Tensor) -> Tensor:
    return (value * _FIXED + 0.5).floor().long()


def _shear_x(pixels: Tensor, value: Tensor, place: Tensor) -> Tensor:
    return _affine(pixels, (1.0, value, 0.0, 0.0, 1.0, 0.0))


def _shear_y(pixels: Tensor, value: Tensor, place: Tensor) -> Tensor:
    return _affine(pixels, (1.0, 0.0, 0.0, value, 1.0, 0.0))


def _translate_x(pixels: Tensor, value: Tensor, place: Tensor) -> Tensor:
    columns = torch.arange(pixels.shape[3], device=pixels.device) + 0.5
    # Pillow moves by whole pixels here, and not in its fixed point
    x = (columns + value[:, None] * pixels.shape[3]).floor().long()
    y = torch.arange(pixels.shape[2], device=pixels.device)
    whole = len(pixels), *pixels.shape[2:]
    return _move(pixels, x[:, None].expand(whole), y[:, None].expand(whole))


def _translate_y(pixels: Tensor, value: Tensor, place: Tensor) -> Tensor:
    return _translate_x(pixels.transpose(2, 3), value, place).transpose(2, 3)


def _rotate(pixels: Tensor, value: Tensor, place: Tensor) -> Tensor:
    """Rotate by ``value`` degrees counter-clockwise about the centre."""
    x, y = pixels.shape[3] / 2, pixels.shape[2] / 2
    angle = -torch.deg2rad(value % 360)
    cos, sin = angle.cos().round(decimals=15), angle.sin().round(decimals=15)
    c = cos * -x + sin * -y + x
    f = -sin * -x + cos * -y + y
    return _affine(pixels, (cos, sin, c, -sin, cos, f))


# ---- a table of levels for each channel


def _look_up(pixels: Tensor, table: Tensor) -> Tensor:
    """Replace levels [n, 3, H, W] by those of a table [n, 3 or 1, 256]."""
    table = table.clamp(0, 255).byte().expand(-1, 3, -1)
    return table.gather(2, pixels.flatten(2).long()).view_as(pixels)


def _levels(pixels: Tensor) -> Tensor:
    return torch.arange(256, device=pixels.device).expand(len(pixels), 1, 256)


def _histogram(pixels: Tensor) -> Tensor:
    """int64 [n, 3, 256]."""
    levels = pixels.flatten(2).long()
    empty = levels.new_zeros(*levels.shape[:2], 256)
    return empty.scatter_add_(2, levels, torch.ones_like(levels))


def _auto_contrast(pixels: Tensor, value: Tensor, place: Tensor) -> Tensor:
    low, high = (extreme(pixels.flatten(2), dim=2).double() for extreme in (torch.amin, torch.amax))
    flat = high <= low
    scale = 255 / (high - low).where(~flat, 1)
    levels = torch.arange(256, device=pixels.device, dtype=torch.float64)
    table = (levels * scale[..., None] + (-low * scale)[..., None]).trunc()
    return _look_up(pixels, torch.where(flat[..., None], levels, table))


def _equalize(pixels: Tensor, value: Tensor, place: Tensor) -> Tensor:
    counts = _histogram(pixels)
    last = counts.gather(2, pixels.flatten(2).amax(dim=2, keepdim=True).long())  # of the brightest
    step = (counts.sum(dim=2, keepdim=True) - last) // 255
    before = counts.cumsum(dim=2) - counts
    table = (step // 2 + before) // step.clamp(min=1)
    return _look_up(pixels, torch.where(step > 0, table, _levels(pixels)))


def _invert(pixels: Tensor, value: Tensor, place: Tensor) -> Tensor:
    return 255 - pixels


def _solarize(pixels: Tensor, value: Tensor, place: Tensor) -> Tensor:
    return torch.where(pixels < value[:, None, None, None], pixels, 255 - pixels)


def _posterize(pixels: Tensor, value: Tensor, place: Tensor) -> Tensor:
    lost = 8 - value.floor().long()[:, None, None]
    return _look_up(pixels, _levels(pixels) >> lost << lost)


# ---- enhancement: a step from a poorer image to the image and beyond


def _blend(poorer: Tensor, pixels: Tensor, factor: Tensor) -> Tensor:
    start = poorer.float()
    mixed = start + factor.float()[:, None, None, None] * (pixels.float() - start)
    return mixed.clamp_(0, 255).byte()


def _luma(pixels: Tensor) -> Tensor:
    """int64 [n, 1, H, W]: Pillow's conversion to grey."""
    red, green, blue = pixels.long().unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16)[:, None]


def _contrast(pixels: Tensor, value: Tensor, place: Tensor) -> Tensor:
    mean = _luma(pixels).double().mean(dim=(1, 2, 3), keepdim=True)
    return _blend((mean + 0.5).floor(), pixels, value)


def _color(pixels: Tensor, value: Tensor, place: Tensor) -> Tensor:
    return _blend(_luma(pixels), pixels, value)


def _brightness(pixels: Tensor, value: Tensor, place: Tensor) -> Tensor:
    return _blend(torch.zeros_like(pixels), pixels, value)


def _sharpness(pixels: Tensor, value: Tensor, place: Tensor) -> Tensor:
    smooth, x = pixels.clone(), pixels.long()
    columns = x[..., :-2] + x[..., 1:-1] + x[..., 2:]
    around = columns[..., :-2, :] + columns[..., 1:-1, :] + columns[..., 2:, :]
    total = around + 4 * x[..., 1:-1, 1:-1]  # the pixel itself counts five times
    smooth[..., 1:-1, 1:-1] = ((2 * total + 13) // 26).byte()
    return _blend(smooth, pixels, value)


def _cutout(pixels: Tensor, value: Tensor, place: Tensor) -> Tensor:
    """A rectangle of one colour, ``value`` of the width wide and high, both ends included."""
    height, width = pixels.shape[2:]
    side = value * width
    inside = (value > 0)[:, None, None]
    for axis, length in ((0, width), (1, height)):
        first = (place[:, axis] * length - side / 2).clamp(min=0).floor()
        last = (first + side).clamp(max=length).floor()
        position = torch.arange(length, device=pixels.device)
        covered = (position >= first[:, None]) & (position <= last[:, None])
        inside = inside & (covered[:, None, :] if axis == 0 else covered[:, :, None])
    colour = torch.tensor(_CUTOUT_COLOUR, dtype=torch.uint8, device=pixels.device)
    return torch.where(inside[:, None], colour[:, None, None], pixels)


OPERATIONS = (
    Operation("ShearX", 0, 0.6, True, _shear_x),
    Operation("ShearY", 0, 0.6, True, _shear_y),
    Operation("TranslateX", 0, 0.66, True, _translate_x),
    Operation("TranslateY", 0, 0.66, True, _translate_y),
    Operation("Rotate", 0, 60, True, _rotate),
    Operation("AutoContrast", 0, 1, False, _auto_contrast),
    Operation("Invert", 0, 1, False, _invert),
    Operation("Equalize", 0, 1, False, _equalize),
    Operation("Solarize", 0, 110, False, _solarize),
    Operation("Posterize", 4, 8, False, _posterize),
    Operation("Contrast", 0.1, 1.9, False, _contrast),
    Operation("Color", 0.1, 1.9, False, _color),
    Operation("Brightness", 0.1, 1.9, False, _brightness),
    Operation("Sharpness", 0.1, 1.9, False, _sharpness),
    Operation("Cutout", 0, 0.4, False, _cutout),
)
"""In BCL's order; the identity is not among them."""
