from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from imagenet_stand_in import make_imagenet
from sdclr import Run, evaluate, load_backbone, pretrain, recipe
from sdclr.data import build_data
from sdclr.errors import ConfigError, DataError, MissingInputError
from sdclr.evaluation import sgd_probes
from sdclr.evaluation.features import extract_features, per_class_accuracy
from sdclr.evaluation.knn import knn_predict
from sdclr.evaluation.linear_probe import ProbeSchedule, ProbeSchedules
from sdclr.evaluation.probes import PROBES
from sdclr.jobs.evaluate import frozen_features

TINY = ["backbone.width=4", "views.size=8", "batch_size=100", "epochs=2", "health_every_epochs=0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return pretrain(
        recipe("digits_sdclr").with_overrides(TINY), tmp_path_factory.mktemp("runs") / "x"
    )


@pytest.mark.journeys
def test_the_cached_protocol_measures_three_probes_and_writes_them_down(run: Run) -> None:
    result = evaluate(run.folder)
    assert result.to_dict() == json.loads(run.evaluation_path("cached").read_text())
    assert list(result.probes) == ["linear", "few_shot", "knn"]
    assert result.train_counts == run.read_json("split.json")["counts"]["long_tail"]
    assert result.split.fingerprint == run.read_json("split.json")["fingerprint"]
    for name, probe in result.probes.items():
        assert probe.num_test == [36] * 10
        assert result.balancedness(name).all > 0.3


def test_knn_is_measured_on_the_target_branch_against_every_training_image(run: Run) -> None:
    data = build_data(recipe("digits_sdclr").data)
    assert data.test is not None
    assert data.test.labels is not None
    assert data.train.labels is not None
    assert data.split is not None
    backbone = load_backbone(run.folder)
    positions = data.split.train
    bank, queries = (
        extract_features(backbone, images) for images in (data.train.images, data.test.images)
    )
    predictions = knn_predict(
        bank[torch.from_numpy(positions)], data.train.labels[positions], queries
    )
    expected = per_class_accuracy(predictions, data.test.labels, 10)
    assert evaluate(run, probes=["knn"]).probes["knn"].per_class_accuracy == pytest.approx(expected)


def test_the_sdclr_protocol_leaves_the_weights_alone_and_never_mixes_with_cached(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ProbeSchedule(epochs=4, milestones=(2, 3), evaluate_every=1)
    monkeypatch.setitem(sgd_probes.SCHEDULES, "cifar", ProbeSchedules(linear=short, few_shot=short))
    before = run.backbone_path.read_bytes()
    result = evaluate(run, protocol="sdclr", probes=["linear", "few_shot"])
    assert run.backbone_path.read_bytes() == before
    assert result.protocol == "sdclr"
    assert "epoch" in result.probes["linear"].detail
    assert run.evaluation_path("sdclr") != run.evaluation_path("cached")
    later = evaluate(run, protocol="sdclr", probes=["knn"])
    assert list(later.probes) == ["linear", "few_shot", "knn"], "earlier probes stay"


@pytest.mark.journeys
def test_other_papers_protocols_measure_their_own_probes_into_files_of_their_own(run: Run) -> None:
    before = run.backbone_path.read_bytes()
    by_bcl = evaluate(run, protocol="bcl")
    by_ts = evaluate(run, protocol="ts")
    assert run.backbone_path.read_bytes() == before
    assert list(by_bcl.probes) == ["linear", "shot_100", "shot_50"]
    assert list(by_ts.probes) == ["knn_1", "knn_10", "few_shot_svm", "long_tail_svm"]
    for protocol, result in (("bcl", by_bcl), ("ts", by_ts)):
        assert result.to_dict() == json.loads(run.evaluation_path(protocol).read_text())
        assert all(result.balancedness(name).all > 0.3 for name in result.probes)
    counts = run.read_json("split.json")["counts"]
    learned = {
        "linear": sum(counts["train"]),
        "shot_100": 1000,
        "shot_50": 500,
    }
    for name, num in learned.items():
        assert str(by_bcl.probe(name).detail).startswith(f"{num:,} images, 500 epochs of Adam")
    bank = sum(counts["long_tail"])
    assert str(by_ts.probe("knn_1").detail).endswith(f"{bank:,} images of the long-tailed set")
    assert f"{sum(counts['few_shot'])} images" in str(by_ts.probe("few_shot_svm").detail)
    assert f"{bank:,} images" in str(by_ts.probe("long_tail_svm").detail)


def test_a_probe_on_more_images_than_a_class_has_is_left_out_or_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROBES._rows, "shot_100", PROBES["shot_100"]._replace(shots=200))
    fewest = min(run.read_json("split.json")["counts"]["train"])
    said = rf"shot_100 .*learns from 200 images of each class, and \d has {fewest}"
    with pytest.warns(UserWarning, match=said):
        assert "shot_50" in evaluate(run, protocol="bcl", probes=None).probes
    with pytest.raises(ConfigError, match=said):
        evaluate(run, protocol="bcl", probes=["shot_100"])


def test_wrong_requests_are_refused_before_any_work(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one of cached, sdclr, bcl, ts"):
        evaluate(run, protocol="lotar")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="among linear, few_shot, knn"):
        evaluate(run, probes=["linear", "svm"])
    with pytest.raises(MissingInputError, match="not a run folder"):
        evaluate(tmp_path)
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.yaml").write_text(run.config_path.read_text())
    (tmp_path / "unfinished" / "split.json").write_text((run.folder / "split.json").read_text())
    with pytest.raises(MissingInputError, match="not finished"):
        evaluate(tmp_path / "unfinished")


def test_probes_are_a_list_or_any_other_names_one_by_one(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"must be a list of names, got 'knn': probes=\['knn'\]"):
        evaluate(run, probes="knn")
    expected = evaluate(run, probes=["knn"]).probes["knn"].per_class_accuracy
    found = evaluate(run, probes=(name for name in ["knn"]))  # type: ignore[arg-type]
    assert found.probes["knn"].per_class_accuracy == expected


def test_images_without_a_labelled_test_set_cannot_be_evaluated(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", images=rng.integers(0, 256, (40, 8, 8), dtype=np.uint8))
    values = {
        "data.name": "arrays",
        "data.path": str(tmp_path / "d.npz"),
        "data.subset": "all",
        "batch_size": 20,
    }
    run = pretrain(recipe("digits_simclr").with_overrides(TINY).with_values(values), tmp_path / "x")
    with pytest.raises(DataError, match="--labels FILE"):
        evaluate(run)


@pytest.mark.slow
def test_a_few_epochs_on_the_real_cifar10_beat_random_weights(
    cifar10_npz: Path, sdclr_data: Path, tmp_path: Path
) -> None:
    """The authors' split 1, both methods at a CPU budget; kNN must rise well above the untrained network's."""
    budget = ["epochs=4", "batch_size=128", "optimizer.learning_rate=0.12"]
    budget += ["backbone.name=resnet10", "backbone.width=16"]
    where = {"data.path": str(cifar10_npz), "data.splits_dir": str(sdclr_data / "splits")}
    knn = {}
    for name in ("cifar10_lt_simclr_matched", "cifar10_lt_sdclr"):
        config = recipe(name).with_overrides(budget).with_values(where)
        run = pretrain(config, tmp_path / name)
        assert run.read_json("split.json")["source"] == "authors' lists"
        result = evaluate(run, probes=["knn"])
        knn[name] = result.balancedness("knn").all
    untrained = recipe("cifar10_lt_sdclr").with_overrides(
        [*budget, "epochs=1", "optimizer.learning_rate=1e-30"]
    )
    result = evaluate(
        pretrain(untrained.with_values(where), tmp_path / "untrained"), probes=["knn"]
    )
    random_weights = result.balancedness("knn").all
    print({"random weights": random_weights} | knn)
    assert all(value > random_weights + 0.05 for value in knn.values()), (random_weights, knn)


def test_groups_come_from_the_long_tail_also_for_a_run_on_its_balanced_twin(tmp_path: Path) -> None:
    config = recipe("digits_balanced_simclr").with_overrides([*TINY, "epochs=1"])
    balanced = pretrain(config, tmp_path / "x")
    counts = balanced.read_json("split.json")["counts"]
    assert len(set(counts["balanced"])) == 1
    result = evaluate(balanced, probes=["knn"])
    assert result.train_counts == counts["long_tail"]
    assert max(result.train_counts) > 10 * min(result.train_counts)


@pytest.mark.journeys
def test_imagenet_lists_are_evaluated_by_the_imagenet_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_imagenet(tmp_path, 7, train_per_class=6)
    where = {"data.path": str(made.root), "data.splits_dir": str(made.splits_dir)}
    small = {
        "views.size": 32,
        "backbone.width": 2,
        "epochs": 1,
        "batch_size": 8,
        "optimizer.learning_rate": 0.001,
    }
    run = pretrain(recipe("imagenet100_lt_sdclr").with_values(where | small), tmp_path / "run")
    short = ProbeSchedule(epochs=4, milestones=(2, 3), evaluate_every=2, batch_size=16, top_k=5)
    monkeypatch.setitem(
        sgd_probes.SCHEDULES, "imagenet", ProbeSchedules(linear=short, few_shot=short)
    )
    before = run.backbone_path.read_bytes()
    result = evaluate(run, protocol="sdclr")
    assert run.backbone_path.read_bytes() == before
    assert result.group_convention == "thresholds"
    assert result.dataset == "imagenet100"
    assert "validation top-5 accuracy" in result.probes["linear"].detail
    assert result.class_names[0] == made.lists["D_i"][0].split("/")[1]
    assert evaluate(run).probes["knn"].num_test == [3] * 7
    (made.root / made.lists["test"][0].split(" ")[0]).unlink()
    with pytest.raises(MissingInputError, match="1 of 21 images"):
        evaluate(run)


def test_a_run_in_bf16_is_probed_on_features_in_bf16_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []
    extract = frozen_features.extract_features

    def noted(*arguments: Any) -> Tensor:
        given.append(arguments[4])
        return extract(*arguments)

    monkeypatch.setattr(frozen_features, "extract_features", noted)
    tiny = ["backbone.width=2", "views.size=8", "epochs=1", "batch_size=200", "precision=bf16"]
    run = pretrain(recipe("digits_simclr").with_overrides(tiny), tmp_path / "run")
    found = evaluate(run, probes=["knn"])
    in_bf16 = found.probe("knn").per_class_accuracy
    assert found.features_in == "bf16"
    assert set(given) == {"bf16"}
    given.clear()
    with pytest.warns(UserWarning, match=r"knn in .*\(features of another precision\)"):
        found = evaluate(run, probes=["few_shot"], settings={"precision": "fp32"})
    assert list(found.probes) == ["few_shot"], "features of two precisions share no file"
    assert found.features_in is None
    found = evaluate(run, probes=["knn"], settings={"precision": "fp32"})
    assert list(found.probes) == ["few_shot", "knn"]
    in_fp32 = found.probe("knn").per_class_accuracy
    assert set(given) == {"fp32"}
    assert Run(run.folder).settings()["precision"] == "bf16", "the run stays as it is"
    assert np.abs(np.subtract(in_bf16, in_fp32)).max() < 0.15
