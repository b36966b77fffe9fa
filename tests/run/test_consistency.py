"""What does not belong to a run is named, whatever command looks at it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from authors_format import golden_state, save
from sdclr import Run, convert, embed, evaluate, load_backbone, pretrain, recipe, resume
from sdclr.data import DataConfig
from sdclr.errors import ConfigError, SdclrError
from sdclr.jobs.report import build_report
from sdclr.jobs.status import read_status
from sdclr.run.next_step import next_command
from sdclr.storage.tensor_files import read_tensors, write_tensors
from slow_variants import slow

pytestmark = pytest.mark.usefixtures("light_figures")

TINY = [
    "backbone.name=resnet10",
    "backbone.width=2",
    "epochs=1",
    "batch_size=128",
    "views.size=8",
    "health_every_epochs=0",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished and evaluated runs by what sets them apart from the run called plain."""
    folder = tmp_path_factory.mktemp("runs")
    others = {
        "plain": [],
        "simclr": ["method.temperature=0.3"],
        "split": ["data.split=2"],
        "seed": ["seed=11"],
        "longer": ["epochs=2"],
        "wider": ["backbone.width=3"],
        "rate": ["optimizer.learning_rate=0.1"],
        "balanced": ["data.subset=balanced"],
    }
    for name, settings in others.items():
        pretrain(recipe("digits_sdclr").with_overrides([*TINY, *settings]), folder / name)
        evaluate(folder / name, probes=["knn"])
    return folder


def copy_of(run: Path, tmp_path: Path) -> Run:
    shutil.copytree(run, tmp_path / "run")
    return Run(tmp_path / "run")


def looks_at(run: Run, tmp_path: Path) -> dict[str, Callable[[], object]]:
    """Every way to use a run's backbone or its numbers."""
    return {
        "load": lambda: load_backbone(run.folder),
        "evaluate": lambda: evaluate(run, probes=["knn"]),
        "report": lambda: build_report([run.folder]),
        "embed": lambda: embed(
            run.folder, DataConfig(name="digits", subset="all"), tmp_path / "features.npz"
        ),
        "start": lambda: pretrain(
            recipe("digits_sdclr").with_overrides([*TINY, f"weights={run.folder}"]),
            tmp_path / "new",
        ),
    }


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ("simclr", "method.temperature: 0.3 -> 0.2"),
        ("split", "fingerprint"),
        ("seed", "seed: 11 -> 10"),
        slow("longer", "epochs: 2 -> 1"),
        ("wider", "backbone.width: 3 -> 2"),
        slow("rate", "optimizer.learning_rate: 0.1 ->"),
        slow("balanced", "data.subset: 'balanced' -> 'long_tail'"),
    ],
)
def test_the_backbone_of_another_run_is_named(
    runs: Path, tmp_path: Path, other: str, named: str
) -> None:
    run = copy_of(runs / "plain", tmp_path)
    shutil.copy(Run(runs / other).backbone_path, run.backbone_path)
    before = sorted(tmp_path.rglob("*"))
    for name, look in looks_at(run, tmp_path).items():
        with pytest.raises(ConfigError, match=named):
            look()
        assert sorted(tmp_path.rglob("*")) == before, f"{name} has written something"


def test_a_backbone_that_convert_wrote_is_named(runs: Path, tmp_path: Path, golden: Path) -> None:
    run = copy_of(runs / "plain", tmp_path)
    convert(save(tmp_path / "x.pt", golden_state(golden), 5), tmp_path / "y.safetensors")
    shutil.copy(tmp_path / "y.safetensors", run.backbone_path)
    with pytest.raises(ConfigError, match="fingerprint"):
        evaluate(run, probes=["knn"])
    with pytest.raises(ConfigError):
        build_report([run.folder])


def test_a_backbone_exchanged_or_deleted_after_the_evaluation_is_named(
    runs: Path, tmp_path: Path
) -> None:
    run = copy_of(runs / "plain", tmp_path)
    tensors, facts = read_tensors(run.backbone_path)
    write_tensors(run.backbone_path, {name: tensor * 2 for name, tensor in tensors.items()}, facts)
    with pytest.raises(ConfigError, match="measured on another backbone"):
        build_report([run.folder])
    run.backbone_path.unlink()
    with pytest.raises(ConfigError, match="no longer in"):
        build_report([run.folder])


def test_the_evaluation_of_another_split_is_named_and_not_merged(
    runs: Path, tmp_path: Path
) -> None:
    run = copy_of(runs / "plain", tmp_path)
    shutil.copy(Run(runs / "split").evaluation_path("cached"), run.evaluation_path("cached"))
    with pytest.raises(ConfigError, match="train_counts"):
        build_report([run.folder])
    with pytest.warns(UserWarning, match=r"knn in .*\(another backbone; .*are replaced"):
        content = evaluate(run, probes=["few_shot"])
    assert list(content.probes) == ["few_shot"]
    build_report([run.folder])


def test_whole_runs_and_runs_of_earlier_versions_belong_together(
    runs: Path, tmp_path: Path
) -> None:
    run = copy_of(runs / "plain", tmp_path)
    tensors, facts = read_tensors(run.backbone_path)
    write_tensors(
        run.backbone_path, tensors, {key: facts[key] for key in facts.keys() - {"training", "data"}}
    )
    evaluation = json.loads(run.evaluation_path("cached").read_text())
    run.evaluation_path("cached").write_text(json.dumps(evaluation | {"backbone": None}))
    for look in looks_at(run, tmp_path).values():
        look()


@pytest.mark.parametrize(
    "file", ["status.json", "split.json", "environment.json", "evaluation/cached.json"]
)
@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"', "'"),
        lambda text: "[" * 100_000,
        lambda text: "[]",
        lambda text: "{}",
        lambda text: json.dumps(dict.fromkeys(json.loads(text), 10**400)),
        lambda text: json.dumps(dict.fromkeys(json.loads(text), "word")),
        lambda text: json.dumps({key: [value] for key, value in json.loads(text).items()}),
        lambda text: "",
    ],
)
@pytest.mark.filterwarnings("ignore:.* Until then this continues without it")
@pytest.mark.filterwarnings("ignore:.* lacks facts of a split")
def test_damaged_files_are_errors_of_ours_or_do_no_harm(
    runs: Path, tmp_path: Path, file: str, damage: Callable[[str], str]
) -> None:
    run = copy_of(runs / "plain", tmp_path)
    (run.folder / file).write_text(damage((run.folder / file).read_text()))
    assert read_status(run.folder).lines()
    for look in (lambda: build_report([run.folder]), lambda: evaluate(run, probes=["knn"])):
        with contextlib.suppress(SdclrError):
            look()


def test_the_metrics_of_another_run_and_lost_ones_are_named(runs: Path, tmp_path: Path) -> None:
    run = copy_of(runs / "plain", tmp_path)
    assert read_status(run.folder).message is None
    shutil.copy(Run(runs / "seed").metrics_path, run.metrics_path)
    assert "metrics.jsonl is not of this run" in (read_status(run.folder).message or "")
    with pytest.warns(UserWarning, match="is not of this run"):
        build_report([run.folder])
    run.metrics_path.unlink()
    assert "holds 0 of 1 epochs" in (read_status(run.folder).message or "")
    with pytest.warns(UserWarning, match="holds 0 of 1 epochs"):
        build_report([run.folder])


def test_the_settings_of_another_run_are_named_by_status_and_resume(
    runs: Path, tmp_path: Path
) -> None:
    run = copy_of(runs / "plain", tmp_path)
    shutil.copy(runs / "rate" / "config.yaml", run.config_path)
    assert "optimizer.learning_rate" in (read_status(run.folder).message or "")
    with pytest.raises(ConfigError, match="learning_rate"):
        resume(run.folder)


def test_the_next_step_is_one_that_works(runs: Path, tmp_path: Path) -> None:
    run = copy_of(runs / "plain", tmp_path)
    assert next_command(run, "done") == f"sdclr report {run.folder}"
    shutil.rmtree(run.folder / "evaluation")
    assert next_command(run, "done") == f"sdclr evaluate {run.folder}"


def test_the_report_of_a_run_with_several_protocols_names_the_newest(
    runs: Path, tmp_path: Path
) -> None:
    run = copy_of(runs / "plain", tmp_path)
    cached = run.evaluation_path("cached")
    shutil.copy(cached, run.evaluation_path("ts"))
    os.utime(cached, (1, 1))
    assert next_command(run, "done") == f"sdclr report {run.folder} --protocol ts"
    os.utime(run.evaluation_path("ts"), (0, 0))
    assert next_command(run, "done") == f"sdclr report {run.folder} --protocol cached"


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"train": [9, 4, 2]}, "evaluate {}"),
        ({"train": [9, 4, 1]}, "evaluate {} --untested leave_out"),
        ({"train": [9, 1]}, "report {}"),
        ({"train": [9]}, "report {}"),
        ({}, "report {}"),
        ({"train": [9, 4, 1], "test": [3, 3, 3]}, "evaluate {}"),
        ({"train": [9, 4, 1], "test": [3, 3, 0]}, "evaluate {} --untested leave_out"),
        ({"train": [9, 4], "test": [0, 0]}, "report {}"),
    ],
)
def test_an_evaluation_is_proposed_as_far_as_its_classes_have_images(
    runs: Path, tmp_path: Path, counts: dict[str, list[int]], words: str
) -> None:
    run = copy_of(runs / "plain", tmp_path)
    shutil.rmtree(run.folder / "evaluation")
    run.write_json("split.json", run.read_json("split.json") | {"counts": counts})
    assert next_command(run, "done") == f"sdclr {words.format(run.folder)}"
