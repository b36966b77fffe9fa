"""Whether pre-training paid: the same probes on rivals, paired, with a leak check."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sdclr import PretrainConfig, Run, cli, compare, evaluate, pretrain, recipe
from sdclr.errors import ConfigError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    tiny = ["epochs=1", "views.size=8", "backbone.width=4", "batch_size=200"]
    return pretrain(
        recipe("digits_simclr").with_overrides(tiny), tmp_path_factory.mktemp("against") / "x"
    )


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
    assert tuple(pair.all) == (0, 0, 0)
    assert "no difference" in pair.sentence()


def test_grey_digits_have_no_colours_worth_a_probe(run: Run) -> None:
    pairs = {p.rival: p for p in compare(run, ["pixels", "colours"], probes=["knn"]).pairs}
    assert pairs["pixels"].theirs > pairs["colours"].theirs + 0.2


@pytest.mark.parametrize(
    ("rival", "words"),
    [
        ("untraned", "there is no rival untraned: untrained, pixels"),
        ("imagenet", "nobody offers ImageNet weights for resnet10"),
    ],
)
def test_what_is_no_rival_is_said_before_any_work(run: Run, rival: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        compare(run, ["pixels", rival], probes=["knn"])
    with pytest.raises(ConfigError, match="needs a rival"):
        compare(run, [])


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


def test_leaks_are_counted_and_folds_are_dealt_three_times_without_a_test_set(
    tmp_path: Path,
) -> None:
    for part, level in (("dark", 60), ("bright", 190)):
        write_photos(tmp_path / "photos" / part, level, 12, 0)
        write_photos(tmp_path / "test" / part, level, 5, 1)
    shutil.copy(tmp_path / "photos" / "dark" / "3.png", tmp_path / "test" / "dark" / "again.png")
    config = PretrainConfig.parse(
        {
            "data": {"name": "images", "path": str(tmp_path / "photos"), "labels": "folders"},
            "views": {"size": 16},
            "backbone": {"name": "resnet10", "width": 2},
            "method": {"name": "simclr"},
            "epochs": 1,
            "batch_size": 24,
        }
    )
    run = pretrain(config, tmp_path / "run")
    folds = compare(run, ["pixels"], probes=["knn"])
    assert folds.num_leaks is None
    assert folds.pairs[0].num_tested == 24
    settings = {"data.test_path": str(tmp_path / "test")}
    tested = compare(run, ["pixels"], probes=["knn"], settings=settings)
    assert (tested.num_leaks, tested.leaks) == (1, ["dark/again.png"])
    assert tested.pairs[0].num_tested == 11
    (tmp_path / "photos").rename(tmp_path / "moved")
    words = ["evaluate", str(run.folder), "--probes", "knn", "--against", "pixels"]
    moved = CliRunner().invoke(cli.app, [*words, "--data", str(tmp_path / "moved")])
    assert moved.exit_code == 0, moved.output
    assert "n = 24 images" in moved.output, "the rivals see the images where they are now"
