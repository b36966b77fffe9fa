"""What a step costs, as ratios from one run: SDCLR against SimCLR and against the reference's arithmetic.

    python benchmarks/step.py [--backbone resnet18] [--width 64] [--batch 128] [--size 32] [--repeats 7] [--json FILE]

One process; the variants take turns, so that a drifting machine hits them alike; ratios are medians over rounds.
Steps use ready-made views; views and mask refresh are measured on their own. The reference's arithmetic is re-stated
here, not copied: competitor forward without gradient, target forward and backward, competitor forward and backward, a
host sort of all weights once an epoch (22 steps). CPU and CUDA.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from sdclr import SDCLR, SelfCompetitor, SimCLR, Views, nt_xent
from sdclr.backbones import BackboneConfig, build_backbone, measure_feature_dim
from sdclr.data import ViewSpec, make_views
from sdclr.device import describe_device, keep_freed_memory, resolve_device, resolve_memory_format
from sdclr.methods.projector import Network, projector
from sdclr.optim import build_optimizer, set_learning_rate

STEPS_PER_EPOCH = 22  # CIFAR-10-LT at batch 512


def network(arguments: argparse.Namespace) -> Network:
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(name=arguments.backbone, width=arguments.width))
    return Network(backbone, projector(measure_feature_dim(backbone, arguments.size)))


def training_step(method: torch.nn.Module, loss: Callable[[Views], Tensor], views: Views) -> Callable[[], None]:
    """One optimiser step of ``method`` under ``loss``, which leaves gradients behind or returns what to derive."""
    optimizer = build_optimizer(method.parameters(), name="sgd", momentum=0.9, weight_decay=1e-4)
    set_learning_rate(optimizer, 1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(views).mean().backward()
        optimizer.step()

    return step


def reference_loss(method: SDCLR) -> Callable[[Views], Tensor]:
    """Two half losses: the first backward happens inside, the second is left to the caller."""

    def loss(views: Views) -> Tensor:
        with torch.no_grad():
            z_competitor = method.competitor(views.b)
        z_target = method.network(views.a)
        nt_xent(z_target, z_competitor, 0.2).mean().backward()
        return nt_xent(z_target.detach(), method.competitor(views.b), 0.2)

    return loss


def host_sort_refresh(competitor: SelfCompetitor) -> None:
    """The reference's way to masks: every magnitude to the host, a full sort, one comparison a layer."""
    weights = [p.detach() for p in competitor.parameters() if p.ndim == 4]
    magnitudes = torch.cat([w.abs().flatten().cpu() for w in weights])
    threshold = magnitudes.sort().values[int(0.9 * len(magnitudes))]
    for w in weights:
        (w.abs() >= threshold.to(w.device)).float()


# numerator, what it pays once an epoch, denominator
RATIOS: dict[str, tuple[str, str | None, str]] = {
    "sdclr_step_over_simclr_step": ("sdclr_step", "mask_refresh", "simclr_step"),
    "reference_step_over_simclr_step": ("reference_step", "host_sort", "simclr_step"),
    "host_sort_over_mask_refresh": ("host_sort", None, "mask_refresh"),
    "pil_views_over_views_32px": ("pil_views", None, "views"),
}


def round_ratios(times: dict[str, list[float]], above: str, per_epoch: str | None, below: str) -> list[float]:
    """One ratio a round: what ran back to back is compared, so that a machine that drifts does not decide."""
    extra = times[per_epoch] if per_epoch else [0.0] * len(times[above])
    return [(a + e / STEPS_PER_EPOCH) / b for a, e, b in zip(times[above], extra, times[below], strict=True)]


def seconds(action: Callable[[], object], device: torch.device) -> float:
    begun = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def pil_views(images: list[Image.Image]) -> Callable[[], object]:
    """The reference's chain, one image at a time."""
    chain = transforms.Compose(
        [
            transforms.RandomResizedCrop(32, (0.1, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.ToTensor(),
        ]
    )
    return lambda: [(chain(image), chain(image)) for image in images]


def variants(arguments: argparse.Namespace, device: torch.device) -> dict[str, Callable[[], object]]:
    batch, size = arguments.batch, arguments.size
    a, b = torch.rand(2, batch, 3, size, size, device=device)
    views = Views(a.to(memory_format=torch.channels_last), b.to(memory_format=torch.channels_last), torch.arange(batch))
    simclr, sdclr, reference = SimCLR(network(arguments)), SDCLR(network(arguments)), SDCLR(network(arguments))
    for method in (simclr, sdclr, reference):
        method.to(device).to(memory_format=resolve_memory_format("auto", method, device)).train()
    noise = torch.randint(0, 256, (batch, 3, 36, 36), generator=torch.Generator().manual_seed(0)).float()
    images = torch.nn.functional.avg_pool2d(noise, 5, 1).byte()  # smooth, 32 x 32
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    on_device, index = images.to(device), torch.arange(batch, device=device)
    return {
        "simclr_step": training_step(simclr, simclr, views),
        "sdclr_step": training_step(sdclr, sdclr, views),
        "reference_step": training_step(reference, reference_loss(reference), views),
        "mask_refresh": sdclr.competitor.refresh_masks,
        "host_sort": lambda: host_sort_refresh(reference.competitor),
        "views": lambda: make_views(on_device, index, ViewSpec(32), seed=0, epoch=0),
        "pil_views": pil_views(pictures),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    if device.type == "cpu":
        keep_freed_memory()
    actions = variants(arguments, device)
    times: dict[str, list[float]] = {name: [] for name in actions}
    for repeat in range(arguments.repeats + 1):
        for name, action in actions.items():
            taken = seconds(action, device)
            if repeat:  # the first round warms caches and allocators up
                times[name].append(taken)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {name: round_ratios(times, *parts) for name, parts in RATIOS.items()}
    facts = {
        "hardware": describe_device(device),
        "torch": torch.__version__,
        "setting": {k: v for k, v in vars(arguments).items() if k != "json"},
        "median_seconds": medians,
        "spread": {name: [min(values), max(values)] for name, values in times.items()},
        "ratios": {name: statistics.median(values) for name, values in ratios.items()},
        "ratio_spread": {name: [min(values), max(values)] for name, values in ratios.items()},
    }
    print(f"{facts['hardware']}, torch {torch.__version__}, {facts['setting']}")
    for name, value in medians.items():
        low, high = min(times[name]), max(times[name])
        print(f"  {name:<16} {value * 1e3:9.2f} ms   ({low * 1e3:.2f} .. {high * 1e3:.2f}, n = {arguments.repeats})")
    for name, values in ratios.items():
        print(f"  {name:<32} {statistics.median(values):6.2f}      ({min(values):.2f} .. {max(values):.2f})")
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
