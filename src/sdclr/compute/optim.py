"""Optimisers and the learning-rate schedule, a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sdclr.errors import CheckpointError, ConfigError


def build_optimizer(
    parameters: Iterable[nn.Parameter],
    *,
    name: str,
    momentum: float,
    weight_decay: float,
    decay_norms_and_biases: bool = True,
) -> torch.optim.Optimizer:
    """An optimiser over the given parameters, each once; set its learning rate before every step."""
    unique = list(dict.fromkeys(p for p in parameters if p.requires_grad))
    if decay_norms_and_biases:
        groups = [{"params": unique, "weight_decay": weight_decay}]
    else:
        decayed = [p for p in unique if p.ndim > 1]
        spared = [p for p in unique if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": spared, "weight_decay": 0.0},
        ]
    # one kernel; on a CPU the update is half a percent of a step anyway
    fused = any(p.is_cuda for p in unique)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=momentum, fused=fused)
    if name == "lars":
        from timm.optim.lars import Lars  # timm takes seconds to import

        return Lars(groups, lr=0.0, momentum=momentum)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=(momentum, 0.999), fused=fused)
    raise ConfigError(f"optimizer.name must be sgd, lars or adamw, got {name!r}.")


def state_names(name: str, momentum: float) -> tuple[str, ...]:
    """The state that an optimiser keeps for every weight from its first step on; a checkpoint must hold all of it."""
    if name == "adamw":
        return ("step", "exp_avg", "exp_avg_sq")
    return ("momentum_buffer",) if momentum else ()


def state_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor | float]:
    """<position of the weight>.<name> -> the optimiser's state for it."""
    state = optimizer.state_dict()["state"]
    return {
        f"{position}.{name}": value
        for position, values in state.items()
        for name, value in values.items()
    }


def restore_state(
    optimizer: torch.optim.Optimizer, saved: dict[str, Any], names: tuple[str, ...], where: str
) -> None:
    """Restore :func:`state_of`. CheckpointError unless all weights have exactly ``names``, of the weight's shape."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    expected = {
        f"{position}.{name}": () if name == "step" else tuple(weight.shape)
        for position, weight in enumerate(weights)
        for name in names
    }
    found = {key: tuple(getattr(value, "shape", ())) for key, value in saved.items()}
    if wrong := [
        key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)
    ]:
        raise CheckpointError(
            f"{where} has optimiser state that does not fit: {len(wrong)} missing, unknown or of another shape "
            f"({', '.join(sorted(wrong)[:3])}{', ...' if len(wrong) > 3 else ''})."
        )
    state: dict[int, dict[str, Any]] = {}
    for key, value in saved.items():
        position, _, name = key.partition(".")
        if name != "step":  # in the layout of its weight: a fused update refuses any other
            value = torch.empty_like(weights[int(position)]).copy_(value)
        state.setdefault(int(position), {})[name] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def learning_rate(
    step: int, *, peak: float, total_steps: int, warmup_steps: float, final: float = 1e-6
) -> float:
    """Learning rate of step 1 .. total_steps: linear warm-up from 0, then half a cosine down to ``final``.

    Step i uses the value at i, as the reference does: 0 is never used, and the last step uses exactly ``final``
    (unless the warm-up is not shorter than the run: then the run ends while still warming up).
    """
    if step <= warmup_steps:
        return peak * step / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return final + 0.5 * (peak - final) * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value


def step_if(finite: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """``optimizer.step()`` if ``finite``, a boolean scalar on the weights' device, is true; otherwise nothing changes.

    Neither weights nor existing state change then, and the host does not wait for the answer. Gating the gradients
    would not be enough: momentum and weight decay move the weights without them.
    """
    # fused kernels check found_inf themselves
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.found_inf = finite.logical_not().float()  # type: ignore[attr-defined]
        optimizer.step()
        del optimizer.found_inf  # type: ignore[attr-defined]
    elif finite.device.type == "cpu":  # the answer is on the host already
        if finite:
            optimizer.step()
    else:
        _step_and_undo(finite, optimizer)


@torch.no_grad()
def _step_and_undo(finite: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Take the step, then undo it unless ``finite``; works for any optimiser, costs a copy."""
    before = {name: tensor.clone() for name, tensor in _moving(finite.device, optimizer).items()}
    optimizer.step()
    for name, tensor in _moving(finite.device, optimizer).items():
        # new state starts at zero
        tensor.copy_(torch.where(finite, tensor, before.get(name, 0.0)))


def _moving(
    device: torch.device, optimizer: torch.optim.Optimizer
) -> dict[tuple[int, str], Tensor]:
    """Every weight and every tensor of state on ``device``, under a name that a step does not change."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    moving = {(position, ""): weight for position, weight in enumerate(weights)}
    for position, weight in enumerate(weights):
        for name, value in optimizer.state[weight].items() if weight in optimizer.state else ():
            if isinstance(value, Tensor) and value.device == device:
                moving[position, name] = value
    return moving
