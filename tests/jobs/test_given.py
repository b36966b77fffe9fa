"""Runs on images out of Python: trained, stopped, gone on with, and refused for other images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from killing import state_hash
from method_conformance import SignalAt
from sdclr import pretrain, recipe, resume
from sdclr.errors import ConfigError, Preempted

ARRAYS = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3)).astype(np.uint8)
CONFIG = recipe("digits_sdclr").with_overrides(
    ["epochs=2", "batch_size=10", "views.size=8", "backbone.width=2"]
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
    from sdclr.jobs.pretrain.given import look_at_given, settings_for
    from sdclr.presentation.progress import NoProgress

    config, choices = settings_for(look_at_given(list(ARRAYS), labels, NoProgress()), None, ())
    assert config.data.to_dict()["name"] == "given"
    assert config.data.subset == "long_tail"
    assert {choice[0] for choice in choices} >= {"views.size", "epochs"}
