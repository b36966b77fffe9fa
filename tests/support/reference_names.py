"""The reference's parameter names in ours, for the golden files."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

_HEAD = {"fc1": "0", "bn1": "1", "fc2": "3", "bn2": "4", "fc3": "6", "bn3": "7"}


def ours(name: str) -> str:
    if name.startswith("fc."):
        _, layer, leaf = name.split(".")
        return f"projector.{_HEAD[layer]}.{leaf}"
    return "backbone.net." + name.replace("downsample.conv", "downsample.0").replace(
        "downsample.bn", "downsample.1"
    )


def branch_state(
    arrays: Mapping[str, npt.NDArray[np.float64]], prefix: str, branch: int
) -> dict[str, torch.Tensor]:
    """The state of one branch, in our names: everything for branch 0, the norms alone for branch 1."""
    state = {}
    for key in arrays:
        if not key.startswith(prefix) or "normalize" in key:
            continue
        name = key.removeprefix(prefix)
        before, marker, after = name.partition("bn_list.")
        if marker:
            number, _, leaf = after.partition(".")
            if int(number) != branch:
                continue
            name = before + leaf
        elif branch == 1:
            continue
        state[ours(name)] = torch.tensor(arrays[key])
    return state
