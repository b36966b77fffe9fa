"""The health check of a run: what it writes, and that no run is another one for it."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from killing import SignalAt, state_hash
from one_training import OneTraining, interrupting, patch_steps
from sdclr import PretrainConfig, pretrain, recipe, resume
from sdclr.errors import Preempted
from sdclr.evaluation.health import collapsed_loss
from sdclr.jobs.pretrain import health as health_module
from sdclr.jobs.pretrain.health import every_epochs
from sdclr.jobs.pretrain.health_measures import WeightWatch, measure_network, measure_views
from sdclr.jobs.pretrain.health_sample import health_sample
from sdclr.methods import SDCLR
from sdclr.presentation.progress import NoProgress

TINY = ["backbone.width=2", "views.size=8", "batch_size=200", "epochs=2"]


def config(*overrides: str, method: str = "sdclr") -> PretrainConfig:
    """Two epochs of three steps."""
    first = ["checkpoint_every_epochs=1", "health_every_epochs=1", f"method.name={method}"]
    return recipe(f"digits_{'sdclr' if method == 'sdclr' else 'simclr'}").with_overrides(
        [*TINY, *first, *overrides]
    )


class Said(NoProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def print(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.journeys
@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("sdclr", []),
        ("sdclr", ["precision=bf16", "record_images=true"]),
        pytest.param("simclr", ["batch_size=7"], marks=pytest.mark.slow),
        pytest.param("focal", [], marks=pytest.mark.slow),
        pytest.param("temperature_schedule", [], marks=pytest.mark.slow),
    ],
)
def test_a_run_with_checks_is_bit_for_bit_one_without(
    tmp_path: Path, method: str, more: list[str]
) -> None:
    checked = pretrain(config(*more, method=method), tmp_path / "checked")
    plain = pretrain(config(*more, "health_every_epochs=0", method=method), tmp_path / "plain")
    assert state_hash(checked.folder) == state_hash(plain.folder)
    assert any(name.startswith("health_") for name in checked.metrics()[0])
    assert not any("health_" in name for line in plain.metrics() for name in line)


def test_measuring_leaves_modes_buffers_and_generators_as_they_were() -> None:
    values = {"backbone.name": "timm:resnet10t", "backbone.options": {"drop_rate": 0.5}}
    one = OneTraining(config().with_values(values))
    sample = health_sample(one.training)
    assert sample is not None
    one.method.network.eval()  # a mode of its own
    state = {name: value.clone() for name, value in one.method.state_dict().items()}
    modes = [module.training for module in one.method.modules()]
    generator = torch.get_rng_state()
    first = measure_network(one.training, sample)
    WeightWatch(one.method).look()
    assert torch.equal(torch.get_rng_state(), generator)
    assert [module.training for module in one.method.modules()] == modes
    now = one.method.state_dict()
    assert all(torch.equal(now[name], value) for name, value in state.items())
    assert all(not module._forward_hooks for module in one.method.modules())
    assert measure_network(one.training, sample) == first


def test_the_first_line_has_the_untrained_network_and_each_checked_line_the_trained_one(
    tmp_path: Path,
) -> None:
    said = Said()
    run = pretrain(config(), tmp_path / "x", progress=said)  # type: ignore[arg-type]
    first, last = run.metrics()
    assert first["untrained_sample_loss"] == pytest.approx(collapsed_loss(256), abs=1.0)
    assert first["untrained_rank"] != first["health_rank"]
    assert not any(name.startswith("untrained_") for name in last)
    for line in (first, last):
        assert 0 <= line["health_top1"] <= 1
        assert 0 <= line["health_spread"] <= 1
        assert {"health_knn", "health_knn_many", "health_knn_medium", "health_knn_few"} <= set(line)
        assert line["health_temperature"] == pytest.approx(0.2, rel=1e-3)
    lines = [line for line in said.lines if line.startswith("health, epoch")]
    assert [line.split(":")[0] for line in lines] == ["health, epoch 1", "health, epoch 2"]
    assert "kNN" in lines[0]


@pytest.mark.parametrize("method", ["sdclr", "bcl_d", "gh", "cluster_balanced"])
def test_the_pruned_twin_is_looked_at_also_inside_another_method(method: str) -> None:
    base = [] if method in ("sdclr", "bcl_d") else ["method.base.name=sdclr"]
    one = OneTraining(config(*base, "epochs=40", method=method))
    sample = health_sample(one.training)
    assert sample is not None
    assert {"disagreement", "competitor_rank"} <= set(measure_network(one.training, sample))


def test_of_a_stale_copy_the_branch_of_the_loss_is_measured() -> None:
    one = OneTraining(config("method.stale=true", "method.norms=shared", "epochs=40"))
    method = one.training.method
    assert isinstance(method, SDCLR)
    assert method.stale_copy is not None
    with torch.no_grad():
        method.stale_copy.become(method.network)
    sample = health_sample(one.training)
    assert sample is not None
    found = measure_network(one.training, sample)
    # the copy is the network itself, so the branches are as far apart as the views
    assert found["disagreement"] == pytest.approx(found["alignment"] / 2)


@pytest.mark.journeys
def test_a_run_that_goes_on_measures_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pretrain(config(), tmp_path / "whole").metrics()
    with monkeypatch.context() as patch:
        patch_steps(patch, interrupting(4))
        with pytest.raises(KeyboardInterrupt):
            pretrain(config(), tmp_path / "x")
    parts = resume(tmp_path / "x").metrics()
    assert _measured(parts) == _measured(whole)


def test_a_run_that_goes_on_inside_an_epoch_takes_no_masks_for_stale(tmp_path: Path) -> None:
    with pytest.raises(Preempted):
        pretrain(config(), tmp_path / "x", progress=SignalAt(4))
    lines = resume(tmp_path / "x").metrics()  # a warning would be an error
    assert "health_masks_changed" in lines[0]
    assert "health_masks_changed" not in lines[1]
    assert not any(name.startswith("alarm_") for line in lines for name in line)


def _measured(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in line.items() if name.startswith(("health_", "untrained_"))}
        for line in lines
    ]


@pytest.mark.journeys
def test_images_without_labels_have_all_numbers_but_those_of_classes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 12, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", train_images=pixels)
    config_ = PretrainConfig.parse(
        config("batch_size=3").to_dict()
        | {"data": {"name": "arrays", "path": str(tmp_path / "x.npz"), "subset": "all"}}
    )
    line = pretrain(config_, tmp_path / "run").metrics()[0]
    assert "health_rank" in line
    assert not any("knn" in name or "_few" in name for name in line)


def test_a_check_that_fails_ends_itself_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = pretrain(config("health_every_epochs=0"), tmp_path / "plain")

    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(health_module, "measure_network", fail)
    with pytest.warns(UserWarning, match="health of this run cannot be measured.*no memory"):
        run = pretrain(config(), tmp_path / "x")
    assert state_hash(run.folder) == state_hash(plain.folder)


def test_three_images_are_too_few_and_nothing_is_said(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 12, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", train_images=pixels)
    config_ = PretrainConfig.parse(
        config("batch_size=3").to_dict()
        | {"data": {"name": "arrays", "path": str(tmp_path / "x.npz"), "subset": "all"}}
    )
    line = pretrain(config_, tmp_path / "run").metrics()[0]
    assert not any(name.startswith("health_") for name in line)


def test_by_itself_a_check_is_made_first_last_and_as_seldom_as_its_cost_asks(
    tmp_path: Path,
) -> None:
    assert every_epochs(50_000, 256) == 7
    for num_images, num_sampled in [(405, 256), (12406, 256), (10**6, 64)]:
        every = every_epochs(num_images, num_sampled)
        assert 12 * 3 * num_sampled / (6 * num_images) <= 0.005 * every
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = pretrain(config("health_every_epochs=null", "epochs=4"), tmp_path / "x")
    assert ["health_rank" in line for line in run.metrics()] == [True, False, False, True]


@pytest.mark.parametrize(
    ("colour", "blank"), [((0, 0, 0), 1), ((0.5, 0.5, 0.5), 1), ((0.1, 0.5, 0.9), 1), (None, 0)]
)
def test_a_view_of_one_colour_is_blank_whatever_the_colour(colour: Any, blank: int) -> None:
    views = torch.rand(2, 6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    if colour is not None:
        views = torch.tensor(colour).view(1, 1, 3, 1, 1).expand_as(views)
    sample: Any = SimpleNamespace(
        views=SimpleNamespace(a=views[0], b=views[1]), copies=views, labels=None, pixels=None
    )
    assert measure_views(sample)["blank_views"] == blank


def test_rare_classes_are_in_the_sample_and_the_sample_is_always_the_same() -> None:
    one = OneTraining(config())
    first, again = health_sample(one.training), health_sample(one.training)
    assert first is not None
    assert again is not None
    assert first.labels is not None
    assert torch.equal(first.views.a, again.views.a)
    labels = one.training.images.labels
    assert labels is not None
    rare = min(range(10), key=lambda c: (labels == c).sum())
    assert (first.labels == rare).sum() == (labels == rare).sum()
