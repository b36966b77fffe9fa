"""Does this machine's CPU library survive the gradient of a strided 1 x 1 convolution?

    python benchmarks/strided_gradient.py

Every shape runs in a process of its own on two threads and is compared with float64; crashes, endless loops and wrong
gradients are counted by input channels and memory layout. docs/measurements.md holds what was seen, and
``sdclr.compute.device.resolve_memory_format`` acts on it.
"""

from __future__ import annotations

import os
import time

import torch
from torch import Tensor, nn

CHANNELS, SIZES, BATCHES = (4, 8, 12, 15, 16, 24, 32, 64), (16, 32), (3, 7, 8, 21, 85)
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
TIMEOUT_SECONDS = 10


def input_gradient(convolution: nn.Conv2d, images: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    convolution(images).square().sum().backward()
    assert images.grad is not None
    return images.grad


def right(channels: int, size: int, batch: int, layout: torch.memory_format) -> bool:
    convolution = nn.Conv2d(channels, 2 * channels, 1, stride=2, bias=False).to(
        memory_format=layout
    )
    images = torch.rand(batch, channels, size, size).to(memory_format=layout)
    for _ in range(3):
        gradient = input_gradient(convolution, images)
    exact = input_gradient(
        convolution.double().to(memory_format=torch.contiguous_format), images.double().contiguous()
    )
    return torch.allclose(gradient.double(), exact, atol=1e-3)


def survives(channels: int, size: int, batch: int, layout: torch.memory_format) -> bool:
    """Whether a child process ends in time with the right gradient."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the allocator's last words
        os._exit(0 if right(channels, size, batch, layout) else 1)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


def main() -> None:
    torch.set_num_threads(2)
    shapes = [(size, batch) for size in SIZES for batch in BATCHES]
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, two threads")
    for name, layout in LAYOUTS.items():
        for channels in CHANNELS:
            failed = [shape for shape in shapes if not survives(channels, *shape, layout)]
            print(
                f"{name:<14} {channels:>3} channels: {len(failed)} of {len(shapes)} shapes fail",
                flush=True,
            )


if __name__ == "__main__":
    main()
