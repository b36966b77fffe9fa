"""A method and the sample -> numbers. Reads no settings; the method, its buffers and generators are left unchanged.

n images of the sample, D projection dim, F feature dim.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sdclr.batch import Views
from sdclr.compute.device import autocast, in_float64
from sdclr.compute.process_state import default_generators
from sdclr.compute.stateless_random import Stream, derive
from sdclr.evaluation import health
from sdclr.evaluation.representation import rank_of, spectrum, view_distances
from sdclr.jobs.pretrain.health_sample import HealthSample
from sdclr.jobs.pretrain.step import laid_out
from sdclr.jobs.pretrain.training import Training
from sdclr.methods import ContrastiveMethod, Method
from sdclr.methods.sdclr import SDCLR
from sdclr.methods.self_competitor import SelfCompetitor

_SAME_PIXEL = 0.01
"""Two views are the same picture below this mean difference of their pixels in [0, 1]."""
_BLANK = 0.005
"""A view is blank below this standard deviation of its pixels, in every channel."""
_PROBED = 32
"""Projections with which the loss is measured."""


def measure_views(sample: HealthSample) -> dict[str, float]:
    """Measure the views themselves, without any network."""
    a, b = sample.views.a.float(), sample.views.b.float()
    # per channel: a difference between channels is colour, not structure
    blank = torch.cat([a, b]).flatten(2).std(dim=2).amax(dim=1) < _BLANK
    same = (a - b).abs().flatten(1).mean(dim=1) < _SAME_PIXEL
    likeness = _likeness_of_crops(sample.copies.float())
    by_pixels: dict[str, float] = {}
    if sample.labels is not None and sample.pixels is not None:
        deviations = health.deviations_from_chance(sample.pixels, sample.labels)
        by_pixels["pixel_knn_deviations"] = deviations
    return {
        **by_pixels,
        "blank_views": float(blank.float().mean()),
        "identical_views": float(same.float().mean()),
        **({"crop_likeness": likeness} if likeness is not None else {}),
    }


def _likeness_of_crops(copies: Tensor) -> float | None:
    """Median correlation of grey views of one picture, the larger of a view's and its mirror image's.

    1 if all were cut at the same place: colours and flips do not count. None if all pictures are blank.
    """
    grey = copies.mean(dim=2)  # [pictures, copies, S, S]
    grey = grey - grey.mean(dim=(2, 3), keepdim=True)
    length = torch.linalg.vector_norm(grey.flatten(2), dim=2, keepdim=True)
    side = grey.shape[-1]
    grey = grey[(length > _BLANK * side).all(dim=(1, 2))]
    if not len(grey):
        return None
    flat = nn.functional.normalize(grey.flatten(2), dim=2)
    mirrored = nn.functional.normalize(grey.flip(3).flatten(2), dim=2)
    likeness = torch.maximum(flat @ flat.mT, flat @ mirrored.mT)
    above = torch.ones(likeness.shape[1:], dtype=torch.bool).triu(1)
    return float(likeness[:, above].median())


def measure_network(training: Training, sample: HealthSample) -> dict[str, float]:
    """Measure the network on the sample, in eval mode."""
    method = training.method
    with _as_it_was(training), torch.no_grad():
        projected = _project(training, sample.views)
        found = _of_projections(projected)
        found |= _of_features(projected.features, sample)
        found |= _of_the_loss(method, projected)
        if projected.competitor_b is not None:
            found |= _of_the_competitor(projected, sample)
    return {name: value for name, value in found.items() if math.isfinite(value)}


class _Projected:
    """Projections and features, float32 on the CPU."""

    def __init__(self, a: Tensor, b: Tensor, competitor_b: Tensor | None, features: Tensor) -> None:
        self.a, self.b, self.competitor_b, self.features = a, b, competitor_b, features


def _project(training: Training, views: Views) -> _Projected:
    features: list[Tensor] = []
    method = training.method
    branch_of_b = _branch_of_b(method)
    a, b, competitor_b = [], [], []
    on_device = training.device
    hook = training.backbone.register_forward_hook(lambda _, __, out: features.append(out))
    try:
        for part in torch.arange(len(views.a)).split(64):
            here = Views(views.a[part].to(on_device), views.b[part].to(on_device), part)
            placed = laid_out(training, here)
            with autocast(training.device, training.precision):
                a.append(method.network(placed.a))
                kept = len(features)
                b.append(method.network(placed.b))
                del features[kept:]
                if branch_of_b is not None:
                    competitor_b.append(branch_of_b(placed.b))
                    del features[kept:]
    finally:
        hook.remove()
    whole = [
        torch.cat(parts).flatten(1).float().cpu() if parts else torch.zeros(0, 0)
        for parts in (a, b, competitor_b, features)
    ]
    return _Projected(whole[0], whole[1], whole[2] if competitor_b else None, whole[3])


def competitor_of(method: Method) -> SelfCompetitor | None:
    """The method's pruned twin, if it has one, or that of the method it wraps."""
    return next((one for one in method.modules() if isinstance(one, SelfCompetitor)), None)


def _branch_of_b(method: Method) -> nn.Module | None:
    """What the loss contrasts the network with: its pruned twin, or the stale copy in its place."""
    for one in method.modules():
        if isinstance(one, SDCLR) and one.stale_copy is not None:
            return one.stale_copy
    return competitor_of(method)


def _of_projections(z: _Projected) -> dict[str, float]:
    both = torch.cat([z.a, z.b])
    return {
        "top1": health.contrastive_top1(z.a, z.b),
        "positive_rank": float(health.positive_ranks(z.a, z.b).mean()),
        "spread": health.embedding_std(both) / health.largest_embedding_std(both.shape[1]),
        "alignment": health.alignment(z.a, z.b),
        "uniformity": health.uniformity(z.a),
        "lidar": health.lidar(torch.stack([z.a, z.b], dim=1)),
    }


def _of_features(features: Tensor, sample: HealthSample) -> dict[str, float]:
    if len(features) != len(sample.views.a):  # backbone not used exactly once per pass
        return {}
    singular = spectrum(features)
    found = {"rank": rank_of(singular)}
    if (alpha := health.power_law(singular.square())) is not None:
        found["alpha_req"] = alpha
    if sample.labels is not None:
        hits = health.knn_hits(features, sample.labels)
        found["knn"] = float(hits.mean())
        found["knn_deviations"] = health.deviations_from_chance(features, sample.labels)
        for name, classes in sample.groups.items():
            rows = torch.isin(torch.from_numpy(sample.labels), torch.tensor(classes)).numpy()
            if rows.any():
                found[f"knn_{name}"] = float(hits[rows].mean())
    return found


def _of_the_loss(method: Method, z: _Projected) -> dict[str, float]:
    """The loss of the sample, and the temperature of the equivalent NT-Xent, fitted with random projections."""
    if not isinstance(method, ContrastiveMethod):
        return {}
    device = next(method.parameters()).device
    of_sample = _losses(method, z.a.to(device), z.b.to(device), len(z.a))
    found = {"sample_loss": float(of_sample.mean())}
    generator = torch.Generator().manual_seed(0)
    a, noise = torch.randn(2, _PROBED, max(z.a.shape[1], 2), generator=generator)
    # positives hardly nearer than the rest, so that the losses differ at any temperature
    b = 0.2 * a + noise
    # a method may keep state for each image, of which there may be fewer
    losses = _losses(method, a.to(device), b.to(device), len(z.a))
    fitted = health.fitted_temperature(a, b, losses.cpu())
    if fitted.residual < 0.01:
        found["temperature"] = fitted.temperature
    return found


def _losses(method: ContrastiveMethod, a: Tensor, b: Tensor, num_images: int) -> Tensor:
    index = torch.arange(len(a), device=a.device) % num_images
    return method.losses(a, b, Views(a, b, index)).float()


def _of_the_competitor(z: _Projected, sample: HealthSample) -> dict[str, float]:
    assert z.competitor_b is not None
    disagreement = view_distances(z.a, z.competitor_b) / 2  # 1 - cosine
    found = {
        "competitor_rank": float(health.positive_ranks(z.a, z.competitor_b).mean()),
        "disagreement": float(disagreement.mean()),
    }
    for name, classes in sample.groups.items():
        rows = torch.isin(torch.from_numpy(sample.labels), torch.tensor(classes))
        if rows.any():
            found[f"disagreement_{name}"] = float(disagreement[rows].mean())
    return found


@contextlib.contextmanager
def _as_it_was(training: Training) -> Iterator[None]:
    """Put the method in eval mode; restore modes, buffers and generators afterwards."""
    method = training.method
    modes = {module: module.training for module in method.modules()}
    buffers = {name: buffer.clone() for name, buffer in method.named_buffers()}
    try:
        with default_generators(derive(training.config.seed, Stream.HEALTH), training.device):
            method.eval()
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for name, buffer in method.named_buffers():
            if not torch.equal(buffer, buffers[name]):
                with torch.no_grad():
                    buffer.copy_(buffers[name])


class WeightWatch:
    """Changes of weights and masks since the last look. Holds one copy of them."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self._weights = {name: w.detach().clone() for name, w in _weights(method).items()}
        self._masks = {name: mask.clone() for name, mask in _masks(method).items()}

    @torch.no_grad()
    def look(self) -> tuple[dict[str, float], dict[str, list[str]]]:
        """Numbers, and the names of the layers they count."""
        now = _weights(self._method)
        change, size = [], []
        for name, weight in now.items():
            before = self._weights[name]
            change.append(in_float64(weight - before).norm())
            size.append(in_float64(before).norm())
            before.copy_(weight)
        moved, was = torch.stack(change).cpu(), torch.stack(size).cpu()
        layers = {
            "frozen": [name for name, one in zip(now, moved.tolist(), strict=True) if one == 0],
            "constant": [name for name, weight in now.items() if _is_constant(weight)],
            "dead_norms": _dead_norms(self._method),
        }
        found = {
            "weight_change": float(moved.norm() / was.norm().clamp(min=1e-30)),
            **{f"{name}_layers": float(len(names)) for name, names in layers.items()},
        }
        return found | self._masks_since(), layers

    def _masks_since(self) -> dict[str, float]:
        masks = _masks(self._method)
        if not masks:
            return {}
        changed, kept, total = 0.0, 0.0, 0
        for name, mask in masks.items():
            changed += float((mask != self._masks[name]).sum())
            kept += float(mask.sum())
            total += mask.numel()
            self._masks[name].copy_(mask)
        return {"masks_changed": changed / total, "pruned": 1 - kept / total}


def _weights(method: Method) -> Mapping[str, Tensor]:
    """The network's matrices and filters, without norms and biases, which are small and free to decay."""
    return {
        name: weight
        for name, weight in method.network.named_parameters()
        if weight.ndim >= 2 and weight.numel() >= 8
    }


def _masks(method: Method) -> Mapping[str, Tensor]:
    competitor = competitor_of(method)
    return {} if competitor is None else competitor.masks()


def _is_constant(weight: Tensor) -> bool:
    return bool(weight.float().std() <= 1e-4 * weight.float().mean().abs())


def _dead_norms(method: Method) -> list[str]:
    """Norm layers in which at least half of the channels give the same number for every image."""
    dead = []
    for name, module in method.named_modules():
        scale: Any = getattr(module, "weight", None)
        if not isinstance(module, _BatchNorm | nn.LayerNorm | nn.GroupNorm):
            continue
        constant = torch.zeros((), dtype=torch.bool)
        if isinstance(scale, Tensor):
            constant = constant.to(scale.device) | (scale.detach().abs() < 1e-6)
        variance = getattr(module, "running_var", None)
        if isinstance(variance, Tensor):
            constant = constant.to(variance.device) | (variance < 1e-12)
        if constant.ndim and bool(constant.float().mean() >= 0.5):
            dead.append(name)
    return dead
