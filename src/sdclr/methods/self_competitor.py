"""The self-competitor: a tied twin of any network, with its smallest weights masked (SDCLR, Jiang et al. 2021).

The twin is a real module whose parameters ARE the network's. Prunable weights are read through a mask, norm layers
that keep statistics are the twin's own, and the network itself is never touched: its state_dict stays that of the
plain backbone. Plain modules and numbers in; this file trains nothing and knows no loss.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, NoneType
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from sdclr.compute.stateless_random import Stream, derive, uniforms
from sdclr.compute.wrapped_modules import wraps_another
from sdclr.errors import ConfigError
from sdclr.methods.magnitude_masks import magnitude_masks

Norms = Literal["own", "own_all", "shared"]
Layers = Literal["conv", "conv+linear"]
"""Kinds of layers that are pruned."""
Prunable = Literal["auto"] | Layers | Callable[[str, nn.Module], bool]

SMALL_SHARE = 0.25
"""Share of prunable weights below which a competitor is hardly another network."""
HALF = 0.5
"""Share below which it is said how little can be pruned."""
MOSTLY_CONVOLUTIONS = 0.5
"""Share of a network's weights that convolutions must hold for ``auto`` to prune these alone."""

_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


class SelfCompetitor(nn.Module):
    """The network's own pruned self: same call signature, same parameters, masked where pruned, its own norms.

    ``network``: any nn.Module. ``prune_ratio``: share of the prunable weights removed, in [0, 1).
    ``norms``: ``own`` gives the twin its own batch norms (affine and statistics), ``own_all`` also its own layer and
    group norms, ``shared`` uses the network's very own layers for both branches.
    ``prunable``: ``conv`` (the paper's: every convolution), ``conv+linear`` (for transformers), ``auto`` (``conv``
    where convolutions hold at least half of the network's weights, else ``conv+linear``), or a function
    (name, module) -> bool; ``spared`` names submodules that are never pruned, such as the projector.
    ``random_share``: share of the prunable weights removed at random instead of by magnitude, at most prune_ratio;
    drawn anew at every refresh from ``seed``. ``dropout``: share of the outputs of each prunable layer that this branch
    drops while it trains, drawn from torch's default generator.

    Train it together with the network: one optimiser over the parameters of both (duplicates count once), one loss,
    one backward. Call :meth:`refresh_masks` at the start of every epoch. Its state_dict holds only what is its own:
    norms and masks. It cannot be pickled; save its state_dict.

    The network may change afterwards only in ways that the twin can follow. Each refresh compares the two: replaced
    tensors and changed plain attributes (a dropout's ``p``, a norm's ``momentum``) are taken over, new parameters with
    a warning, since an optimizer built before does not know them. A layer of another type, a new or a missing layer
    and a new kind of parameter are a ConfigError.
    Raises ConfigError when nothing is prunable, a prunable weight is computed from other parameters (parametrised,
    spectral_norm, torch.nn.utils.prune) or used by two modules, or a part of the network cannot be copied. Warns when
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
    """Share of ALL the network's weights that are prunable, spared submodules not counted."""

    prunable: Layers | Callable[[str, nn.Module], bool]
    """What is pruned; what ``auto`` was resolved to."""

    def __init__(
        self,
        network: nn.Module,
        *,
        prune_ratio: float = 0.9,
        norms: Norms = "own",
        prunable: Prunable = "conv",
        spared: Iterable[str] = (),
        random_share: float = 0.0,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_shares(prune_ratio, random_share, dropout)
        self.prune_ratio, self.random_share, self.seed = prune_ratio, random_share, seed
        _require_copyable(network)
        if prunable == "auto":
            prunable = resolve_prunable(network, spared := tuple(spared))
        self.prunable = prunable
        # before copying: fails early
        targets = list(_prunable_weights(network, prunable, tuple(spared)))
        self.prunable_share = _prunable_share(network, targets, tuple(spared))
        for words in _doubts(network, targets, prunable, self.prunable_share, prune_ratio):
            warnings.warn(words, stacklevel=2)
        self._norms = norms
        self._network = (network,)  # in a tuple: the network is no part of this module
        self.twin = _tied_twin(network, norms)
        self._masked_names = [f"{module}.{name}" if module else name for module, name in targets]
        self._masked = [
            _mask_weight(self.twin.get_submodule(module), name) for module, name in targets
        ]
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
        self._restore_ties()  # .to() moves parameters where they are, but makes every buffer anew
        return self

    @torch.no_grad()
    def refresh_masks(self, draw: int = 0) -> None:
        """Prune the CURRENT weights anew, always starting from all of them. ``draw`` counts the random draws.

        Raises ConfigError when the network has become another one than the competitor was built for.
        """
        _require_copyable(self._network[0])
        self._require_same_layers()
        if self._restore_ties():
            warnings.warn(
                "the network's tensors were replaced (load_state_dict(assign=True)? a new layer?); the competitor now "
                "follows the new ones. An optimizer built before still holds the old ones: build it again.",
                stacklevel=2,
            )
        self._follow_attributes()
        masks = magnitude_masks(
            [list_.original for list_ in self._masked], self.prune_ratio - self.random_share
        )
        num_weights = sum(m.numel() for m in masks)
        changed = torch.zeros((), dtype=torch.int64, device=masks[0].device)
        for layer, (masked, mask) in enumerate(zip(self._masked, masks, strict=True)):
            if self.random_share:
                mask &= self._survives_chance(
                    mask, num_weights, derive(self.seed, Stream.PRUNING, draw, layer)
                )
            changed += (masked[0].mask != mask).sum()
            masked[0].mask.copy_(mask)
        self.mask_churn.copy_(changed / num_weights)

    def masks(self) -> dict[str, Tensor]:
        """The current masks by the name of the masked parameter in the network; True is kept."""
        return {
            name: masked[0].mask
            for name, masked in zip(self._masked_names, self._masked, strict=True)
        }

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

    def _pairs(self) -> Iterator[tuple[str, nn.Module, nn.Module]]:
        """(name, the network's layer, the twin's) of all layers that are two modules."""
        twins = dict(_layers(self.twin))
        for name, module in _layers(self._network[0]):
            if module is not twins[name]:
                yield name, module, twins[name]

    def _ties(self) -> Iterator[_Tie]:
        """Every tensor that both branches are to share."""
        for _, module, twin in self._pairs():
            if not _is_own(module, self._norms):
                yield from (_Tie(slot, twin, key) for slot, key, _ in _tensors(module))

    def _require_same_layers(self) -> None:
        changed = _changed_layers(dict(_layers(self._network[0])), dict(_layers(self.twin)))
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise ConfigError(
                f"the network is not the one this competitor was built for: {'; '.join(changed[:3])}{more}. Give the "
                "network its final form first, then build the competitor and the optimizer."
            )

    def _restore_ties(self) -> bool:
        """Point the twin at the network's tensors again; True if any parameter had been replaced."""
        broken = [tie for tie in self._ties() if tie.twin_tensor() is not tie.network_tensor()]
        parameters = any(isinstance(tie.network_tensor(), nn.Parameter) for tie in broken)
        for tie in broken:
            tie.restore()
        for masked in self._masked if broken else ():
            masked[0].fit(masked.original)
        return parameters  # buffers are replaced by a .to() of the network: nothing to tell anyone

    def _follow_attributes(self) -> None:
        """Take over what a module holds beside parameters, such as the p of a dropout, and its forward hooks."""
        for name, module, twin in self._pairs():
            for key, value in _followed_attributes(module).items():
                if key not in vars(twin) or not _is_same(vars(twin)[key], value):
                    object.__setattr__(twin, key, _as_own(value))
            followed = [
                _follow_hooks(vars(module)[kind], vars(twin)[kind], self._own_hooks)
                for kind in _HOOKS
            ]
            if any(followed):
                warnings.warn(
                    f"the forward hooks of {name or 'the network'} have changed; the competitor follows them.",
                    stacklevel=3,
                )


class _Mask(nn.Module):
    """The parametrisation that reads a weight through its mask; masked weights get no gradient from this branch."""

    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.mask, weight, 0.0)

    def fit(self, weight: Tensor) -> None:
        """Keep all of a weight that was replaced by one of another shape, until the next refresh."""
        if self.mask.shape != weight.shape or self.mask.device != weight.device:
            self.mask = torch.ones_like(weight, dtype=torch.bool)


class _Dropout:
    """A forward hook that drops a share of a layer's outputs while the layer trains."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):  # attention returns its weights, too
            return self(module, inputs, output[0]), *output[1:]
        return F.dropout(output, self.share, module.training)


class _Tie(NamedTuple):
    """One tensor that both branches use: where the network keeps it and where the twin does."""

    network_slot: dict[str, Any]
    twin: nn.Module
    key: str

    def network_tensor(self) -> Tensor:
        return self.network_slot[self.key]

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
    return _keeps_statistics(module) or (
        norms == "own_all" and isinstance(module, nn.LayerNorm | nn.GroupNorm)
    )


def _tensors(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """The tensors a module holds itself: (the dict that holds it, its name there, the tensor)."""
    for slot in (module._parameters, module._buffers):
        yield from ((slot, key, tensor) for key, tensor in slot.items() if tensor is not None)


def _layers(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """All modules of a tree by name, repeated ones too, without our masks and what holds them."""
    yield prefix, module
    for name, child in module._modules.items():
        if child is not None and not _is_of_masks(child):
            yield from _layers(child, f"{prefix}.{name}" if prefix else name)


def _is_of_masks(module: nn.Module) -> bool:
    """A weight's list of parametrisations that begins with our mask, or a module that holds such lists alone."""
    if isinstance(module, parametrize.ParametrizationList):
        return isinstance(module[0], _Mask)
    return (
        isinstance(module, nn.ModuleDict)
        and len(module) > 0
        and all(map(_is_of_masks, module.values()))
    )


def _tied_twin(network: nn.Module, norms: Norms) -> nn.Module:
    """A deep copy of the network in which everything but the twin's own norms is the network's very own tensor."""
    if norms not in ("own", "own_all", "shared"):
        raise ConfigError(f"method.norms must be own, own_all or shared, got {norms!r}.")
    memo: dict[int, Any] = {}
    for module in network.modules():
        if not _is_own(module, norms):
            memo |= {id(tensor): tensor for _, _, tensor in _tensors(module)}
            plain = (
                value
                for value in _followed_attributes(module).values()
                if isinstance(value, Tensor)
            )
            memo |= {id(tensor): tensor for tensor in plain}
        if norms == "shared" and _keeps_statistics(module):
            memo[id(module)] = module  # num_batches_tracked and friends must be one thing, not two
    try:
        return copy.deepcopy(network, dict(memo))
    except Exception:  # some attribute refuses, in whatever way: a lock, a result of a forward pass
        return copy.deepcopy(network, memo | _shared_attributes(network))


def _shared_attributes(network: nn.Module) -> dict[int, Any]:
    """What a module holds beside tensors and modules and what cannot be copied: both branches use the same object.

    A tensor that a forward pass left behind is shared without its graph.
    """
    shared: dict[int, Any] = {}
    for name, module in _layers(network):
        held = {key: value for key, value in vars(module).items() if key not in _HELD_BY_TORCH}
        for key, value in held.items():
            if isinstance(value, Tensor):
                shared[id(value)] = value.detach()
            elif isinstance(value, nn.Module) or _can_be_copied(value):
                continue
            elif _holds_a_module(value):
                raise ConfigError(
                    f"{name or 'the network'}.{key} ({type(value).__name__}) holds a module and cannot be copied, so "
                    "the network has no competitor. Register its modules as sub-modules (nn.ModuleList)."
                )
            else:
                shared[id(value)] = value
    return shared


_HELD_BY_TORCH = frozenset(vars(nn.Module()))
"""Attributes of every module: parameters, buffers, sub-modules, hooks."""


def _can_be_copied(value: object) -> bool:
    try:
        copy.deepcopy(value)
    except Exception:
        return False
    return True


def _holds_a_module(value: object) -> bool:
    parts = value.values() if isinstance(value, Mapping) else value
    return isinstance(parts, Iterable) and any(isinstance(part, nn.Module) for part in parts)


def _check_shares(prune_ratio: float, random_share: float, dropout: float) -> None:
    """ConfigError for a share out of its range."""
    if not 0 <= prune_ratio < 1:
        hint = ""
        if 1 <= prune_ratio <= 100:
            hint = f" It is a fraction; did you mean {prune_ratio / 100:g}?"
        raise ConfigError(f"method.prune_ratio must be in [0, 1), got {prune_ratio}.{hint}")
    if not 0 <= random_share <= prune_ratio:
        raise ConfigError(
            f"method.random_share must be in [0, prune_ratio = {prune_ratio}], got {random_share}."
        )
    if not 0 <= dropout < 1:
        raise ConfigError(f"method.dropout must be in [0, 1), got {dropout}.")


def _doubts(
    network: nn.Module,
    targets: list[tuple[str, str]],
    prunable: Prunable,
    prunable_share: float,
    prune_ratio: float,
) -> list[str]:
    """Why the competitor may be damaged less than ``prune_ratio`` says."""
    found = []
    if prunable_share < SMALL_SHARE:
        words = (
            f"only {prunable_share:.1%} of the network's weights are prunable: with "
            f"{prune_ratio:g} of these removed the competitor is nearly the network itself."
        )
        if prunable == "conv":
            words += " method.prunable=conv+linear also prunes linear layers."
        found.append(words)
    if rescaled := _rescaled_layers(network, targets):
        found.append(
            f"{len(rescaled)} of {len(targets)} layers ({', '.join(rescaled[:3])}, ...) do not use their weight as "
            "it is stored (weight standardisation, or another parameter): what is masked there is not zero, and "
            "the competitor is damaged less than prune_ratio says."
        )
    return found


def _require_copyable(network: nn.Module) -> None:
    """Refuse what a copy would still call the original's code in: its competitor would be the network itself."""
    for name, module in _layers(network):
        where = name or "the network"
        if wraps_another(module):
            raise ConfigError(
                f"{where} is wrapped ({type(module).__name__}), and a copy of it would call the original. Give the "
                "plain network; compile or distribute the method instead."
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise ConfigError(
                f"{where} is a TorchScript module, which cannot be pruned. Give the plain network."
            )
        replaced = vars(module).get("forward")
        if replaced is not None and not isinstance(replaced, MethodType):
            raise ConfigError(
                f"{where}.forward was replaced by a function, and a copy of it would call the original. Write it as a "
                "method of the module's class."
            )


def _changed_layers(layers: dict[str, nn.Module], twins: dict[str, nn.Module]) -> list[str]:
    """What cannot be followed, in words: layers that are new, gone, of another type or with other parameters."""
    if layers.keys() == twins.keys() and list(layers) != list(twins):
        first = next(pair for pair in zip(twins, layers, strict=True) if pair[0] != pair[1])
        return [f"its layers have another order ({first[1]} comes where {first[0]} was)"]
    changed = [
        f"{name} ({type(layers[name]).__name__}) is new" for name in layers if name not in twins
    ]
    changed += [
        f"{name} ({_type(twins[name]).__name__}) is gone" for name in twins if name not in layers
    ]
    for name in layers:
        module, twin = layers[name], twins.get(name)
        if twin is None or module is twin:
            continue
        if _type(module) is not _type(twin):
            changed.append(f"{name} was {_type(twin).__name__} and is {_type(module).__name__}")
        elif (now := _tensor_names(module)) != (before := _tensor_names(twin)):
            changed.append(
                f"{name} had {', '.join(sorted(before)) or 'nothing'} and has {', '.join(sorted(now))}"
            )
        elif (now_shapes := _own_shapes(module)) != _own_shapes(twin) and _keeps_statistics(module):
            changed.append(f"{name} has other shapes: {now_shapes}")
    return changed


def _type(module: nn.Module) -> type[nn.Module]:
    return parametrize.type_before_parametrizations(module)


def _tensor_names(module: nn.Module) -> set[str]:
    names = {key for _, key, _ in _tensors(module)}
    if isinstance(lists := module._modules.get("parametrizations"), nn.ModuleDict):
        names |= {key for key, one in lists.items() if _is_of_masks(one)}
    return names


def _own_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for _, key, tensor in _tensors(module)}


_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
)


def _follow_hooks(hooks: dict[int, Any], own: dict[int, Any], kept: frozenset[int]) -> bool:
    """Make the twin's hooks those of the network, by their numbers; whether that changed anything.

    ``kept``: hooks that are the twin's alone.
    """
    gone = [number for number in own if number not in hooks and number not in kept]
    new = {number: hook for number, hook in hooks.items() if number not in own}
    for number in gone:
        del own[number]
    own.update(new)
    return bool(gone or new)


def _followed_attributes(module: nn.Module) -> dict[str, Any]:
    """What a module holds beside parameters, buffers and sub-modules and what decides what it computes.

    Whether it trains is its own affair, and so are results that a forward pass has left behind.
    """
    held = {key: value for key, value in vars(module).items() if key not in _HELD_BY_TORCH}
    return {key: value for key, value in held.items() if _is_followed(value)}


def _is_followed(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.grad_fn is None
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_followed, value))
    if isinstance(value, Mapping):
        return all(map(_is_followed, value.values()))
    return isinstance(
        value, int | float | complex | str | bytes | NoneType | torch.dtype
    ) or _is_function(value)


def _is_function(value: object) -> bool:
    return isinstance(value, FunctionType | BuiltinFunctionType | type | functools.partial)


def _is_same(own: object, value: object) -> bool:
    if isinstance(value, Tensor) or _is_function(value):
        return own is value
    if type(own) is not type(value):
        return False
    if isinstance(value, list | tuple):
        pairs = zip(own, value, strict=False)  # type: ignore[call-overload]
        return len(own) == len(value) and all(_is_same(a, b) for a, b in pairs)  # type: ignore[arg-type]
    if isinstance(value, Mapping):
        assert isinstance(own, Mapping)
        return own.keys() == value.keys() and all(_is_same(own[key], value[key]) for key in value)
    return own == value


def _as_own(value: Any) -> Any:
    """The value for the twin: containers anew, what they hold and tensors the very same."""
    if isinstance(value, list | tuple | set | frozenset) and type(value) in (
        list,
        tuple,
        set,
        frozenset,
    ):
        return type(value)(map(_as_own, value))
    if type(value) is dict:
        return {key: _as_own(one) for key, one in value.items()}
    return value


def resolve_prunable(network: nn.Module, spared: Iterable[str] = ()) -> Layers:
    """``auto``: convolutions alone where they hold at least half of the network's weights, else linear layers too."""
    spared = tuple(spared)
    held = sum(
        module.weight.numel()
        for name, module in network.named_modules()
        if isinstance(module, _CONVOLUTIONS) and not _is_spared(name, spared)
    )
    return "conv" if held >= MOSTLY_CONVOLUTIONS * _num_weights(network, spared) else "conv+linear"


def _num_weights(network: nn.Module, spared: tuple[str, ...]) -> int:
    parameters = dict(network.named_parameters())
    counted = [p.numel() for name, p in parameters.items() if not _is_spared(name, spared)]
    return max(sum(counted), 1)


def _prunable_share(
    network: nn.Module, targets: list[tuple[str, str]], spared: tuple[str, ...]
) -> float:
    prunable = sum(getattr(network.get_submodule(name), key).numel() for name, key in targets)
    return prunable / _num_weights(network, spared)


@torch.no_grad()
def _rescaled_layers(network: nn.Module, targets: list[tuple[str, str]]) -> list[str]:
    """Convolutions with a forward of their own whose output does not grow with their weight."""
    found = []
    for name, _ in targets:
        layer = network.get_submodule(name)
        plain = next((kind for kind in _CONVOLUTIONS if isinstance(layer, kind)), None)
        if plain is not None and type(layer).forward is not plain.forward:
            with contextlib.suppress(Exception):  # a forward that wants other arguments: not known
                if not _grows_with_its_weight(layer):
                    found.append(name)
    return found


def _grows_with_its_weight(layer: Any) -> bool:
    sides = [d * (k - 1) + 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    images = (
        torch.linspace(-1, 1, layer.in_channels * math.prod(sides))
        .view(1, -1, *sides)
        .to(layer.weight)
    )
    nothing, once, twice = (
        torch.func.functional_call(layer, {"weight": factor * layer.weight}, images)
        for factor in (0, 1, 2)
    )
    grown = once - nothing
    tolerance = 1e-3 * float(once.abs().max())
    return bool(grown.abs().max() > tolerance) and torch.allclose(
        twice - nothing, 2 * grown, rtol=1e-2, atol=tolerance
    )


def _is_spared(name: str, spared: tuple[str, ...]) -> bool:
    return any(name == s or name.startswith(f"{s}.") for s in spared)


def _prunable_weights(
    network: nn.Module, prunable: Prunable, spared: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    """(module name, parameter name) of every weight to prune, in the network's order."""
    if isinstance(prunable, str) and prunable not in ("conv", "conv+linear"):
        raise ConfigError(f"method.prunable must be auto, conv or conv+linear, got {prunable!r}.")
    users: dict[int, list[str]] = {}
    # a layer that is in several places is one user, and one in the twin
    for (
        name,
        module,
    ) in network.named_modules():
        for _, key, tensor in _tensors(module):
            users.setdefault(id(tensor), []).append(f"{name}.{key}")
    found = 0
    for name, module in network.named_modules():
        if _is_spared(name, spared):
            continue
        for key in _weights_of(name, module, prunable):
            _require_stored(name, module, key)
            if len(users[id(getattr(module, key))]) > 1:
                shared = " and ".join(users[id(getattr(module, key))])
                raise ConfigError(
                    f"{shared} are one tensor; leave them out with prunable=<function> or spared=[...]."
                )
            found += 1
            yield name, key
    if not found:
        raise ConfigError(
            "nothing to prune: the network has no such weights. Try method.prunable=conv+linear."
        )


def _weights_of(name: str, module: nn.Module, prunable: Prunable) -> list[str]:
    if callable(prunable):
        chosen = prunable(name, module)
    else:
        linear = (nn.Linear, nn.MultiheadAttention) if prunable == "conv+linear" else ()
        chosen = isinstance(module, (*_CONVOLUTIONS, *linear))
    keys = ("weight", "in_proj_weight") if chosen else ()  # packed attention has no .weight
    return [key for key in keys if isinstance(getattr(module, key, None), Tensor)]


def _require_stored(name: str, module: nn.Module, key: str) -> None:
    """ConfigError unless the weight that the layer uses is the parameter of that name."""
    weight = module._parameters.get(key)
    if isinstance(weight, UninitializedParameter):
        raise ConfigError(
            f"{name}.{key} has no shape yet. Run the network once before its competitor is built."
        )
    if isinstance(weight, nn.Parameter):
        return
    sources = [other for other in module._parameters if other.startswith(f"{key}_")]
    if parametrize.is_parametrized(module, key):
        why = "is parametrised already (torch.nn.utils.parametrize)"
    elif sources:
        why = f"is computed from {' and '.join(sources)} (torch.nn.utils.prune, spectral_norm or weight_norm)"
    else:
        why = "is no parameter"
    raise ConfigError(
        f"{name}.{key} {why}, so a mask on it would have no effect. Remove that first, or leave the layer out with "
        "prunable=<function> or spared=[...]."
    )


def _mask_weight(module: nn.Module, name: str) -> Any:
    weight = getattr(module, name)
    # shape-preserving: skip the check
    parametrize.register_parametrization(module, name, _Mask(weight), unsafe=True)
    return module.parametrizations[name]  # type: ignore[index]


def _drop_tied_keys(module: Any, state: dict[str, Any], prefix: str, _: Any) -> None:
    for key in module._tied_keys:
        state.pop(prefix + key, None)


def _add_tied_keys(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    # loading must find every key; the tied ones are loaded as what they already are
    current = dict(module.named_parameters(remove_duplicate=False)) | dict(
        module.named_buffers(remove_duplicate=False)
    )
    for key in module._tied_keys:
        state.setdefault(prefix + key, current[key].detach())


def _tie_again(module: Any, _: Any) -> None:
    module._restore_ties()  # assign=True puts new tensors in place of the shared ones
