"""Whatever of torch draws, draws from the generator of the call, what it draws with that seed, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, distributions, nn

from sdclr.data.views.torch_draws import DrawsFrom, Escapes, default_state

X = torch.arange(192.0).reshape(3, 8, 8) / 192
ONE = torch.tensor(1.0)
DRAWING: dict[str, Callable[[], Tensor]] = {
    "rand": lambda: torch.rand(3),
    "rand into a tensor": lambda: torch.rand(3, out=torch.empty(3)),
    "rand of torch.ops": lambda: torch.ops.aten.rand.default([3]),
    "randint by keywords": lambda: torch.randint(high=50, size=(3,)),
    "randint_like": lambda: torch.randint_like(X, 5),
    "randint_like by keywords": lambda: torch.randint_like(input=X, low=2, high=9),
    "randn_like by keyword": lambda: torch.randn_like(input=X),
    "rand_like, not contiguous": lambda: torch.rand_like(X.permute(1, 2, 0)),
    "exponential_": lambda: torch.empty(3).exponential_(),
    "binomial": lambda: torch.binomial(torch.full((9,), 50.0), torch.full((9,), 0.5)),
    "poisson": lambda: torch.poisson(torch.full((9,), 9.0)),
    "_standard_gamma": lambda: torch._standard_gamma(torch.ones(4), None),
    "dropout": lambda: F.dropout(X),
    "dropout of torch.ops": lambda: torch.ops.aten.dropout(X, 0.5, True),
    "Dropout2d": lambda: nn.Dropout2d()(torch.ones(1, 40, 1, 1)),
    "alpha_dropout": lambda: F.alpha_dropout(X, training=True),
    "rrelu": lambda: F.rrelu(X - 1, training=True),
    "gumbel_softmax": lambda: F.gumbel_softmax(X),
    "attention": lambda: F.scaled_dot_product_attention(X, X, X, dropout_p=0.5),
    "RNN": lambda: nn.RNN(8, 4, num_layers=2, dropout=0.5)(X)[0],
    "svd_lowrank": lambda: torch.svd_lowrank(X, 2)[0],
    "trunc_normal_": lambda: nn.init.trunc_normal_(torch.empty(9)),
    "Beta": lambda: distributions.Beta(ONE, ONE).sample(),
    "Gamma": lambda: distributions.Gamma(ONE, ONE).sample((3,)),
    "Dirichlet": lambda: distributions.Dirichlet(torch.ones(3)).sample(),
    "VonMises": lambda: distributions.VonMises(ONE, ONE).sample(),
}


def drawn(draw: Callable[[], Any], seed: int) -> Any:
    with torch.no_grad(), DrawsFrom(torch.Generator().manual_seed(seed)):
        return draw()


@pytest.mark.parametrize("name", DRAWING)
def test_a_draw_comes_from_the_generator_of_the_call(name: str) -> None:
    draw = DRAWING[name]
    before = default_state()
    found, again, other = (drawn(draw, seed) for seed in (1, 1, 2))
    assert default_state() == before, "the default generator is as it was"
    assert torch.equal(found, again)
    assert not torch.equal(found, other)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        assert torch.equal(found, draw())


def test_a_draw_of_an_operator_that_takes_no_generator_is_led_too() -> None:
    before = default_state()
    found, again, other = (
        drawn(lambda: torch.native_dropout(X, 0.5, True)[0], seed) for seed in (1, 1, 2)
    )
    assert default_state() == before
    assert torch.equal(found, again)
    assert not torch.equal(found, other)


def test_a_generator_that_is_given_is_the_one_drawn_from() -> None:
    for draw in (torch.rand, torch.empty(3).uniform_):
        own = torch.Generator().manual_seed(7)
        size = (3,) if draw is torch.rand else ()
        found = drawn(lambda draw=draw, size=size, own=own: draw(*size, generator=own), 1)
        assert torch.equal(found, torch.rand(3, generator=torch.Generator().manual_seed(7)))


def test_what_is_asked_of_a_tensor_alike_is_kept() -> None:
    image = X[None].to(memory_format=torch.channels_last)
    asked = {"dtype": torch.float64, "requires_grad": True}
    for draw in (torch.rand_like, torch.randn_like):
        found = drawn(lambda draw=draw: draw(image, **asked), 1)
        assert found.dtype == torch.float64
        assert found.requires_grad
        assert found.is_contiguous(memory_format=torch.channels_last)
        plain = drawn(lambda draw=draw: draw(image, memory_format=torch.contiguous_format), 1)
        assert plain.is_contiguous()


def test_only_views_during_which_the_default_generator_moves_are_compared_and_few_of_these() -> (
    None
):
    escapes = Escapes()
    assert not any(escapes.to_be_compared(default_state()) for _ in range(1000))
    assert sum(escapes.to_be_compared(b"other") for _ in range(9000)) <= 9 + 10_000 // 100
