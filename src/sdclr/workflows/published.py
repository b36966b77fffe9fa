"""The authors' published checkpoints, found in their unzipped layout, evaluated and summarised.

Pre-training checkpoints are probed with our protocol (their ``--only_finetuning``); the classifiers they fine-tuned are
tested unchanged (their ``--test_only``). The folder names below are the reference's: facts about the archives, not our
settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from sdclr.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    MissingInputError,
    RunFolderError,
    SdclrError,
)
from sdclr.evaluation.probes import published_probes
from sdclr.jobs.adopt import adopt
from sdclr.jobs.evaluate import AUTHORS_CLASSIFIER, Protocol, evaluate, evaluate_classifier
from sdclr.jobs.report import require_replaceable
from sdclr.presentation.progress import AnyProgress
from sdclr.workflows.matrix import Cell
from sdclr.workflows.reproduce import report_files, summarise


@dataclass(frozen=True)
class AuthorsFiles:
    """The archives' files for one system on one split, relative to the folder they were unzipped in."""

    pretrained: Path
    linear: Path
    few_shot: Path

    def classifier(self, probe: str) -> Path:
        return self.linear if probe == "linear" else self.few_shot


def authors_files(dataset: str, arm: str, split: int) -> AuthorsFiles | None:
    """The files of a system; None if the authors did not publish it."""
    if arm.endswith("_matched") or dataset not in (
        "cifar10",
        "cifar100",
        "imagenet100",
        "imagenet_lt_exp",
    ):
        return None
    if dataset in ("imagenet100", "imagenet_lt_exp"):
        return (
            _imagenet_files(dataset, arm)
            if (dataset, arm) != ("imagenet_lt_exp", "sdclr")
            else None
        )
    tag, folder, prefix = {
        "cifar10": ("res18", "checkpoints", ""),
        "cifar100": ("res18_cifar100", "checkpoints_cifar100", "cifar100_"),
    }[dataset]
    output = "_o128" if dataset == "cifar100" else ""
    subset = "D_b" if arm == "simclr_balanced" else "D_i"
    name = (
        f"{tag}_scheduling_sgd_temp0.2_wd1e-4_lr0.5_b512{output}_twolayerProj_epoch2000"
        f"_{prefix}split{split}_{subset}_newNT_s10{'_pruneP0.9DualBN' if arm == 'sdclr' else ''}"
    )
    tuned = Path(f"{folder}_tune")
    return AuthorsFiles(
        pretrained=Path(folder) / name / "model_2000.pt",
        linear=tuned / f"{name}__f2layer4_d10d20_wd0_lr30_freezeBN" / "best_model.pt",
        few_shot=tuned
        / f"{name}__{prefix}split{split}_S_b_f2layer4_d40d60_wd0_lr30_freezeBN"
        / "best_model.pt",
    )


def _imagenet_files(dataset: str, arm: str) -> AuthorsFiles:
    trained_on = {
        ("imagenet100", True): "imageNet_100_BL_train",
        ("imagenet100", False): "imageNet_100_LT_train",
        ("imagenet_lt_exp", True): "imageNet_BL_exp_train",
        ("imagenet_lt_exp", False): "imageNet_LT_exp_train",
    }[dataset, arm == "simclr_balanced"]
    temperature, pruned = ("0.3", "_pruneP0.3DualBN") if arm == "sdclr" else ("0.2", "")
    name = f"{trained_on}_res50_scheduling_sgd_lr0.5_temp{temperature}_epoch500_batch256{pruned}"
    few_shot = (
        "imageNet_100_sub_balance_train_0.01"
        if dataset == "imagenet100"
        else "imageNet_sub_balance_train_0.01"
    )
    seed = "_s1" if dataset == "imagenet100" else ""
    tuned = Path("checkpoints_imagenet_tune")
    return AuthorsFiles(
        pretrained=Path("checkpoints_imagenet") / name / "model_500.pt",
        linear=tuned / f"{name}__lr30_wd0_epoch30_b512_d10d20{seed}" / "best_model.pt",
        few_shot=tuned
        / f"{name}__{few_shot}_lr30_fix2layer4_wd0_epoch30_b512_d10d20"
        / "best_model.pt",
    )


def evaluate_published(
    cells: Sequence[Cell],
    folder: Path,
    out: Path,
    *,
    dataset: str,
    protocol: Protocol,
    progress: AnyProgress,
    console: Console,
    download: bool = False,
) -> None:
    """Evaluate every published file that ``folder`` contains for ``cells``; one table per protocol.

    Missing files are listed; finished work is not repeated. The error of a damaged file is raised only after the others
    are in their table. Raises MissingInputError if there are no files at all.
    """
    if not folder.is_dir():
        raise MissingInputError(
            f"--published {folder} is not a folder. It is where the archives were unzipped."
        )
    require_replaceable(*report_files(out), *report_files(out / AUTHORS_CLASSIFIER))
    wanted = [(cell, authors_files(dataset, cell.arm, cell.config.data.split)) for cell in cells]
    if unpublished := [cell.arm for cell, files in wanted if files is None]:
        raise ConfigError(
            f"the authors published no {unpublished[0]} on {dataset}; choose what they did publish."
        )
    probed: list[Cell] = []
    tested: list[Cell] = []
    failures: list[SdclrError] = []
    for cell, files in wanted:
        assert files is not None
        try:
            _evaluate_cell(cell, files, folder, protocol, progress, probed, tested, download)
        except (CheckpointError, ConfigError, DataError, RunFolderError) as error:
            progress.print(f"{cell.title}: {error}")
            failures.append(error)
    if not probed and not tested and not failures:
        first = wanted[0][1].pretrained if wanted and wanted[0][1] else "-"
        raise MissingInputError(
            f"{folder} holds none of the authors' files for these arms and splits; the first one expected is {first}. "
            "See docs/data.md."
        )
    for name, found, target in (
        (protocol, probed, out),
        (AUTHORS_CLASSIFIER, tested, out / AUTHORS_CLASSIFIER),
    ):
        if found:
            console.print(
                Text(
                    f"\n{len(found)} of {len(cells)} published systems, protocol {name}",
                    style="bold",
                )
            )
            target.mkdir(parents=True, exist_ok=True)
            summarise(found, target, name, console)
    if failures:
        raise failures[0]


def _evaluate_cell(
    cell: Cell,
    files: AuthorsFiles,
    folder: Path,
    protocol: Protocol,
    progress: AnyProgress,
    probed: list[Cell],
    tested: list[Cell],
    download: bool,
) -> None:
    """Evaluate what the archives contain for one cell, and add the cell to ``probed`` and ``tested``."""
    present = [
        path
        for path in (files.pretrained, files.linear, files.few_shot)
        if (folder / path).is_file()
    ]
    for path in (files.pretrained, files.linear, files.few_shot):
        if path not in present:
            progress.print(f"not there: {path}")
    if not present:
        return
    # the classifiers' own files contain the frozen backbone, too
    run = adopt(folder / present[0], cell.config, cell.run.folder, download=download)
    if files.pretrained in present:
        if missing := cell.missing_probes(protocol, published_probes(protocol)):
            evaluate(
                run, protocol=protocol, probes=missing, device=cell.config.device, progress=progress
            )
        probed.append(cell)
    for probe in published_probes():
        if files.classifier(probe) in present and cell.missing_probes(AUTHORS_CLASSIFIER, [probe]):
            source = folder / files.classifier(probe)
            evaluate_classifier(run, source, probe, device=cell.config.device, progress=progress)
    if files.linear in present or files.few_shot in present:
        tested.append(cell)
