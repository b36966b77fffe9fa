"""The reproduce verb: from nothing to the paper's table, and what it refuses."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import pytest

from sdclr import cli
from sdclr.errors import ConfigError
from sdclr.evaluation.probes import PROBES as TABLE
from sdclr.recipes import ARM_SETS, SYSTEMS, recipe
from sdclr.workflows.reproduce import (
    SCALES,
    SPLITS,
    choose_arms,
    choose_probes,
    choose_scale,
    parse_numbers,
)

pytestmark = pytest.mark.journeys

TINY = ["backbone.width=2", "views.size=8", "epochs=1", "batch_size=200", "health_every_epochs=0"]


def sdclr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["sdclr", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out = capsys.readouterr()
    return int(stop.value.code or 0), out.out, out.err


@pytest.mark.slow
def test_it_ends_in_the_papers_table_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    what = ["reproduce", "digits", "--splits", "1-2", "--scale", "tiny", *TINY]
    code, out, _ = sdclr(monkeypatch, capsys, *what, "--plan")
    assert code == 0
    assert "6 missing (to be trained)" in out
    assert not Path("runs").exists(), "a plan writes nothing"
    code, out, _ = sdclr(monkeypatch, capsys, *what, "--print-commands")
    lines = out.splitlines()
    assert len(lines) == 7
    assert lines[-1].startswith(
        "sdclr report --paper runs/reproduce-digits-tiny/simclr_balanced-split1-seed10 "
    )
    code, out, _ = sdclr(monkeypatch, capsys, *what)
    assert code == 0
    for words in (
        "SimCLR on D_b",
        "SDCLR on D_i",
        "split 2",
        "mean ± std",
        "Few-shot probe",
        "Std of",
    ):
        assert words in out
    folder = Path("runs/reproduce-digits-tiny")
    rows = list(csv.DictReader(io.StringIO((folder / "paper.csv").read_text())))
    assert len(rows) == 2 * 3 * (2 + 1)
    assert {row["protocol"] for row in rows} == {"cached"}
    assert (folder / "paper.tex").exists()
    assert (folder / "report.html").exists()
    code, out, err = sdclr(monkeypatch, capsys, *what)
    assert (code, "6 done (trained and evaluated)" in out) == (0, True)
    assert "steps" not in err, "nothing is trained again"


def test_arms_splits_and_scales_are_read_or_refused() -> None:
    assert choose_arms("cifar10", "paper") == ["simclr_balanced", "simclr", "sdclr"]
    assert choose_arms("cifar10", "matched") == [
        "simclr_balanced_matched",
        "simclr_matched",
        "sdclr",
    ]
    assert choose_arms("cifar10", "paper,simclr_matched") == [*ARM_SETS["paper"], "simclr_matched"]
    assert parse_numbers("1-3,5,2", "--splits") == [1, 2, 3, 5]
    for wrong in ("", "a", "3-1", "1-", "-2", "1,,2", "1.5", "1-2000000000"):
        with pytest.raises(ConfigError, match="--splits"):
            parse_numbers(wrong, "--splits")
    with pytest.raises(ConfigError, match="no data set 'cifar'"):
        choose_arms("cifar", "paper")
    with pytest.raises(
        ConfigError, match="no arm 'simclr_balanced_matched'; choose from paper, simclr_bal"
    ):
        choose_arms("digits", "matched")
    with pytest.raises(ConfigError, match="without a name"):
        choose_arms("digits", ",")
    with pytest.raises(ConfigError, match="full or tiny"):
        choose_scale("digits", "small")


@pytest.mark.parametrize("dataset", SYSTEMS)
def test_every_data_set_has_its_splits_and_scales(dataset: str) -> None:
    assert SPLITS[dataset]
    for scale in SCALES.values():
        for name in SYSTEMS[dataset].values():
            recipe(name).with_overrides(scale[dataset].overrides)


def test_a_probe_of_ones_own_is_measured_beside_the_papers_and_is_in_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    what = ["reproduce", "digits", "--splits", "1", "--arms", "simclr", "--scale", "tiny", *TINY]
    what += ["--probes", "few_shot,outside_probes:Ridge"]
    with TABLE.temporarily():
        code, out, _ = sdclr(monkeypatch, capsys, *what, "--print-commands")
        assert code == 0
        assert "--probes few_shot,outside_probes:Ridge" in out, "another process is told the module"
        code, out, _ = sdclr(monkeypatch, capsys, *what)
        assert code == 0
        assert out.index("Few-shot probe") < out.index("Ridge classifier")
        assert "Linear probe" not in out
        folder = Path("runs/reproduce-digits-tiny")
        rows = list(csv.DictReader(io.StringIO((folder / "paper.csv").read_text())))
        assert {row["probe"] for row in rows} == {"few_shot", "ridge"}
        code, out, _ = sdclr(monkeypatch, capsys, *what, "--plan")
        assert "1 done" in out


@pytest.mark.parametrize(
    ("probes", "message"),
    [
        ("knn", "the paper's table needs linear or few_shot; got knn"),
        ("", "the paper's table needs linear or few_shot; got no probe"),
        ("svm,linear", "there is no probe 'svm'"),
    ],
)
def test_probes_that_make_no_table_are_refused_before_any_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    probes: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = sdclr(
        monkeypatch, capsys, "reproduce", "digits", "--scale", "tiny", "--probes", probes
    )
    assert code == 78
    assert message in " ".join(err.split())
    assert not Path("runs").exists()


def test_a_protocol_without_the_papers_probes_cannot_make_its_table() -> None:
    assert choose_probes(None, "bcl") == ("linear",)
    with pytest.raises(
        ConfigError, match=r"protocol ts has none .* choose from cached, sdclr, bcl"
    ):
        choose_probes(None, "ts")
