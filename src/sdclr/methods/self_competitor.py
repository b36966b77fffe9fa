"""The self-competitor: a tied twin of any network, with its smallest weights masked (SDCLR, Jiang et al. 2021).

The twin is a real module whose parameters ARE the network's. Prunable weights are read through a mask, norm layers
that keep statistics are the twin's own, and the network itself is never modified: its state_dict stays that of the
plain backbone. Plain modules and numbers in; this file trains nothing and is independent of the loss.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdclr.compute.stateless_random import Stream, derive, uniforms
from sdclr.errors import ConfigError
from sdclr.methods.magnitude_masks import magnitude_masks
from sdclr.methods.module_attributes import (
    as_own,
    follow_hooks,
    followed_attributes,
    hooks_of,
    is_same,
)
from sdclr.methods.prunable_weights import (
    Layers,
    Prunable,
    checked_spared,
    held_elsewhere,
    left_whole,
    prunable_share,
    prunable_weights,
    rescaled_layers,
    resolve_prunable,
)
from sdclr.methods.tied_twin import (
    Norms,
    Tie,
    bound_hooks,
    changed_layers,
    is_own,
    layers,
    require_copyable,
    tensors,
    tied_twin,
)
from sdclr.methods.weight_mask import MaskedWeight
from sdclr.safe_text import first_of, shown

SMALL_SHARE = 0.25
"""Share of prunable weights below which a competitor hardly differs from the network."""


class SelfCompetitor(nn.Module):
    """The network's own pruned self: same call signature, same parameters, masked where pruned, its own norms.

    ``network``: any nn.Module. ``prune_ratio``: share of the prunable weights removed, in [0, 1).
    ``norms``: ``own`` gives the twin its own batch norms (affine and statistics), ``own_all`` also its own layer and
    group norms, ``shared`` uses the network's own layers for both branches.
    ``prunable``: ``conv`` (the paper's: every convolution), ``conv+linear`` (for transformers), ``auto`` (``conv``
    if convolutions have at least half of the network's weights, otherwise ``conv+linear``), or a function
    (name, module) -> bool; ``spared`` names submodules that are never pruned, such as the projector.
    ``random_share``: share of the prunable weights removed at random instead of by magnitude, at most prune_ratio;
    redrawn at every refresh from ``seed`` and the number of the draw. ``dropout``: share of the outputs of each
    prunable layer that this branch drops during training, drawn from torch's default generator.

    Train it together with the network: one optimiser over the parameters of both (duplicates count once), one loss,
    one backward. Call :meth:`refresh_masks` at the start of every epoch. Its state_dict contains only its own norms
    and masks. It cannot be pickled; save its state_dict.

    The network may change afterwards only in ways that the twin can follow. Each refresh compares the two: replaced
    tensors and changed plain attributes (a dropout's ``p``, a norm's ``momentum``) are adopted, new parameters with
    a warning, since an existing optimizer does not contain them. A layer of another type, a new or a missing layer
    and a new kind of parameter are a ConfigError.
    Raises ConfigError if nothing is prunable, if a prunable weight is computed from other parameters (parametrised,
    spectral_norm, torch.nn.utils.prune) or used by two modules, or if a part of the network cannot be copied. Warns if
    less than a quarter of the network's weights are prunable.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    >>> competitor = SelfCompetitor(network, prune_ratio=0.9)
    >>> round(float(competitor.sparsity()), 2)
    0.9
    >>> competitor.twin[0].parametrizations.weight.original is network[0].weight
    True
    """

    mask_churn: Tensor
    """Share of the prunable weights whose mask changed at the last refresh."""

    prunable_share: float
    """Share of ALL the network's weights that is prunable, not counting spared submodules."""

    prunable: Layers | Callable[[str, nn.Module], bool]
    """What is pruned; ``auto`` is resolved."""

    def __init__(
        self,
        network: nn.Module,
        *,
        prune_ratio: float = 0.9,
        norms: Norms = "own",
        prunable: Prunable = "conv",
        spared: Iterable[str] | str = (),
        random_share: float = 0.0,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise ConfigError(f"network must be an nn.Module, got {shown(repr(network), 60)}.")
        _check_shares(prune_ratio, random_share, dropout)
        self.prune_ratio, self.random_share, self.seed = prune_ratio, random_share, seed
        require_copyable(network)
        spared = checked_spared(network, spared)
        if prunable == "auto":
            prunable = resolve_prunable(network, spared)
        self.prunable = prunable
        # before copying, to fail early
        targets = list(prunable_weights(network, prunable, spared))
        _require_no_own_norms(network, targets, norms)
        self.prunable_share = prunable_share(network, targets, spared)
        for words in _doubts(network, targets, prunable, spared, self.prunable_share, prune_ratio):
            warnings.warn(words, stacklevel=2)
        if bound := bound_hooks(network, layers(network)):
            warnings.warn(bound, stacklevel=2)
        self._norms, self._draw = norms, -1
        self._network = (network,)  # a tuple is not registered as a sub-module
        self.twin = tied_twin(network, norms)
        self._masked = [MaskedWeight(self.twin, module, name) for module, name in targets]
        self._own_hooks: frozenset[int] = frozenset()
        if dropout:
            hooks = [
                self.twin.get_submodule(name).register_forward_hook(_Dropout(dropout))
                for name, _ in targets
            ]
            self._own_hooks = frozenset(hook.id for hook in hooks)
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
        self._restore_ties()  # .to() moves parameters in place, but replaces every buffer
        return self

    @torch.no_grad()
    def refresh_masks(self, draw: int | None = None) -> None:
        """Prune the CURRENT weights again, always starting from all of them.

        ``draw``: the number of the random draw, such as the epoch, so that a resumed run draws the same as an
        uninterrupted one; None: one more than in the last call without a number, 0 in a new competitor.

        Raises ConfigError if the network is no longer the one that the competitor was built for.
        """
        if draw is None:
            draw = self._draw = self._draw + 1
        require_copyable(self._network[0])
        self._require_same_layers()
        if self._restore_ties():
            warnings.warn(
                "the network's tensors were replaced (load_state_dict(assign=True)? a new layer?); the competitor now "
                "follows the new ones. An optimizer built before still holds the old ones: build it again.",
                stacklevel=2,
            )
        self._require_same_types()
        self._follow_attributes()
        by_magnitude = self.prune_ratio - self.random_share
        masks = magnitude_masks([weight.original for weight in self._masked], by_magnitude)
        num_weights = sum(m.numel() for m in masks)
        changed = torch.zeros((), dtype=torch.int64, device=masks[0].device)
        for layer, (weight, mask) in enumerate(zip(self._masked, masks, strict=True)):
            if self.random_share:
                mask &= self._survives_chance(
                    mask, num_weights, derive(self.seed, Stream.PRUNING, draw, layer)
                )
            changed += (weight.mask != mask).sum()
            weight.mask.copy_(mask)
        self.mask_churn.copy_(changed / num_weights)

    def masks(self) -> dict[str, Tensor]:
        """Name of the masked parameter in the network -> its current mask; True is kept."""
        return {weight.name: weight.mask for weight in self._masked}

    def sparsity(self) -> Tensor:
        """The share of prunable weights that are currently masked, a scalar on the masks' device."""
        masks = [weight.mask for weight in self._masked]
        kept = torch.stack([m.sum() for m in masks]).sum()
        return 1 - kept / sum(m.numel() for m in masks)

    def _survives_chance(self, mask: Tensor, num_weights: int, key: int) -> Tensor:
        """Where the random share keeps a weight: each is removed with probability n_random / (n - n_magnitude)."""
        removed = math.ceil((self.prune_ratio - self.random_share) * num_weights)
        probability = self.random_share * num_weights / max(num_weights - removed, 1)
        positions = torch.arange(mask.numel(), device=mask.device)
        return uniforms(key, positions, 1).view(mask.shape) >= probability

    def _pairs(self) -> Iterator[tuple[str, nn.Module, nn.Module]]:
        """(name, the network's layer, the twin's) for all layers that are two separate modules."""
        twins = dict(layers(self.twin))
        for name, module in layers(self._network[0]):
            if module is not twins[name]:
                yield name, module, twins[name]

    def _ties(self) -> Iterator[Tie]:
        """Every tensor that both branches should share."""
        for _, module, twin in self._pairs():
            if not is_own(module, self._norms):
                yield from (Tie(slot, twin, key) for slot, key, _ in tensors(module))

    def _require_same_layers(self) -> None:
        changed = changed_layers(dict(layers(self._network[0])), dict(layers(self.twin)))
        if changed:
            raise ConfigError(
                f"the network is not the one this competitor was built for: {first_of(changed, 3, '; ')}. Give the "
                "network its final form first, then build the competitor and the optimizer."
            )

    def _require_same_types(self) -> None:
        """Raise ConfigError if one branch was converted or moved without the other's own norms."""
        for name, module, twin in self._pairs():
            if not is_own(module, self._norms):
                continue
            own = {key: tensor for _, key, tensor in tensors(twin)}
            for _, key, theirs in tensors(module):
                ours = own.get(key, theirs)
                if (theirs.dtype, theirs.device) != (ours.dtype, ours.device):
                    raise ConfigError(
                        f"{name}.{key} is {theirs.dtype} on {theirs.device} in the network and {ours.dtype} on "
                        f"{ours.device} in the competitor. Convert or move both: network.to(...), competitor.to(...)."
                    )

    def _restore_ties(self) -> bool:
        """Point the twin at the network's tensors again; True if any parameter had been replaced."""
        broken = [tie for tie in self._ties() if tie.twin_tensor() is not tie.network_tensor()]
        parameters = any(isinstance(tie.network_tensor(), nn.Parameter) for tie in broken)
        for tie in broken:
            tie.restore()
        for weight in self._masked if broken else ():
            weight.fit_mask()
        # .to() of the network also replaces buffers, which needs no warning
        return parameters

    def _follow_attributes(self) -> None:
        """Copy a module's attributes other than parameters, such as the p of a dropout, and its forward hooks."""
        network = self._network[0]
        every = (*network.modules(), *network.parameters(), *network.buffers())
        twins = {id(shared): shared for shared in every}
        for _, module, twin in self._pairs():
            twins[id(module)] = twin
            if is_own(module, self._norms):
                held = {key: tensor for _, key, tensor in tensors(twin)}
                twins |= {id(one): held[key] for _, key, one in tensors(module) if key in held}
        for name, module, twin in self._pairs():
            for key, value in followed_attributes(module).items():
                if key not in vars(twin) or not is_same(vars(twin)[key], value):
                    object.__setattr__(twin, key, as_own(value))
            own = hooks_of(twin)
            followed = [
                follow_hooks(hooks, own[kind], self._own_hooks, twins)
                for kind, hooks in hooks_of(module).items()
            ]
            if any(followed):
                where = name or "the network"
                warnings.warn(
                    f"the forward hooks of {where} have changed; the competitor follows them.",
                    stacklevel=3,
                )
                if words := bound_hooks(network, [(where, module)]):
                    warnings.warn(words, stacklevel=3)


class _Dropout:
    """A forward hook that drops a share of a layer's outputs in training mode."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):  # attention returns its weights, too
            return self(module, inputs, output[0]), *output[1:]
        return F.dropout(output, self.share, module.training)


def _check_shares(prune_ratio: float, random_share: float, dropout: float) -> None:
    """Raise ConfigError for a share that is out of range or not a number."""
    shares = {"prune_ratio": prune_ratio, "random_share": random_share, "dropout": dropout}
    for name, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, Real):
            raise ConfigError(f"{name} must be a number, got {shown(repr(share), 60)}.")
    if not 0 <= prune_ratio < 1:
        hint = ""
        if 1 <= prune_ratio <= 100:
            hint = f" It is a fraction; did you mean {prune_ratio / 100:g}?"
        raise ConfigError(f"prune_ratio must be in [0, 1), got {prune_ratio}.{hint}")
    if not 0 <= random_share <= prune_ratio:
        raise ConfigError(
            f"random_share must be in [0, prune_ratio = {prune_ratio}], got {random_share}."
        )
    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout must be in [0, 1), got {dropout}.")


def _require_no_own_norms(
    network: nn.Module, targets: Iterable[tuple[str, str]], norms: Norms
) -> None:
    """Raise ConfigError for a layer to prune of which each branch has its own."""
    for name, _ in targets:
        if is_own(network.get_submodule(name), norms):
            raise ConfigError(
                f"prunable chooses {name}, a norm that the competitor has a copy of (norms={norms}): there is nothing "
                "of the network's to mask. Leave norms out, or use norms=shared."
            )


def _doubts(
    network: nn.Module,
    targets: list[tuple[str, str]],
    prunable: Prunable,
    spared: tuple[str, ...],
    prunable_share: float,
    prune_ratio: float,
) -> list[str]:
    """Why the competitor may be damaged less than ``prune_ratio`` suggests."""
    found = []
    if prunable_share < SMALL_SHARE:
        words = (
            f"only {prunable_share:.1%} of the network's weights are prunable: with "
            f"{prune_ratio:g} of these removed the competitor is nearly the network itself."
        )
        if prunable == "conv":
            words += " method.prunable=conv+linear also prunes linear layers."
        found.append(words)
    if rescaled := rescaled_layers(network, targets):
        found.append(
            f"{len(rescaled)} of {len(targets)} layers ({', '.join(rescaled[:3])}, ...) do not use their weight as "
            "it is stored (weight standardisation, or another parameter): what is masked there is not zero, and "
            "the competitor is damaged less than prune_ratio says."
        )
    if held := held_elsewhere(network, targets):
        found.append(
            f"{first_of(held, 3)} holds weights that are pruned, beside their layers: what reads them there reads them "
            "whole, in the competitor, too. Read them from their layers."
        )
    if whole := left_whole(network, prunable, targets, spared):
        found.append(
            f"prunable chooses {first_of(whole, 3)}, whose parameters have names that are not known: nothing of "
            "them is pruned."
        )
    return found


def _drop_tied_keys(module: Any, state: dict[str, Any], prefix: str, _: Any) -> None:
    for key in module._tied_keys:
        state.pop(prefix + key, None)


def _add_tied_keys(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    # loading must find every key; the tied ones are loaded with their current values
    current = dict(module.named_parameters(remove_duplicate=False)) | dict(
        module.named_buffers(remove_duplicate=False)
    )
    for key in module._tied_keys:
        state.setdefault(prefix + key, current[key].detach())


def _tie_again(module: Any, _: Any) -> None:
    module._restore_ties()  # assign=True replaces the shared tensors with new ones
