"""RECIPES: every row is a complete config, and one from outside is as good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import sdclr
from sdclr import PretrainConfig, recipe
from sdclr.cli.settings import pretrain_settings
from sdclr.errors import ConfigError
from sdclr.recipes import RECIPES


def tiny_digits() -> PretrainConfig:
    """SDCLR on digits, in seconds."""
    return recipe("digits_sdclr").with_values({"recipe": "tiny_digits", "epochs": 1})


def with_an_argument(epochs: int) -> PretrainConfig:
    return recipe("digits_sdclr").with_values({"epochs": epochs})


def no_config() -> dict[str, int]:
    return {"epochs": 3}


OURS = tuple(RECIPES)


@pytest.fixture(autouse=True)
def own_entries() -> Iterator[None]:
    with RECIPES.temporarily():
        sdclr.register_recipe(tiny_digits)
        yield


@pytest.mark.parametrize("name", [*OURS, "tiny_digits"])
def test_every_recipe_is_a_whole_config_that_knows_its_name(name: str, tmp_path: Path) -> None:
    config = recipe(name)
    assert config.recipe == name
    (tmp_path / "x.yaml").write_text(config.to_yaml())
    assert PretrainConfig.from_yaml(tmp_path / "x.yaml") == config
    assert RECIPES[name].summary.endswith(".")


def test_the_command_line_takes_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_recipes.py").write_text(
        "import sdclr\ndef short():\n    return sdclr.recipe('digits_sdclr').with_values({'epochs': 2})\n"
    )
    monkeypatch.chdir(tmp_path)
    config, out, _ = pretrain_settings(["my_recipes:short", "seed=3"], None, {}, None)
    assert (config.epochs, config.seed) == (2, 3)
    assert out == Path("runs/digits_sdclr")
    assert "short" in RECIPES


def test_what_is_no_recipe_is_refused() -> None:
    with pytest.raises(ConfigError, match="it must take no arguments"):
        sdclr.register_recipe(with_an_argument)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="it must return a PretrainConfig, got dict"):
        sdclr.register_recipe(no_config)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="it is not a function"):
        sdclr.register_recipe(3)  # type: ignore[arg-type]
