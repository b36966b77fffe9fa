from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from sdclr import PretrainConfig, recipe
from sdclr.config import COMMON_WORDS, differing_fields, setting_meant
from sdclr.errors import ConfigError, MissingInputError


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method.prune_ratio=90", ["method.prune_ratio", "90", "did you mean 0.9?"]),
        (
            "method.prune_ratios=0.9",
            ["method.prune_ratios is not a setting", "did you mean method.prune_ratio?"],
        ),
        ("metod.name=simclr", ["metod is not a setting", "did you mean method?"]),
        ("lr=0.1", ["lr is not a setting; did you mean optimizer.learning_rate?"]),
        ("model=resnet50", ["model is not a setting; did you mean backbone.name?"]),
        ("workers=4", ["workers is not a setting; did you mean data.num_workers?"]),
        (
            "optimizer.lr=0.1",
            ["optimizer.lr is not a setting; did you mean optimizer.learning_rate?"],
        ),
        ("max_skipped=3", ["max_skipped is not a setting; did you mean data.max_skipped?"]),
        ("data.max_skipped=x", ["data.max_skipped must be a valid integer or a valid number, got"]),
        ("zzz=3", ["zzz is not a setting; there are", "`sdclr recipes show NAME` prints them all"]),
        ("backbone.widht=16", ["did you mean backbone.width?"]),
        ("epochs=ten", ["epochs", "valid integer", "'ten'"]),
        ("epochs=0", ["epochs", "greater than or equal to 1", "got 0"]),
        ("epochs=1.5", ["epochs", "1.5"]),
        ("precision=fp16", ["precision", "'fp32'", "'fp16'"]),
        ("method.name=byol", ["method.name: there is no method 'byol'", "simclr, sdclr", "byol"]),
        ("views.area=[0.5,0.1]", ["views", "area", "smallest <= largest"]),
        ("method.random_share=0.95", ["random_share (0.95) must not exceed prune_ratio"]),
        ("data.path=/x", ["data", "digits come with scikit-learn"]),
        ("seed=-1", ["seed", "-1"]),
        ("epochs.x=1", ["epochs is a value, not a section"]),
        ("epochs", ["cannot read the setting 'epochs'", "section.key=value"]),
        ("1x=2", ["cannot read the setting"]),
    ],
)
def test_a_wrong_setting_gets_one_error_with_field_value_and_cure(
    override: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        recipe("digits_sdclr").with_overrides([override])
    for word in words:
        assert word in str(error.value)
    assert error.value.exit_code == 78


def test_overrides_take_numbers_texts_lists_booleans_and_null() -> None:
    config = recipe("digits_sdclr").with_overrides(
        [
            "epochs=2",
            "backbone.name=resnet18",
            "views.area=[0.2, 1]",
            "activation_checkpointing=true",
            "weights=null",
        ]
    )
    assert (config.epochs, config.backbone.name, config.views.area) == (2, "resnet18", (0.2, 1.0))
    assert config.activation_checkpointing is True
    assert config.with_overrides(["optimizer.learning_rate=1e-3"]).optimizer.learning_rate == 0.001


def test_a_saved_config_reads_back_equal(tmp_path: Path) -> None:
    config = recipe("cifar10_lt_sdclr").with_overrides(
        ["optimizer.final_learning_rate=1e-8", "data.path=ä/ö.npz"]
    )
    (tmp_path / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert PretrainConfig.from_yaml(tmp_path / "config.yaml") == config


def test_unreadable_config_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"nothing\.yaml does not exist"):
        PretrainConfig.from_yaml(tmp_path / "nothing.yaml")
    for content in ("a: [", "- 1\n- 2\n", "epochs: .nan\n", "data: 2026-01-01\n"):
        path = tmp_path / "bad.yaml"
        path.write_text(content)
        with pytest.raises(ConfigError, match=r"bad\.yaml"):
            PretrainConfig.from_yaml(path)


def test_a_config_is_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        recipe("digits_simclr").epochs = 3  # type: ignore[misc]


def test_differing_fields_are_named_with_both_values() -> None:
    a, b = {"x": 1, "s": {"y": 2, "z": 3}}, {"x": 1, "s": {"y": 5, "z": 3}, "new": True}
    assert differing_fields(a, b) == ["s.y: 2 -> 5", "new: None -> True"]


def test_settings_that_decide_no_result_are_no_difference() -> None:
    saved = recipe("cifar10_lt_sdclr").with_values({"data.path": "/a", "data.splits_dir": "/b"})
    asked = saved.with_values(
        {"data.path": "/c", "data.splits_dir": None, "checkpoint_every_epochs": 3, "epochs": 7}
    )
    assert asked.differences(saved.to_dict()) == ["epochs: 2000 -> 7"]
    older = {key: value for key, value in saved.to_dict().items() if key != "memory_format"}
    assert saved.differences(older) == []


def test_infinite_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate"):
        recipe("digits_simclr").with_overrides(["optimizer.learning_rate=Infinity"])


@pytest.mark.parametrize(
    "setting",
    [
        *(
            "views.size",
            "backbone.width",
            "epochs",
            "batch_size",
            "checkpoint_every_epochs",
            "data.num_workers",
        ),
        *("method.temperature", "method.projection_dim"),
        *(
            "data.validation_per_class",
            "data.imbalance_ratio",
            "optimizer.warmup_epochs",
            "seed",
            "data.split",
        ),
    ],
)
@pytest.mark.parametrize("value", [10**20, 2**64 + 5])
def test_a_number_that_no_run_can_have_is_refused_by_name(setting: str, value: int) -> None:
    with pytest.raises(ConfigError, match=setting):
        recipe("imagenet100_lt_sdclr").with_values({setting: value})


def test_every_common_word_means_a_setting_that_exists() -> None:
    for word, name in COMMON_WORDS.items():
        with pytest.raises(
            ConfigError, match=re.escape(f"{word} is not a setting; did you mean ")
        ) as error:
            recipe("digits_sdclr").with_overrides([f"{word}=1"])
        meant = str(error.value).partition("did you mean ")[2].partition("?")[0]
        assert meant == name or "." not in meant, f"{word}: {meant}"
        section, _, key = name.rpartition(".")
        settings = recipe("digits_sdclr").to_dict()
        assert key in (settings[section] if section else settings)


@pytest.mark.parametrize(
    ("word", "setting"),
    [
        ("epochs", "epochs"),
        ("batch-size", "batch_size"),
        ("lr", "optimizer.learning_rate"),
        ("width", "backbone.width"),
        ("optimizer.learning_rate", "optimizer.learning_rate"),
        ("colour", None),
    ],
)
def test_a_word_of_a_command_line_is_told_by_its_setting(word: str, setting: str | None) -> None:
    assert setting_meant(PretrainConfig, word) == setting


def test_a_path_that_is_no_text_is_refused_by_its_setting() -> None:
    with pytest.raises(ConfigError, match=r"^data\.path must be text in UTF-8"):
        recipe("cifar10_lt_sdclr").with_values({"data.path": "photos \udcff"})


def test_paths_and_numpys_numbers_are_plain_values(tmp_path: Path) -> None:
    given = {"data.path": tmp_path, "epochs": np.int64(3), "method.prune_ratio": np.float32(0.5)}
    found = recipe("cifar10_lt_sdclr").with_values(given)
    assert (found.data.path, found.epochs) == (str(tmp_path), 3)
    with pytest.raises(
        ConfigError, match=r"a setting is not a plain value: .*object .* is of type"
    ):
        found.with_values({"epochs": object()})
