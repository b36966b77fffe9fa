from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagenet_stand_in import make_imagenet
from sdclr import PretrainConfig, pretrain, recipe
from sdclr.config import differing_fields
from sdclr.errors import ConfigError
from sdclr.methods import SDCLRConfig
from sdclr.recipes import ARM_SETS, RECIPES, SYSTEMS

StandIn = Callable[[str], dict[str, str | None]]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """Where a data set is: CIFAR's exact sizes with noise for pixels, ImageNet's folders, lists and classes."""
    folder = tmp_path_factory.mktemp("data")

    @cache
    def made(name: str) -> dict[str, str | None]:
        if name == "digits":
            return {}
        if name in ("cifar10", "cifar100"):
            write_cifar(folder / f"{name}.npz", classes=10 if name == "cifar10" else 100)
            return {"data.path": str(folder / f"{name}.npz")}
        classes, per_class = {"imagenet100": (100, 10), "imagenet_lt_exp": (1000, 3)}[name]
        found = make_imagenet(
            folder / name,
            classes,
            name=name,
            train_per_class=per_class,
            validation_per_class=1,
            test_per_class=1,
        )
        return {"data.path": str(found.root), "data.splits_dir": str(found.splits_dir)}

    return made


def write_cifar(file: Path, classes: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    arrays = {}
    for part, count in (("train", 50_000), ("test", 10_000)):
        arrays[f"{part}_images"] = np.broadcast_to(image, (count, 32, 32, 3))
        arrays[f"{part}_labels"] = np.arange(count) % classes
    np.savez(file, **arrays)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_resolves(name: str) -> None:
    config = recipe(name)
    assert config.recipe == name
    assert PretrainConfig.parse(config.to_dict()) == config


SYSTEM_RECIPES = [SYSTEMS[dataset][arm] for dataset in SYSTEMS for arm in ARM_SETS["paper"]]


AT_ONCE = ("cifar10_lt_sdclr",)
"""The others are the same code with other numbers."""


@pytest.mark.journeys
@pytest.mark.parametrize(
    "name",
    [
        name if name in AT_ONCE else pytest.param(name, marks=pytest.mark.slow)
        for name in SYSTEM_RECIPES
    ],
)
def test_every_system_runs_two_epochs_on_data_of_its_shape(
    name: str, tmp_path: Path, stand_in: StandIn
) -> None:
    """The published systems, and ours on ImageNet-LT-exp: real numbers of images on CIFAR, of classes always."""
    config = recipe(name)
    small = {"views.size": 8, "backbone.width": 2, "epochs": 2}
    # labels of a stand-in have nothing to do with its pixels, and it says so
    small |= {"health_every_epochs": 0}
    if config.backbone.stem == "large":
        small |= {"views.size": 32}
    run = pretrain(config.with_values(small | stand_in(config.data.name)), tmp_path / "run")
    assert [line["epoch"] for line in run.metrics()] == [1, 2]
    assert run.backbone_path.is_file()
    if config.data.name.startswith("cifar"):
        balanced = config.data.subset == "balanced"
        sizes = {("cifar10", False): 11_165, ("cifar10", True): 11_160, ("cifar100", False): 9_754,
                 ("cifar100", True): 9_700}  # fmt: skip
        counts = run.read_json("split.json")["counts"]
        assert sum(counts[config.data.subset]) == sizes[config.data.name, balanced]


def test_there_are_eleven_published_systems_and_one_of_ours() -> None:
    assert len({name for name in SYSTEM_RECIPES if not name.startswith("digits")}) == 11 + 1
    assert "UNPUBLISHED" in RECIPES["imagenet_lt_exp_sdclr"].summary


def test_the_published_settings_are_the_papers() -> None:
    simclr, sdclr = recipe("cifar10_lt_simclr"), recipe("cifar10_lt_sdclr")
    for config in (simclr, sdclr):
        assert (config.epochs, config.batch_size, config.seed) == (2000, 512, 10)
        assert (config.backbone.name, config.backbone.width, config.backbone.stem) == (
            "resnet18",
            64,
            "small",
        )
        optimizer = config.optimizer
        assert (optimizer.name, optimizer.learning_rate, optimizer.momentum) == ("sgd", 0.5, 0.9)
        assert (
            optimizer.weight_decay,
            optimizer.final_learning_rate,
            optimizer.decay_norms_and_biases,
        ) == (
            1e-4,
            1e-6,
            True,
        )
        views = config.views
        assert (views.size, views.area, views.flip, views.grey, views.blur) == (
            32,
            (0.1, 1.0),
            0.5,
            0.2,
            0.0,
        )
        assert (views.jitter, views.jitter_probability) == ((0.4, 0.4, 0.4, 0.1), 0.8)
        assert (config.method.temperature, config.method.projection_dim) == (0.2, 128)
    assert (simclr.method.projector_layers, sdclr.method.projector_layers) == (2, 3)
    assert isinstance(sdclr.method, SDCLRConfig)
    assert (sdclr.method.prune_ratio, sdclr.method.norms, sdclr.method.random_share) == (
        0.9,
        "own",
        0.0,
    )


def test_the_published_settings_on_imagenet_are_the_papers() -> None:
    for dataset in ("imagenet100", "imagenet_lt_exp"):
        for arm in ARM_SETS["paper"]:
            config = recipe(SYSTEMS[dataset][arm])
            assert (config.epochs, config.batch_size, config.seed) == (500, 256, 1)
            assert (config.backbone.name, config.backbone.width, config.backbone.stem) == (
                "resnet50",
                64,
                "large",
            )
            views = config.views
            assert (views.size, views.area, views.flip, views.grey) == (224, (0.08, 1.0), 0.5, 0.2)
            assert (views.blur, views.blur_sigma, views.jitter_probability) == (
                0.5,
                (0.1, 2.0),
                0.8,
            )
            assert config.method.projection_dim == 128
    simclr, sdclr = recipe("imagenet100_lt_simclr").method, recipe("imagenet100_lt_sdclr").method
    assert isinstance(sdclr, SDCLRConfig)
    assert (simclr.projector_layers, simclr.temperature) == (2, 0.2)
    assert (sdclr.projector_layers, sdclr.temperature, sdclr.prune_ratio, sdclr.norms) == (
        3,
        0.3,
        0.3,
        "own",
    )


COMPETITOR = {
    f"method.{name}"
    for name in ("prune_ratio", "norms", "random_share", "prunable", "dropout", "stale", "name")
}
NORM_BATCH = {"method.passes"}
"""A setting of SimCLR alone: as published, its norms see both views at once; each branch of SDCLR sees one."""


@pytest.mark.parametrize("dataset", SYSTEMS)
def test_matched_arms_differ_in_the_competitor_and_the_subset_alone(dataset: str) -> None:
    arms = ARM_SETS["matched"] if dataset != "digits" else ARM_SETS["paper"]
    balanced, simclr, sdclr = (recipe(SYSTEMS[dataset][arm]).to_dict() for arm in arms)
    assert {line.partition(":")[0] for line in differing_fields(simclr, sdclr)} == {
        "recipe"
    } | COMPETITOR | NORM_BATCH
    assert {line.partition(":")[0] for line in differing_fields(balanced, simclr)} == {
        "recipe",
        "data.subset",
    }


def test_paper_arms_differ_in_the_known_confounds_too() -> None:
    for dataset, confounds in (
        ("cifar10", {"projector_layers"}),
        ("cifar100", {"projector_layers"}),
        ("imagenet100", {"projector_layers", "temperature"}),
        ("imagenet_lt_exp", {"projector_layers"}),
    ):
        simclr, sdclr = (recipe(SYSTEMS[dataset][arm]).to_dict() for arm in ("simclr", "sdclr"))
        found = (
            {line.partition(":")[0] for line in differing_fields(simclr, sdclr)}
            - COMPETITOR
            - {"recipe"}
        )
        assert found == {f"method.{name}" for name in confounds} | NORM_BATCH


def test_an_unknown_recipe_is_answered_with_the_one_that_is_meant_or_with_how_to_list_them() -> (
    None
):
    with pytest.raises(ConfigError, match=r"Did you mean cifar10_lt_sdclr\?$"):
        recipe("cifar10_lt_sdclt")
    with pytest.raises(ConfigError, match=r"`sdclr recipes list` names the recipes\.$"):
        recipe("moco")


@pytest.mark.parametrize("name", RECIPES)
def test_a_row_of_the_table_names_the_recipe_it_builds(name: str) -> None:
    assert RECIPES[name].name == RECIPES[name]().recipe == name
    assert RECIPES[name].summary.endswith(".")


Arm = tuple[str, str]
_COMMON: Mapping[str, Any] = {
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.5,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 1e-4,
    "optimizer.final_learning_rate": 1e-6,
    "optimizer.decay_norms_and_biases": True,
    "backbone.width": 64,
    "backbone.pretrained": False,
    "weights": None,
    "views.aspect": [3 / 4, 4 / 3],
    "views.flip": 0.5,
    "views.jitter": [0.4, 0.4, 0.4, 0.1],
    "views.jitter_probability": 0.8,
    "views.grey": 0.2,
    "method.projection_dim": 128,
}
_CIFAR: dict[str, Any] = {
    **_COMMON,
    "backbone.name": "resnet18",
    "backbone.stem": "small",
    "epochs": 2000,
    "batch_size": 512,
    "views.size": 32,
    "views.area": [0.1, 1.0],
    "views.blur": 0.0,
}
_IMAGENET: dict[str, Any] = {
    **_COMMON,
    "backbone.name": "resnet50",
    "backbone.stem": "large",
    "epochs": 500,
    "batch_size": 256,
    "views.size": 224,
    "views.area": [0.08, 1.0],
    "views.blur": 0.5,
    "views.blur_sigma": [0.1, 2.0],
}
SETUP: Mapping[str, Mapping[str, Any]] = {
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "imagenet100": _IMAGENET,
    "imagenet_lt_exp": _IMAGENET,
}
"""What the published runs were, in the names of our settings."""

_SIMCLR = {
    "method.projector_layers": 2,
    "method.temperature": 0.2,
    "method.passes": "joint",
}
_SDCLR = {
    "method.projector_layers": 3,
    "method.norms": "own",
    "method.random_share": 0.0,
    "method.prunable": "conv",
    "method.dropout": 0.0,
    "method.stale": False,
}
_SDCLR_CIFAR = _SDCLR | {"method.temperature": 0.2, "method.prune_ratio": 0.9}
_SDCLR_IMAGENET100 = _SDCLR | {"method.temperature": 0.3, "method.prune_ratio": 0.3}
_BOTH_SIMCLR: Mapping[Arm, Mapping[str, Any]] = {
    ("simclr", "balanced"): _SIMCLR,
    ("simclr", "long_tail"): _SIMCLR,
}
METHOD: Mapping[str, Mapping[Arm, Mapping[str, Any]]] = {
    "cifar10": {**_BOTH_SIMCLR, ("sdclr", "long_tail"): _SDCLR_CIFAR},
    "cifar100": {**_BOTH_SIMCLR, ("sdclr", "long_tail"): _SDCLR_CIFAR},
    "imagenet100": {**_BOTH_SIMCLR, ("sdclr", "long_tail"): _SDCLR_IMAGENET100},
    "imagenet_lt_exp": _BOTH_SIMCLR,
}
"""The published arms: head depth, norms, temperature and prune ratio."""


def test_the_published_rows_facts_are_those_of_the_published_recipes() -> None:
    """As method.md of the paper's repository tells them; a report holds runs to the recipes."""
    for dataset, arms in METHOD.items():
        for (method, subset), facts in arms.items():
            arm = {
                "sdclr": "sdclr",
                "simclr": "simclr_balanced" if subset == "balanced" else "simclr",
            }[method]
            config = recipe(SYSTEMS[dataset][arm]).to_dict()
            for name, value in {**SETUP[dataset], **facts}.items():
                found = config
                for part in name.split("."):
                    found = found[part]
                assert found == value, (dataset, arm, name)
            assert (config["method"]["name"], config["data"]["subset"]) == (method, subset)
            assert set(facts) | {"method.projection_dim", "method.name"} == {
                f"method.{key}" for key in config["method"]
            }
