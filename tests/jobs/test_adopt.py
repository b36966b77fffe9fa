"""An authors' checkpoint as a run folder: held to its recipe, evaluated like any run; its classifier as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from authors_format import as_simclr, as_tuned, golden_state, save
from sdclr import PretrainConfig, Run, evaluate, load_backbone, pretrain, recipe
from sdclr.data import build_data
from sdclr.errors import CheckpointError, ConfigError
from sdclr.evaluation.features import per_class_accuracy
from sdclr.jobs.adopt import adopt
from sdclr.jobs.evaluate import evaluate_classifier

SMALL = {"backbone.name": "resnet18", "backbone.width": 8, "views.size": 16, "epochs": 7}


def sdclr_config() -> PretrainConfig:
    return recipe("digits_sdclr").with_values(SMALL | {"method.projector_layers": 3})


@pytest.fixture
def checkpoint(tmp_path: Path, golden: Path) -> Path:
    return save(tmp_path / "model_7.pt", golden_state(golden), 7)


def test_an_adopted_run_is_evaluated_like_one_of_ours(checkpoint: Path, tmp_path: Path) -> None:
    run = adopt(checkpoint, sdclr_config(), tmp_path / "run")
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    theirs = load_backbone(run.folder).net.state_dict()
    assert torch.equal(
        theirs["layer2.0.bn1.running_mean"], state["module.layer2.0.bn1.bn_list.0.running_mean"]
    )
    adopted = run.read_json("environment.json")["adopted"]
    assert (adopted["file"], adopted["epoch"], adopted["branch"]) == ("model_7.pt", 7, "target")
    result = evaluate(run, probes=["few_shot"])
    assert np.mean(result.probes["few_shot"].per_class_accuracy) > 0.15
    assert adopt(checkpoint, sdclr_config(), run.folder).folder == run.folder, (
        "again changes nothing"
    )
    assert pretrain(sdclr_config(), run.folder).checkpoints.newest() is None, (
        "nothing is left to train"
    )


def test_what_the_file_shows_must_agree_with_the_recipe(
    checkpoint: Path, tmp_path: Path, golden: Path
) -> None:
    for values, words in (
        ({"backbone.width": 16}, "backbone.width is 8 there, 16 in the recipe"),
        ({"backbone.stem": "large", "views.size": 32}, "backbone.stem is small there"),
        ({"method.projector_layers": 2}, "method.projector_layers is 3 there, 2"),
        ({"epochs": 2000}, "epochs is 7 there, 2000"),
    ):
        with pytest.raises(ConfigError, match=words):
            adopt(checkpoint, sdclr_config().with_values(values), tmp_path / "run")
    simclr = recipe("digits_simclr").with_values(SMALL)
    with pytest.raises(ConfigError, match=r"method.name is sdclr there, simclr in the recipe"):
        adopt(checkpoint, simclr, tmp_path / "run")
    assert not (tmp_path / "run").exists(), "nothing was written"
    single = save(tmp_path / "single.pt", as_simclr(golden_state(golden)), 7)
    with pytest.raises(ConfigError, match=r"method.name is simclr there, sdclr in the recipe"):
        adopt(single, sdclr_config(), tmp_path / "run")
    assert adopt(single, simclr, tmp_path / "simclr").exists


def test_a_folder_of_another_file_or_of_a_run_trained_here_is_refused(
    checkpoint: Path, tmp_path: Path, golden: Path
) -> None:
    run = adopt(checkpoint, sdclr_config(), tmp_path / "run")
    changed = golden_state(golden)
    changed["module.conv1.weight"] = changed["module.conv1.weight"] + 1
    with pytest.raises(ConfigError, match=r"holds the run of another file, model_7\.pt"):
        adopt(save(tmp_path / "other.pt", changed, 7), sdclr_config(), run.folder)
    environment = run.read_json("environment.json")
    run.write_json("environment.json", {k: v for k, v in environment.items() if k != "adopted"})
    with pytest.raises(ConfigError, match="holds a run trained here"):
        adopt(checkpoint, sdclr_config(), run.folder)


def test_a_fine_tuned_classifier_is_tested_as_it_is(
    checkpoint: Path, tmp_path: Path, golden: Path
) -> None:
    run = adopt(checkpoint, sdclr_config(), tmp_path / "run")
    state = as_tuned(golden_state(golden), 10)
    result = evaluate_classifier(run, save(tmp_path / "best_model.pt", state, 30), "linear")
    data = build_data(sdclr_config().data)
    assert data.test is not None
    assert data.test.labels is not None
    with torch.no_grad():
        images = torch.cat(list(data.test.stills(16))) / 255
        logits = F.linear(load_backbone(run.folder)(images), state["fc.weight"], state["fc.bias"])
    expected = per_class_accuracy(logits.argmax(dim=1).numpy(), data.test.labels, 10)
    probe = result.probes["linear"]
    assert probe.per_class_accuracy == pytest.approx(expected)
    assert "best_model.pt, epoch 30" in probe.detail
    assert probe.detail.endswith("backbone equal to the run's")
    assert result.protocol == "authors_classifier"
    assert not Run(run.folder).evaluation_path("cached").exists(), (
        "kept apart from our own protocols"
    )
    state["conv1.weight"] = state["conv1.weight"] * 2
    other = evaluate_classifier(run, save(tmp_path / "moved.pt", state, 30), "few_shot")
    assert list(other.probes) == ["linear", "few_shot"]
    assert other.probes["few_shot"].detail.endswith("differs from the run's in 1 tensors")


def test_a_classifier_that_does_not_fit_is_refused(
    checkpoint: Path, tmp_path: Path, golden: Path
) -> None:
    run = adopt(checkpoint, sdclr_config(), tmp_path / "run")
    with pytest.raises(CheckpointError, match="holds no classifier"):
        evaluate_classifier(run, checkpoint, "linear")
    hundred = save(tmp_path / "c100.pt", as_tuned(golden_state(golden), 100), 30)
    with pytest.raises(ConfigError, match=r"for 100 classes; .* and 10 classes"):
        evaluate_classifier(run, hundred, "linear")
    with pytest.raises(ConfigError, match="tuned for linear or few_shot, got 'knn'"):
        evaluate_classifier(run, hundred, "knn")
