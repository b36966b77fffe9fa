"""A device without 64-bit floats, as Apple's GPU: everything runs on a stand-in, and what cannot is refused at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from one_training import around_steps
from photo_folder import make_photos
from sdclr import Run, embed, evaluate, examine, finetune, mine, predict, pretrain, recipe
from sdclr.compute.compiling import resolve_compile
from sdclr.compute.device import resolve_device, resolve_memory_format, resolve_precision
from sdclr.compute.late_answer import LateAnswer
from sdclr.compute.process_state import default_generators
from sdclr.compute.stateless_random import random_bits, uniforms
from sdclr.data import DataConfig
from sdclr.data.views.augment import make_views, resize_images
from sdclr.data.views.parameters import ViewSpec
from sdclr.errors import ConfigError
from sdclr.jobs.pretrain import step as step_module
from sdclr.jobs.pretrain.training import Training, TrainingState
from sdclr.processes.world import World
from without_float64 import MPS, OnStandIn, stand_in_for_mps

CONFIG = recipe("digits_sdclr").with_overrides(
    ["epochs=2", "views.size=8", "backbone.width=2", "batch_size=250", "health_every_epochs=0"]
)
DIGITS = DataConfig(name="digits", validation_per_class=18)


@pytest.fixture
def mps(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    with stand_in_for_mps(monkeypatch) as device:
        yield device


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """On the CPU."""
    contiguous = CONFIG.with_values({"memory_format": "contiguous"})
    return pretrain(contiguous, tmp_path_factory.mktemp("cpu") / "x")


# ---- the stand-in


def test_the_stand_in_has_no_float64_and_mixes_with_nothing(mps: torch.device) -> None:
    there = torch.ones(3).to(mps)
    assert isinstance(there, OnStandIn)
    assert there.device == MPS
    for make in (there.double, lambda: torch.zeros(2, dtype=torch.float64, device=mps)):
        with pytest.raises(TypeError, match="no float64"):
            make()
    with pytest.raises(RuntimeError, match="mixes"):
        there + torch.ones(3)
    with pytest.raises(RuntimeError, match="may not have arrived"):
        there.to("cpu", non_blocking=True)
    assert (there + 1).tolist() == [2, 2, 2]


# ---- what is asked for


def test_mps_is_taken_where_it_is_named_and_torch_has_it(mps: torch.device) -> None:
    assert resolve_device("mps").type == "mps"
    assert resolve_device("auto").type == "cpu", "nobody has run it on a real one"
    with pytest.raises(ConfigError, match="sees no Apple GPU"):
        resolve_device("mps:1")


def test_elsewhere_mps_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match="'mps' was requested, but torch sees no Apple GPU"):
        resolve_device("mps")
    with pytest.raises(ConfigError, match=r"'xpu' is not supported\. Use cpu, cuda, cuda:N or mps"):
        resolve_device("xpu")


def test_what_the_device_cannot_do_is_refused_before_any_work(mps: torch.device) -> None:
    assert resolve_precision("auto", mps) == "fp32"
    with pytest.raises(ConfigError, match="precision=fp64 cannot run on mps"):
        resolve_precision("fp64", mps)
    assert resolve_compile("auto", mps) is False
    for choice in (True, "cuda-graphs"):
        with pytest.raises(ConfigError, match=f"compile={choice} "):
            resolve_compile(choice, mps)  # type: ignore[arg-type]
    layout = resolve_memory_format("auto", torch.nn.Conv2d(3, 3, 3), mps)
    assert layout == torch.contiguous_format
    with pytest.raises(ConfigError, match="device=mps is for one process"):
        World(0, 2).device(mps)


# ---- the same bits


def test_draws_have_the_bits_of_the_cpu(mps: torch.device) -> None:
    index = torch.arange(1000)
    assert torch.equal(random_bits(7, index.to(mps)).cpu(), random_bits(7, index))
    assert torch.equal(uniforms(7, index.to(mps), 5).cpu(), uniforms(7, index, 5))


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_those_of_the_cpu(mps: torch.device, channels: int) -> None:
    images = torch.randint(0, 256, (6, channels, 12, 10), dtype=torch.uint8)
    spec = ViewSpec(size=8, jitter_probability=0.8, jitter=(0.4, 0.4, 0.4, 0.1), grey=0.3, blur=0.5)
    index = torch.tensor([5, 0, 3])
    expected = make_views(images, index, spec, seed=1, epoch=2)
    found = make_views(images.to(mps), index, spec, seed=1, epoch=2)
    assert found.a.device == MPS
    torch.testing.assert_close(found.a.cpu(), expected.a, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.b.cpu(), expected.b, rtol=0, atol=1e-5)
    assert found.index.tolist() == index.tolist()
    assert torch.equal(resize_images(images.to(mps), 8).cpu(), resize_images(images, 8))


def test_an_answer_is_waited_for(mps: torch.device) -> None:
    assert LateAnswer(torch.tensor(True).to(mps)).read()
    assert not LateAnswer(torch.tensor(False).to(mps)).read()


def test_the_generator_of_the_device_is_put_back(
    mps: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: "as it was")
    monkeypatch.setattr(torch.mps, "manual_seed", calls.append)
    monkeypatch.setattr(torch.mps, "set_rng_state", calls.append)
    with pytest.raises(ZeroDivisionError), default_generators(5, mps):
        raise ZeroDivisionError
    assert calls == [5, "as it was"]


# ---- every job


def losses(run: Run) -> list[float]:
    return [line["loss"] for line in run.metrics()]


@pytest.mark.journeys
def test_a_run_trains_as_on_the_cpu(mps: torch.device, run: Run, tmp_path: Path) -> None:
    found = pretrain(CONFIG.with_values({"device": "mps"}), tmp_path / "x")
    np.testing.assert_allclose(losses(found), losses(run), rtol=1e-5)
    assert found.read_json("environment.json")["device"].startswith("MPS")


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit(mps: torch.device, tmp_path: Path) -> None:
    config = CONFIG.with_values({"device": "mps", "method": {"name": "simclr"}})
    expected = pretrain(config, tmp_path / "whole")

    class Stopped(Exception):
        pass

    def stop(training: Training, state: TrainingState) -> None:
        if state.step == training.steps_per_epoch:
            raise Stopped

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(step_module, "train_step", around_steps(stop))
        with pytest.raises(Stopped):
            pretrain(config, tmp_path / "x")
    found = pretrain(config, tmp_path / "x")
    assert found.backbone_path.read_bytes() == expected.backbone_path.read_bytes()


@pytest.mark.parametrize(
    "method",
    [pytest.param(m, marks=pytest.mark.slow) for m in ("lotar", "gh", "moco", "vicreg")],
)
def test_a_run_on_image_files_trains_with_every_kind_of_draws(
    mps: torch.device, tmp_path: Path, method: str
) -> None:
    """Views are cut by threads; of lotar random operations work on some of them."""
    make_photos(tmp_path / "photos", {0: 20, 1: 12})
    data = {"name": "images", "path": str(tmp_path / "photos"), "subset": "all"}
    values: dict[str, Any] = {"epochs": 2, "batch_size": 16, "method": {"name": method}}
    config = CONFIG.with_values({**values, "data": data, "views.size": 16})
    found = pretrain(config.with_values({"device": "mps"}), tmp_path / "mps")
    expected = pretrain(config.with_values({"memory_format": "contiguous"}), tmp_path / "cpu")
    np.testing.assert_allclose(losses(found), losses(expected), rtol=1e-3)


@pytest.mark.slow
def test_features_probes_and_pages_are_those_of_the_cpu(
    mps: torch.device, run: Run, tmp_path: Path
) -> None:
    for device in ("cpu", "mps"):
        embed(run, CONFIG.data, tmp_path / f"{device}.npz", device=device)
    features = [np.load(tmp_path / f"{device}.npz")["features"] for device in ("cpu", "mps")]
    np.testing.assert_allclose(*features, rtol=1e-4, atol=1e-5)
    found = evaluate(run, probes=["linear", "knn"], device="mps")
    assert len(found.probe("linear").per_class_accuracy) == 10
    mined = mine(run, CONFIG.data, tmp_path / "rare", device="mps", top=5)
    assert len(mined) == len(features[0])
    examine(run, device="mps")


@pytest.mark.parametrize("mode", ["linear", pytest.param("full", marks=pytest.mark.slow)])
def test_a_classifier_is_learned_and_predicts(
    mps: torch.device, run: Run, tmp_path: Path, mode: str
) -> None:
    settings: dict[str, Any] = {"mode": mode, "epochs": 2, "batch_size": 100}
    accuracies = []
    for device in ("cpu", "mps"):
        model = finetune(run, DIGITS, tmp_path / device, device=device, **settings)
        accuracies.append(model.result["validation"]["log_loss"])
    assert accuracies[1] == pytest.approx(accuracies[0], rel=1e-3)
    found = predict(tmp_path / "mps", DIGITS, tmp_path / "found.csv", device="mps")
    assert found.num_images == 1437
