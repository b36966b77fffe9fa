from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sdclr import SDCLR, SimCLR, nt_xent
from sdclr.errors import ConfigError
from sdclr.methods import nt_xent as nt_xent_module
from sdclr.methods import tiled_nt_xent


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 7 rows, on from the first image."""
    monkeypatch.setattr(nt_xent_module, "TILED_ABOVE", 0)
    monkeypatch.setattr(tiled_nt_xent, "ROWS", 7)


def projections(batch: int, dtype: torch.dtype, dim: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(batch)
    z_a = torch.randn(batch, dim, generator=generator, dtype=torch.float64)
    z_b = z_a + 0.3 * torch.randn(batch, dim, generator=generator, dtype=torch.float64)
    return [z.to(dtype).requires_grad_() for z in (z_a, z_b)]


def losses_and_gradients(z: list[Tensor], temperature: float) -> list[Tensor]:
    loss = nt_xent(*z, temperature)
    weights = torch.linspace(0.1, 1, len(loss), dtype=loss.dtype)  # every image counts differently
    return [loss.detach(), *torch.autograd.grad((loss * weights).sum(), z)]


@pytest.mark.parametrize("temperature", [0.01, 0.07, 0.2, 1.0])
@pytest.mark.parametrize(
    "batch", [2, 7, 14, 33]
)  # 4 .. 66 rows: less than a tile, whole tiles, a rest
def test_tiles_give_the_losses_and_gradients_of_the_whole_matrix(
    batch: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # logits go up to 1 / temperature, and fp32 rounds them to a part in 10 million; which way differs between machines
    for dtype, tolerance in (
        (torch.float64, 1e-12),
        (torch.float32, max(1e-5, 5e-7 / temperature)),
    ):
        z = projections(batch, dtype)
        plain = losses_and_gradients(z, temperature)
        with monkeypatch.context() as patch:
            patch.setattr(nt_xent_module, "TILED_ABOVE", 0)
            patch.setattr(tiled_nt_xent, "ROWS", 7)
            tiled = losses_and_gradients(z, temperature)
        for one, other in zip(tiled, plain, strict=True):
            size = max(1.0, float(other.abs().max()))
            torch.testing.assert_close(one, other, rtol=0, atol=tolerance * size)


def test_a_large_batch_is_tiled_and_gives_the_plain_value() -> None:
    z = projections(nt_xent_module.TILED_ABOVE + 5, torch.float32, dim=4)
    loss = nt_xent(*z, 0.2)
    assert "Tiled" in str(loss.grad_fn.next_functions[0][0].next_functions[0][0])  # type: ignore[union-attr]
    with torch.no_grad():
        unit = torch.nn.functional.normalize(torch.cat(z).double(), dim=1)
        logits = (unit @ unit.T / 0.2).fill_diagonal_(-torch.inf)
        positive = logits.diagonal(len(z[0]))
        expected = logits.logsumexp(dim=1).view(2, -1).mean(dim=0) - positive
    torch.testing.assert_close(loss.detach().double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_tiled_gradient_passes_gradcheck(temperature: float) -> None:
    z = projections(9, torch.float64, dim=3)
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, temperature), z)


@pytest.mark.usefixtures("small_tiles")
def test_identical_views_never_give_a_loss_below_zero() -> None:
    z = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    assert nt_xent(z, z, 0.01).min() >= 0


class LargestResult(TorchDispatchMode):
    """Remembers the elements of the largest tensor that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.numel = max(self.numel, out.numel())
        return out


def memory(batch: int) -> tuple[int, int]:
    """Elements saved for the backward pass, and of the largest tensor of both passes."""
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.data_ptr()] = tensor.numel()
        return tensor

    z = projections(batch, torch.float32, dim=4)
    with LargestResult() as largest:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = nt_xent(*z, 0.2).mean()
        loss.backward()
    return sum(saved.values()), largest.numel


def test_memory_grows_with_the_batch_and_not_with_its_square(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = [memory(batch) for batch in (64, 128)]
    monkeypatch.setattr(nt_xent_module, "TILED_ABOVE", 0)
    monkeypatch.setattr(tiled_nt_xent, "ROWS", 7)
    tiled = [memory(batch) for batch in (64, 128)]
    for small, large in zip(*plain, strict=True):
        assert large > 3 * small, "the plain form holds the whole matrix"
    for small, large in zip(*tiled, strict=True):
        assert large <= 2.1 * small
    assert tiled[1][1] == 7 * 2 * 128, "nothing is larger than a tile"


@pytest.mark.slow
@pytest.mark.usefixtures("small_tiles")
@pytest.mark.filterwarnings("ignore::FutureWarning")  # from inside torch 2.14's compiler
def test_the_tiled_loss_compiles_in_one_graph() -> None:
    z = projections(12, torch.float32)
    expected = losses_and_gradients(z, 0.2)
    compiled = torch.compile(lambda a, b: nt_xent(a, b, 0.2).mean(), fullgraph=True)
    value = compiled(*z)
    torch.testing.assert_close(value.detach(), expected[0].mean())
    eager = torch.autograd.grad(nt_xent(*z, 0.2).mean(), z)
    for one, other in zip(torch.autograd.grad(value, z), eager, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_temperature_tensor_gets_the_same_gradient_in_tiles_and_without(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    z = projections(33, dtype)
    weights = torch.linspace(0.1, 1, 33, dtype=dtype)

    def gradient(above: int) -> Tensor:
        monkeypatch.setattr(nt_xent_module, "TILED_ABOVE", above)
        monkeypatch.setattr(tiled_nt_xent, "ROWS", 7)
        temperature = torch.tensor([0.2], dtype=dtype, requires_grad=True)
        return torch.autograd.grad((nt_xent(*z, temperature) * weights).sum(), temperature)[0]

    def loss(temperature: float) -> Tensor:
        with torch.no_grad():
            return (nt_xent(*z, temperature).double() * weights).sum()

    plain, tiled = gradient(2048), gradient(0)
    torch.testing.assert_close(tiled, plain, rtol=1e-10 if dtype == torch.float64 else 1e-4, atol=0)
    if dtype == torch.float64:
        difference = (loss(0.2 + 1e-6) - loss(0.2 - 1e-6)) / 2e-6
        torch.testing.assert_close(float(plain), float(difference), rtol=1e-6, atol=0)


def test_a_gradient_can_be_differentiated_again_in_tiles_as_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    z = [projections(9, torch.float64)[0], projections(9, torch.float64)[1]]
    temperature = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    seconds = []
    for above in (2048, 0):
        monkeypatch.setattr(nt_xent_module, "TILED_ABOVE", above)
        loss = (nt_xent(*z, temperature) * torch.linspace(0.1, 1, 9, dtype=torch.float64)).sum()
        first = torch.autograd.grad(loss, [*z, temperature], create_graph=True)
        penalty = sum((part**2).sum() for part in first)
        assert isinstance(penalty, Tensor)
        seconds.append(torch.autograd.grad(penalty, [*z, temperature]))
    for tiled, plain in zip(seconds[1], seconds[0], strict=True):
        torch.testing.assert_close(tiled, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("above", [0, 2048])
@pytest.mark.parametrize(
    "temperature",
    [
        *(
            0.0,
            -0.2,
            float("nan"),
            float("inf"),
            1e-300,
            10**40,
            True,
            "0.2",
            None,
            np.array([0.2]),
        ),
        *(torch.tensor(0.0), torch.tensor(-1.0), torch.tensor(2), torch.ones(3)),
    ],
)
def test_a_temperature_that_is_no_positive_number_is_refused(
    temperature: Any, above: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nt_xent_module, "TILED_ABOVE", above)
    with pytest.raises(ConfigError, match="temperature must be a"):
        nt_xent(*projections(5, torch.float32), temperature)
    for method in (SimCLR, SDCLR):
        with pytest.raises(ConfigError, match="temperature must be a"):
            method(torch.nn.Conv2d(3, 3, 3), temperature)


def test_projections_that_do_not_belong_together_are_refused() -> None:
    a, b = torch.rand(4, 3), torch.rand(5, 3)
    for pair in ((a, b), (a, a[:, :2]), (a[0], a[0]), (a[:0], a[:0]), (a.int(), a.int())):
        with pytest.raises(ConfigError, match="nt_xent takes"):
            nt_xent(*pair, 0.2)
