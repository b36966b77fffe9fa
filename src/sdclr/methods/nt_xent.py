"""NT-Xent, the contrastive loss of SimCLR and SDCLR.

B images, D projection dim. Plain tensors in, plain tensors out; no reduction.
"""

from __future__ import annotations

from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor

from sdclr.batch import Share
from sdclr.errors import ConfigError
from sdclr.methods.tiled_nt_xent import tiled_anchor_losses
from sdclr.safe_text import shown

TILED_ABOVE = 512
"""Images in a batch above which the similarity matrix is computed in tiles, which is then faster and takes less memory.

The choice depends only on the shape, so that the same batch gives the same bits everywhere. On a CPU tiles are faster
from 256 images on; up to 512, the batch of the paper's recipes, the whole matrix is kept, since changing a run's last
digits is not worth a thousandth of its time.
"""


SMALLEST_TEMPERATURE, LARGEST_TEMPERATURE = 1e-30, 1e30
"""Beyond these, logits are not representable in fp32."""
_IN_RANGE = f"temperature must be a number above 0, from {SMALLEST_TEMPERATURE:g} to {LARGEST_TEMPERATURE:g}"


def nt_xent(
    z_a: Tensor, z_b: Tensor, temperature: float | Tensor, share: Share | None = None
) -> Tensor:
    """NT-Xent, SimCLR Eq. 1. Returns the loss per image [B]; its mean is the batch loss.

    ``z_a``, ``z_b``: projections [B, D] of two views, not normalised; row i of one is the positive of row i of the
    other, and the negatives of an anchor are the other 2B - 2 projections. An image's loss is the mean over its two
    anchors. Computed as log-sum-exp on logits in fp32 (fp64 for fp64 input) with autocast off: with plain exponentials
    the gradient becomes nan below a temperature of 0.011, and bf16 logits are off by 17-100 % for close views. Above
    TILED_ABOVE images the matrix of logits is never formed as a whole, unless the gradient is differentiated again.

    ``share``: with several processes, the position of these B images in the whole batch; the anchors are these images,
    the candidates those of all processes. Every process must call it. The gradient is then that of the sum of all
    processes' losses: the mean over processes of the gradients of (processes / images of all) x (sum of own losses) is
    the whole batch's.

    ``temperature``: above 0; a number, or a tensor with one element, which gets a gradient if it requires one. Raises
    ConfigError for any other temperature and for projections of other shapes.

    >>> z = torch.eye(4)
    >>> nt_xent(z, z, temperature=0.1).shape  # per image; its mean is the batch's loss
    torch.Size([4])
    """
    z, temperature = _normalised(z_a, z_b), checked_temperature(temperature)
    if share is not None or len(z_a) > TILED_ABOVE:
        return _tiled(z, temperature, share).mean(dim=0)  # [B]
    log_partition, positive = _whole(z, temperature)
    return log_partition.mean(dim=0) - positive  # [B]


def anchor_losses(
    z_a: Tensor, z_b: Tensor, temperature: float | Tensor, share: Share | None = None
) -> Tensor:
    """-log p of every anchor [2, B], p the softmax probability of its positive; :func:`nt_xent` is their mean.

    The same arguments and errors. For losses that weight anchors individually.
    """
    z, temperature = _normalised(z_a, z_b), checked_temperature(temperature)
    if share is not None or len(z_a) > TILED_ABOVE:
        return _tiled(z, temperature, share)
    log_partition, positive = _whole(z, temperature)
    return log_partition - positive


def _normalised(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Both views' projections [2B, D] at length 1, in fp32 or fp64."""
    _require_projections(z_a, z_b)
    with torch.autocast(z_a.device.type, enabled=False):
        z = torch.cat([z_a, z_b])
        return F.normalize(z if z.dtype == torch.float64 else z.float(), dim=1)


def _tiled(z: Tensor, temperature: float | Tensor, share: Share | None) -> Tensor:
    """-log p [2, B] of normalised projections [2B, D]."""
    with torch.autocast(z.device.type, enabled=False):
        return tiled_anchor_losses(z, temperature, share).view(2, -1)


def _whole(z: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """Logarithm of every anchor's partition function [2, B], and the logit of every image's positive pair [B]."""
    with torch.autocast(z.device.type, enabled=False):
        logits = z @ z.T / temperature  # [2B, 2B]
        itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        log_partition = logits.masked_fill(itself, -torch.inf).logsumexp(dim=1)  # [2B]
        batch = len(z) // 2
        # from the same matrix, so that the loss never rounds below zero
        positive = logits[:batch, batch:].diagonal()
        return log_partition.view(2, batch), positive


def _require_projections(z_a: Tensor, z_b: Tensor) -> None:
    if not (isinstance(z_a, Tensor) and isinstance(z_b, Tensor)):
        raise ConfigError(
            "nt_xent takes projections as tensors [B, D], got "
            f"{type(z_a).__name__} and {type(z_b).__name__}."
        )
    if z_a.ndim != 2 or z_a.shape != z_b.shape or not len(z_a):
        raise ConfigError(
            "nt_xent takes projections [B, D] of two views of the same B >= 1 images, got "
            f"{list(z_a.shape)} and {list(z_b.shape)}."
        )
    if not (z_a.is_floating_point() and z_b.is_floating_point()):
        raise ConfigError(
            f"nt_xent takes floating-point projections, got {z_a.dtype} and {z_b.dtype}."
        )


def checked_temperature(temperature: float | Tensor) -> float | Tensor:
    """A positive number unchanged, a tensor with one element as a scalar; raises ConfigError for anything else."""
    if not isinstance(temperature, Tensor):
        is_number = isinstance(temperature, Real) and not isinstance(temperature, bool)
        if not (is_number and SMALLEST_TEMPERATURE <= temperature <= LARGEST_TEMPERATURE):
            raise ConfigError(f"{_IN_RANGE}, got {shown(temperature)}. The paper's is 0.2.")
        return float(temperature)
    if temperature.numel() != 1 or not temperature.is_floating_point():
        raise ConfigError(
            "temperature must be a number or a floating-point tensor with one element, got "
            f"{temperature.dtype} {list(temperature.shape)}."
        )
    scalar = temperature.reshape(())
    in_range = (scalar >= SMALLEST_TEMPERATURE) & (scalar <= LARGEST_TEMPERATURE)
    positive = (scalar > 0) & in_range & scalar.isfinite()  # half precision has no such limits
    if scalar.is_cuda or torch.compiler.is_compiling():
        torch._assert_async(positive, _IN_RANGE)  # checked on the device; the host does not wait
    elif not positive:
        raise ConfigError(f"{_IN_RANGE}, got {float(scalar)}. The paper's is 0.2.")
    return scalar
