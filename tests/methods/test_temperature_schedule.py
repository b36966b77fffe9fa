"""The temperature schedule against numbers computed with the arithmetic of its authors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from method_conformance import run_config
from sdclr import nt_xent, pretrain
from sdclr.errors import ConfigError
from sdclr.methods import Parts, build_method
from sdclr.methods.config import TemperatureScheduleConfig
from sdclr.methods.temperature_schedule import TemperatureSchedule, cosine_temperature


@pytest.fixture(scope="module")
def values(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "ts.npz") as file:
        return {name: file[name] for name in file.files}


def schedule(config: TemperatureScheduleConfig, epochs: int) -> TemperatureSchedule:
    parts = Parts(torch.nn.Linear(4, 4), 4, num_images=8, num_epochs=epochs, seed=0)
    method = build_method(config, parts)
    assert isinstance(method, TemperatureSchedule)
    return method


@pytest.mark.parametrize("epochs", [2000, 800, 400])
def test_every_epochs_temperature_is_the_references(
    values: dict[str, np.ndarray], epochs: int
) -> None:
    """A period of 400 epochs; the stored numbers begin with its epoch 1, which is our epoch 0."""
    found = [
        cosine_temperature(epoch, period=400, lowest=0.1, highest=1.0) for epoch in range(epochs)
    ]
    np.testing.assert_allclose(found, values[f"tau_{epochs}"], rtol=1e-12)
    of_epochs = schedule(TemperatureScheduleConfig(period_epochs=400), epochs)
    of_share = schedule(TemperatureScheduleConfig(period_share=400 / epochs), epochs)
    assert of_epochs.period == pytest.approx(of_share.period) == 400


def test_another_highest_temperature(values: dict[str, np.ndarray]) -> None:
    found = [cosine_temperature(epoch, period=400, lowest=0.1, highest=0.5) for epoch in range(400)]
    np.testing.assert_allclose(found, values["tau_default_max_400"], rtol=1e-12)


def test_losses_and_gradients_of_some_epochs_are_the_references(
    values: dict[str, np.ndarray],
) -> None:
    """Rows are interleaved: view 1 of an image, then its view 2."""
    method = schedule(TemperatureScheduleConfig(period_epochs=400), 400).double()
    for position, epoch in enumerate(values["loss_epochs"]):
        method.on_epoch_start(int(epoch) - 1)
        z = torch.from_numpy(values["z"]).clone().requires_grad_()
        loss = nt_xent(z[0::2], z[1::2], method.temperature).mean()
        loss.backward()
        assert loss.item() == pytest.approx(float(values["loss"][position]), rel=1e-12)
        torch.testing.assert_close(
            z.grad, torch.from_numpy(values["grad"][position]), rtol=1e-10, atol=1e-13
        )


def test_one_period_is_a_fifth_of_a_run_of_any_length_and_the_log_shows_it(tmp_path: Path) -> None:
    assert schedule(TemperatureScheduleConfig(), 100).period == pytest.approx(20)
    run = pretrain(
        run_config("temperature_schedule", "method.period_share=1", "epochs=4"), tmp_path / "x"
    )
    found = [line["temperature"] for line in run.metrics()]
    np.testing.assert_allclose(found, [0.55, 0.1, 0.55, 1.0], rtol=1e-6)


def test_a_range_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"lowest \(2\.0\) must not exceed highest \(1\.0\)"):
        TemperatureScheduleConfig.parse({"lowest": 2.0})
