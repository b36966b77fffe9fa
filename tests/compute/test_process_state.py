"""A library call leaves what a process has only once as it was."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sdclr import evaluate, load_backbone, pretrain, recipe
from sdclr.compute.process_state import default_generators, silenced_warnings
from sdclr.settings import PretrainConfig
from sdclr.storage.tensor_files import read_tensors


def config(seed: int) -> PretrainConfig:
    values = {"backbone": {"name": "custom"}, "epochs": 2, "batch_size": 128, "seed": seed}
    return recipe("digits_sdclr").with_values({**values, "method.projection_dim": 8})


def network() -> nn.Module:
    """Draws from the default generator at every step."""
    with default_generators(0, torch.device("cpu")):
        return nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.5),
        )


def trained(folder: Path, seed: int) -> dict[str, torch.Tensor]:
    return read_tensors(pretrain(config(seed), folder, network=network()).backbone_path)[0]


@pytest.mark.journeys
def test_two_trainings_in_two_threads_are_each_what_it_is_alone(tmp_path: Path) -> None:
    alone = {seed: trained(tmp_path / f"alone-{seed}", seed) for seed in (1, 2)}
    together: dict[int, dict[str, torch.Tensor]] = {}

    def train(seed: int) -> None:
        together[seed] = trained(tmp_path / f"together-{seed}", seed)

    threads = [threading.Thread(target=train, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, tensors in alone.items():
        for name, tensor in tensors.items():
            assert torch.equal(together[seed][name], tensor), (seed, name)


@pytest.mark.journeys
def test_training_loading_and_evaluating_leave_the_callers_generators_and_filters(
    tmp_path: Path,
) -> None:
    state, numpy_state, filters = (
        torch.get_rng_state(),
        np.random.get_state()[1].copy(),  # noqa: NPY002
        list(warnings.filters),
    )
    run = pretrain(
        recipe("digits_sdclr").with_overrides(
            ["epochs=1", "backbone.name=resnet10", "backbone.width=2"]
        ),
        tmp_path / "r",
    )
    load_backbone(run.folder)
    evaluate(run, protocol="sdclr", probes=["few_shot", "knn"])
    evaluate(run, probes=["few_shot"])
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert list(warnings.filters) == filters


def test_the_default_generator_draws_as_after_a_seed_and_then_goes_on() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second = torch.rand(3), torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), first)
    with default_generators(5, torch.device("cpu")):
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.rand(3), second)


def test_silenced_warnings_are_those_that_begin_so_and_no_others() -> None:
    with silenced_warnings("mi"):
        warnings.warn("mine", UserWarning, stacklevel=1)
        with pytest.warns(UserWarning, match="other"):
            warnings.warn("other", UserWarning, stacklevel=1)
