from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sdclr.errors import ConfigError
from sdclr.methods import magnitude_masks as module
from sdclr.methods.magnitude_masks import SAMPLED, magnitude_masks


def test_masks_equal_the_reference_exactly(golden: Path) -> None:
    values = np.load(golden / "magnitude_mask.npz")
    for tag in ("plain", "ties", "const", "zeros"):
        weights = [torch.tensor(values[f"{tag}_w{i}"]) for i in range(int(values[f"{tag}_n"]))]
        for j, ratio in enumerate(values["fractions"]):
            for i, mask in enumerate(magnitude_masks(weights, float(ratio))):
                np.testing.assert_array_equal(mask.numpy(), values[f"{tag}_mask{i}_{j}"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("prune_ratio", [0.0, 0.3, 0.5, 0.9, 0.999])
def test_masks_are_those_of_a_full_sort_whatever_ties(
    dtype: torch.dtype, prune_ratio: float
) -> None:
    generator = torch.Generator().manual_seed(1)
    weights = [
        torch.randn(7, 5, generator=generator),
        torch.randint(-2, 3, (40,), generator=generator) / 4,
    ]
    weights = [w.to(dtype) for w in weights]
    before = [w.clone() for w in weights]
    magnitudes = torch.cat([w.abs().flatten() for w in weights]).sort().values
    threshold = magnitudes[min(math.ceil(prune_ratio * 75), 74)]
    for mask, weight, old in zip(
        magnitude_masks(weights, prune_ratio), weights, before, strict=True
    ):
        assert torch.equal(mask, weight.abs() >= threshold)
        assert torch.equal(weight, old), "weights keep their order"


N = 3 * SAMPLED + 17
_RNG = np.random.default_rng(0)
SPIKE = np.ones(N)
SPIKE[:: N // SAMPLED] = 5.0  # just where the sample is taken
LARGE = {
    "normal": _RNG.normal(size=N),
    "few values": _RNG.integers(0, 3, N) / 8,
    "one value": np.ones(N),
    "sorted": np.sort(_RNG.normal(size=N)),
    "the sample misleads": SPIKE,
    "tiny and huge": np.exp(_RNG.normal(size=N) * 30),
    "with infinity and zeros": np.where(_RNG.random(N) < 0.1, np.inf, 0.0),
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("prune_ratio", [0.0, 1e-5, 0.5, 0.9, 0.99999, 1.0])
def test_large_masks_are_those_of_a_full_sort(name: str, prune_ratio: float) -> None:
    weights = [torch.from_numpy(part).float() for part in np.array_split(LARGE[name], 3)]
    magnitudes = torch.cat(weights).abs().sort().values
    threshold = magnitudes[min(math.ceil(prune_ratio * N), N - 1)]
    for mask, weight in zip(magnitude_masks(weights, prune_ratio), weights, strict=True):
        assert torch.equal(mask, weight.abs() >= threshold)


def test_the_bounds_of_a_sample_save_searching_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []
    partition = np.partition

    def counted(array: np.ndarray, k: int) -> np.ndarray:
        searched.append(len(array))
        return partition(array, k)

    monkeypatch.setattr(module.np, "partition", counted)
    magnitude_masks([torch.from_numpy(LARGE["normal"])], 0.9)
    assert searched[0] < 0.1 * N
    magnitude_masks([torch.from_numpy(LARGE["the sample misleads"])], 0.5)
    assert searched[1] == N


def test_weights_of_several_precisions_and_layouts_have_one_threshold() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(8, 4, 3, 3, generator=generator).to(memory_format=torch.channels_last)
    fine = torch.randn(9, generator=generator).double()
    masks = magnitude_masks([wide, fine], 0.5)
    magnitudes = torch.cat([wide.abs().flatten().double(), fine.abs()]).sort().values
    assert sum(int(mask.sum()) for mask in masks) == len(magnitudes) - math.ceil(
        0.5 * len(magnitudes)
    )
    assert masks[0].is_contiguous(memory_format=torch.channels_last), "as its weight lies"


@pytest.mark.gpu
def test_a_device_finds_the_same_threshold() -> None:
    weights = [torch.from_numpy(part).float() for part in np.array_split(LARGE["normal"], 3)]
    here = magnitude_masks(weights, 0.9)
    there = magnitude_masks([weight.cuda() for weight in weights], 0.9)
    assert all(torch.equal(a, b.cpu()) for a, b in zip(here, there, strict=True))


@pytest.mark.parametrize("dtypes", [(torch.float32,) * 4, (torch.float32, torch.bfloat16) * 2])
def test_masks_are_those_of_any_layout(dtypes: tuple[torch.dtype, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(8, 4, 3, 3), (16, 8, 1, 1), (5, 7), (6, 2, 3, 3)]
    plain = [
        torch.randn(shape, generator=generator).to(dtype)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]
    laid_out = [
        plain[0].to(memory_format=torch.channels_last),
        plain[1].to(memory_format=torch.channels_last),
        plain[2].T.contiguous().T,
        plain[3].repeat_interleave(2, dim=1)[:, ::2],  # not side by side
    ]
    expected = magnitude_masks(plain, 0.7)
    for weight, mask, same in zip(laid_out, magnitude_masks(laid_out, 0.7), expected, strict=True):
        assert torch.equal(mask, same)
        if weight is not laid_out[3]:
            assert mask.stride() == weight.stride()
    assert not laid_out[3].is_contiguous()


@pytest.mark.parametrize(
    "weights", [[], [torch.zeros(0)], [torch.zeros(3, dtype=torch.complex64)], [torch.arange(3)]]
)
def test_what_has_no_magnitudes_to_compare_is_refused(weights: list[torch.Tensor]) -> None:
    with pytest.raises(ConfigError, match="weights of real floating-point numbers, at least one"):
        magnitude_masks(weights, 0.5)
