"""The report job on fake run folders: which runs are one arm, which numbers are refused, what is written where."""

from __future__ import annotations

import copy
import csv
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import yaml
from rich.console import Console

from sdclr import register_curve
from sdclr.errors import ConfigError, DataError, MissingInputError, StorageError
from sdclr.jobs.report import build_report, evaluated_numbers, write_report
from sdclr.presentation import html, tables
from sdclr.presentation import report as report_data

COUNTS = np.array([100, 80, 60, 40, 30, 20, 12, 8, 6, 5])
CONFIG: dict[str, Any] = {
    "recipe": "digits",
    "epochs": 3,
    "batch_size": 64,
    "seed": 1,
    "precision": "float32",
    "device": "cpu",
    "activation_checkpointing": False,
    "weights": None,
    "checkpoint_every_epochs": 1,
    "data": {
        "name": "digits",
        "path": None,
        "split": 1,
        "subset": "long_tail",
        "imbalance_ratio": 20,
    },
    "backbone": {"name": "resnet10", "width": 0.5, "stem": "small"},
    "method": {"name": "simclr", "temperature": 0.2, "projector_layers": 2, "projection_dim": 128},
    "optimizer": {"name": "sgd", "learning_rate": 0.5, "momentum": 0.9},
}
SDCLR = {"name": "sdclr", "prune_ratio": 0.9, "norms": "own", "random_share": 0.0}


def write_run(
    folder: Path,
    split: int = 1,
    seed: int = 1,
    method: dict[str, Any] | None = None,
    accuracy: np.ndarray | float = 0.5,
    protocol: str = "cached",
    **settings: Any,
) -> Path:
    """A finished, evaluated run: ``accuracy`` belongs to the class ranks, most images first."""
    config = copy.deepcopy(CONFIG) | {"seed": seed} | settings
    config["data"]["split"] = split
    config["method"] |= method or {}
    order = np.random.default_rng(split).permutation(10)  # rank -> class, another one in each split
    counts, per_class = np.empty(10, dtype=int), np.empty(10)
    counts[order], per_class[order] = COUNTS, np.broadcast_to(accuracy, 10)
    names = [f"class {index}" for index in range(10)]
    identity = {"number": split, "fingerprint": f"{split:02d}" * 16, "name": f"split {split}"}
    images = {
        subset: counts.tolist()
        for subset in ("long_tail", "balanced", "few_shot", "train", "validation", "test")
    }
    probe = {
        "per_class_accuracy": per_class.tolist(),
        "num_test": [30] * 10,
        "seconds": 1.5,
        "detail": "C = 1",
    }
    evaluation = {
        "protocol": protocol,
        "dataset": "digits",
        "group_convention": "thirds",
        "train_counts": counts.tolist(),
        "class_names": names,
        "split": identity,
        "chance": 0.1,
        "probes": {"linear": probe, "knn": probe},
    }
    extra = {"mask_churn": 0.1, "sparsity": 0.9} if config["method"]["name"] == "sdclr" else {}
    metrics = [
        {
            "epoch": e,
            "step": 9 * e,
            "loss": 5 / e,
            "learning_rate": 0.1,
            "views_per_second": 100.0 * e,
            "seconds": 1.0,
        }
        for e in (1, 2, 3)
    ]
    environment = {
        "sdclr": "0.1.0",
        "torch": "2.12",
        "torchvision": "0.27",
        "python": "3.11",
        "numpy": "2.3",
    }
    environment |= {
        "device": "CPU: test, 2 threads",
        "command": f"sdclr pretrain digits seed={seed}",
        "commit": None,
    }
    (folder / "evaluation").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(m | extra) + "\n" for m in metrics))
    split_file = identity | {"dataset": "digits", "seed": None, "source": "generated"}
    (folder / "split.json").write_text(
        json.dumps(split_file | {"class_names": names, "counts": images})
    )
    (folder / "environment.json").write_text(
        json.dumps(environment | {"created": "2030-01-01T00:00:00"})
    )
    (folder / f"evaluation/{protocol}.json").write_text(json.dumps(evaluation))
    return folder


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.fixture
def two_arms(tmp_path: Path) -> list[Path]:
    """SimCLR and SDCLR on three splits; SDCLR better on the tail by 0.09, 0.12, 0.15 and equal elsewhere."""
    runs = []
    for split in (1, 2, 3):
        head_to_tail = np.linspace(0.9, 0.3, 10) + 0.01 * split
        runs.append(write_run(tmp_path / f"simclr-{split}", split, accuracy=head_to_tail))
        better = head_to_tail + np.where(np.arange(10) >= 7, 0.06 + 0.03 * split, 0)
        runs.append(write_run(tmp_path / f"sdclr-{split}", split, method=SDCLR, accuracy=better))
    return runs


def test_rows_hold_mean_and_std_over_splits(two_arms: list[Path]) -> None:
    report = build_report(two_arms)
    assert [(row.probe, row.arm, row.n) for row in report.rows] == [
        ("linear", "SimCLR", 3),
        ("linear", "SDCLR", 3),
        ("knn", "SimCLR", 3),
        ("knn", "SDCLR", 3),
    ]
    head_to_tail = np.linspace(0.9, 0.3, 10)
    few = report.rows[0].values["few"]  # ranks 8 to 10
    assert few.mean == pytest.approx(head_to_tail[7:].mean() + 0.02)
    assert few.std == pytest.approx(np.std([0.01, 0.02, 0.03]))
    groups = [head_to_tail[:4].mean(), head_to_tail[4:7].mean(), head_to_tail[7:].mean()]
    assert report.rows[0].values["group_std"].mean == pytest.approx(np.std(groups))


def test_comparisons_pair_the_splits_and_take_the_first_arm_as_baseline(
    two_arms: list[Path],
) -> None:
    comparisons = [c for c in build_report(two_arms).comparisons if c.probe == "linear"]
    assert [(c.measure, c.baseline, c.arm, c.n) for c in comparisons] == [
        (measure, "SimCLR", "SDCLR", 3) for measure in ("all", "few", "group_std")
    ]
    half = 4.302652729911275 * 0.03 / np.sqrt(3)  # Student t, 2 degrees of freedom, 97.5 %
    assert comparisons[1].interval == pytest.approx((0.12, 0.12 - half, 0.12 + half))


@pytest.mark.journeys
def test_the_page_of_other_runs_is_not_replaced_unasked(two_arms: list[Path]) -> None:
    page = two_arms[0].parent / "report.html"
    write_report(two_arms, {"html"})
    write_report(two_arms[::-1], {"html"})  # the same runs
    before = page.read_bytes()
    with pytest.raises(ConfigError, match=r"report\.html is the report of other runs.*--overwrite"):
        write_report(two_arms[:4], {"html"})
    assert page.read_bytes() == before
    write_report(two_arms[:4], {"html"}, out=page.with_name("four.html"))
    write_report(two_arms[:4], {"html"}, overwrite=True)
    assert page.read_bytes() != before


def test_two_runs_on_ones_own_photos_show_the_difference_and_what_gives_an_interval(
    tmp_path: Path,
) -> None:
    runs = [
        write_run(tmp_path / "one", accuracy=0.5),
        write_run(tmp_path / "two", method=SDCLR, accuracy=0.6),
    ]
    for run in runs:
        edit(run / "split.json", source="as given")
    report = build_report(runs)
    shown = tables.to_markdown(report)
    assert "All: +10.00 points on one split: no interval can be given" in shown
    assert "evaluate RUN --against OTHER" in shown
    assert "split by split" not in shown


def test_a_folder_of_runs_names_them(two_arms: list[Path], tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"holds runs: give .*sdclr-1 and 5 more by name"):
        build_report([tmp_path])
    (tmp_path / "paper.csv").write_text("x")
    with pytest.raises(MissingInputError, match="is a file, and not a run folder"):
        build_report([*two_arms, tmp_path / "paper.csv"])


def test_images_as_they_are_given_are_no_splits(tmp_path: Path) -> None:
    run = write_run(tmp_path / "photos", 1)
    report = build_report([run])
    assert not report.is_as_given
    assert tables.reading_notes(report)[0].startswith("Percent. "), "n = 1: there is no spread"
    two = build_report([run, write_run(tmp_path / "second", 2)])
    assert any("over n splits" in note for note in tables.reading_notes(two))
    edit(run / "split.json", source="as given")
    report = build_report([run])
    assert report.is_as_given
    assert not any("split" in note for note in tables.reading_notes(report))
    assert "## What was done" in tables.to_markdown(report)
    page = html.render_html(report)
    assert "Labelled images of each class" in page
    assert "Long-tailed" not in page


def test_seeds_of_one_split_are_averaged_before_the_splits(tmp_path: Path) -> None:
    accuracies = [(1, 1, 0.2), (1, 2, 0.4), (1, 3, 0.6), (2, 1, 0.8)]
    runs = [
        write_run(tmp_path / f"{split}-{seed}", split, seed, accuracy=a)
        for split, seed, a in accuracies
    ]
    row = build_report(runs).rows[0]
    assert row.n == 2
    assert row.values["all"].mean == pytest.approx((0.4 + 0.8) / 2)
    assert row.values["all"].std == pytest.approx(0.2)


def test_a_run_without_a_probe_is_named_and_the_others_are_shown(two_arms: list[Path]) -> None:
    file = two_arms[2] / "evaluation/cached.json"
    edit(file, probes={"linear": json.loads(file.read_text())["probes"]["linear"]})
    with pytest.warns(UserWarning, match="1 of 6 runs have no result") as caught:
        report = build_report(two_arms)
    expected = f"`sdclr evaluate {two_arms[2]} --protocol cached --probes knn` adds it."
    assert expected in str(caught[0].message)
    assert expected in report.description
    found = {(row.probe, row.arm): row.n for row in report.rows}
    assert found[("knn", "SimCLR")] == 2
    assert found[("linear", "SimCLR")] == 3


def test_differences_are_between_the_seeds_that_both_arms_have(tmp_path: Path) -> None:
    """The authority: the differences of the pairs, by hand."""
    ours = {(1, 1): 0.30, (1, 2): 0.50, (2, 1): 0.20, (2, 2): 0.40, (3, 1): 0.25}
    theirs = {(1, 1): 0.33, (2, 1): 0.22, (2, 2): 0.44, (3, 5): 0.35}
    runs = [
        write_run(tmp_path / f"{name}-{split}-{seed}", split, seed, method, accuracy)
        for name, method, values in (("a", None, ours), ("b", SDCLR, theirs))
        for (split, seed), accuracy in values.items()
    ]
    report = build_report(runs)
    pairs = [
        0.33 - 0.30,
        (0.22 - 0.20 + 0.44 - 0.40) / 2,
        0.35 - 0.25,
    ]  # the last has no common seed
    (found,) = (c for c in report.comparisons if (c.probe, c.measure) == ("linear", "all"))
    assert found.interval is not None
    assert found.interval[0] == pytest.approx(np.mean(pairs))
    means = {row.arm: row.values["all"].mean for row in report.rows if row.probe == "linear"}
    assert means["SimCLR"] == pytest.approx(np.mean([0.4, 0.3, 0.25]))  # all seeds
    assert "Linear probe: SimCLR 1 to 2, SDCLR 1 to 2" in report.description
    assert (
        "do not have the same seeds. A difference is over those that both have, and over all seeds of a split "
        "where none is common (split 3)" in report.description
    )


def test_arms_with_as_many_but_other_seeds_or_splits_are_named(tmp_path: Path) -> None:
    """The means and the difference have opposite signs here, which a reader has to be told of."""
    ours = {(1, 1): 0.30, (1, 2): 0.50}
    theirs = {(1, 1): 0.33, (1, 3): 0.35}

    def report_of(
        where: str, ours: dict[Any, float], theirs: dict[Any, float]
    ) -> report_data.Report:
        return build_report([
            write_run(tmp_path / where / f"{name}-{split}-{seed}", split, seed, method, accuracy)
            for name, method, values in (("a", None, ours), ("b", SDCLR, theirs))
            for (split, seed), accuracy in values.items()
        ])  # fmt: skip

    rest = {(2, 1): 0.3, (2, 2): 0.3}
    report = report_of("seeds", ours | rest, theirs | rest)
    assert "do not have the same seeds. A difference is over those that both have; it" in (
        report.description
    )
    assert "as many seeds" not in report.description
    means = {row.arm: row.values["all"].mean for row in report.rows if row.probe == "linear"}
    found = next(c for c in report.comparisons if (c.probe, c.measure) == ("linear", "all"))
    assert found.interval is not None
    assert found.interval[0] > 0 > means["SDCLR"] - means["SimCLR"]
    report = report_of("splits", {(1, 1): 0.3, (2, 1): 0.3}, {(1, 1): 0.3, (3, 1): 0.3})
    assert "do not have the same splits." in report.description
    report = report_of("none", {(1, 1): 0.3, (2, 1): 0.3}, {(1, 2): 0.3, (2, 2): 0.3})
    words = (
        "In no split has another arm a seed of SimCLR: a difference is over all seeds of a split."
    )
    assert words in report.description
    report = report_of("same", ours, dict.fromkeys(ours, 0.3))
    assert "do not have the same" not in report.description


def test_a_run_on_a_balanced_subset_says_what_its_classes_are_counted_by(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", data=CONFIG["data"] | {"subset": "balanced"})
    counts = json.loads((run / "split.json").read_text())["counts"]
    assert "(subset balanced, imbalance ratio" in build_report([run]).description
    edit(run / "split.json", counts=counts | {"balanced": [12] * 10})
    words = build_report([run]).description
    ratio = f"(imbalance ratio {max(COUNTS) / min(COUNTS):g})"
    assert f"grouped by their images in the long tail {ratio}, whatever was trained on." in words
    assert "(subset balanced)" in words


def test_seeds_of_one_split_are_what_is_counted_where_there_is_no_other(tmp_path: Path) -> None:
    """The authority: numpy over the seeds, scipy's interval of the pairs."""
    ours, theirs = {1: 0.30, 2: 0.36, 3: 0.33}, {1: 0.41, 2: 0.45, 4: 0.90}
    runs = [
        *(write_run(tmp_path / f"a{seed}", seed=seed, accuracy=a) for seed, a in ours.items()),
        *(
            write_run(tmp_path / f"b{s}", seed=s, accuracy=a, method=SDCLR)
            for s, a in theirs.items()
        ),
    ]
    for run in runs:
        edit(run / "split.json", source="as given")
    report = build_report(runs)
    first, second = report.rows[:2]
    assert (first.n, second.n, report.over) == (3, 3, "seeds")
    assert first.values["all"].mean == pytest.approx(0.33)
    assert first.values["all"].std == pytest.approx(np.std(list(ours.values())))
    compared = next(c for c in report.comparisons if c.measure == "all")
    low, high = scipy.stats.t.interval(0.95, 1, 0.10, scipy.stats.sem([0.11, 0.09]))
    assert compared.interval == pytest.approx((0.10, low, high)), (
        "of seeds 1 and 2, which both have"
    )
    assert "n = 2 seeds" in tables.comparison_text(compared)
    text = tables.to_markdown(report)
    assert "mean ± population std over n seeds of one split" in text
    assert "splits" not in text
    assert "| runs (seeds) | 3 (3) | 3 (3) |" in text
    page = html.render_html(report)
    assert "n<small>seeds</small>" in page
    one = build_report([runs[0], runs[3]])
    assert [row.n for row in one.rows[:2]] == [1, 1]
    apart = build_report([runs[0], runs[1], runs[5]])
    said = tables.comparison_text(next(c for c in apart.comparisons if c.measure == "all"))
    assert said == "All: +57.00 points on one split: no interval can be given"


def test_bars_follow_the_rank_and_not_the_class(two_arms: list[Path]) -> None:
    bars = build_report(two_arms).bars[0]
    assert list(bars.counts) == COUNTS.tolist()
    assert list(bars.groups) == ["many"] * 4 + ["medium"] * 3 + ["few"] * 3
    np.testing.assert_allclose(
        [rank.mean for rank in bars.arms[0].ranks], np.linspace(0.9, 0.3, 10) + 0.02
    )
    np.testing.assert_allclose(
        [rank.std for rank in bars.arms[0].ranks], np.std([0.01, 0.02, 0.03])
    )


def test_arms_of_one_method_are_named_by_what_differs(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", method=SDCLR),
        write_run(tmp_path / "b", method=SDCLR | {"prune_ratio": 0.5}),
        write_run(tmp_path / "c", batch_size=32),
    ]
    report = build_report(runs)
    assert report.arms == ["SDCLR (prune_ratio 0.9)", "SDCLR (prune_ratio 0.5)", "SimCLR"]
    facts = {fact.name: fact for fact in report.facts}
    assert facts["prune ratio"].values == ["0.9", "0.5", "-"]
    assert facts["batch size"].differs
    assert not facts["backbone"].differs
    assert [fact.name for fact in report.facts if fact.name == "method.random_share"], (
        "other differences are listed"
    )


def test_device_paths_and_unset_fields_do_not_split_an_arm(tmp_path: Path) -> None:
    other = CONFIG["data"] | {"path": "/elsewhere"}
    runs = [
        write_run(tmp_path / "a", 1),
        write_run(tmp_path / "b", 2, device="cuda", data=other, new_field=None),
        write_run(tmp_path / "c", 3, record_images=True),  # changes no weight
    ]
    assert build_report(runs).arms == ["SimCLR"]


def test_the_same_split_and_seed_twice_is_refused(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b")]
    with pytest.raises(
        ConfigError, match=r"a and .*b are the same thing twice: .* split 1 and seed 1"
    ):
        build_report(runs)
    with pytest.raises(ConfigError, match="same thing twice"):
        build_report([runs[0], runs[0]])


def test_what_is_missing_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"nowhere does not exist"):
        build_report([tmp_path / "nowhere"])
    with pytest.raises(MissingInputError, match=r"not a run folder.*sdclr pretrain"):
        build_report([tmp_path])
    run = write_run(tmp_path / "a")
    with pytest.raises(MissingInputError, match=r"sdclr evaluate \S+ --protocol sdclr"):
        build_report([run], protocol="sdclr")
    (run / "evaluation/cached.json").unlink()
    with pytest.raises(MissingInputError, match=r"run `sdclr evaluate \S+a` first"):
        build_report([run])


def test_protocols_never_mix(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", method=SDCLR, protocol="sdclr")
    with pytest.raises(ConfigError, match="share no evaluation protocol"):
        build_report([a, b])
    (b / "evaluation/cached.json").write_text((a / "evaluation/cached.json").read_text())
    assert build_report([a, b]).protocol == "cached"
    with pytest.raises(ConfigError, match=r"cached, sdclr; choose one, such as --protocol cached"):
        build_report([b])
    assert build_report([b], protocol="sdclr").protocol == "sdclr"


def test_numbers_that_are_not_comparable_are_refused(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", method=SDCLR)
    file = b / "evaluation/cached.json"
    edit(file, split={"number": 1, "fingerprint": "ff" * 16, "name": "other"})
    edit(b / "split.json", fingerprint="ff" * 16)
    with pytest.raises(
        ConfigError, match=r"split 1, but their images differ .*010101010101 and ffffffffffff"
    ):
        build_report([a, b])
    edit(file, dataset="cifar10")
    with pytest.raises(ConfigError, match=r"different data sets, 'digits' and 'cifar10'"):
        build_report([a, b])


def test_features_of_two_precisions_are_said(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", method=SDCLR)
    assert "bf16" not in build_report([a, b]).description
    edit(b / "evaluation/cached.json", features_in="bf16")
    report = build_report([a, b])
    assert (
        f"Features were computed in bf16 in {b}, and in fp32 in the others." in report.description
    )
    (fact,) = [fact for fact in report.facts if fact.name == "features in"]
    assert list(fact.values) == ["fp32", "bf16"]


def test_own_images_of_other_collections_are_refused_whatever_the_split(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / f"{n}", n) for n in (1, 2))
    for run in (a, b):
        edit(run / "evaluation/cached.json", dataset="arrays")
        edit(run / "split.json", counts={"train": [9] * 10, "validation": [1] * 10})
    build_report([a, b])  # an earlier version wrote no pool, and the counts agree
    edit(b / "split.json", counts={"train": [9] * 10, "validation": [2] * 10})
    with pytest.raises(ConfigError, match="other names, labels or numbers of images"):
        build_report([a, b])
    edit(a / "evaluation/cached.json", pool="0" * 16)
    build_report([a, b])
    edit(b / "evaluation/cached.json", pool="1" * 16)
    with pytest.raises(ConfigError, match=r"are of different collections of images \(other names"):
        build_report([a, b])
    edit(b / "evaluation/cached.json", pool="0" * 16, class_names=[f"kind {n}" for n in range(10)])
    edit(b / "split.json", class_names=[f"kind {n}" for n in range(10)])
    with pytest.raises(ConfigError, match="classes of one alone, such as class 0"):
        build_report([a, b])


def test_chance_is_the_mean_over_runs_that_left_out_other_classes(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"{split}", split) for split in (1, 2)]
    assert build_report(runs).chance == 0.1
    edit(runs[1] / "evaluation/cached.json", chance=0.2)
    report = build_report(runs)
    assert report.chance == pytest.approx(0.15)
    assert report.bars[0].chance == pytest.approx(0.15)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    edit(run / "evaluation/cached.json", train_counts=[1, 2])
    with pytest.raises(DataError, match=r"train_counts has not 10 entries"):
        build_report([run])


def test_damaged_lines_of_the_metrics_are_named_and_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(
            '{"epoch": 4, "lo\n{"epoch": 5, "loss": 1e400}\n{"epoch": 6, "loss": "low"}\n['
            + "[" * 9_000
            + "\n"
        )
        file.write('{"epoch": 7, "loss": 0.5}\n')
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        report = build_report([run])
    said = [str(one.message) for one in warned]
    assert len(said) == 4, "three lines, and how many more"
    assert "metrics.jsonl, line 4, is damaged" in said[0]
    assert "1 more lines are damaged" in said[3]
    assert [epoch for epoch, _ in report.curves[0].arms[0].runs[0]] == [1, 2, 3, 7]


def test_a_repeated_epoch_counts_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "loss": 1.0}\n')
    assert build_report([run]).curves[0].arms[0].runs == [[(1, 5.0), (2, 2.5), (3, 1.0)]]


def test_a_probe_that_only_some_arms_have_is_shown_for_those(two_arms: list[Path]) -> None:
    for run in two_arms[1::2]:
        file = run / "evaluation/cached.json"
        edit(file, probes={"linear": json.loads(file.read_text())["probes"]["linear"]})
    with pytest.warns(UserWarning, match=r"neighbours: 3 of 6 runs have no result .*--probes knn"):
        report = build_report(two_arms)
    assert "3 of 6 runs have no result" in report.description
    assert [(row.probe, row.arm) for row in report.rows][2:] == [("knn", "SimCLR")]
    assert {c.probe for c in report.comparisons} == {"linear"}


def test_an_empty_group_of_classes_leaves_no_comparison(tmp_path: Path) -> None:
    runs = []
    for split in (1, 2):
        runs += [
            write_run(tmp_path / f"a{split}", split),
            write_run(tmp_path / f"b{split}", split, method=SDCLR),
        ]
    for run in runs:
        counts = json.loads((run / "evaluation/cached.json").read_text())["train_counts"]
        more = [20 + n for n in counts]
        edit(run / "evaluation/cached.json", group_convention="thresholds", train_counts=more)
        edit(run / "split.json", counts={"long_tail": more})
    report = build_report(runs)
    assert np.isnan(report.rows[0].values["few"].mean)
    assert {c.measure for c in report.comparisons} == {"all", "group_std"}


@pytest.mark.journeys
def test_html_goes_into_the_run_or_the_folder_of_the_runs(
    two_arms: list[Path], tmp_path: Path
) -> None:
    quiet = Console(file=io.StringIO())
    write_report(two_arms, {"html"}, console=quiet)
    assert "SimCLR and SDCLR on digits" in (tmp_path / "report.html").read_text(encoding="utf-8")
    write_report(two_arms[:1], {"html"}, console=quiet)
    assert (two_arms[0] / "report.html").is_file()


def test_out_names_one_file_or_lends_its_name_to_several(
    two_arms: list[Path], tmp_path: Path
) -> None:
    quiet = Console(file=io.StringIO())
    write_report(two_arms, {"csv"}, out=tmp_path / "deep/table.txt", console=quiet)
    assert len(list(csv.DictReader((tmp_path / "deep/table.txt").read_text().splitlines()))) == 4
    write_report(two_arms, {"csv", "markdown"}, out=tmp_path / "both", console=quiet)
    assert (tmp_path / "both.csv").is_file()
    assert (tmp_path / "both.md").is_file()
    write_report(two_arms, {"csv"}, out=tmp_path, console=quiet)
    assert (tmp_path / "report.csv").is_file()


def test_an_ending_that_is_no_formats_suffix_is_part_of_the_name(
    two_arms: list[Path], tmp_path: Path
) -> None:
    write_report(two_arms, {"markdown", "csv"}, out=tmp_path / "abl_0.5")
    write_report(two_arms, {"markdown", "json"}, out=tmp_path / "abl_0.9.csv")
    names = {path.name for path in tmp_path.glob("abl_*")}
    assert names == {"abl_0.5.md", "abl_0.5.csv", "abl_0.9.md", "abl_0.9.json"}


def test_terminal_and_markdown_are_printed(two_arms: list[Path]) -> None:
    stream = io.StringIO()
    write_report(two_arms, {"terminal", "markdown"}, console=Console(file=stream, width=120))
    assert "Linear probe" in stream.getvalue()
    assert "| Linear probe | SimCLR | 3 |" in stream.getvalue()


def test_a_format_or_place_that_cannot_be_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    with pytest.raises(ConfigError, match="unknown report format 'pdf'"):
        write_report([run], {"pdf"})
    with pytest.raises(ConfigError, match=r"formats are a set of names, .* got 'html'"):
        write_report([run], "html")  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="--out"):
        write_report([run], {"csv"}, out=run / "config.yaml/x.csv")


def test_the_share_of_weights_that_the_competitor_can_be_pruned_of_is_stated(
    two_arms: list[Path],
) -> None:
    assert "prunable backbone weights" not in [
        fact.name for fact in build_report(two_arms).facts
    ], "older runs"
    resolved = {"backbone_options": {}, "normalisation": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    for run in two_arms:
        sdclr = (
            {"prunable": "conv+linear", "prunable_share": 0.9934}
            if run.name.startswith("sdclr")
            else {}
        )
        edit(run / "environment.json", resolved=resolved | sdclr)
    facts = {fact.name: fact.values for fact in build_report(two_arms).facts}
    assert facts["prunable backbone weights"] == ["-", "99.3% (conv+linear)"]
    edit(two_arms[1] / "environment.json", resolved=resolved | {"prunable": "nothing"})
    with pytest.warns(UserWarning, match="prunable must be 'conv' or"):
        assert build_report(two_arms).rows, "numbers do not depend on it"


@pytest.mark.journeys
def test_a_curve_is_one_row(
    two_arms: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_data, "CURVES", dict(report_data.CURVES))
    monkeypatch.setattr(evaluated_numbers, "CURVES", report_data.CURVES)
    register_curve("seconds", "Time of an epoch", ylabel="Seconds", caption="With its checkpoint.")
    report = build_report(two_arms)
    assert [curves.curve.key for curves in report.curves] == ["loss", "mask_churn", "seconds"]
    assert [[arm.arm for arm in curves.arms] for curves in report.curves] == [
        ["SimCLR", "SDCLR"], ["SDCLR"], ["SimCLR", "SDCLR"],
    ]  # fmt: skip
    write_report(
        two_arms, {"html"}, out=tmp_path / "page.html", console=Console(file=io.StringIO())
    )
    page = (tmp_path / "page.html").read_text()
    assert "Time of an epoch" in page
    assert "With its checkpoint. Thin lines are runs" in page
    with pytest.raises(ConfigError, match="'loss' is drawn already, as 'Training loss'"):
        register_curve("loss", "Mine")


def test_a_probe_that_is_in_no_table_of_ours_is_in_the_report(two_arms: list[Path]) -> None:
    for run in two_arms:
        file = run / "evaluation" / "cached.json"
        probes = json.loads(file.read_text())["probes"]
        edit(file, probes={"mine": probes["knn"] | {"display_name": "My \x1b[2J probe"}} | probes)
    report = build_report(two_arms)
    assert list(report.probes.items())[-1] == ("mine", "My \\x1b[2J probe"), (
        "after ours, as it is and harmless"
    )
    assert {row.probe for row in report.rows} == {"linear", "knn", "mine"}
    assert {c.probe for c in report.comparisons} == {"linear", "knn", "mine"}
    assert [bars.probe for bars in report.bars] == ["linear", "knn", "mine"]


def test_a_network_without_a_width_has_none_in_a_report(tmp_path: Path) -> None:
    stock = {"name": "timm:vit_tiny_patch16_224", "width": 64, "stem": "small"}
    report = build_report([write_run(tmp_path / "a", backbone=stock, epochs=1)])
    assert {fact.name: fact.values for fact in report.facts}["width"] == ["-"]
    assert (
        "timm:vit_tiny_patch16_224 pre-trained without labels for 1 epoch on digits"
        in report.description
    )


def test_runs_without_labels_are_told_how_they_get_an_evaluation(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    for run in runs:
        edit(run / "split.json", source="unlabelled")
        (run / "evaluation" / "cached.json").unlink()
    with pytest.raises(MissingInputError, match=r"no labels\. Once some have: .*--labels FILE"):
        build_report(runs)
