"""The authors' archives: their names, and a small unzipped folder evaluated end to end."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from authors_format import as_simclr, as_tuned, golden_state, save
from sdclr import cli
from sdclr.errors import CheckpointError, ConfigError, MissingInputError
from sdclr.jobs.adopt import adopt
from sdclr.presentation.progress import NoProgress
from sdclr.recipes import recipe
from sdclr.workflows import published
from sdclr.workflows.matrix import Cell, plan
from sdclr.workflows.published import authors_files, evaluate_published

pytestmark = pytest.mark.journeys

SMALL = ("backbone.name=resnet18", "backbone.width=8", "views.size=8", "epochs=7")
original = authors_files


def test_the_names_are_the_references() -> None:
    """Spelled out from the reference's scripts."""
    files = authors_files("cifar10", "sdclr", 3)
    assert files is not None
    name = "res18_scheduling_sgd_temp0.2_wd1e-4_lr0.5_b512_twolayerProj_epoch2000_split3_D_i_newNT_s10_pruneP0.9DualBN"
    assert str(files.pretrained) == f"checkpoints/{name}/model_2000.pt"
    assert (
        str(files.linear)
        == f"checkpoints_tune/{name}__f2layer4_d10d20_wd0_lr30_freezeBN/best_model.pt"
    )
    few_shot = (
        f"checkpoints_tune/{name}__split3_S_b_f2layer4_d40d60_wd0_lr30_freezeBN/best_model.pt"
    )
    assert str(files.few_shot) == few_shot
    files = authors_files("cifar100", "simclr_balanced", 1)
    assert files is not None
    name = (
        "res18_cifar100_scheduling_sgd_temp0.2_wd1e-4_lr0.5_b512_o128_twolayerProj_epoch2000"
        "_cifar100_split1_D_b_newNT_s10"
    )
    assert str(files.pretrained) == f"checkpoints_cifar100/{name}/model_2000.pt"
    assert (
        files.few_shot.parent.name
        == f"{name}__cifar100_split1_S_b_f2layer4_d40d60_wd0_lr30_freezeBN"
    )
    files = authors_files("imagenet100", "sdclr", 1)
    assert files is not None
    name = (
        "imageNet_100_LT_train_res50_scheduling_sgd_lr0.5_temp0.3_epoch500_batch256_pruneP0.3DualBN"
    )
    assert str(files.pretrained) == f"checkpoints_imagenet/{name}/model_500.pt"
    assert files.linear.parent.name == f"{name}__lr30_wd0_epoch30_b512_d10d20_s1"
    few_shot = (
        f"{name}__imageNet_100_sub_balance_train_0.01_lr30_fix2layer4_wd0_epoch30_b512_d10d20"
    )
    assert files.few_shot.parent.name == few_shot
    files = authors_files("imagenet_lt_exp", "simclr", 1)
    assert files is not None
    name = "imageNet_LT_exp_train_res50_scheduling_sgd_lr0.5_temp0.2_epoch500_batch256"
    assert files.linear.parent.name == f"{name}__lr30_wd0_epoch30_b512_d10d20"


def test_there_are_eleven_published_systems() -> None:
    arms = ("simclr_balanced", "simclr", "sdclr", "simclr_matched", "simclr_balanced_matched")
    datasets = ("cifar10", "cifar100", "imagenet100", "imagenet_lt_exp", "digits")
    found = [
        files.pretrained
        for d in datasets
        for arm in arms
        if (files := authors_files(d, arm, 1)) is not None
    ]
    assert len(set(found)) == 11


@pytest.fixture
def archive(tmp_path: Path, golden: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10's names around a small network, of which the digits are the data: quick, and nothing else differs."""
    monkeypatch.setattr(
        published, "authors_files", lambda dataset, arm, split: original("cifar10", arm, split)
    )
    state = golden_state(golden)
    for arm, content in (("sdclr", state), ("simclr", as_simclr(state))):
        files = original("cifar10", arm, 1)
        assert files is not None
        save(tmp_path / "zip" / files.pretrained, content, 7)
        save(tmp_path / "zip" / files.linear, as_tuned(state, 10), 30)
        save(tmp_path / "zip" / files.few_shot, as_tuned(state, 10), 100)
    return tmp_path / "zip"


def cells(out: Path, splits: tuple[int, ...] = (1,)) -> list[Cell]:
    three_layers = {"method.projector_layers": 3}
    return [
        *plan("digits", out, arms=["simclr"], splits=splits, overrides=SMALL, adopted=True),
        *plan(
            "digits",
            out,
            arms=["sdclr"],
            splits=splits,
            overrides=SMALL,
            values=three_layers,
            adopted=True,
        ),
    ]


def run(archive: Path, out: Path, splits: tuple[int, ...] = (1,)) -> str:
    console = Console(file=io.StringIO(), width=80)
    evaluate_published(
        cells(out, splits),
        archive,
        out,
        dataset="digits",
        protocol="cached",
        progress=NoProgress(),
        console=console,
    )
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_an_unzipped_folder_is_probed_tested_and_summarised(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = run(archive, tmp_path / "out", splits=(1, 2))
    assert "2 of 4 published systems, protocol cached" in text
    assert "2 of 4 published systems, protocol authors_classifier" in text
    assert (
        text.count("SDCLR on D_i, their file  head 3, own norms, temperature 0.2, pruned 0.9") == 4
    )
    assert (tmp_path / "out" / "paper.md").exists()
    assert (tmp_path / "out" / "authors_classifier" / "paper.md").exists()
    for name in ("evaluate", "evaluate_classifier"):
        monkeypatch.setattr(published, name, lambda *_, **__: pytest.fail("measured twice"))
    run(archive, tmp_path / "out", splits=(1, 2))


def test_fine_tuned_files_alone_are_tested(archive: Path, tmp_path: Path) -> None:
    for path in (archive / "checkpoints").rglob("model_2000.pt"):
        path.unlink()
    text = run(archive, tmp_path / "out")
    assert "protocol authors_classifier" in text
    assert "protocol cached" not in text


@pytest.mark.slow
def test_a_pretrained_file_that_arrives_later_takes_its_place(
    archive: Path, tmp_path: Path
) -> None:
    pretrained = list((archive / "checkpoints").rglob("model_2000.pt"))
    for path in pretrained:
        path.rename(path.with_suffix(".later"))
    run(archive, tmp_path / "out")
    for path in pretrained:
        path.with_suffix(".later").rename(path)
    assert "2 of 2 published systems, protocol cached" in run(archive, tmp_path / "out")


@pytest.mark.slow
def test_a_damaged_file_does_not_keep_the_others_from_their_table(
    archive: Path, tmp_path: Path
) -> None:
    files = original("cifar10", "sdclr", 1)
    assert files is not None
    path = archive / files.pretrained
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"model_2000\.pt is damaged"):
        run(archive, tmp_path / "out")
    assert "SimCLR on D_i, their file" in (tmp_path / "out" / "paper.md").read_text()


def test_their_cifar_files_need_their_split_lists(archive: Path, tmp_path: Path) -> None:
    files = original("cifar10", "sdclr", 1)
    assert files is not None
    with pytest.raises(ConfigError, match="--splits-dir"):
        adopt(archive / files.pretrained, recipe("cifar10_lt_sdclr"), tmp_path / "run")


def test_what_is_not_there_is_named(tmp_path: Path, archive: Path) -> None:
    with pytest.raises(MissingInputError, match="is not a folder"):
        run(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        MissingInputError, match=r"first one expected is checkpoints/res18_.*/model_2000\.pt"
    ):
        run(tmp_path / "empty", tmp_path / "out")


def test_an_unpublished_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="published no simclr on digits"):
        run(tmp_path, tmp_path / "out")


def test_one_checkpoint_is_evaluated_from_the_command_line(
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    files = original("cifar10", "sdclr", 1)
    assert files is not None

    def sdclr(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sdclr", "evaluate", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    settings = ["--recipe", "digits_sdclr", *SMALL, "method.projector_layers=3"]
    what = ["--out", "runs/theirs", *settings]
    code, out, _ = sdclr(str(archive / files.pretrained), *what, "--probes", "knn")
    assert code == 0
    assert "k-nearest neighbours" in out
    code, out, _ = sdclr(
        str(archive / files.linear), *settings, "--out", "runs/tuned", "--classifier", "linear"
    )
    assert code == 0
    assert "authors_classifier" in out
    for arguments, number, words in (
        ([str(archive / files.pretrained)], 78, "say which recipe"),
        (["runs/theirs", "--recipe", "digits_sdclr"], 78, "are for a checkpoint file"),
        (["runs/theirs", "epochs=7"], 78, "epochs is decided when a run is trained"),
        ([str(archive / files.pretrained), "runs/theirs", *what], 78, "one checkpoint file alone"),
        (["runs/theirs/backbone.safetensors", *what], 78, "give the run folder"),
        (
            [str(archive / files.pretrained), *what, "--classifier", "linear"],
            76,
            "holds no classifier",
        ),
        (["nowhere.pt", "--probes", "knn"], 66, "nowhere.pt does not exist"),
        (
            [str(archive / files.linear), *settings, "--classifier", "linear", "--probes", "knn"],
            78,
            "leave out --prot",
        ),
    ):
        code, _, err = sdclr(*arguments)
        assert (code, words in err) == (number, True), err
