"""The self-competitor: a tied twin of any network, with its smallest weights masked (SDCLR, Jiang et al. 2021).

The twin is a real module whose parameters ARE the network's. Prunable weights are read through a mask, norm layers
that keep statistics are the twin's own, and the network itself is never touched: its state_dict stays that of the
plain backbone. Plain modules and numbers in; this file trains nothing and knows no loss.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sdclr.errors import ConfigError
from sdclr.stateless_random import Stream, derive, uniforms

Norms = Literal["own", "own_all", "shared"]
Prunable = Literal["conv", "conv+linear"] | Callable[[str, nn.Module], bool]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def magnitude_masks(weights: Iterable[Tensor], prune_ratio: float) -> list[Tensor]:
    """bool masks of the weights' shapes that keep the largest magnitudes under ONE threshold for all of them.

    A weight is kept when |w| >= the ceil(prune_ratio * n)-th smallest of all n magnitudes (0-based, at most n - 1),
    so ties at the threshold are all kept and at least one weight always survives.
    """
    weights = [w.detach() for w in weights]
    magnitudes = torch.cat([w.abs().flatten() for w in weights])
    k = min(math.ceil(prune_ratio * magnitudes.numel()), magnitudes.numel() - 1)
    threshold = magnitudes.kthvalue(k + 1).values  # 1-based; exact with ties, unlike an interpolating quantile
    return [w.abs() >= threshold for w in weights]


class SelfCompetitor(nn.Module):
    """The network's own pruned self: same call signature, same parameters, masked where pruned, its own norms.

    ``network``: any nn.Module. ``prune_ratio``: share of the prunable weights removed, in [0, 1).
    ``norms``: ``own`` gives the twin its own batch norms (affine and statistics), ``own_all`` also its own layer and
    group norms, ``shared`` uses the network's very own layers for both branches.
    ``prunable``: ``conv`` (the paper's: every convolution), ``conv+linear`` (for transformers), or a function
    (name, module) -> bool; ``spared`` names submodules that are never pruned, such as the projector.
    ``random_share``: share of the prunable weights removed at random instead of by magnitude, at most prune_ratio;
    drawn anew at every refresh from ``seed``.

    Train it together with the network: one optimiser over the parameters of both (duplicates count once), one loss,
    one backward. Call :meth:`refresh_masks` at the start of every epoch. Its state_dict holds only what is its own:
    norms and masks. It cannot be pickled; save its state_dict.
    Raises ConfigError when nothing is prunable, or a prunable weight is parametrised or used by two modules.
    """

    mask_churn: Tensor
    """Share of the prunable weights whose mask changed at the last refresh."""

    def __init__(
        self,
        network: nn.Module,
        *,
        prune_ratio: float = 0.9,
        norms: Norms = "own",
        prunable: Prunable = "conv",
        spared: Iterable[str] = (),
        random_share: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= prune_ratio < 1:
            hint = f" It is a fraction; did you mean {prune_ratio / 100:g}?" if 1 <= prune_ratio <= 100 else ""
            raise ConfigError(f"method.prune_ratio must be in [0, 1), got {prune_ratio}.{hint}")
        if not 0 <= random_share <= prune_ratio:
            raise ConfigError(f"method.random_share must be in [0, prune_ratio = {prune_ratio}], got {random_share}.")
        self.prune_ratio, self.random_share, self.seed = prune_ratio, random_share, seed
        targets = list(_prunable_weights(network, prunable, tuple(spared)))  # before copying: fails early
        self.twin = _tied_twin(network, norms)
        self._ties = list(_tied_tensors(network, self.twin))
        self._masked = [_mask_weight(self.twin.get_submodule(module), name) for module, name in targets]
        network_tensors = {id(tensor) for tensor in (*network.parameters(), *network.buffers())}
        state = self.state_dict(keep_vars=True)
        self._tied_keys = [key for key, tensor in state.items() if id(tensor) in network_tensors]
        self.register_buffer("mask_churn", torch.zeros(()))
        self.register_state_dict_post_hook(_drop_tied_keys)
        self.register_load_state_dict_pre_hook(_add_tied_keys)
        self.register_load_state_dict_post_hook(_tie_again)
        self.refresh_masks()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.twin(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SelfCompetitor:
        super()._apply(fn, recurse)
        self._restore_ties()  # .to() moves parameters where they are, but makes every buffer anew
        return self

    @torch.no_grad()
    def refresh_masks(self, draw: int = 0) -> None:
        """Prune the CURRENT weights anew, always starting from all of them. ``draw`` counts the random draws."""
        if self._restore_ties():
            warnings.warn(
                "the network's tensors were replaced (load_state_dict(assign=True)?); the competitor now follows the "
                "new ones. An optimizer built before still holds the old ones: build it again.",
                stacklevel=2,
            )
        masks = magnitude_masks([list_.original for list_ in self._masked], self.prune_ratio - self.random_share)
        num_weights = sum(m.numel() for m in masks)
        changed = torch.zeros((), dtype=torch.int64, device=masks[0].device)
        for layer, (masked, mask) in enumerate(zip(self._masked, masks, strict=True)):
            if self.random_share:
                mask &= self._survives_chance(mask, num_weights, derive(self.seed, Stream.PRUNING, draw, layer))
            changed += (masked[0].mask != mask).sum()
            masked[0].mask.copy_(mask)
        self.mask_churn.copy_(changed / num_weights)

    def masks(self) -> dict[str, Tensor]:
        """The current masks by the name of the masked parameter in the network; True is kept."""
        names = {id(tie.twin_tensor()): tie.name for tie in self._ties}
        return {names[id(masked.original)]: masked[0].mask for masked in self._masked}

    def sparsity(self) -> Tensor:
        """The share of prunable weights that are masked right now, a scalar on the masks' device."""
        masks = [masked[0].mask for masked in self._masked]
        kept = torch.stack([m.sum() for m in masks]).sum()
        return 1 - kept / sum(m.numel() for m in masks)

    def _survives_chance(self, mask: Tensor, num_weights: int, key: int) -> Tensor:
        """Where a weight is not hit by the random share: a position is hit with n_random / (n - n_magnitude)."""
        removed = math.ceil((self.prune_ratio - self.random_share) * num_weights)
        probability = self.random_share * num_weights / max(num_weights - removed, 1)
        positions = torch.arange(mask.numel(), device=mask.device)
        return uniforms(key, positions, 1).view(mask.shape) >= probability

    def _restore_ties(self) -> bool:
        """Point the twin at the network's tensors again; True if any parameter had been replaced."""
        broken = [tie for tie in self._ties if tie.twin_tensor() is not tie.network_tensor()]
        parameters = any(isinstance(tie.network_tensor(), nn.Parameter) for tie in broken)
        for tie in broken:
            tie.restore()
        return parameters  # buffers are replaced by a .to() of the network: nothing to tell anyone


class _Mask(nn.Module):
    """The parametrisation that reads a weight through its mask; masked weights get no gradient from this branch."""

    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.mask, weight, 0.0)


class _Tie(NamedTuple):
    """One tensor that both branches use: where the network keeps it and where the twin does."""

    name: str
    network_slot: tuple[dict[str, Any], str]
    twin: nn.Module
    key: str

    def network_tensor(self) -> Tensor:
        return self.network_slot[0][self.network_slot[1]]

    def _twin_slot(self) -> tuple[dict[str, Any], str]:
        if parametrize.is_parametrized(self.twin, self.key):
            return self.twin.parametrizations[self.key]._parameters, "original"  # type: ignore[union-attr,index]
        slot = self.twin._parameters if self.key in self.twin._parameters else self.twin._buffers
        return slot, self.key

    def twin_tensor(self) -> Tensor:
        slot, key = self._twin_slot()
        return slot[key]

    def restore(self) -> None:
        slot, key = self._twin_slot()
        slot[key] = self.network_tensor()


def _keeps_statistics(module: nn.Module) -> bool:
    return getattr(module, "running_mean", None) is not None


def _is_own(module: nn.Module, norms: Norms) -> bool:
    if norms == "shared":
        return False
    return _keeps_statistics(module) or (norms == "own_all" and isinstance(module, nn.LayerNorm | nn.GroupNorm))


def _tensors(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """The tensors a module holds itself: (the dict that holds it, its name there, the tensor)."""
    for slot in (module._parameters, module._buffers):
        yield from ((slot, key, tensor) for key, tensor in slot.items() if tensor is not None)


def _tied_twin(network: nn.Module, norms: Norms) -> nn.Module:
    """A deep copy of the network in which everything but the twin's own norms is the network's very own tensor."""
    if norms not in ("own", "own_all", "shared"):
        raise ConfigError(f"method.norms must be own, own_all or shared, got {norms!r}.")
    memo: dict[int, Any] = {}
    for module in network.modules():
        if not _is_own(module, norms):
            memo |= {id(tensor): tensor for _, _, tensor in _tensors(module)}
        if norms == "shared" and _keeps_statistics(module):
            memo[id(module)] = module  # num_batches_tracked and friends must be one thing, not two
    return copy.deepcopy(network, memo)


def _tied_tensors(network: nn.Module, twin: nn.Module) -> Iterator[_Tie]:
    for (prefix, module), (_, twin_module) in zip(
        network.named_modules(remove_duplicate=False), twin.named_modules(remove_duplicate=False), strict=True
    ):
        if module is twin_module:
            continue
        twin_tensors = {key: tensor for _, key, tensor in _tensors(twin_module)}
        for slot, key, tensor in _tensors(module):
            if twin_tensors[key] is tensor:
                yield _Tie(f"{prefix}.{key}" if prefix else key, (slot, key), twin_module, key)


def _prunable_weights(network: nn.Module, prunable: Prunable, spared: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(module name, parameter name) of every weight to prune, in the network's order."""
    if isinstance(prunable, str) and prunable not in ("conv", "conv+linear"):
        raise ConfigError(f"method.prunable must be conv or conv+linear, got {prunable!r}.")
    users: dict[int, list[str]] = {}
    for name, module in network.named_modules(remove_duplicate=False):
        for _, key, tensor in _tensors(module):
            users.setdefault(id(tensor), []).append(f"{name}.{key}")
    found = 0
    for name, module in network.named_modules():
        if any(name == s or name.startswith(f"{s}.") for s in spared):
            continue
        for key in _weights_of(name, module, prunable):
            if parametrize.is_parametrized(module, key):
                raise ConfigError(f"{name}.{key} is parametrised already; remove that, or leave it out of prunable.")
            if len(users[id(getattr(module, key))]) > 1:
                shared = " and ".join(users[id(getattr(module, key))])
                raise ConfigError(f"{shared} are one tensor; leave them out with prunable=<function> or spared=[...].")
            found += 1
            yield name, key
    if not found:
        raise ConfigError("nothing to prune: the network has no such weights. Try method.prunable=conv+linear.")


def _weights_of(name: str, module: nn.Module, prunable: Prunable) -> list[str]:
    if callable(prunable):
        chosen = prunable(name, module)
    else:
        linear = (nn.Linear, nn.MultiheadAttention) if prunable == "conv+linear" else ()
        chosen = isinstance(module, (*_CONVOLUTIONS, *linear))
    keys = ("weight", "in_proj_weight") if chosen else ()  # packed attention has no .weight
    return [
        key
        for key in keys
        if isinstance(module._parameters.get(key), Tensor) or parametrize.is_parametrized(module, key)
    ]


def _mask_weight(module: nn.Module, name: str) -> Any:
    weight = getattr(module, name)
    parametrize.register_parametrization(module, name, _Mask(weight), unsafe=True)  # shape-preserving: skip the check
    return module.parametrizations[name]  # type: ignore[index]


def _drop_tied_keys(module: Any, state: dict[str, Any], prefix: str, _: Any) -> None:
    for key in module._tied_keys:
        state.pop(prefix + key, None)


def _add_tied_keys(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    # loading must find every key; the tied ones are loaded as what they already are
    current = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    for key in module._tied_keys:
        state.setdefault(prefix + key, current[key].detach())


def _tie_again(module: Any, _: Any) -> None:
    module._restore_ties()  # assign=True puts new tensors in place of the shared ones
