"""The page of one run: its numbers are those of the files, and what is missing is said, with the command."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sdclr import (
    PretrainConfig,
    Run,
    cli,
    compare,
    evaluate,
    few_labels,
    mine,
    pretrain,
    profile,
    recipe,
    write_report,
)
from sdclr.backbones.weights import load_backbone
from sdclr.data import build_data
from sdclr.evaluation.balancedness import class_groups
from sdclr.image_records import COLUMNS, ImageRecords, read_records
from sdclr.jobs.examine import group_records, layer_densities
from sdclr.jobs.examine.by_group import by_epoch
from sdclr.jobs.report.details import counts_trained_on
from sdclr.methods.magnitude_masks import magnitude_masks
from sdclr.presentation.progress import NoProgress
from sdclr.workflows.reports import figures, report

pytestmark = pytest.mark.journeys

TINY = ["epochs=2", "views.size=8", "backbone.width=4", "batch_size=200"]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with records, an evaluation and rivals."""
    folder = tmp_path_factory.mktemp("page") / "run"
    run = pretrain(recipe("digits_sdclr").with_overrides([*TINY, "record_images=true"]), folder)
    evaluate(run, probes=["knn", "linear"])
    compare(run, ["untrained", "pixels"], probes=["linear"])
    few_labels(run, labels_per_class=[1, 5], label_seeds=2)
    mine(folder, PretrainConfig.from_yaml(run.config_path).data, folder / "rare")
    profile(folder / "rare")
    report([folder], {"html"}, progress=NoProgress())
    return run


@pytest.fixture(scope="module")
def page(full: Run) -> str:
    return (full.folder / "report.html").read_text(encoding="utf-8")


def table(page: str, name: str) -> list[dict[str, str]]:
    """The CSV behind a figure."""
    (address,) = re.findall(
        rf'download="{name}\.csv" href="data:text/csv;charset=utf-8,([^"]*)"', page
    )
    return list(csv.DictReader(io.StringIO(unquote(address))))


def sections(page: str) -> list[str]:
    return re.findall(r'<section id="([a-z-]+)-\d+"', page)


def test_a_run_with_everything_has_every_section(page: str) -> None:
    assert sections(page) == [
        *("glance", "results", "differences", "classes", "few-labels", "groups", "training"),
        *(
            "competitor",
            "health",
            "changed",
            "neighbours",
            "map",
            "views",
            "images",
            "collection",
            "facts",
            "splits",
        ),
        *("settings", "provenance"),
    ]
    assert len(page) < 5_000_000


def test_the_collection_is_that_of_profile_json_of_this_backbone(
    full: Run, page: str, tmp_path: Path, light_figures: None
) -> None:
    found = json.loads((full.folder / "rare" / "profile.json").read_text())
    said = found["verdict"].replace("`", "").replace("FOLDER", str(full.folder / "rare"))
    assert said in page
    assert f"<td>{found['gini']:.2f}</td>" in page
    folder = tmp_path / "other"
    shutil.copytree(full.folder, folder)
    (folder / "rare" / "profile.json").write_text(json.dumps(found | {"backbone": "0" * 16}))
    with pytest.warns(UserWarning, match=r"profile\.json was measured on another backbone"):
        report([folder], {"html"}, progress=NoProgress())
    again = (folder / "report.html").read_text(encoding="utf-8")
    assert "collection" not in sections(again)
    assert f"sdclr mine {folder} &amp;&amp; sdclr profile {folder}/rare" in again


def test_the_json_has_the_verdict_and_the_rivals(
    full: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    against = json.loads((full.folder / "against.json").read_text())
    write_report([full.folder], {"json"})
    (line,) = capsys.readouterr().out.splitlines()
    (run,) = json.loads(line)["without_labels"]
    assert " ".join(run["verdict"]["sentences"]).lower() == against["verdict"].lower()
    assert run["verdict"]["kind"] in ("good", "bad", "open")
    assert [one["rival"] for one in run["against"]] == ["untrained", "pixels"]
    assert run["against"][0]["all"] == {
        name: against["pairs"][0]["all"][name] for name in ("difference", "low", "high")
    }


def test_the_verdict_and_the_forest_are_those_of_against_json(full: Run, page: str) -> None:
    found = json.loads((full.folder / "against.json").read_text())
    for sentence in re.split(r"(?<= images\.) ", found["verdict"]):
        assert sentence[1:] in page
    rows = table(page, "against")
    assert len(rows) == 4, "two rivals, all and few classes"
    for pair in found["pairs"]:
        of_rival = [row for row in rows if row["group"] == f"against {pair['rival']}"]
        for row, key in zip(of_rival, ("all", "few"), strict=True):
            assert float(row["difference"]) == pair[key]["difference"]
            assert float(row["low"]) == pair[key]["low"]
            assert float(row["high"]) == pair[key]["high"]
            num = {"all": pair["num_tested"], "few": pair["num_few_tested"]}[key]
            assert int(row["n"]) == num


def test_accuracies_of_classes_are_those_of_the_evaluation_most_images_first(
    full: Run, page: str
) -> None:
    found = json.loads(full.evaluation_path("cached").read_text())
    rows = table(page, "accuracy_by_class_1")
    counts = [int(row["training_images"]) for row in rows]
    assert counts == sorted(found["train_counts"], reverse=True)
    names = found["class_names"]
    for row in rows:
        index = names.index(row["class"])
        assert float(row["accuracy"]) == found["probes"]["linear"]["per_class_accuracy"][index]


def test_curves_are_those_of_metrics_and_records(full: Run, page: str) -> None:
    metrics = full.metrics()
    assert [float(row["value"]) for row in table(page, "loss")] == [one["loss"] for one in metrics]
    groups = json.loads((full.folder / "examination/groups.json").read_text())
    few = [float(row["value"]) for row in table(page, "record_loss") if row["line"] == "Few"]
    assert few == [entry["record_loss_few"] for entry in groups["epochs"]]
    knn = [float(row["value"]) for row in table(page, "health_knn") if row["line"] == "Many"]
    assert knn[:2] == [metrics[0]["untrained_knn_many"], metrics[0]["health_knn_many"]]
    mined = [row for row in table(page, "mined") if row["line"] == "Among the top 10 %"]
    assert [float(row["value"]) for row in mined] == [
        one["mined_10_few"] for one in groups["epochs"]
    ]


def test_the_record_of_each_group_is_the_mean_of_its_images_and_the_top_is_counted() -> None:
    values = np.zeros((1, 20, 3), np.float32)
    values[0, :, 0] = np.arange(20)
    values[0, :, 2] = np.arange(20)[::-1]  # the first images disagree most
    values[0, 19] = np.nan
    rows = np.arange(20)
    members = {"many": rows >= 4, "few": rows < 4}
    (found,) = by_epoch(ImageRecords(values), members)
    assert found["record_loss_many"] == np.arange(4, 19).mean()
    assert found["record_loss_few"] == 1.5
    assert found["mined_1_few"] == 1.0
    assert found["mined_10_few"] == 1.0
    members = {"many": rows != 1, "few": rows == 1}
    assert by_epoch(ImageRecords(values), members)[0]["mined_10_few"] == 0.5


def test_the_density_of_each_layer_is_that_of_the_masks(full: Run, page: str) -> None:
    found = layer_densities(full)["layers"]
    weights = {
        name: weight
        for name, weight in load_backbone(full.folder).net.named_parameters()
        if weight.ndim == 4
    }
    masks = magnitude_masks(list(weights.values()), 0.9)
    expected = [float(mask.float().mean()) for mask in masks]
    assert [one["density"] for one in found] == expected
    assert [float(row["sparsity"]) for row in table(page, "sparsity_by_layer")] == [
        1 - density for density in expected
    ]


def test_rivals_of_another_backbone_are_not_shown(
    full: Run, tmp_path: Path, light_figures: None
) -> None:
    shutil.copytree(full.folder, tmp_path / "run")
    path = tmp_path / "run/against.json"
    content = json.loads(path.read_text()) | {"backbone": "0" * 16}
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="another backbone"):
        report([tmp_path / "run"], {"html"}, progress=NoProgress())
    page = (tmp_path / "run/report.html").read_text()
    assert "compared with nothing" in page
    assert f"sdclr evaluate {tmp_path}/run --against untrained,pixels" in page


def test_a_run_whose_images_are_gone_has_a_page_that_says_so(tmp_path: Path) -> None:
    photos, folder = tmp_path / "photos", tmp_path / "run"
    rng = np.random.default_rng(0)
    photos.mkdir()
    for n in range(12):
        Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(photos / f"{n}.png")
    config = PretrainConfig.parse(
        {
            "data": {"name": "images", "path": str(photos), "subset": "all"},
            "views": {"size": 8},
            "backbone": {"name": "resnet10", "width": 2},
            "method": {"name": "simclr"},
            "epochs": 1,
            "batch_size": 6,
        }
    )
    pretrain(config, folder)
    photos.rename(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="not where they were"):
        report([folder], {"html"}, progress=NoProgress())
    page = (folder / "report.html").read_text()
    found = sections(page)
    assert found[-1] == "missing"
    assert {"training", "health", "settings"} <= set(found)
    assert not {"neighbours", "map", "views", "results", "groups"} & set(found)
    missing = page[page.index('<section id="missing') :]
    for words in ("are not where they were", "record_images=true", "--labels", "with a competitor"):
        assert words in missing
    assert "RUN" not in re.sub(r"<[^>]*>", "", missing[: missing.index("</section>")])


def test_records_without_data_are_one_group_and_the_page_says_why(
    full: Run, tmp_path: Path
) -> None:
    shutil.copytree(full.folder, tmp_path / "run")
    run = Run(tmp_path / "run")
    split = json.loads((run.folder / "split.json").read_text())
    (run.folder / "split.json").write_text(json.dumps(split | {"fingerprint": "0" * 16}))
    content = group_records(run)
    assert list(content["num_images"]) == ["all"]
    assert "fingerprints differ" in content["why_no_groups"]
    assert "record_loss_all" in content["epochs"][0]


@pytest.mark.slow
def test_figures_are_written_three_times_each_and_what_lacks_has_its_command(
    full: Run, tmp_path: Path
) -> None:
    written = figures([full.folder], tmp_path / "out", progress=NoProgress())
    names = sorted(path.name for path in written.files)
    assert names == sorted(path.name for path in (tmp_path / "out").iterdir())
    stems = {name.rpartition(".")[0] for name in names}
    assert len(names) == 3 * len(stems)
    assert {"against", "accuracy_by_class_1", "balancedness_1", "record_loss", "mined"} <= stems
    assert {"loss", "mask_churn", "sparsity_by_layer", "disagreement", "health_rank"} <= stems
    assert set(written.missing) == {"Paired differences", "Accuracy against prune ratio"}
    assert (
        "sdclr pretrain RECIPE method.prune_ratio="
        in written.missing["Accuracy against prune ratio"]
    )
    with Image.open(tmp_path / "out/loss.png") as png:
        assert png.width > 1000
    assert "Training loss" in (tmp_path / "out/loss.svg").read_text()
    again = CliRunner().invoke(
        cli.app, ["figures", str(full.folder), "--out", str(tmp_path / "out")]
    )
    assert "--overwrite" in str(again.exception)


def test_accuracy_against_the_prune_ratio_is_drawn_of_runs_that_differ_in_it(
    tmp_path: Path, light_figures: None
) -> None:
    runs = []
    for ratio in ("0.5", "0.9"):
        settings = [*TINY, "epochs=1", f"method.prune_ratio={ratio}", "record_images=true"]
        run = pretrain(recipe("digits_sdclr").with_overrides(settings), tmp_path / ratio)
        evaluate(run, probes=["knn"])
        runs.append(run.folder)
    written = figures(runs, tmp_path / "out", progress=NoProgress())
    assert "Accuracy against prune ratio" not in written.missing
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/prune_ratio_1.csv").read_text())))
    assert [float(row["prune ratio"]) for row in rows] == [0.5, 0.9]
    measured = [
        json.loads((run / "evaluation/cached.json").read_text())["probes"]["knn"]["summary"]["all"]
        for run in runs
    ]
    assert [float(row["value"]) for row in rows] == pytest.approx(measured)

    # the competitors beside each other, each arm's own
    assert not {"Sparsity by layer", "Distribution of disagreement"} & set(written.missing)
    report(runs, {"html"}, progress=NoProgress())
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "competitor" in sections(page)
    arms = {row["arm"] for row in table(page, "sparsity_by_layer")}
    assert arms == {"SDCLR (prune_ratio 0.5)", "SDCLR (prune_ratio 0.9)"}
    for number, run_folder in enumerate(runs, start=1):
        groups = json.loads((run_folder / "examination" / "groups.json").read_text())
        counts = groups["disagreement"]["counts"]["few"]
        rows = table(page, f"disagreement_{number}")
        assert [int(row["images"]) for row in rows if row["group"] == "few"] == counts


def test_a_run_on_the_balanced_subset_is_grouped_as_its_evaluation_is(tmp_path: Path) -> None:
    """By the long-tailed counts: in the subset itself all classes have as many images."""
    values = [
        "backbone.width=2",
        "views.size=8",
        "batch_size=200",
        "epochs=1",
        "record_images=true",
    ]
    config = recipe("digits_simclr").with_overrides([*values, "data.subset=balanced"])
    run = pretrain(config, tmp_path / "x")
    evaluation = evaluate(run, probes=["knn"])
    few = class_groups(evaluation.train_counts, "thirds")["few"]
    data = build_data(config.data)
    rows = np.isin(data.pretraining_images("balanced").labels, few)
    recorded = read_records(run.folder, len(rows)).values[0][:, COLUMNS.index("loss")]
    found = group_records(run)
    assert found["num_images"]["few"] == rows.sum() == 40 * len(few)
    assert found["epochs"][0]["record_loss_few"] == pytest.approx(recorded[rows].mean(), rel=1e-5)
    assert counts_trained_on(run.read_json("split.json"), {"data.subset": "balanced"}) == [40] * 10
