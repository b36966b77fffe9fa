"""What an observer may look at and must leave as it was: modes of modules, switches of torch, the current folder."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn


class _Switch(NamedTuple):
    """Something of the process or the network that a training depends on."""

    words: str
    read: Callable[[], Any]
    restore: Callable[[Any], None]


class Undisturbed:
    """Restores, after each call of foreign code, what the training of ``network`` depends on; warns once of each."""

    def __init__(self, network: nn.Module) -> None:
        self._modules, self._parameters = list(network.modules()), list(network.parameters())
        self._warned: set[tuple[str, str]] = set()
        self._switches = [
            _Switch("train or eval mode of a module", self._modes, self._set_modes),
            _Switch("requires_grad of a parameter", self._needs, self._set_needs),
            _Switch("torch's grad mode", torch.is_grad_enabled, _set_grad_enabled),
            _Switch("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
            _Switch("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
            _Switch("the current folder", _current_folder, _change_folder),
        ]

    @contextlib.contextmanager
    def by(self, name: str) -> Iterator[None]:
        """``name``: of the code that runs in the block."""
        before = [switch.read() for switch in self._switches]
        try:
            yield
        finally:
            for switch, value in zip(self._switches, before, strict=True):
                if switch.read() != value:
                    switch.restore(value)
                    self._warn(name, switch.words)

    def _warn(self, name: str, words: str) -> None:
        if (name, words) not in self._warned:
            self._warned.add((name, words))
            warnings.warn(
                f"{name} has changed {words}, and left it so; it was set back, because the training depends on it.",
                stacklevel=6,
            )

    def _modes(self) -> list[bool]:
        return [module.training for module in self._modules]

    def _set_modes(self, modes: list[bool]) -> None:
        for module, mode in zip(self._modules, modes, strict=True):
            module.training = mode

    def _needs(self) -> list[bool]:
        return [parameter.requires_grad for parameter in self._parameters]

    def _set_needs(self, needs: list[bool]) -> None:
        for parameter, need in zip(self._parameters, needs, strict=True):
            parameter.requires_grad_(need)


def _set_grad_enabled(mode: bool) -> None:
    torch.set_grad_enabled(mode)


def _current_folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


def _change_folder(folder: str | None) -> None:
    if folder is not None:
        with contextlib.suppress(OSError):
            os.chdir(folder)
