"""What a training checks of a method: state that no checkpoint holds, what its hooks return."""

from __future__ import annotations

import copy
import functools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from outside_method import Plain
from sdclr.batch import Views
from sdclr.errors import ConfigError
from sdclr.methods.contract import (
    StateGuard,
    facts_of,
    measurements_of,
    require_loss_per_image,
    require_rows_per_image,
)


@dataclass
class Kept:
    number: int = 0


@dataclass(slots=True)
class Slotted:
    number: int = 0


class Counter:
    """An object of the user's own, which counts in a list."""

    def __init__(self) -> None:
        self.seen = [0]
        self.itself = self


def permuted(value: torch.Tensor) -> torch.Tensor:
    return value.flip(0)


@pytest.mark.parametrize(
    ("first", "change"),
    [
        (torch.arange(4.0), permuted),
        (torch.tensor([1 + 2j, 3 - 1j]), permuted),
        (torch.tensor([True, False]), permuted),
        (torch.arange(4.0, dtype=torch.bfloat16), permuted),
        (np.zeros(3), lambda value: value + 1),
        (np.float64(1), lambda value: value + 1),
        (deque([1, 2]), lambda value: deque([2, 1])),
        (Kept(), lambda value: Kept(1)),
        (Slotted(), lambda value: Slotted(1)),
        ([1, {"a": 2}], lambda value: [1, {"a": 3}]),
    ],
)
def test_an_attribute_that_changes_is_noticed(first: Any, change: Callable[[Any], Any]) -> None:
    method = Plain(nn.Linear(2, 2))
    method.kept = first
    guard = StateGuard(method)
    guard.check("in an epoch")
    method.kept = change(first)
    with pytest.raises(ConfigError, match=r"Plain\.kept.* has changed in an epoch"):
        guard.check("in an epoch")


@pytest.mark.parametrize(
    ("first", "act"),
    [
        (Counter(), lambda value: value.seen.append(1)),
        ({"of": Counter()}, lambda value: value["of"].seen.append(1)),
        (torch.Generator(), lambda value: torch.rand(1, generator=value)),
        (np.random.default_rng(0), lambda value: value.random()),
        (np.random.RandomState(0), lambda value: value.rand(624)),
        (random.Random(0), lambda value: value.random()),
    ],
)
def test_an_object_that_changes_inside_is_noticed(first: Any, act: Callable[[Any], Any]) -> None:
    method = type("Here", (Plain,), {"__module__": __name__})(nn.Linear(2, 2))
    method.kept = first
    guard = StateGuard(method)
    guard.check("in an epoch")
    act(first)
    cure = "Make it a buffer" if isinstance(first, Counter | dict) else "Make a new generator"
    with pytest.raises(ConfigError, match=rf"Here\.kept.* has changed in an epoch.*{cure}"):
        guard.check("in an epoch")


def test_a_cached_property_may_appear_and_is_state_once_it_changes() -> None:
    class Own:
        @functools.cached_property
        def weights(self) -> list[float]:
            return [1.0, 2.0]

    class Here(Plain):
        @functools.cached_property
        def table(self) -> dict[str, int]:
            return {"seen": 0}

    method = Here(nn.Linear(2, 2))
    method.own = Own()
    guard = StateGuard(method)
    assert (method.own.weights, method.table) == ([1.0, 2.0], {"seen": 0})
    guard.check("in an epoch")
    method.table["seen"] += 1
    with pytest.raises(ConfigError, match=r"Here\.table\['seen'\] has changed in an epoch"):
        guard.check("in an epoch")


@pytest.mark.parametrize("first", [{}, {"a": 1}, [], [1.0]])
@pytest.mark.parametrize("outside", [False, True])
def test_what_is_added_to_a_cached_property_is_state(first: Any, outside: bool) -> None:
    class Own:
        @functools.cached_property
        def kept(self) -> Any:
            return copy.copy(first)

    class Here(Plain, Own):
        pass

    method = Here(nn.Linear(2, 2))
    method.own = Own()
    guard = StateGuard(method)
    kept = method.own.kept if outside else method.kept
    guard.check("in an epoch")
    kept.append(2) if isinstance(kept, list) else kept.update(b=2)
    with pytest.raises(ConfigError, match=r"kept\[.*\] has changed in an epoch"):
        guard.check("in an epoch")


def test_what_an_object_of_a_library_counts_is_its_own_affair() -> None:
    method = Plain(nn.Linear(2, 2))
    method.kept = Counter()  # of another package than the method
    guard = StateGuard(method)
    method.kept.seen.append(1)
    guard.check("in an epoch")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"loss": 1.0}, "uses the name loss of one of the run's own measurements"),
        ({"health_top1": 1.0}, "uses the name health_top1"),
        (None, "must return a mapping of numbers, got NoneType"),
        ({"spread": torch.ones(3)}, r"\['spread'\] must be one number"),
        ({"spread": "x"}, r"\['spread'\] must be one number"),
    ],
)
def test_what_a_method_measures_are_numbers_under_names_of_its_own(found: Any, words: str) -> None:
    method = Plain(nn.Linear(2, 2))
    method.measurements = lambda: found  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=words):
        measurements_of(method)
    method.measurements = lambda: {"spread": torch.tensor(0.5)}  # type: ignore[method-assign]
    assert measurements_of(method) == {"spread": 0.5}


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (None, "has returned NoneType"),
        (1.0, "has returned float"),
        (torch.zeros(3), r"got \[3\]"),
        (torch.zeros(2, dtype=torch.int64), "torch.int64, through which no gradient"),
        (torch.zeros(2, dtype=torch.complex64), "torch.complex64, through which no gradient"),
        (torch.zeros(2), "does not depend on the network's weights"),
    ],
)
def test_a_loss_is_one_real_number_an_image_with_a_gradient(loss: Any, words: str) -> None:
    views = Views(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.arange(2))
    with pytest.raises(ConfigError, match=words):
        require_loss_per_image(loss, views)
    require_loss_per_image(torch.zeros(2, requires_grad=True), views)
    with torch.no_grad():
        require_loss_per_image(torch.zeros(2), views)


def test_a_measurement_that_is_no_finite_number_is_left_out_by_name() -> None:
    method = Plain(nn.Linear(2, 2))
    method.measurements = lambda: {"spread": 0.5, "rare": torch.zeros(0).mean()}  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match=r"Plain\.measurements\(\)\['rare'\] is nan .* left out"):
        assert measurements_of(method) == {"spread": 0.5}


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (None, r"facts\(\) must return a mapping, got NoneType"),
        ({"scale": torch.ones(2)}, r"facts\(\)\['scale'\] must be what JSON can hold"),
        ({"scale": float("nan")}, r"facts\(\)\['scale'\] must be what JSON can hold"),
    ],
)
def test_facts_are_what_a_file_can_hold(facts: Any, words: str) -> None:
    method = Plain(nn.Linear(2, 2))
    method.facts = lambda: facts  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=words):
        facts_of(method)


def test_state_per_image_has_a_row_for_each() -> None:
    method = Plain(nn.Linear(2, 2))
    method.register_per_image("age", torch.zeros(3))
    require_rows_per_image(method, 3)
    with pytest.raises(ConfigError, match=r"Plain\.age .* \[3\], and there are 405"):
        require_rows_per_image(method, 405)
