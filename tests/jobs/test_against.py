"""Whether pre-training paid: the same probes on rivals, paired, with a leak check."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from sdclr import PretrainConfig, Run, cli, compare, evaluate, examine, pretrain, recipe
from sdclr.errors import ConfigError, DataError
from sdclr.jobs.evaluate import against_unlabelled
from sdclr.jobs.report import write_figures, write_report


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    tiny = [
        "epochs=1",
        "views.size=8",
        "backbone.width=4",
        "batch_size=200",
        "health_every_epochs=0",
    ]
    return pretrain(
        recipe("digits_simclr").with_overrides(tiny), tmp_path_factory.mktemp("against") / "x"
    )


@pytest.mark.journeys
def test_the_runs_side_is_what_evaluate_measures(run: Run) -> None:
    found = compare(run, ["untrained", "pixels", "colours"], probes=["knn", "linear"])
    evaluation = evaluate(run, probes=["knn", "linear"])
    for pair in found.pairs:
        assert pair.ours == pytest.approx(evaluation.balancedness(pair.probe).all)
        assert pair.all.difference == pytest.approx(pair.ours - pair.theirs)
        assert pair.all.low <= pair.all.difference <= pair.all.high
    assert [(p.probe, p.rival) for p in found.pairs][:3] == [
        ("linear", "untrained"),
        ("linear", "pixels"),
        ("linear", "colours"),
    ]
    written = json.loads((run.folder / "against.json").read_text())
    assert written["verdict"] == found.verdict()
    assert len(written["pairs"]) == 6
    assert run.evaluated_protocols() == {"cached"}, "a comparison is no protocol"


def test_a_run_against_itself_shows_no_difference(run: Run) -> None:
    pair = compare(run, [str(run.folder)], probes=["knn"]).pairs[0]
    assert (pair.all.difference, pair.all.verdict) == (0, "open")
    assert -0.02 < pair.all.low < 0 < pair.all.high < 0.02
    assert "no difference" in pair.sentence()


def test_grey_digits_have_no_colours_worth_a_probe(run: Run) -> None:
    pairs = {p.rival: p for p in compare(run, ["pixels", "colours"], probes=["knn"]).pairs}
    assert pairs["pixels"].theirs > pairs["colours"].theirs + 0.2


@pytest.mark.parametrize(
    ("rival", "words"),
    [
        ("untraned", "there is no rival untraned: untrained, pixels"),
        ("imagenet", "there are no ImageNet weights for resnet10"),
    ],
)
def test_what_is_no_rival_is_said_before_any_work(run: Run, rival: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        compare(run, ["pixels", rival], probes=["knn"])
    with pytest.raises(ConfigError, match="needs a rival"):
        compare(run, [])


@pytest.mark.journeys
def test_the_command_says_a_sentence_for_each_rival(run: Run) -> None:
    words = ["evaluate", str(run.folder), "--probes", "knn", "--against", "untrained, pixels"]
    found = CliRunner().invoke(cli.app, words)
    assert found.exit_code == 0, found.output
    assert "points [" in found.output
    assert "n = 360 images" in found.output
    as_json = CliRunner().invoke(cli.app, [*words[:-1], "pixels", "--json"])
    (line,) = as_json.stdout.splitlines()
    assert json.loads(line)["pairs"][0]["rival"] == "pixels"


def write_photos(folder: Path, level: int, count: int, seed: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng([level, seed])
    for number in range(count):
        small = Image.fromarray(rng.integers(level - 40, level + 40, (6, 6, 3), dtype=np.uint8))
        small.resize((24, 24), Image.Resampling.BICUBIC).save(folder / f"{number}.png")


@pytest.mark.journeys
def test_leaks_are_counted_and_folds_are_dealt_three_times_without_a_test_set(
    tmp_path: Path,
) -> None:
    for part, level in (("dark", 60), ("bright", 190)):
        write_photos(tmp_path / "photos" / part, level, 12, 0)
        write_photos(tmp_path / "test" / part, level, 5, 1)
    shutil.copy(tmp_path / "photos" / "dark" / "3.png", tmp_path / "test" / "dark" / "again.png")
    config = photos_config(tmp_path / "photos", labels="folders")
    run = pretrain(config, tmp_path / "run")
    folds = compare(run, ["pixels"], probes=["knn"])
    assert folds.num_leaks is None
    assert folds.pairs[0].num_tested == 24
    settings = {"data.test_path": str(tmp_path / "test")}
    tested = compare(run, ["pixels"], probes=["knn"], settings=settings)
    assert (tested.num_leaks, tested.leaks) == (1, ["dark/again.png"])
    assert tested.pairs[0].num_tested == 11


def photos_config(folder: Path, **data: object) -> PretrainConfig:
    return PretrainConfig.parse(
        {
            "data": {"name": "images", "path": str(folder), **data},
            "views": {"size": 16},
            "backbone": {"name": "resnet10", "width": 2},
            "method": {"name": "simclr"},
            "epochs": 1,
            "batch_size": 24,
        }
    )


@pytest.mark.journeys
def test_without_labels_it_says_what_can_be_measured_and_which_labels_would_answer(
    tmp_path: Path,
) -> None:
    for part, level in (("dark", 60), ("bright", 190)):
        write_photos(tmp_path / "photos" / part, level, 12, 0)
    run = pretrain(photos_config(tmp_path / "photos", subset="all"), tmp_path / "run")
    words = ["evaluate", str(run.folder), "--against", "untrained,pixels"]
    found = CliRunner().invoke(cli.app, words)
    assert found.exit_code == 0, found.output
    assert "cannot be known without labels" in found.output
    assert "by untrained" in found.output
    output = " ".join(found.output.split())
    assert "two shares of right images differ by about 21 points" in output, (
        "of 24 images, not the usual 5"
    )
    to_label = run.folder / "to_label.csv"
    lines = to_label.read_text().splitlines()
    assert lines[0] == "path,label"
    assert sorted(lines[1:]) == sorted(
        f"{part}/{n}.png," for part in ("dark", "bright") for n in range(12)
    )
    written = json.loads((run.folder / "against.json").read_text())
    assert set(written["without_labels"]) == {"this run", "untrained", "pixels"}
    # the numbers are those of examine, on the same sample and views
    examined = examine(run)
    assert written["without_labels"]["this run"] == examined["trained"]
    assert written["without_labels"]["untrained"] == examined["before"]

    # a person labels some of them; what is filled in is never written over
    to_label.write_text("\n".join(["path,label", *(f"{x}{x.split('/')[0]}" for x in lines[1:21])]))
    assert compare(run, ["pixels"]).unlabelled is not None
    assert to_label.read_text().count("bright/") + to_label.read_text().count("dark/") == 20
    command = written["next"].split()
    assert command[:2] == ["sdclr", "evaluate"]
    (tmp_path / "photos").rename(tmp_path / "moved")
    words = [*command[1:], "--probes", "knn", "--data", str(tmp_path / "moved")]
    answered = CliRunner().invoke(cli.app, words)
    assert answered.exit_code == 0, answered.output
    assert "n = 20 images" in answered.output
    before = (run.folder / "against.json").read_text()
    moved = {"data.path": str(tmp_path / "moved")}
    with pytest.warns(UserWarning, match=r"compared with labels before, and that answer stays"):
        said = compare(run, ["pixels"], settings=moved).verdict()
    assert "to_label.csv is filled in: measure on its labels." in said
    assert (run.folder / "against.json").read_text() == before
    with pytest.raises(DataError, match="without labels"):  # what was asked for cannot be measured
        compare(run, ["pixels"], probes=["knn"], settings={"data.path": str(tmp_path / "moved")})


def test_images_to_label_are_of_different_groups_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for burst in range(6):
        write_photos(tmp_path / "photos" / f"burst{burst}", 100, 4, burst)
    monkeypatch.setattr(against_unlabelled, "labels_wanted", lambda: 8)
    config = photos_config(tmp_path / "photos", labels="none", subset="all", group_by="folder")
    run = pretrain(config, tmp_path / "run")
    compare(run, ["pixels"])
    named = (run.folder / "to_label.csv").read_text().splitlines()[1:]
    assert len(named) == 8
    assert {name.split("/")[0] for name in named} == {f"burst{n}" for n in range(6)}


def test_intervals_resample_whole_groups_where_images_are_grouped(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part in ("dark", "bright"):
        (tmp_path / "photos" / part).mkdir(parents=True)
        for burst in range(5):  # a colour by the burst, hardly one by the class
            level = int(rng.integers(40, 215))
            pixels = rng.integers(level - 20, level + 20, (24, 24, 3)).astype(np.uint8)
            for shot in range(4):
                Image.fromarray(pixels + shot).save(
                    tmp_path / "photos" / part / f"{part}{burst}_{shot}.png"
                )
    settings = {"labels": "folders", "group_by": r"(\w+)_\d\.png"}
    run = pretrain(photos_config(tmp_path / "photos", **settings), tmp_path / "run")
    found = compare(run, ["pixels"], probes=["knn"])
    assert found.num_groups == 10
    assert found.pairs[0].num_tested == 40
    assert json.loads((run.folder / "against.json").read_text())["num_groups"] == 10
    evaluate(run, probes=["knn"])
    write_report([run.folder], {"html"}, console=Console(file=io.StringIO()))
    page = (run.folder / "report.html").read_text()
    assert "Intervals resample 10 groups, not single images." in page


@pytest.mark.journeys
def test_few_classes_that_nobody_tests_have_no_difference_and_others_their_own_n(
    tmp_path: Path,
) -> None:
    sizes = {"dark": (60, 12, 4), "bright": (190, 9, 4), "grey": (125, 6, 2)}
    for part, (level, num_train, num_test) in sizes.items():
        write_photos(tmp_path / "photos" / part, level, num_train, 0)
        write_photos(tmp_path / "all" / part, level, num_test, 1)
        if part != "grey":
            write_photos(tmp_path / "without_grey" / part, level, num_test, 1)
    run = pretrain(photos_config(tmp_path / "photos", labels="folders"), tmp_path / "run")
    settings = {"data.test_path": str(tmp_path / "all")}
    (pair,) = compare(run, ["pixels"], probes=["knn"], settings=settings).pairs
    assert (pair.num_tested, pair.num_few_tested) == (10, 2)
    assert pair.few is not None

    evaluate(run, probes=["knn"], settings=settings)
    written = write_figures([run.folder], tmp_path / "figures")
    (table,) = [file for file in written.files if file.name == "against.csv"]
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["n"] for row in rows] == ["10", "2"]

    settings = {"data.test_path": str(tmp_path / "without_grey")}
    with pytest.warns(UserWarning, match="grey"):
        found = compare(run, ["pixels"], probes=["knn"], settings=settings, untested="leave_out")
    assert found.pairs[0].few is None
    content = json.loads((run.folder / "against.json").read_text())["pairs"][0]
    assert (content["few"], content["num_few_tested"]) == (None, 0)
