"""Checks of the method during training: a mistake is an error at once, not a wrong result later."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import random
import sys
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sdclr.batch import Share, Views
from sdclr.errors import ConfigError
from sdclr.methods.method import Method
from sdclr.methods.module_attributes import HELD_BY_TORCH
from sdclr.safe_text import shown

_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic)


class StateGuard:
    """Detects state of a method that a checkpoint would not contain.

    Built before the first step. Inspects the method and its own parts; the network is the user's and may keep any
    state.
    """

    def __init__(self, method: Method) -> None:
        self._method = method
        self._before = _forgotten_state(method)

    def check(self, when: str) -> None:
        """Raise ConfigError if something has changed that is neither a parameter nor a persistent buffer."""
        now = _forgotten_state(self._method)
        new = now.keys() - self._before.keys()
        # a cached property appears on first access, and is state only if it changes afterwards
        appeared = [name.removesuffix(_CACHED) for name in new if name.endswith(_CACHED)]
        self._before |= {name: now[name] for name in new if _is_part(name, appeared)}
        changed = [
            name
            for name in self._before.keys() | now.keys()
            if self._before.get(name) != now.get(name) and not name.endswith(_CACHED)
        ]
        if changed:
            name, first = type(self._method).__name__, min(changed)
            cure = (
                "Make it a buffer: self.register_buffer(name, tensor) in __init__, and tensor.fill_(value) or copy_ "
                "where it changes."
            )
            if now.get(first, "").startswith(_GENERATOR):
                cure = "Make a new generator where numbers are drawn, seeded by the epoch and the step."
            raise ConfigError(
                f"{shown(name)}.{shown(first)} has changed {when}, and no checkpoint holds it: a resumed run would "
                f"start with its first value. {cure}"
            )


def _forgotten_state(method: Method) -> dict[str, str]:
    """Attributes and buffers with plain values that are in no state_dict, by dotted name."""
    state: dict[str, str] = {}
    for prefix, module in _own_modules(method):
        own = type(module).__module__.partition(".")[0]
        for name, value in vars(module).items():
            if name not in HELD_BY_TORCH:
                state |= {f"{prefix}{name}{rest}": one for rest, one in _plain_values(value, own)}
                if _is_cached(module, name):
                    state[f"{prefix}{name}{_CACHED}"] = ""
        for name in module._non_persistent_buffers_set:
            state |= {
                f"{prefix}{name}{rest}": found
                for rest, found in _plain_values(module._buffers[name])
            }
    return state


def _own_modules(method: Method) -> Iterator[tuple[str, nn.Module]]:
    """The method and its parts, except for the network and copies of it."""
    kinds = {type(module) for module in method.network.modules()}
    waiting: list[tuple[str, nn.Module]] = [("", method)]
    while waiting:
        prefix, module = waiting.pop()
        yield prefix, module
        parts = module.named_children()
        waiting += [(f"{prefix}{name}.", part) for name, part in parts if type(part) not in kinds]


def _plain_values(value: Any, own: str = "", depth: int = 3) -> Iterator[tuple[str, str]]:
    """Numbers, texts, tensors and generator states in an attribute, in a form that can be compared.

    Includes those in lists, mappings and data classes, and in other objects whose class is from the package ``own``.
    """
    if isinstance(value, Tensor):
        if not isinstance(value, nn.Parameter):
            yield "", f"{tuple(value.shape)} {_content(value)} {value._version}"
    elif isinstance(value, np.ndarray) and value.dtype != object:
        yield "", f"{value.shape} {value.dtype} {_digest(np.ascontiguousarray(value).tobytes())}"
    elif isinstance(value, _PLAIN):
        yield "", repr(value)  # nan equals nan here
    elif (drawn := _generator_state(value)) is not None:
        yield "", drawn
    elif depth:
        for key, one in _parts_of(value, own):
            if _is_cached(value, key.removeprefix(".")):
                yield key + _CACHED, ""
            yield from ((key + rest, found) for rest, found in _plain_values(one, own, depth - 1))


def _is_part(name: str, of: Iterable[str]) -> bool:
    """Whether a dotted name is one of these or of something inside them."""
    return any(name == one or (name.startswith(one) and name[len(one)] in "[. ") for one in of)


def _is_cached(owner: object, name: str) -> bool:
    return isinstance(getattr(type(owner), name, None), functools.cached_property)


def _parts_of(value: Any, own: str) -> Iterable[tuple[str, Any]]:
    """The parts of a value, each with its suffix, such as [0] or .name."""
    if isinstance(value, list | tuple | set | deque):
        return ((f"[{number}]", one) for number, one in enumerate(value))
    if isinstance(value, dict):
        return ((f"[{key!r}]", one) for key, one in value.items())
    if isinstance(value, nn.Module | type):
        return ()
    is_data, package = dataclasses.is_dataclass(value), type(value).__module__.partition(".")[0]
    if hasattr(value, "__dict__") and (is_data or package == own):
        return ((f".{key}", one) for key, one in vars(value).items())
    if is_data:  # with slots
        return ((f".{one.name}", getattr(value, one.name)) for one in dataclasses.fields(value))
    return ()  # an object of a library: its internal state is not checked


def _generator_state(value: Any) -> str | None:
    """The state of a random number generator; None for anything else."""
    if isinstance(value, torch.Generator):
        return _GENERATOR + _content(value.get_state())
    if isinstance(value, np.random.Generator):
        state: object = value.bit_generator.state
    elif isinstance(value, np.random.RandomState):
        state = value.get_state(legacy=False)
    elif isinstance(value, random.Random):
        state = value.getstate()
    else:
        return None
    with np.printoptions(threshold=sys.maxsize):
        return _GENERATOR + _digest(repr(state).encode())


_GENERATOR = "generator "
_CACHED = " is cached"
"""Marks a cached property that exists by now, even where it is empty."""


def _content(tensor: Tensor) -> str:
    """A text that is equal for equal numbers in the same places."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        return str(tensor.dtype)
    plain = tensor.detach().cpu().contiguous().reshape(-1)
    return f"{tensor.dtype} {_digest(plain.view(torch.uint8).numpy().tobytes())}"


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def require_loss_per_image(loss_per_image: Tensor, views: Views) -> None:
    """Raise ConfigError for a loss that is not [B] real numbers through which gradients flow."""
    wanted = f"a method's loss is one number per image, [{len(views.index)}] here"
    if not isinstance(loss_per_image, Tensor):
        raise ConfigError(
            f"{wanted}; forward() has returned {type(loss_per_image).__name__}. Return the tensor of losses."
        )
    if loss_per_image.shape != views.index.shape:
        raise ConfigError(
            f"{wanted}; got {list(loss_per_image.shape)}. Return the losses before their mean is taken."
        )
    if not loss_per_image.is_floating_point():
        raise ConfigError(
            f"{wanted}; got {loss_per_image.dtype}, through which no gradient can be taken."
        )
    if torch.is_grad_enabled() and not loss_per_image.requires_grad:
        raise ConfigError(
            f"{wanted}; it does not depend on the network's weights (was it detached?), so nothing can be learned."
        )


RESERVED = ("epoch", "step", "loss", "learning_rate", "views_per_second", "data_share", "seconds")
"""Names of the run's own measurements."""
RESERVED_PREFIXES = ("health_", "untrained_", "alarm_")


def measurements_of(method: Method) -> dict[str, float]:
    """A method's measurements as numbers. Raises ConfigError for names that the run itself uses and for non-numbers."""
    found, name = method.measurements(), shown(type(method).__name__)
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"{name}.measurements() must return a mapping of numbers, got {type(found).__name__}."
        )
    numbers: dict[str, float] = {}
    for key, value in found.items():
        if key in RESERVED or str(key).startswith(RESERVED_PREFIXES):
            raise ConfigError(
                f"{name}.measurements() uses the name {shown(str(key), 60)} of one of the run's own measurements. "
                "Choose another one."
            )
        try:
            number = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise ConfigError(
                f"{name}.measurements()[{shown(str(key), 60)!r}] must be one number, got {shown(repr(value), 60)}."
            ) from None
        if math.isfinite(number):
            numbers[str(key)] = number
        else:
            warnings.warn(
                f"{name}.measurements()[{shown(str(key), 60)!r}] is {number} after this epoch, and left out of "
                "metrics.jsonl.",
                stacklevel=2,
            )
    return numbers


def facts_of(method: Method) -> dict[str, Any]:
    """A method's facts about its settings. Raises ConfigError unless they are a mapping that JSON can represent."""
    found, name = method.facts(), shown(type(method).__name__)
    if not isinstance(found, Mapping):
        raise ConfigError(f"{name}.facts() must return a mapping, got {type(found).__name__}.")
    for key, value in found.items():
        try:
            json.dumps({key: value}, allow_nan=False)
        except (TypeError, ValueError):
            raise ConfigError(
                f"{name}.facts()[{shown(str(key), 60)!r}] must be what JSON can hold, got {shown(repr(value), 60)}."
            ) from None
    return dict(found)


def require_rows_per_image(method: Method, num_images: int) -> None:
    """Raise ConfigError for per-image state that does not have a row for each training image."""
    for name in method.per_image:
        shape = list(method.get_buffer(name).shape)
        if shape[0] != num_images:
            raise ConfigError(
                f"{shown(type(method).__name__)}.{shown(name, 60)} is state per image, {shape}, and there are "
                f"{num_images} training images: it needs a row for each (Parts.num_images)."
            )


class WatchedShare(Share):
    """A share that records whether it has been read."""

    was_read: bool

    def __new__(cls, first: int, total: int) -> WatchedShare:
        share = super().__new__(cls, first, total)
        share.was_read = False
        return share

    def __getattribute__(self, name: str) -> Any:
        if name in ("first", "total"):
            self.was_read = True
        return super().__getattribute__(name)

    def __iter__(self) -> Iterator[Any]:
        self.was_read = True
        return super().__iter__()

    def __getitem__(self, key: Any) -> Any:
        self.was_read = True
        return super().__getitem__(key)


def require_use_of_share(method: Method, views: Views) -> None:
    """Raise ConfigError if, with several processes, a method would only contrast the images of each one.

    Takes one forward pass; buffers that it changes are restored.
    """
    if views.share is None or not method.batch_matters:
        return
    watched = WatchedShare(*views.share)
    with torch.no_grad(), unchanged_buffers(method):
        # the plain forward, which may have been replaced by a compiled one
        type(method).forward(method, views._replace(share=watched))
    if not watched.was_read:
        raise ConfigError(
            f"{shown(type(method).__name__)} does not use views.share: on several processes it would contrast the "
            "images of each process alone, which is another loss. Pass it on (nt_xent(..., share=views.share)), or set "
            "batch_matters = False where no image's loss depends on the others."
        )


@contextlib.contextmanager
def unchanged_buffers(method: Method) -> Iterator[None]:
    """Restore the method's buffers after the block."""
    buffers = {name: buffer.clone() for name, buffer in method.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in method.named_buffers():
                buffer.copy_(buffers[name])
