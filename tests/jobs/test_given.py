"""Runs on images out of Python: trained, stopped, gone on with, and refused for other images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sdclr
from killing import state_hash
from method_conformance import SignalAt
from sdclr import PretrainConfig, pretrain, recipe, resume
from sdclr.errors import ConfigError, DataError, Preempted
from sdclr.jobs.pretrain.given import look_at_given, settings_for
from sdclr.presentation.progress import NoProgress

ARRAYS = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3)).astype(np.uint8)
CONFIG = recipe("digits_sdclr").with_overrides(
    ["epochs=2", "batch_size=10", "views.size=8", "backbone.width=2", "health_every_epochs=0"]
)


def test_a_run_on_given_images_goes_on_bit_for_bit_with_the_same_ones_only(tmp_path: Path) -> None:
    images = [Image.fromarray(array) for array in ARRAYS]
    whole = pretrain(CONFIG, tmp_path / "whole", images=images)
    with pytest.raises(Preempted):
        pretrain(CONFIG, tmp_path / "cut", images=list(ARRAYS), progress=SignalAt(40 + 3))
    with pytest.raises(ConfigError, match="only Python can give them again: pass images="):
        resume(tmp_path / "cut")
    with pytest.raises(ConfigError, match="other images, other labels"):
        pretrain(CONFIG, tmp_path / "cut", images=images[:30])
    cut = pretrain(CONFIG, tmp_path / "cut", images=images)
    assert state_hash(cut) == state_hash(whole)
    assert whole.read_json("split.json")["dataset"] == "given"


def test_settings_are_chosen_for_images_without_a_config(tmp_path: Path) -> None:
    labels = ["rare" if place % 10 == 0 else "common" for place in range(40)]
    with pytest.raises(ConfigError, match="pretrain needs a config"):
        pretrain(out=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"those of images="):
        pretrain(CONFIG, tmp_path / "run", labels=labels)
    config, choices = settings_for(look_at_given(list(ARRAYS), labels, NoProgress()), None, ())
    assert config.data.to_dict()["name"] == "given"
    assert config.data.subset == "long_tail"
    assert {choice[0] for choice in choices} >= {"views.size", "epochs"}


def test_what_the_user_has_set_of_the_images_stays_and_a_recipes_own_does_not() -> None:
    given = look_at_given(list(ARRAYS), [place % 2 for place in range(40)], NoProgress())
    usual, _ = settings_for(given, CONFIG, ())
    assert (usual.data.validation_per_class, usual.data.subset) == (0, "long_tail")
    changed = {"data.validation_per_class": 4, "data.split": 3, "data.subset": "all"}
    kept = settings_for(given, CONFIG.with_values(changed), ())[0].data
    assert (kept.validation_per_class, kept.split, kept.subset) == (4, 3, "all")
    with pytest.warns(
        UserWarning, match=r"nothing for images that are given: data\.imbalance_ratio"
    ):
        settings_for(given, CONFIG.with_values({"data.imbalance_ratio": 3}), ())


PARTS = np.where(np.arange(40) % 4 == 0, 200, 60)[:, None, None, None]
COLOURED = (
    np.random.default_rng(1).integers(PARTS - 50, PARTS + 50, (40, 12, 12, 3)).astype(np.uint8)
)
LABELS = ["bright" if place % 4 == 0 else "dark" for place in range(40)]


def test_inside_given_everything_that_works_on_a_runs_images_finds_them(tmp_path: Path) -> None:
    run = pretrain(CONFIG, tmp_path / "run", images=COLOURED, labels=LABELS)
    with pytest.raises(ConfigError, match=r"inside `with sdclr\.given\(images\):`"):
        sdclr.evaluate(run, probes=["knn"])
    with sdclr.given([Image.fromarray(one) for one in COLOURED], LABELS):
        evaluation = sdclr.evaluate(run, probes=["knn"])
        compared = sdclr.compare(run, ["pixels"], probes=["knn"])
        embedded = sdclr.embed(
            run, PretrainConfig.from_yaml(run.config_path).data, tmp_path / "f.npz"
        )
        mined = sdclr.mine(
            run.folder, PretrainConfig.from_yaml(run.config_path).data, tmp_path / "rare"
        )
        numbers = sdclr.examine(run)
    assert evaluation.class_names == ["bright", "dark"]
    assert evaluation.balancedness("knn").all > 0.9
    assert compared.pairs[0].num_tested == 40
    assert embedded is not None
    features = np.load(tmp_path / "f.npz")["features"]
    net = sdclr.load_backbone(run.folder)
    by_hand = net(torch.stack([net.preprocess(Image.fromarray(one), 8) for one in COLOURED[:3]]))
    np.testing.assert_allclose(features[:3], by_hand.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert mined.title
    assert numbers["num_images"] == 40


def test_a_stopped_run_is_resumed_inside_given_and_other_images_are_refused(tmp_path: Path) -> None:
    images = list(ARRAYS)
    whole = pretrain(CONFIG, tmp_path / "whole", images=images)
    with pytest.raises(Preempted):
        pretrain(CONFIG, tmp_path / "cut", images=images, progress=SignalAt(40 + 3))
    with sdclr.given(ARRAYS[::-1]), pytest.raises(ConfigError, match="other images, other labels"):
        resume(tmp_path / "cut")
    with sdclr.given(ARRAYS):
        assert state_hash(resume(tmp_path / "cut")) == state_hash(whole)


def test_a_given_test_set_is_tested_on_in_the_classes_of_the_training_images(
    tmp_path: Path,
) -> None:
    tests = {"test_images": COLOURED[[1, 0, 4]], "test_labels": ["dark", "bright", "bright"]}
    config = CONFIG.with_values({"data": {"name": "given"}})
    with sdclr.given(COLOURED, LABELS, **tests):
        run = pretrain(config, tmp_path / "run")
        evaluation = sdclr.evaluate(run, probes=["knn"])
    assert evaluation.probes["knn"].num_test == [2, 1]
    with (
        pytest.raises(DataError, match="no training image is of class green"),
        sdclr.given(COLOURED, LABELS, test_images=COLOURED[:1], test_labels=["green"]),
    ):
        pass
    with (
        pytest.raises(DataError, match="those of test_images"),
        sdclr.given(COLOURED, LABELS, test_labels=["dark"]),
    ):
        pass
