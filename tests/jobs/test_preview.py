from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdclr import recipe
from sdclr.data import build_data, epoch_batches, make_views
from sdclr.errors import ConfigError
from sdclr.jobs.pretrain import preview

TINY = ["backbone.width=2", "views.size=8", "batch_size=100", "epochs=7"]


def test_a_preview_is_the_runs_own_first_batch_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = recipe("digits_sdclr").with_overrides(TINY)
    found = preview(config)
    images = build_data(config.data).pretraining_images("long_tail")
    assert found.num_images == len(images)
    assert found.total_steps == 7 * found.steps_per_epoch
    assert found.seconds_per_step > 0
    assert found.peak_memory_bytes > 50e6
    first = next(epoch_batches(len(images), 100, seed=config.seed, epoch=0))
    views = make_views(images.images, first[:16], config.views.spec(), seed=config.seed, epoch=0)  # type: ignore[attr-defined]
    torch.testing.assert_close(found.views.a, views.a)
    assert torch.equal(found.views.index, first[:16])
    assert torch.equal(found.stills, images.images[first[:16]]), "8 px as they are"  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())


def test_one_step_is_enough() -> None:
    config = recipe("digits_simclr").with_overrides([*TINY, "epochs=1"])
    num_images = len(build_data(config.data).pretraining_images("long_tail"))
    assert preview(config.with_values({"batch_size": num_images})).total_steps == 1


def test_it_refuses_what_a_run_would_refuse() -> None:
    with pytest.raises(ConfigError, match="batch_size must not exceed"):
        preview(recipe("digits_sdclr").with_overrides([*TINY, "batch_size=5000"]))
