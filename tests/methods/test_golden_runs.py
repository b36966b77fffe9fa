"""Short runs of the authors' own arithmetic, replayed in float64."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import reference_names
from sdclr import Views
from sdclr.backbones import BackboneConfig, build_backbone
from sdclr.compute.optim import build_optimizer, learning_rate, set_learning_rate
from sdclr.methods import Parts, SDCLRConfig, SimCLRConfig, build_method
from sdclr.methods.method import Method
from sdclr.methods.sdclr import SDCLR


def reference_method(values: np.lib.npyio.NpzFile, kind: str) -> Method:
    """The golden network with its initial weights, both branches' norms included."""
    layers = {
        "simclr": SimCLRConfig(projection_dim=16),
        "sdclr": SDCLRConfig(projection_dim=16, projector_layers=3),
    }
    backbone = build_backbone(BackboneConfig(name="resnet10", width=8))
    method = build_method(
        layers[kind], Parts(backbone, 64, num_images=96, num_epochs=3, seed=0)
    ).double()
    method.network.load_state_dict(reference_names.branch_state(values, "init/", 0))
    if isinstance(method, SDCLR):
        twin = {f"twin.{k}": v for k, v in reference_names.branch_state(values, "init/", 1).items()}
        method.competitor.load_state_dict(method.competitor.state_dict() | twin)
    return method.train()


@pytest.mark.parametrize("kind", ["simclr", "sdclr"])
def test_a_run_follows_the_reference_for_six_steps(golden: Path, kind: str) -> None:
    values = np.load(golden / f"trajectory_{kind}_resnet10w8.npz")
    config = json.loads(str(values["config_json"]))
    method = reference_method(values, kind)
    optimizer = build_optimizer(
        method.parameters(),
        name="sgd",
        momentum=config["momentum"],
        weight_decay=config["weight_decay"],
    )
    images = torch.tensor(values["images_uint8"]).double() / 255
    losses, step, per_epoch = [], 0, config["iters_per_epoch"]
    for epoch in range(config["epochs_run"]):
        method.on_epoch_start(epoch)
        if isinstance(method, SDCLR):
            assert_masks_equal(method, values, epoch)
        for batch in images:
            step += 1
            rate = learning_rate(
                step,
                peak=config["lr"],
                total_steps=config["epochs_total"] * per_epoch,
                warmup_steps=config["warmup_epochs"] * per_epoch,
            )
            assert rate == pytest.approx(values["f64_lrs"][step - 1], abs=1e-15)
            set_learning_rate(optimizer, rate)
            loss = method(Views(batch[:, 0], batch[:, 1], torch.arange(len(batch)))).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if step == 3:
                expected = reference_names.branch_state(values, "f64_step3/", 0)
                state = method.network.state_dict()
                assert len(expected) > 40
                for name, tensor in expected.items():
                    torch.testing.assert_close(state[name], tensor, rtol=0, atol=1e-10)
    # SDCLR's are logged twice a step
    reference = values["f64_losses"][:: len(values["f64_losses"]) // 6]
    np.testing.assert_allclose(losses[:3], reference[:3], atol=1e-10)
    np.testing.assert_allclose(losses, reference, atol=1e-6)


def assert_masks_equal(method: SDCLR, values: np.lib.npyio.NpzFile, epoch: int) -> None:
    bits = np.unpackbits(values[f"mask_epoch{epoch + 1}_packed"])[
        : int(values[f"mask_epoch{epoch + 1}_size"])
    ]
    masks = method.competitor.masks()
    ordered = [
        masks[reference_names.ours(f"{name}.weight")].flatten() for name in values["mask_order"]
    ]
    np.testing.assert_array_equal(torch.cat(ordered).numpy(), bits.astype(bool))


def test_both_branches_give_the_reference_features(golden: Path) -> None:
    method = reference_method(np.load(golden / "trajectory_sdclr_resnet10w8.npz"), "sdclr")
    assert isinstance(method, SDCLR)
    method.competitor.refresh_masks()
    values = np.load(golden / "features_sdclr_resnet10w8.npz")
    images = torch.tensor(values["images_uint8"]).double() / 255
    branches = {"dense": method.network, "pruned": method.competitor.twin}
    with torch.no_grad():
        for name, branch in branches.items():
            np.testing.assert_allclose(branch(images), values[f"{name}_train_head"], atol=1e-10)
        method.eval()
        for name, branch in branches.items():
            np.testing.assert_allclose(
                branch(images), values[f"{name}_eval_head_after1"], atol=1e-10
            )
            np.testing.assert_allclose(
                branch.backbone(images), values[f"{name}_eval_backbone_after1"], atol=1e-10
            )
