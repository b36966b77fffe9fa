from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from one_training import OneTraining, patch_steps
from sdclr import Observer, PretrainConfig, Run, load_backbone, pretrain, recipe, resume
from sdclr.batch import Views
from sdclr.errors import (
    CheckpointError,
    ConfigError,
    MissingInputError,
    NonFiniteError,
    Preempted,
    RunFolderError,
    StorageError,
)
from sdclr.jobs.pretrain.build import graphs_hold
from sdclr.jobs.pretrain.training import Training, TrainingState
from sdclr.methods.simclr import SimCLR
from sdclr.observers import EpochDone
from sdclr.presentation.progress import NoProgress
from sdclr.storage.durable_files import Files
from sdclr.storage.tensor_files import read_tensors, write_tensors
from slow_variants import slow

# 5 steps an epoch
TINY = [
    "backbone.width=4",
    "views.size=8",
    "batch_size=100",
    "epochs=3",
    "health_every_epochs=0",  # tests/jobs/test_pretrain_health.py is about it
    "checkpoint_every_epochs=1",
]


def tiny(method: str = "sdclr", *overrides: str) -> PretrainConfig:
    return recipe(f"digits_{method}").with_overrides([*TINY, *overrides])


class SignalAt(NoProgress):
    """Sends this process a signal after so many steps, as a scheduler would."""

    def __init__(self, step: int, number: int = signal.SIGTERM) -> None:
        self.left, self.number = step, number

    def advance(self, task: int, amount: int = 1, note: str | None = None) -> None:
        self.left -= amount
        if amount and self.left == 0:
            os.kill(os.getpid(), self.number)


def final_state(run: Run) -> str:
    """One hash over everything a finished run holds: both branches, masks, optimiser, and the epochs' losses."""
    checkpoint = run.checkpoints.newest()
    assert checkpoint is not None
    digest = hashlib.sha256(str(checkpoint.step).encode())
    for name in sorted(checkpoint.tensors):
        digest.update(name.encode())
        digest.update(checkpoint.tensors[name].contiguous().numpy().tobytes())
    for line in run.metrics_path.read_text().splitlines():
        facts = json.loads(line)
        digest.update(repr((facts["epoch"], facts["loss"], facts.get("mask_churn"))).encode())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return pretrain(tiny(), tmp_path_factory.mktemp("runs") / "finished")


def test_a_run_leaves_everything_that_is_promised(finished: Run) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    assert {
        "config.yaml",
        "environment.json",
        "split.json",
        "metrics.jsonl",
        "checkpoints",
        "backbone.safetensors",
    } <= names
    assert PretrainConfig.from_yaml(finished.config_path) == tiny()
    lines = [json.loads(line) for line in finished.metrics_path.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line["step"] for line in lines] == [5, 10, 15]
    assert lines[-1]["learning_rate"] == 1e-6
    assert all(0.89 < line["sparsity"] < 0.91 for line in lines)
    split = finished.read_json("split.json")
    assert split["dataset"] == "digits"
    assert split["counts"]["long_tail"] != split["counts"]["balanced"]
    computed = finished.read_json("environment.json")
    assert (computed["precision"], computed["memory_format"]) == ("fp32", "contiguous_format"), (
        "too narrow"
    )
    _, facts = read_tensors(finished.backbone_path)
    assert facts["architecture"]["name"] == "resnet10"
    assert facts["data_fingerprint"] == split["fingerprint"]
    assert facts["recipe"] == "digits_sdclr"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["simclr", "sdclr"])
def test_the_loss_falls_below_chance(tmp_path: Path, method: str) -> None:
    run = pretrain(
        tiny(method, "epochs=40", "backbone.width=8", "optimizer.learning_rate=0.1"), tmp_path / "x"
    )
    losses = [json.loads(line)["loss"] for line in run.metrics_path.read_text().splitlines()]
    assert losses[-1] < min(losses[0] - 0.3, np.log(2 * 100 - 1))


def test_the_saved_backbone_is_the_dense_target_branch(finished: Run) -> None:
    checkpoint = finished.checkpoints.newest()
    assert checkpoint is not None
    backbone = load_backbone(finished.folder)
    for name, tensor in backbone.net.state_dict().items():
        assert torch.equal(tensor, checkpoint.tensors[f"method.network.backbone.net.{name}"])
    assert backbone(torch.rand(2, 3, 8, 8)).shape == (2, 32)


def test_a_finished_run_says_so_and_succeeds(
    finished: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    class Loud(NoProgress):
        def print(self, text: str) -> None:
            print(text)

    before = final_state(finished)
    resume(finished.folder, progress=Loud())
    assert "is finished: 3 epochs, 15 steps" in capsys.readouterr().out
    assert final_state(finished) == before


@pytest.mark.parametrize(
    ("optimizer", "method"),
    [
        ("sgd", "sdclr"),
        ("lars", "sdclr"),
        ("adamw", "simclr"),
        slow("sgd", "simclr"),
        slow("lars", "simclr"),
        slow("adamw", "sdclr"),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, method: str, optimizer: str
) -> None:
    config = tiny(method, f"optimizer.name={optimizer}", "optimizer.learning_rate=0.01", "epochs=2")
    whole = pretrain(config, tmp_path / "whole")
    # twice: inside the first epoch (2), then inside the second (2 + 3 + ... = 7)
    for step in (
        2,
        3,
    ):
        with pytest.raises(Preempted, match="sdclr resume"):
            pretrain(config, tmp_path / "cut", progress=SignalAt(step if step == 2 else 5))
    pretrain(config, tmp_path / "cut")
    assert final_state(Run(tmp_path / "cut")) == final_state(whole)
    assert torch.equal(
        load_backbone(tmp_path / "cut").net.conv1.weight,
        load_backbone(whole.folder).net.conv1.weight,
    )


@pytest.mark.journeys
def test_a_run_killed_between_checkpoints_repeats_only_what_was_lost(tmp_path: Path) -> None:
    config = tiny("sdclr", "checkpoint_every_epochs=2")
    whole = pretrain(config, tmp_path / "whole")

    class Killed(Exception):
        pass

    class KillAt(NoProgress):
        steps = 0

        def advance(self, task: int, amount: int = 1, note: str | None = None) -> None:
            self.steps += amount
            if self.steps == 13:
                raise Killed  # as good as SIGKILL: nothing of ours runs afterwards

    with pytest.raises(Killed):
        pretrain(config, tmp_path / "cut", progress=KillAt())
    newest = Run(tmp_path / "cut").checkpoints.newest()
    assert newest is not None
    assert newest.step == 10
    resume(tmp_path / "cut")
    assert final_state(Run(tmp_path / "cut")) == final_state(whole)


STATE = ["method.network.backbone.net.conv1.weight", "method.network.backbone.net.bn1.running_var"]
STATE += [
    "method.competitor.twin.backbone.net.bn1.running_mean",
    "method.competitor.twin.backbone.net.bn1.weight",
]
STATE += ["method.competitor.twin.backbone.net.layer4.0.conv2.parametrizations.weight.0.mask"]
STATE += [
    "method.network.projector.0.weight",
    "optimizer.0.momentum_buffer",
    "optimizer.40.momentum_buffer",
    "loss_sum",
]


@pytest.mark.journeys
@pytest.mark.parametrize(
    "name",
    [
        *STATE[3:5],
        *STATE[6:],
        *(slow(name) for name in (*STATE[:3], STATE[5])),
    ],
)
def test_a_change_to_any_part_of_the_saved_state_changes_the_result(
    tmp_path: Path, finished: Run, name: str
) -> None:
    with pytest.raises(Preempted):
        pretrain(tiny(), tmp_path / "cut", progress=SignalAt(12))
    path = max((tmp_path / "cut" / "checkpoints").iterdir())
    tensors, facts = read_tensors(path)
    tensors[name] = (
        ~tensors[name] if tensors[name].dtype == torch.bool else tensors[name] * 1.01 + 0.01
    )
    write_tensors(path, tensors, facts)
    resume(tmp_path / "cut")
    assert final_state(Run(tmp_path / "cut")) != final_state(finished)


def test_a_missing_part_of_the_state_is_an_error_not_a_default(tmp_path: Path) -> None:
    for part, words in (
        ("competitor.twin.backbone.net.bn1.running_mean", "1 missing"),
        ("momentum", "optimiser state"),
    ):
        with pytest.raises(Preempted):
            pretrain(tiny(), tmp_path / part, progress=SignalAt(7))
        path = max((tmp_path / part / "checkpoints").iterdir())
        tensors, facts = read_tensors(path)
        write_tensors(path, {k: v for k, v in tensors.items() if part not in k}, facts)
        with pytest.raises(CheckpointError, match=words):
            resume(tmp_path / part)


@pytest.mark.journeys
def test_the_global_random_state_has_no_influence(tmp_path: Path, finished: Run) -> None:
    torch.manual_seed(999)
    np.random.seed(3)  # noqa: NPY002
    again = pretrain(tiny(), tmp_path / "again")
    assert final_state(again) == final_state(finished)
    other = pretrain(tiny("sdclr", "seed=11"), tmp_path / "other")
    assert final_state(other) != final_state(finished)


def test_other_settings_for_an_existing_folder_are_refused(finished: Run) -> None:
    with pytest.raises(ConfigError, match=r"epochs: 3 -> 4"):
        pretrain(tiny("sdclr", "epochs=4"), finished.folder)


def test_weights_start_a_new_run_from_a_trained_backbone(tmp_path: Path, finished: Run) -> None:
    config = tiny(
        "simclr", f"weights={finished.folder}", "epochs=1", "optimizer.learning_rate=1e-12"
    )
    run = pretrain(config, tmp_path / "new")
    torch.testing.assert_close(
        load_backbone(run.folder).net.conv1.weight, load_backbone(finished.folder).net.conv1.weight
    )
    with pytest.raises(CheckpointError, match="does not fit"):
        pretrain(tiny("simclr", f"weights={finished.folder}", "backbone.width=5"), tmp_path / "x")
    with pytest.raises(MissingInputError):
        pretrain(tiny("simclr", "weights=/nowhere/x.safetensors"), tmp_path / "x")
    assert not (tmp_path / "x").exists(), "nothing is written before everything fits"


def test_a_users_own_network_trains_and_comes_back(tmp_path: Path) -> None:
    def network() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )

    config = recipe("digits_sdclr").with_overrides([o for o in TINY if "width" not in o])
    config = config.with_values({"backbone": {"name": "custom"}, "epochs": 1})
    run = pretrain(config, tmp_path / "own", network=network())
    assert load_backbone(run.folder, network())(torch.rand(2, 3, 8, 8)).shape == (2, 6)
    with pytest.raises(ConfigError, match="go together"):
        pretrain(config, tmp_path / "other")


def test_a_metrics_file_that_lost_lines_is_noticed_when_a_run_goes_on_and_at_its_end(
    tmp_path: Path,
) -> None:
    config = tiny("simclr", "epochs=3", "checkpoint_every_epochs=1")
    with pytest.raises(Preempted):
        pretrain(config, tmp_path / "x", progress=SignalAt(2 * 5 + 1))
    run = Run(tmp_path / "x")
    lines = run.metrics_path.read_text().splitlines(keepends=True)
    run.metrics_path.write_text(lines[0])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        resume(run.folder)
    said = [str(one.message) for one in warned]
    assert "the lines of some epochs are lost" in said[0]
    assert "holds 2 of 3 epochs" in said[1]
    assert [entry["epoch"] for entry in run.metrics()] == [1, 3]


def test_a_metrics_file_deleted_during_the_run_is_noticed_at_its_end(tmp_path: Path) -> None:
    class Deleting(NoProgress):
        def advance(self, task: int, amount: int = 1, note: str | None = None) -> None:
            if note and "epoch 1/" in note:
                (tmp_path / "x" / "metrics.jsonl").unlink()

    with pytest.warns(UserWarning, match="holds 1 of 2 epochs"):
        pretrain(tiny("simclr", "epochs=2"), tmp_path / "x", progress=Deleting())


def own_config() -> PretrainConfig:
    config = recipe("digits_sdclr").with_overrides([o for o in TINY if "width" not in o])
    return config.with_values({"backbone": {"name": "custom"}, "epochs": 1})


def own_layers() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


@pytest.mark.parametrize("wrapper", [torch.compile, nn.DataParallel])
def test_the_weights_of_a_wrapped_network_load_into_the_plain_one(
    tmp_path: Path, wrapper: Callable[[nn.Module], nn.Module]
) -> None:
    run = pretrain(own_config(), tmp_path / "run", network=wrapper(own_layers()))
    tensors, _ = read_tensors(run.backbone_path)
    own_layers().load_state_dict(tensors, strict=True)


class Stating(nn.Sequential):
    def __init__(self, state: object) -> None:
        super().__init__(*own_layers())
        self.state = state

    def get_extra_state(self) -> object:
        return self.state

    def set_extra_state(self, state: object) -> None:
        self.state = state


def test_extra_state_is_kept_where_it_is_a_tensor_and_refused_where_not(tmp_path: Path) -> None:
    run = pretrain(own_config(), tmp_path / "run", network=Stating(torch.tensor([3.0])))
    fresh = Stating(torch.zeros(1))
    load_backbone(run.folder, network=fresh)
    assert torch.equal(fresh.state, torch.tensor([3.0]))  # type: ignore[arg-type]
    for state in ({"version": 1}, torch.zeros(2, dtype=torch.complex128), torch.eye(2).to_sparse()):
        with pytest.raises(ConfigError, match="_extra_state"):
            pretrain(own_config(), tmp_path / "x", network=Stating(state))
    assert not (tmp_path / "x").exists()


def test_a_network_that_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    frozen = own_layers().requires_grad_(False)
    for network, words in (
        (frozen, "no parameter that requires a gradient"),
        (nn.Flatten(), "no parameter"),
        (nn.Sequential(torch.compile(own_layers()), nn.Flatten()), "0 is wrapped"),
    ):
        with pytest.raises(ConfigError, match=words):
            pretrain(own_config(), tmp_path / "x", network=network)
    assert not (tmp_path / "x").exists()


def test_views_of_every_precision_train(tmp_path: Path) -> None:
    for precision in ("fp64", "bf16"):
        run = pretrain(tiny("sdclr", f"precision={precision}", "epochs=1"), tmp_path / precision)
        dtype = load_backbone(run.folder).net.conv1.weight.dtype
        assert dtype == (torch.float64 if precision == "fp64" else torch.float32)


def test_recomputing_activations_changes_no_result(tmp_path: Path) -> None:
    plain = pretrain(tiny("sdclr", "precision=fp64", "epochs=1"), tmp_path / "a")
    saved = pretrain(
        tiny("sdclr", "precision=fp64", "epochs=1", "activation_checkpointing=true"), tmp_path / "b"
    )
    a, b = (load_backbone(run.folder).net.state_dict() for run in (plain, saved))
    assert all(torch.allclose(a[k], b[k], rtol=1e-9, atol=1e-9) for k in a)


def test_a_warm_up_not_shorter_than_the_run_warns(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="never reaches its peak"):
        pretrain(tiny("simclr", "optimizer.warmup_epochs=3", "epochs=1"), tmp_path / "x")


def test_an_exploding_run_stops_without_saving_the_wreck(tmp_path: Path) -> None:
    config = tiny("simclr", "optimizer.learning_rate=1e38", "optimizer.warmup_epochs=0")
    with pytest.raises(NonFiniteError, match=r"Lower optimizer\.learning_rate"):
        pretrain(config, tmp_path / "x")
    assert Run(tmp_path / "x").checkpoints.steps() == [0]
    assert not Run(tmp_path / "x").backbone_path.exists()


def test_data_that_changed_under_a_run_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 8, 8), dtype=np.uint8), np.repeat(np.arange(3), 20)
    np.savez(tmp_path / "d.npz", train_images=images, train_labels=labels)
    data = {
        "data.name": "arrays",
        "data.path": str(tmp_path / "d.npz"),
        "data.validation_per_class": 0,
    }
    config = tiny("simclr").with_values(
        data | {"data.imbalance_ratio": 5, "batch_size": 10, "epochs": 2}
    )
    with pytest.raises(Preempted):
        pretrain(config, tmp_path / "x", progress=SignalAt(1))
    np.savez(tmp_path / "d.npz", train_images=images, train_labels=labels[::-1].copy())
    with pytest.raises(ConfigError, match="trained on other data"):
        resume(tmp_path / "x")


def test_unlabelled_arrays_train_on_all_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", images=rng.integers(0, 256, (40, 10, 8, 3), dtype=np.uint8))
    values = {
        "data.name": "arrays",
        "data.path": str(tmp_path / "d.npz"),
        "batch_size": 20,
        "epochs": 1,
    }
    with pytest.raises(ConfigError, match=r"data\.subset=all"):
        pretrain(tiny("sdclr").with_values(values), tmp_path / "x")
    run = pretrain(tiny("sdclr").with_values(values | {"data.subset": "all"}), tmp_path / "x")
    assert run.backbone_path.exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("batch_size=500", "must not exceed the 405"),
        ("batch_size=101", "last batch of one image"),
        ("device=mps", "sees no Apple GPU"),
    ],
)
def test_what_cannot_train_is_refused_before_anything_is_written(
    tmp_path: Path, override: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        pretrain(tiny("sdclr", override), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_the_config_file_is_plain_yaml(finished: Run) -> None:
    values: dict[str, Any] = yaml.safe_load(finished.config_path.read_text())
    assert values["method"]["prune_ratio"] == 0.9


def losses(run: Run) -> list[float]:
    return [json.loads(line)["loss"] for line in run.metrics_path.read_text().splitlines()]


def test_the_automatic_layout_is_mixed_where_that_is_faster_and_an_explicit_one_is_kept() -> None:
    config = recipe("digits_sdclr").with_overrides(
        ["backbone.width=64", "backbone.name=resnet10", "views.size=32"]
    )
    for layout, mixed in (("auto", True), ("channels_last", False)):
        one = OneTraining(config.with_values({"memory_format": layout, "device": "cpu"}))
        convolutions = [
            name for name, p in one.method.named_parameters() if p.ndim == 4 and p.is_contiguous()
        ]
        assert any("layer4.0.conv1" in name for name in convolutions) == mixed
        assert not any("layer3.0.conv1" in name for name in convolutions)


def test_a_run_of_a_version_without_compile_goes_on_bit_for_bit(
    tmp_path: Path, finished: Run
) -> None:
    with pytest.raises(Preempted):
        pretrain(tiny(), tmp_path / "x", progress=SignalAt(7))
    path = tmp_path / "x" / "config.yaml"
    path.write_text(path.read_text().replace("compile: auto\n", ""))
    assert "compile" not in path.read_text()
    assert final_state(resume(tmp_path / "x")) == final_state(finished)


def first_step(config: PretrainConfig, views: Views | None = None) -> dict[str, torch.Tensor]:
    """Gradients of the first step, and the sum of its losses; on ``views`` instead of its own."""
    one = OneTraining(config)
    one.step(views or next(one.views(0)))
    gradients = {name: p.grad for name, p in one.method.named_parameters() if p.grad is not None}
    return gradients | {"loss": one.state.loss_sum}


@pytest.mark.parametrize(
    "device",
    [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)],
)
@pytest.mark.parametrize("method", ["simclr", "sdclr"])
def test_one_compiled_step_equals_the_eager_step(method: str, device: str) -> None:
    # fp64: in fp32 a unit at zero may flip
    config = tiny(method, "precision=fp64", f"device={device}", "compile=false")
    views = next(OneTraining(config).views(0))  # compiled views differ from these by a rounding
    eager, compiled = (
        first_step(config.with_values({"compile": choice}), views) for choice in (False, True)
    )
    assert len(eager) > 30
    for name, expected in eager.items():
        torch.testing.assert_close(compiled[name], expected, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_loss_of_a_bf16_step_stays_close_to_fp32(device: str) -> None:
    config = tiny("sdclr", f"device={device}", "backbone.width=16")
    fp32, bf16 = (
        first_step(config.with_values({"precision": p}))["loss"] for p in ("fp32", "bf16")
    )
    torch.testing.assert_close(bf16, fp32, rtol=0.01, atol=0)


@pytest.mark.slow
def test_a_compiled_run_follows_the_eager_one_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    # 3 steps an epoch
    config = tiny("sdclr", "precision=fp64", "epochs=2", "batch_size=135", "compile=true")
    eager = pretrain(config.with_values({"compile": False}), tmp_path / "eager")
    whole = pretrain(config, tmp_path / "whole")
    assert whole.read_json("environment.json")["compile"] is True
    np.testing.assert_allclose(losses(whole), losses(eager), rtol=1e-9)
    with pytest.raises(Preempted):
        pretrain(config, tmp_path / "cut", progress=SignalAt(4))
    assert final_state(resume(tmp_path / "cut")) == final_state(whole)


@pytest.mark.slow
def test_a_run_whose_backward_pass_does_not_compile_is_the_uncompiled_run_and_says_so(
    tmp_path: Path,
) -> None:
    from no_backward_kernel import Double

    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        Double(),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    config = tiny().with_overrides(["backbone.name=custom", "epochs=2", "compile=true"])
    with pytest.warns(
        UserWarning, match="method sdclr runs uncompiled, because .* no kernel for the backward"
    ) as seen:
        run = pretrain(config, tmp_path / "run", network=copy.deepcopy(nn.Sequential(*layers)))
    assert len([warning for warning in seen if "uncompiled" in str(warning.message)]) == 1
    plain = pretrain(
        config.with_values({"compile": False}), tmp_path / "plain", network=nn.Sequential(*layers)
    )
    assert final_state(run) == final_state(plain)
    assert run.read_json("environment.json")["compile"] is False


@pytest.mark.parametrize("config", ["digits_sdclr", {"epochs": 1}])
def test_what_is_no_config_is_refused_with_what_makes_one(tmp_path: Path, config: Any) -> None:
    with pytest.raises(ConfigError, match=r"pretrain takes a PretrainConfig, got .*sdclr\.recipe"):
        pretrain(config, tmp_path / "run")


def test_cuda_graphs_are_refused_on_a_cpu_before_anything_is_read_or_written(
    tmp_path: Path,
) -> None:
    config = tiny(
        "sdclr", "device=cpu", "compile=cuda-graphs", "data.name=arrays", "data.path=absent.npz"
    )
    with pytest.raises(ConfigError, match="compile=cuda-graphs needs a CUDA device"):
        pretrain(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "override", "holds"),
    [
        ("cifar10_lt_sdclr", "seed=1", True),
        ("cifar100_lt_simclr", "method.passes=separate", True),
        ("cifar10_lt_sdclr", "method.random_share=0.9", True),
        ("cifar10_lt_sdclr", "method.dropout=0.5", False),  # draws inside a step
        ("cifar10_lt_sdclr", "method.name=bcl_d", False),
        ("cifar10_lt_simclr", "method.name=moco", False),
        ("cifar10_lt_sdclr", "record_images=true", False),
        ("cifar10_lt_sdclr", "activation_checkpointing=true", False),
        ("cifar10_lt_sdclr", "backbone.name=timm:resnet18", False),
        ("imagenet100_lt_sdclr", "seed=1", False),
    ],
)
def test_cuda_graphs_are_taken_unasked_only_where_a_device_has_shown_that_they_hold(
    name: str, override: str, holds: bool
) -> None:
    assert graphs_hold(recipe(name).with_overrides([override])) is holds


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("method", "precision", "rtol"),
    [
        ("simclr", "fp64", 1e-7),
        ("sdclr", "fp64", 1e-7),
        ("sdclr", "bf16", 0.02),  # the same kernels; some add up in an order of their own
    ],
)
def test_a_run_with_cuda_graphs_follows_the_run_without(
    tmp_path: Path, method: str, precision: str, rtol: float
) -> None:
    """Four epochs of three steps: full and short batches are warmed up, recorded and replayed, masks change between."""
    from torch._dynamo.utils import counters

    config = tiny(method, "device=cuda", f"precision={precision}", "epochs=4", "batch_size=135")
    runs = [
        pretrain(config.with_values({"compile": how}), tmp_path / str(how))
        for how in (True, "cuda-graphs")  # compiled: the views are then the same
    ]
    assert runs[1].read_json("environment.json")["compile"] == "cuda-graphs", "nothing fell back"
    assert not counters["inductor"]["cudagraph_skips"], "nor was anything left uncaptured"
    np.testing.assert_allclose(losses(runs[1]), losses(runs[0]), rtol=rtol)
    if precision == "fp64":
        without, graphs = (run.checkpoints.newest() for run in runs)
        assert without is not None
        assert graphs is not None
        for name, expected in without.tensors.items():  # weights, statistics, masks, momentum
            torch.testing.assert_close(
                graphs.tensors[name], expected, rtol=1e-6, atol=1e-7, msg=name
            )


@pytest.mark.gpu
@pytest.mark.parametrize("compiling", ["false", "true", "cuda-graphs"])
def test_a_loss_that_is_not_finite_moves_no_weight_on_cuda(compiling: str) -> None:
    one = OneTraining(tiny("sdclr", "device=cuda", f"compile={compiling}"))
    views = next(one.views(0))
    for _ in range(4):  # CUDA graphs are replayed from the third on
        one.step(views)
    before = {name: weight.detach().clone() for name, weight in one.method.named_parameters()}
    one.step(views._replace(a=torch.full_like(views.a, torch.nan)))
    with pytest.raises(NonFiniteError, match="the loss of step 5"):
        one.require_finite()
    for name, weight in one.method.named_parameters():
        assert torch.equal(weight, before[name]), name


@pytest.mark.gpu
@pytest.mark.parametrize("compiling", ["false", "true", "cuda-graphs"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_host_never_waits_for_the_device_inside_an_epoch(
    compiling: str, precision: str
) -> None:
    one = OneTraining(
        tiny("sdclr", "device=cuda", f"precision={precision}", f"compile={compiling}")
    )
    for epoch in (0, 1):  # compiles, then records, also for the short last batch
        for views in one.views(epoch):
            one.step(views)
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        for views in one.views(2):
            one.step(views)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_training_on_cuda_follows_the_cpu_and_resumes(tmp_path: Path) -> None:
    # fp64: ten steps of so small a network make several percent of what TF32 rounds
    config = tiny("sdclr", "precision=fp64", "epochs=2")
    cpu = pretrain(config.with_values({"device": "cpu"}), tmp_path / "cpu")
    cuda = config.with_values({"device": "cuda"})
    whole = pretrain(cuda, tmp_path / "whole")
    with pytest.raises(Preempted):
        pretrain(cuda, tmp_path / "cut", progress=SignalAt(7))
    np.testing.assert_allclose(losses(whole), losses(cpu), rtol=5e-3)
    np.testing.assert_allclose(losses(resume(tmp_path / "cut")), losses(whole), rtol=1e-9)


@pytest.mark.journeys
@pytest.mark.parametrize(
    "override", [slow("method.norms=shared"), "method.norms=own_all", "method.random_share=0.3"]
)
@pytest.mark.parametrize(
    "backbone",
    [
        {"name": "resnet10", "width": 4},
        pytest.param({"name": "timm:vit_tiny_patch16_224"}, marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_competitor_is_saved_and_resumed(
    tmp_path: Path, override: str, backbone: dict[str, Any]
) -> None:
    size = 16
    if "vit" in backbone["name"]:
        size = 32
        backbone = backbone | {"options": {"img_size": size, "depth": 1}}
    values = {
        "backbone": backbone,
        "views.size": size,
        "health_every_epochs": 0,
        "batch_size": 203,
        "method.prunable": "conv+linear",
        "epochs": 2,
    }
    config = recipe("digits_sdclr").with_values(values).with_overrides([override])
    whole = pretrain(config, tmp_path / "whole")
    with pytest.raises(Preempted):
        pretrain(config, tmp_path / "cut", progress=SignalAt(3))
    assert final_state(resume(tmp_path / "cut")) == final_state(whole)


def test_an_edited_config_is_not_resumed_in_silence(tmp_path: Path) -> None:
    with pytest.raises(Preempted):
        pretrain(tiny(), tmp_path / "x", progress=SignalAt(7))
    path = tmp_path / "x" / "config.yaml"
    path.write_text(path.read_text().replace("learning_rate: 0.3", "learning_rate: 0.1"))
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate: 0\.3 -> 0\.1"):
        resume(tmp_path / "x")


def test_a_finished_run_stays_finished_without_its_checkpoints(tmp_path: Path) -> None:
    run = pretrain(tiny("simclr", "epochs=1"), tmp_path / "x")
    before = run.backbone_path.read_bytes(), run.metrics_path.read_bytes()
    for path in run.checkpoints.folder.iterdir():
        path.unlink()
    resume(run.folder)
    assert (run.backbone_path.read_bytes(), run.metrics_path.read_bytes()) == before


def test_a_signal_in_the_last_step_is_not_swallowed(tmp_path: Path) -> None:
    with pytest.raises(Preempted, match="after the last step"):
        pretrain(tiny("simclr", "epochs=1"), tmp_path / "x", progress=SignalAt(5))
    assert Run(tmp_path / "x").backbone_path.exists()


def test_a_start_that_was_killed_early_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / ".lock").touch()
    (tmp_path / "x" / "environment.json").write_text("{}")
    assert pretrain(tiny("simclr", "epochs=1"), tmp_path / "x").backbone_path.exists()


def test_other_pixels_under_the_same_labels_are_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)

    def save() -> None:
        np.savez(
            tmp_path / "d.npz",
            train_images=rng.integers(0, 256, (60, 8, 8), dtype=np.uint8),
            train_labels=labels,
        )

    save()
    data = {
        "data.name": "arrays",
        "data.path": str(tmp_path / "d.npz"),
        "data.validation_per_class": 0,
    }
    config = tiny("simclr").with_values(
        data | {"data.imbalance_ratio": 5, "batch_size": 10, "epochs": 2}
    )
    with pytest.raises(Preempted):
        pretrain(config, tmp_path / "x", progress=SignalAt(1))
    save()
    with pytest.raises(ConfigError, match="trained on other data"):
        resume(tmp_path / "x")


def test_the_weights_a_run_started_from_are_not_needed_to_resume_it(tmp_path: Path) -> None:
    first = pretrain(tiny("simclr", "epochs=1"), tmp_path / "first")
    config = tiny("simclr", f"weights={first.folder}")
    with pytest.raises(Preempted):
        pretrain(config, tmp_path / "x", progress=SignalAt(7))
    first.backbone_path.unlink()
    assert resume(tmp_path / "x").backbone_path.exists()


def test_weights_are_loaded_again_when_the_run_was_killed_before_its_first_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pretrain(tiny("simclr", "epochs=1"), tmp_path / "first")
    config = tiny("sdclr", f"weights={first.folder}", "epochs=1")
    whole = pretrain(config, tmp_path / "whole")

    class Killed(Exception):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("sdclr.storage.checkpoint.CheckpointFolder.save", killed)
        with pytest.raises(Killed):
            pretrain(config, tmp_path / "cut")
    assert Run(tmp_path / "cut").exists
    assert Run(tmp_path / "cut").checkpoints.newest() is None
    assert final_state(resume(tmp_path / "cut")) == final_state(whole)


def test_the_first_checkpoint_is_of_step_0_and_was_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Preempted):
        pretrain(tiny("sdclr", "checkpoint_every_epochs=3"), tmp_path / "x", progress=SignalAt(2))
    assert Run(tmp_path / "x").checkpoints.steps() == [2, 0]
    damaged = Files.read
    monkeypatch.setattr(Files, "read", lambda self, path: damaged(self, path)[:-1])
    with pytest.raises(StorageError, match="does not give back"):
        pretrain(tiny(), tmp_path / "y")
    assert not Run(tmp_path / "y").metrics_path.exists(), "no step was taken"


def test_checkpoints_come_by_the_clock_too_and_change_nothing(
    tmp_path: Path, finished: Run
) -> None:
    run = pretrain(
        tiny("sdclr", "checkpoint_every_minutes=1e-9", "checkpoint_every_epochs=3"), tmp_path / "x"
    )
    assert run.checkpoints.steps() == [15, 14], "after every step, the newest two kept"
    assert final_state(run) == final_state(finished)


def test_a_run_whose_checkpoints_are_gone_is_not_started_afresh_in_silence(tmp_path: Path) -> None:
    with pytest.raises(Preempted):
        pretrain(tiny(), tmp_path / "x", progress=SignalAt(7))
    for path in (tmp_path / "x" / "checkpoints").iterdir():
        path.unlink()
    for _ in range(2):  # and it stays refused
        with pytest.raises(
            CheckpointError, match="had a checkpoint of step 7, and now it has none"
        ):
            resume(tmp_path / "x")


def test_a_run_that_lost_its_checkpoints_and_its_status_does_not_begin_again_in_silence(
    tmp_path: Path,
) -> None:
    with pytest.raises(Preempted):
        pretrain(tiny("simclr"), tmp_path / "x", progress=SignalAt(12))
    for path in (tmp_path / "x" / "checkpoints").iterdir():
        path.unlink()
    lines = (tmp_path / "x" / "metrics.jsonl").read_text()
    assert lines
    (tmp_path / "x" / "status.json").write_text("{")
    with pytest.raises(
        CheckpointError, match=r"has no checkpoint, and may have had one: .*status\.json is damaged"
    ):
        resume(tmp_path / "x")
    assert (tmp_path / "x" / "metrics.jsonl").read_text() == lines
    (tmp_path / "x" / "status.json").unlink()  # as a version without one left it
    with pytest.warns(UserWarning, match="it begins again, and its 2 epochs are lost"):
        resume(tmp_path / "x")


def test_a_run_without_momentum_is_resumed_as_well(tmp_path: Path) -> None:
    config = tiny("simclr", "optimizer.momentum=0", "epochs=1")
    whole = pretrain(config, tmp_path / "whole")
    with pytest.raises(Preempted):
        pretrain(config, tmp_path / "cut", progress=SignalAt(3))
    assert final_state(resume(tmp_path / "cut")) == final_state(whole)


def test_a_run_of_a_version_without_step_0_and_status_is_resumed(
    tmp_path: Path, finished: Run
) -> None:
    """Such a folder has no status.json, and neither its config nor its checkpoint knows checkpoint_every_minutes."""
    with pytest.raises(Preempted):
        pretrain(tiny(), tmp_path / "x", progress=SignalAt(7))
    run = Run(tmp_path / "x")
    (run.folder / "status.json").unlink()
    run.config_path.write_text(
        re.sub("checkpoint_every_minutes: .*\n", "", run.config_path.read_text())
    )
    for path in run.checkpoints.folder.iterdir():
        tensors, facts = read_tensors(path)
        path.unlink()
        if facts["step"]:
            del facts["config"]["checkpoint_every_minutes"]
            write_tensors(path, tensors, facts)
    assert final_state(resume(run.folder)) == final_state(finished)


@pytest.mark.parametrize("optimizer", ["sgd", "lars", "adamw"])
@pytest.mark.parametrize("bad_step", [1, 3])
def test_a_loss_that_is_not_finite_never_reaches_the_weights(optimizer: str, bad_step: int) -> None:
    one = OneTraining(tiny("sdclr", f"optimizer.name={optimizer}", "optimizer.learning_rate=0.01"))
    batches = list(one.views(0))
    forward = one.method.forward
    for number, views in enumerate(batches, start=1):
        poisoned = number == bad_step
        one.method.forward = lambda v, p=poisoned: forward(v) * (torch.nan if p else 1)  # type: ignore[method-assign]
        if number == bad_step:
            before = one.moving_state()
        if number == bad_step + 1:  # the host reads one step late
            with pytest.raises(NonFiniteError) as error:
                one.step(views)
            break
        one.step(views)
    after = one.moving_state()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    indices = ", ".join(map(str, batches[bad_step - 1].index[:16].tolist()))
    rate = f"learning rate {one.training.learning_rate(bad_step):.3g}"
    for words in (
        f"step {bad_step} ",
        rate,
        f"Its 100 images: {indices}",
        "optimizer.learning_rate",
    ):
        assert words in str(error.value)
    assert error.value.exit_code == 79


@pytest.mark.parametrize("step", [4, 5])  # inside an epoch, and its last one
def test_nothing_is_saved_before_the_answer_of_the_last_step_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    forward, steps = SimCLR.forward, iter(range(1, 100))
    monkeypatch.setattr(
        SimCLR, "forward", lambda *args: forward(*args) * (torch.nan if next(steps) == step else 1)
    )
    with pytest.raises(NonFiniteError, match=f"loss of step {step} "):
        pretrain(tiny("simclr"), tmp_path / "x", progress=SignalAt(step))
    assert Run(tmp_path / "x").checkpoints.steps() == [0]


def test_weights_that_are_not_finite_are_never_saved_though_the_loss_was(tmp_path: Path) -> None:
    def spoil(training: Training, state: TrainingState) -> None:
        if state.step == 3:
            next(iter(training.method.parameters())).data.view(-1)[0] = torch.inf

    with pytest.MonkeyPatch.context() as patch:
        patch_steps(patch, then=spoil)
        with pytest.raises(NonFiniteError, match="holds a number that is not finite at step 3"):
            pretrain(tiny("simclr"), tmp_path / "x", progress=SignalAt(3))
    assert Run(tmp_path / "x").checkpoints.steps() == [0]


def test_a_loss_that_is_not_finite_names_the_files_of_its_images(tmp_path: Path) -> None:
    for number in range(4):
        Image.fromarray(np.full((12, 12, 3), 50 * number, np.uint8)).save(
            tmp_path / f"{number}.png"
        )
    data = {"name": "images", "path": str(tmp_path), "subset": "all"}
    one = OneTraining(tiny("simclr").with_values({"data": data, "batch_size": 2, "epochs": 2}))
    first = next(iter(one.views(0)))
    forward = one.method.forward
    one.method.forward = lambda views: forward(views) * torch.nan  # type: ignore[method-assign]
    one.step(first)
    with pytest.raises(NonFiniteError, match=", ".join(rf"{i}\.png" for i in first.index.tolist())):
        one.require_finite()


class Redirects(Observer):
    """After the first epoch, another folder is where the run's was."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def on_epoch(self, done: EpochDone) -> None:
        if done.epoch == 1:
            self.act()


@pytest.mark.filterwarnings(r"ignore:.*log\.txt cannot be written")
@pytest.mark.parametrize("how", ["link", "moved", "removed"])
def test_a_run_whose_path_leads_elsewhere_ends_and_writes_nothing_there(
    how: str, tmp_path: Path
) -> None:
    config = recipe("digits_simclr").with_overrides(
        ["backbone.width=2", "views.size=8", "batch_size=200", "epochs=3"]
    )
    config = config.with_overrides(["health_every_epochs=0", "checkpoint_every_epochs=1"])
    other, own, link = tmp_path / "other", tmp_path / "own", tmp_path / "latest"
    pretrain(config, other)
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    own.mkdir()
    link.symlink_to(own)

    def redirect() -> None:
        if how == "link":
            link.unlink()
            link.symlink_to(other)
        elif how == "moved":
            own.rename(tmp_path / "elsewhere")
        else:
            shutil.rmtree(own)

    out = link if how == "link" else own
    with pytest.raises(RunFolderError, match="is no longer the folder in which this run began"):
        pretrain(config, out, observers=[Redirects(redirect)])
    assert before == {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    assert own.exists() == (how == "link")
    if how == "moved":
        assert resume(tmp_path / "elsewhere").backbone_path.is_file()
