"""Small checkpoints in the authors' three kinds, made from the golden one (SDCLR, ResNet-18 of width 8, 32 px)."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]


def golden_state(golden: Path) -> State:
    return torch.load(golden / "upstream_sdclr_resnet18_w8.pt", weights_only=True)["state_dict"]


def as_simclr(state: State) -> State:
    """One set of norms and a 2-layer head, as their SimCLR saves it."""
    single = {
        key.replace(".bn_list.0.", "."): value
        for key, value in state.items()
        if ".bn_list.1." not in key
    }
    head = {
        key.replace("fc3", "fc2").replace("bn3", "bn2"): value
        for key, value in single.items()
        if ".fc.fc3" in key or ".fc.bn3" in key
    }
    return {
        key: value
        for key, value in single.items()
        if ".fc." not in key or "1." in key.split(".fc.")[1]
    } | head


def as_tuned(state: State, num_classes: int) -> State:
    """Stock names, one set of norms and a classifier, as their fine-tuning saves it on CIFAR."""
    tuned: State = OrderedDict()
    for key, tensor in state.items():
        if ".bn_list.1." in key or key.startswith("module.fc."):
            continue
        name = key.removeprefix("module.").replace(".bn_list.0.", ".")
        tuned[
            name.replace("downsample.conv", "downsample.0").replace("downsample.bn", "downsample.1")
        ] = tensor
    generator = torch.Generator().manual_seed(0)
    tuned["fc.weight"] = torch.randn(num_classes, 64, generator=generator)
    tuned["fc.bias"] = torch.zeros(num_classes)
    return tuned


def save(path: Path, state: State, epoch: int, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"epoch": epoch, "state_dict": state, "optim": {}} | more, path)
    return path
