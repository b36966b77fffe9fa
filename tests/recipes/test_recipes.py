from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from sdclr import PretrainConfig, Run, pretrain, recipe
from sdclr.config import differing_fields
from sdclr.errors import ConfigError, Preempted
from sdclr.methods import SDCLRConfig
from sdclr.presentation.progress import NoProgress
from sdclr.recipes import RECIPES


@pytest.fixture(scope="module")
def synthetic_cifar(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Arrays of CIFAR's exact sizes, with noise for pixels."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("cifar")
    paths = {}
    for name, classes in (("cifar10", 10), ("cifar100", 100)):
        paths[name] = folder / f"{name}.npz"
        arrays = {
            f"{part}_{kind}": values
            for part, count in (("train", 50_000), ("test", 10_000))
            for kind, values in (
                ("images", np.broadcast_to(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), (count, 32, 32, 3))),
                ("labels", np.arange(count) % classes),
            )
        }
        np.savez(paths[name], **arrays)
    return paths


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_resolves_and_runs_two_steps(name: str, tmp_path: Path, synthetic_cifar: dict[str, Path]) -> None:
    config = recipe(name)
    assert config.recipe == name
    assert PretrainConfig.parse(config.to_dict()) == config
    values: dict[str, object] = {"views.size": 8, "backbone.name": "resnet10", "backbone.width": 2, "batch_size": 64}
    values["data.path"] = None if config.data.name == "digits" else str(synthetic_cifar[config.data.name])
    with pytest.raises(Preempted, match="at step 2 of"):
        pretrain(config.with_values(values), tmp_path / "run", progress=StopAfterTwoSteps())
    newest = Run(tmp_path / "run").checkpoints.newest()
    assert newest is not None
    assert newest.step == 2


class StopAfterTwoSteps(NoProgress):
    steps = 0

    def advance(self, task: int, amount: int = 1, note: str | None = None) -> None:
        self.steps += amount
        if self.steps == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def test_the_published_settings_are_the_papers() -> None:
    simclr, sdclr = recipe("cifar10_lt_simclr"), recipe("cifar10_lt_sdclr")
    for config in (simclr, sdclr):
        assert (config.epochs, config.batch_size, config.seed) == (2000, 512, 10)
        assert (config.backbone.name, config.backbone.width, config.backbone.stem) == ("resnet18", 64, "small")
        optimizer = config.optimizer
        assert (optimizer.name, optimizer.learning_rate, optimizer.momentum) == ("sgd", 0.5, 0.9)
        assert (optimizer.weight_decay, optimizer.final_learning_rate, optimizer.decay_norms_and_biases) == (
            1e-4,
            1e-6,
            True,
        )
        views = config.views
        assert (views.size, views.area, views.flip, views.grey, views.blur) == (32, (0.1, 1.0), 0.5, 0.2, 0.0)
        assert (views.jitter, views.jitter_probability) == ((0.4, 0.4, 0.4, 0.1), 0.8)
        assert (config.method.temperature, config.method.projection_dim) == (0.2, 128)
    assert (simclr.method.projector_layers, sdclr.method.projector_layers) == (2, 3)
    assert isinstance(sdclr.method, SDCLRConfig)
    assert (sdclr.method.prune_ratio, sdclr.method.norms, sdclr.method.random_share) == (0.9, "own", 0.0)


@pytest.mark.parametrize("pair", [("digits_simclr", "digits_sdclr"), ("cifar10_lt_simclr_matched", "cifar10_lt_sdclr")])
def test_matched_recipes_differ_in_the_competitor_alone(pair: tuple[str, str]) -> None:
    differences = {line.partition(":")[0] for line in differing_fields(*(recipe(name).to_dict() for name in pair))}
    competitor = {"prune_ratio", "norms", "random_share", "prunable", "name"}
    assert differences == {"recipe"} | {f"method.{name}" for name in competitor}


def test_an_unknown_recipe_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean cifar10_lt_sdclr\? Recipes: digits_simclr"):
        recipe("cifar10_lt_sdclt")
