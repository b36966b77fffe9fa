"""Networks on device meta: they have shapes and no numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@contextmanager
def without_data() -> Iterator[None]:
    """Inside the block, tensors are made on device meta, and functions that initialise them do nothing.

    torch would still run these functions, which took most of the time of building a network there.

    >>> with without_data():
    ...     layer = nn.Linear(3, 2)
    >>> layer.weight.device.type, tuple(layer.weight.shape)
    ('meta', (2, 3))
    """
    with torch.device("meta"), _Unfilled():
        yield


_FILLING = frozenset(
    (Tensor.fill_, Tensor.normal_, Tensor.uniform_, Tensor.zero_, nn.init.kaiming_uniform_)
)


class _Unfilled(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLING:
            tensor = args[0] if args else kwargs.get("tensor")
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        return func(*args, **kwargs)
