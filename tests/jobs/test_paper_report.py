"""The paper's table on fake run folders: against numpy, the golden summaries and the published rows."""

from __future__ import annotations

import copy
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from sdclr.errors import ConfigError, DataError, MissingInputError
from sdclr.jobs.report import build_paper_table, write_paper_table
from sdclr.presentation.paper import COLUMNS, PaperTable

CONFIG: dict[str, Any] = {
    "recipe": "x",
    "epochs": 2000,
    "batch_size": 512,
    "seed": 10,
    "device": "cpu",
    "data": {"name": "cifar10", "split": 1, "subset": "long_tail"},
    "backbone": {"name": "resnet18", "width": 64},
    "method": {"name": "simclr", "temperature": 0.2, "projector_layers": 2},
}
SDCLR = {
    "name": "sdclr",
    "projector_layers": 3,
    "prune_ratio": 0.9,
    "norms": "own",
    "temperature": 0.2,
}


def write_run(
    folder: Path,
    counts: list[int],
    percent: list[float],
    *,
    split: int = 1,
    seed: int = 10,
    protocol: str = "sdclr",
    probes: tuple[str, ...] = ("linear",),
    method: dict[str, Any] | None = None,
    subset: str = "long_tail",
    dataset: str = "cifar10",
    convention: str = "thirds",
    source: str = "authors' lists",
    **settings: Any,
) -> Path:
    config = copy.deepcopy(CONFIG) | {"seed": seed} | settings
    config["data"] |= {"split": split, "subset": subset, "name": dataset}
    config["method"] = method or config["method"]
    names = [str(c) for c in range(len(counts))]
    probe = {
        "per_class_accuracy": [p / 100 for p in percent],
        "num_test": [9] * len(counts),
        "detail": "",
        "seconds": 1,
    }
    identity = {"number": split, "fingerprint": f"{split:016d}"}
    evaluation = {
        "protocol": protocol, "dataset": dataset, "group_convention": convention, "train_counts": counts,
        "class_names": names, "split": identity, "chance": 1 / len(counts), "probes": dict.fromkeys(probes, probe),
    }  # fmt: skip
    (folder / "evaluation").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "environment.json").write_text(json.dumps({"device": "CPU"}))
    split_json = identity | {
        "class_names": names,
        "counts": {},
        "source": source,
        "name": "x",
        "seed": None,
    }
    (folder / "split.json").write_text(json.dumps(split_json))
    (folder / f"evaluation/{protocol}.json").write_text(json.dumps(evaluation))
    return folder


def golden_runs(
    golden: Path, tmp_path: Path, number: int, **options: Any
) -> tuple[dict[str, Any], list[Path]]:
    """The golden table as one run a split."""
    table = json.loads((golden / "summary_metrics.json").read_text())[number]
    runs = [
        write_run(tmp_path / f"run-{split}", counts, accuracy, split=split, **options)
        for split, (counts, accuracy) in enumerate(
            zip(table["counts"], table["classwise_acc_percent"], strict=True), start=1
        )
    ]
    return table, runs


def rows(table: PaperTable, kind: str, probe: str = "linear") -> list[Any]:
    return [row for arm in table.arms if arm.probe == probe for row in arm.rows if row.kind == kind]


@pytest.mark.parametrize(("number", "dataset", "convention"), [
    (0, "cifar10", "thirds"), (1, "cifar100", "thirds"),
    (2, "imagenet100", "thresholds"), (3, "imagenet_lt_exp", "thresholds"),
])  # fmt: skip
def test_means_and_spreads_are_those_the_reference_prints(
    golden: Path, tmp_path: Path, number: int, dataset: str, convention: str
) -> None:
    golden_table, runs = golden_runs(
        golden, tmp_path, number, dataset=dataset, convention=convention
    )
    (mean,) = rows(build_paper_table(runs), "mean")
    expected = golden_table["reported_mean_std"]
    names = {"all": "acc", "many": "major", "medium": "moderate", "few": "minor"}
    for ours, theirs in names.items():
        assert [100 * mean.values[ours].mean, 100 * mean.values[ours].std] == pytest.approx(
            expected[theirs], abs=1e-9
        )
    for ours, theirs in (("class_std", "variance"), ("group_std", "GroupBalancedness")):
        assert [mean.values[ours].mean, mean.values[ours].std] == pytest.approx(
            expected[theirs], abs=1e-9
        )
        assert mean.values[ours].n == len(runs)


def test_every_split_has_its_row_and_its_seeds_are_averaged(golden: Path, tmp_path: Path) -> None:
    golden_table, runs = golden_runs(golden, tmp_path, 0)
    counts, accuracy = golden_table["counts"][0], golden_table["classwise_acc_percent"][0]
    again = write_run(tmp_path / "again", counts, [a / 2 for a in accuracy], split=1, seed=11)
    splits = rows(build_paper_table([*runs, again]), "split")
    assert [row.label for row in splits] == [
        "split 1, 2 seeds",
        *(f"split {n}" for n in range(2, 6)),
    ]
    assert [row.num_runs for row in splits] == [2, 1, 1, 1, 1]
    table = build_paper_table([*runs, again])
    assert any("Not every split has as many seeds" in note for note in table.notes)
    (mean,) = rows(table, "mean")
    assert mean.num_runs == 6
    assert splits[0].values["all"].mean == pytest.approx(0.75 * golden_table["acc"][0] / 100)
    for number, row in enumerate(splits[1:], start=1):
        assert row.values["few"].mean == pytest.approx(golden_table["few"][number] / 100)
        assert row.values["group_std"].mean == pytest.approx(golden_table["group_std"][number])
        assert row.values["class_std"].mean == pytest.approx(golden_table["classwise_std"][number])


def test_the_published_row_stands_beside_with_its_trust_tag(golden: Path, tmp_path: Path) -> None:
    _, runs = golden_runs(golden, tmp_path, 0, probes=("linear", "few_shot"))
    _, sdclr = golden_runs(
        golden, tmp_path / "sdclr", 0, probes=("linear", "few_shot"), method=SDCLR
    )
    table = build_paper_table([*runs, *sdclr])
    simclr_row, sdclr_row = rows(table, "published")
    assert (simclr_row.label, sdclr_row.label) == ("published (sourced)", "published (sourced)")
    assert [sdclr_row.values[key].mean for key in ("all", "many", "medium", "few")] == [
        0.82,
        0.8644,
        0.8184,
        0.7623,
    ]
    assert "group_std" not in sdclr_row.values, (
        "it was not reported: the std of the mean groups is something else"
    )
    assert list(sdclr_row.settings) == ["3", "own", "0.2", "0.9"]
    assert {row.label for row in rows(table, "published", "few_shot")} == {
        "published (as reported, unverified)"
    }
    notes = " ".join(table.notes)
    known = re.search(r"differ in more than the method: ([^.]*\.[^.]*\.[^.]*)\.", notes)
    assert known is not None
    assert sorted(known[1].split("; ")) == [
        "method.passes joint and separate",
        "method.projector_layers 2 and 3",
    ]
    assert "NOT comparable" not in notes
    assert "split 5: authors' lists, fingerprint 0000000000000005" in notes


def test_runs_unlike_the_published_ones_are_called_not_comparable(
    golden: Path, tmp_path: Path
) -> None:
    _, runs = golden_runs(
        golden, tmp_path, 0, protocol="cached", epochs=10, views={"size": 24, "grey": 0.2}
    )
    (note,) = [note for note in build_paper_table(runs).notes if "NOT comparable" in note]
    assert "their protocol is sdclr, this one cached" in note
    assert "epochs 2000 there, 10 here" in note
    assert "views.size 32 there, 24 here" in note
    assert "batch_size" not in note
    assert "grey" not in note


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": SDCLR | {"temperature": 0.5}}, "method.temperature 0.2 there, 0.5 here"),
        ({"weights": "x"}, "weights - there, x here"),
        ({"optimizer": {"learning_rate": 5.0}}, "optimizer.learning_rate 0.5 there, 5.0 here"),
        ({"convention": "thresholds"}, "their groups are thirds"),
        ({"source": "generated"}, "their splits are the authors' lists"),
    ],
)
def test_whatever_separates_a_run_from_the_published_one_is_said(
    golden: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    _, runs = golden_runs(golden, tmp_path, 0, **options)
    assert words in " ".join(build_paper_table(runs).notes)


def test_the_authors_own_classifiers_are_the_published_protocol(
    golden: Path, tmp_path: Path
) -> None:
    _, runs = golden_runs(golden, tmp_path, 0, protocol="authors_classifier")
    for run in runs:
        path = run / "environment.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"adopted": {}}))
    table = build_paper_table(runs)
    assert not [note for note in table.notes if "NOT comparable" in note]
    assert table.arms[0].label == "SimCLR on D_i, their file"


def test_arms_over_different_splits_are_said_to_be(golden: Path, tmp_path: Path) -> None:
    _, runs = golden_runs(golden, tmp_path, 0)
    _, sdclr = golden_runs(golden, tmp_path / "sdclr", 0, method=SDCLR)
    assert "different splits" in " ".join(build_paper_table([*runs[:2], *sdclr]).notes)
    assert "different splits" not in " ".join(build_paper_table([*runs, *sdclr]).notes)


def test_the_balanced_twin_is_an_arm_of_its_own(golden: Path, tmp_path: Path) -> None:
    _, runs = golden_runs(golden, tmp_path, 0)
    _, balanced = golden_runs(golden, tmp_path / "b", 0, subset="balanced")
    table = build_paper_table([*balanced, *runs])
    assert [arm.label for arm in table.arms] == ["SimCLR on D_b", "SimCLR on D_i"]
    published = rows(table, "published")
    assert [row.values["all"].mean for row in published] == [
        pytest.approx(0.8088),
        pytest.approx(0.7555),
    ]
    assert set(published[0].values) == {"all"}


def test_two_arms_of_one_name_and_settings_are_told_apart(golden: Path, tmp_path: Path) -> None:
    _, runs = golden_runs(golden, tmp_path, 4)
    _, longer = golden_runs(golden, tmp_path / "b", 4, epochs=4000)
    labels = [arm.label for arm in build_paper_table([*runs, *longer]).arms]
    assert labels == [
        "SimCLR on D_i [SimCLR (epochs 2000)]",
        "SimCLR on D_i [SimCLR (epochs 4000)]",
    ]


def test_every_format_says_the_same(golden: Path, tmp_path: Path) -> None:
    _, runs = golden_runs(golden, tmp_path, 0, probes=("linear", "few_shot"))
    console = Console(file=io.StringIO(), width=80)
    table = write_paper_table(
        runs, {"terminal", "markdown", "csv", "latex"}, out=tmp_path / "table.md", console=console
    )
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, (line for line in lines if "report:" not in line))) <= 80
    assert any(
        re.search(r"split 1 +58\.36 +79\.40 +43\.40 +45\.27 +16\.55 +18\.94", line)
        for line in lines
    )
    markdown = (tmp_path / "table.md").read_text()
    assert (
        "| SimCLR on D_i | split 1 | 2 | - | 0.2 | - | 58.36 | 79.40 | 43.40 | 45.27 | 16.55 | 18.94 |"
        in markdown
    )
    assert "59.56 ± 1.98" in markdown
    latex = (tmp_path / "table.tex").read_text()
    assert "59.56 $\\pm$ 1.98" in latex
    assert "SimCLR on D\\_i & split 1 & 2 & - & 0.2" in latex
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") == 2
    found = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert len(found) == sum(len(arm.rows) for arm in table.arms)
    mean = next(row for row in found if row["kind"] == "mean")
    assert float(mean["all_mean"]) == pytest.approx(
        np.mean([58.36, 62.03, 56.38, 60.18, 60.84]) / 100
    )
    assert (mean["n"], mean["head_depth"]) == ("5", "2")
    published = next(row for row in found if row["kind"] == "published")
    assert (published["all_mean"], published["all_std"], published["group_std_mean"]) == (
        "0.7555",
        "",
        "",
    )
    assert set(COLUMNS) <= {name.removesuffix("_mean") for name in found[0]}


def test_what_cannot_be_shown_is_refused(golden: Path, tmp_path: Path) -> None:
    _, runs = golden_runs(golden, tmp_path, 4, probes=("knn",))
    with pytest.raises(
        MissingInputError, match="none of the probes that the paper's table is made of"
    ):
        build_paper_table(runs)
    with pytest.raises(
        ConfigError,
        match="unknown report format 'html'; choose from terminal, markdown, csv, latex",
    ):
        write_paper_table(runs, {"html"})


def test_an_evaluation_that_was_damaged_by_hand_is_named(golden: Path, tmp_path: Path) -> None:
    _, runs = golden_runs(golden, tmp_path, 4)
    path = runs[0] / "evaluation" / "sdclr.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"split": {"number": 1}}))
    with pytest.raises(DataError, match=r"is damaged: split\.fingerprint is missing"):
        build_paper_table(runs)
    path.write_text(
        json.dumps(content | {"probes": {"linear": {}, "few_shot": content["probes"]["linear"]}})
    )
    with pytest.warns(UserWarning, match="probe linear in .* per_class_accuracy is missing"):
        table = build_paper_table(runs)
    assert any(arm.probe == "few_shot" for arm in table.arms), "what is sound is shown"
