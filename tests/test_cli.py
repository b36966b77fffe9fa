from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from photo_folder import make_photos
from sdclr import __version__, cli, recipe
from sdclr.cli import app
from sdclr.recipes import RECIPES

pytestmark = pytest.mark.usefixtures("light_figures")

TINY = ["backbone.width=2", "views.size=8", "epochs=1", "batch_size=200"]


Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def sdclr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Cli:
    """Runs a command line in a fresh folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sdclr", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return run


@pytest.mark.journeys
def test_the_verbs_work_one_after_another(sdclr: Cli, tmp_path: Path) -> None:
    code, out, err = sdclr("pretrain", "digits_sdclr", "--out", "runs/x", *TINY)
    assert code == 0
    assert "backbone: runs/x/backbone.safetensors" in out
    assert "warm-up 0.1 epochs (= min(10, epochs / 10))" in err
    code, _, err = sdclr("pretrain", "digits_sdclr", "--out", "runs/x", *TINY)
    assert code == 0
    assert "is finished" in err
    assert sdclr("resume", "runs/x")[0] == 0
    code, out, _ = sdclr("evaluate", "runs/x", "--probes", "knn")
    assert code == 0
    assert "SDCLR" in out
    code, out, _ = sdclr("report", "runs/x", "--format", "markdown", "--groups", "thresholds")
    assert "more than 100" in out
    for form, mark in (("markdown", "| "), ("csv", ",")):
        code, out, _ = sdclr("report", "runs/x", "--format", form)
        assert code == 0
        assert mark in out
    code, _, _ = sdclr("report", "runs/x", "--format", "html")
    assert code == 0
    assert (tmp_path / "runs/x/report.html").exists()
    code, _, err = sdclr("pretrain", "--config", "runs/x/config.yaml", "--out", "runs/y")
    assert code == 0
    code, _, err = sdclr("pretrain", "digits_sdclr", "--out", "runs/x", *TINY, "seed=3")
    assert code == 78
    assert "seed: 10 -> 3" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ["pretrain", "digits_sdclt"],
            78,
            ["neither a recipe nor a folder", "digits_sdclr", "./photos"],
        ),
        (["pretrain", "epochs=2"], 78, ["got neither"]),
        (
            ["pretrain", "digits_sdclr", "cifar10_lt_sdclr"],
            78,
            ["got digits_sdclr, cifar10_lt_sdclr"],
        ),
        (["pretrain", "./nowhere"], 66, ["no folder or file ./nowhere"]),
        (["pretrain", "cifar10_lt_sdclr"], 78, ["data.path is missing", "--data PATH"]),
        (
            ["pretrain", "cifar10_lt_sdclr", "--data", "nowhere"],
            66,
            ["no cifar10 at", "nowhere", "--download"],
        ),
        (["pretrain", "digits_sdclr", "method.prune_ratio=90"], 78, ["did you mean 0.9?"]),
        (["pretrain", "--config", "no.yaml"], 66, ["no.yaml does not exist"]),
        (["evaluate", "nowhere"], 66, ["run folder nowhere does not exist"]),
        (["report", "nowhere"], 66, ["nowhere"]),
        (["resume", "nowhere"], 66, ["run folder nowhere does not exist"]),
        (["embed", "nowhere"], 66, ["no run folder or file nowhere"]),
        (["mine", "nowhere"], 66, ["no run folder or file nowhere"]),
        (["mine", "."], 78, ["is not a run folder", "--backbone timm:NAME"]),
        (["mine", "a", "b", "c"], 78, ["takes RUN [IMAGES]", "got a, b, c"]),
        (["mine", "--backbone", "x.safetensors"], 78, ["takes --backbone", "got nothing"]),
        (["recipes", "show", "x"], 78, ["there is no recipe 'x'"]),
        (["train"], 2, ["No such command"]),
        (["pretrain", "--frobnicate"], 2, ["No such option"]),
    ],
)
def test_wrong_commands_get_one_sentence_and_the_documented_exit_code(
    sdclr: Cli, arguments: list[str], code: int, words: list[str]
) -> None:
    actual, _, err = sdclr(*arguments)
    assert actual == code
    assert "Traceback" not in err
    for word in words:
        assert word in " ".join(err.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["runs/x", "--protocol", "ts", "--against", "untrained"],
            "--against measures by protocol cached alone, got --protocol ts",
        ),
        (
            ["x.pt", "--classifier", "linear", "--labels", "l.csv", "--group-by", "folder"],
            "on the run's own test set; leave out --labels and --group-by.",
        ),
        (["x.pt", "--classifier", "linear", "--against", "pixels"], "leave out --against."),
        (["x.pt", "--classifier", "linear", "--untested", "raise"], "leave out --untested."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_of_evaluate_that_would_do_nothing_are_refused(
    sdclr: Cli, tmp_path: Path, words: list[str], said: str
) -> None:
    (tmp_path / "x.pt").touch()
    code, _, err = sdclr("evaluate", *words)
    assert code == 78
    assert said in " ".join(err.split())


def test_several_runs_are_looked_for_before_any_work_and_shown_one_by_one_where_they_differ(
    sdclr: Cli, tmp_path: Path
) -> None:
    for name, ratio in (("x", 20), ("y", 10)):
        words = ["pretrain", "digits_simclr", "--out", name, *TINY, f"data.imbalance_ratio={ratio}"]
        assert sdclr(*words)[0] == 0
    code, _, err = sdclr("evaluate", "x", "nowhere", "--probes", "knn")
    assert (code, "nowhere does not exist" in err) == (66, True)
    (tmp_path / "y" / "backbone.safetensors").rename(tmp_path / "kept")
    assert sdclr("evaluate", "x", "y", "--probes", "knn")[0] == 66
    (tmp_path / "kept").rename(tmp_path / "y" / "backbone.safetensors")
    assert not (tmp_path / "x" / "evaluation").exists(), "nothing was measured"

    code, out, err = sdclr("evaluate", "x", "y", str(tmp_path / "x"), "--probes", "knn")
    assert code == 0, err
    assert "No common table: x and y both name split 1, but their images differ" in out
    assert [line for line in out.splitlines() if line.startswith("next: ")] == [
        "next: sdclr report x",
        "next: sdclr report y",
    ]
    code, out, _ = sdclr("evaluate", "x", str(tmp_path / "x"), "--probes", "knn", "--json")
    assert (code, len(out.splitlines())) == (0, 1)

    code, out, err = sdclr("status", "x", "nowhere", "y", "--json")
    assert [json.loads(line)["run"] for line in out.splitlines()] == ["x", "y"]
    assert (code, "run folder nowhere does not exist" in err) == (66, True)
    code, out, err = sdclr("status", "nowhere", "x", "neither")
    assert (code, "x: done" in out) == (66, True)
    assert "folder nowhere does not" in err
    assert "folder neither does not" in err


def test_recipes_are_listed_and_shown_as_runnable_configs(sdclr: Cli, tmp_path: Path) -> None:
    code, out, _ = sdclr("recipes", "list")
    assert code == 0
    assert {"digits_simclr", "digits_sdclr", "cifar10_lt_simclr", "cifar10_lt_sdclr"} <= {
        x.split()[0] for x in out.splitlines()
    }
    code, out, _ = sdclr("recipes", "show", "digits_simclr")
    (tmp_path / "c.yaml").write_text(out)
    assert sdclr("pretrain", "--config", "c.yaml", "--out", "z", *TINY)[0] == 0


def test_a_bug_of_ours_shows_its_traceback_and_exits_70(
    sdclr: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdclr.recipes.RECIPES", 7)
    code, _, err = sdclr("recipes", "show", "digits_simclr")
    assert code == 70
    assert "TypeError" in err
    assert "bug in sdclr" in err


@pytest.mark.processes
def test_help_does_not_wait_for_torch() -> None:
    code = "import sys; sys.argv = ['sdclr', '--help']\nfrom sdclr.cli import main\n"
    code += "try: main()\nfinally: assert 'torch' not in sys.modules"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "pretrain" in result.stdout


@pytest.mark.parametrize(("verb", "goes_on"), [("embed", True), ("mine", True), ("convert", False)])
def test_ctrl_c_is_no_error(
    sdclr: Cli, monkeypatch: pytest.MonkeyPatch, verb: str, goes_on: bool
) -> None:
    def pressed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"sdclr.jobs.{verb}.{verb}", pressed)
    Path("a.safetensors").touch()
    code, out, err = sdclr(verb, "a.safetensors", "b.npz")
    assert (code, out) == (130, "")
    assert err.startswith("stopped: by Ctrl-C")
    assert ("The same command continues" in err) == goes_on


def test_a_current_folder_that_was_removed_is_one_sentence(
    sdclr: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, out, err = sdclr("embed", str(tmp_path / "run"), str(tmp_path))
    assert (code, out) == (66, "")
    assert err.startswith("error: the current folder no longer exists. Change to another one (cd)")


def test_version_and_the_short_help(sdclr: Cli) -> None:
    assert sdclr("--version") == (0, f"sdclr {__version__}\n", "")
    for verb in ([], ["pretrain"], ["recipes", "show"]):
        code, out, _ = sdclr(*verb, "-h")
        assert (code, "Usage: " in out) == (0, True)
    assert "--install-completion" in sdclr("--help")[1]


def test_a_bare_pretrain_shows_how_it_is_used(sdclr: Cli) -> None:
    _, out, err = sdclr("pretrain")
    assert "Your own images: sdclr pretrain ./photos" in out + err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar10_lt_sdcl", "Did you mean cifar10_lt_sdclr?"),
        ("moco", "`sdclr recipes list` names the recipes."),
    ],
)
def test_a_misspelt_recipe_is_answered_in_a_line_and_not_by_a_wall_of_names(
    sdclr: Cli, name: str, words: str
) -> None:
    code, _, err = sdclr("pretrain", name)
    assert (code, words in err, err.count("simclr")) == (78, True, 0)
    assert len(err) < 300
    code, _, err = sdclr("recipes", "show", name)
    assert (code, words in err, len(err) < 150) == (78, True, True)


@pytest.mark.journeys
def test_what_scripts_read_is_json(sdclr: Cli) -> None:
    _, out, _ = sdclr("recipes", "list", "--json")
    rows = list(map(json.loads, out.splitlines()))
    assert [row["name"] for row in rows] == list(RECIPES)
    _, out, _ = sdclr("recipes", "show", "digits_sdclr", "--json")
    assert json.loads(out) == recipe("digits_sdclr").to_dict()
    assert sdclr("pretrain", "digits_sdclr", "--out", "runs/x", *TINY)[0] == 0
    code, out, _ = sdclr("report", "runs/x", "--json")
    assert code == 0
    (run,) = json.loads(out)["runs"]
    assert set(run["measures"]) == {"found", "view_distance", "effective_rank"}
    code, out, _ = sdclr("evaluate", "runs/x", "--probes", "knn", "--json")
    found = json.loads(out)
    assert (code, found["run"], set(found["probes"])) == (0, "runs/x", {"knn"})
    summary = found["probes"]["knn"]["summary"]
    assert {"all", "many", "medium", "few", "group_std"} <= set(summary)
    code, out, _ = sdclr("report", "runs/x", "--json")
    report = json.loads(out)
    assert (code, report["sdclr_report"]) == (0, 1)
    assert report["rows"][0]["all"]["mean"] == pytest.approx(summary["all"])
    assert report["rows"][0]["all"]["std"] is None, "one split has no spread"
    code, _, err = sdclr("report", "runs/x", "--json", "--format", "csv")
    assert (code, "--json is --format json" in err) == (78, True)


@pytest.mark.journeys
def test_rare_images_are_found_from_the_command_line(sdclr: Cli, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", {0: 29, 1: 8, 2: 3})
    assert sdclr("pretrain", "./photos", "--out", "run", *TINY[:-1], "batch_size=20")[0] == 0
    code, out, err = sdclr(
        "mine", "run", "--scores", "knn_1,cleanlab", "--top", "5", "--copy-to", "c"
    )
    assert code == 0, err
    assert out.startswith("40 images in ")
    assert "scores: run/rare/scores.csv" in out
    assert "cannot be known without labels" in out
    assert len(list((tmp_path / "c").iterdir())) == 5
    header = (tmp_path / "run/rare/scores.csv").read_text().splitlines()[0]
    assert header.startswith("path,score,rank,knn_1,cleanlab,")
    code, _, err = sdclr("mine", "run")
    assert (code, "give --overwrite" in err) == (78, True)
    weights = ["--backbone", "run/backbone.safetensors"]
    code, out, err = sdclr("mine", "./photos", *weights, "--like", "photos/2_000.png")
    assert code == 0, err
    assert "first by likeness" in out
    assert "scores: rare/scores.csv" in out
    code, out, err = sdclr("mine", "run", "./photos", "--against", "rare", "--out", "again")
    assert code == 0, err
    assert "0 images are new, of 40" in out
    code, _, err = sdclr("mine", "run", "./photos", "--out", "b", "--feedback", "rare/scores.csv")
    assert (code, "marks no image" in err) == (65, True)
    code, _, err = sdclr("mine", "run", "./photos", "--out", "b", "--score", "rarest")
    assert (code, "density" in err) == (78, True)


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "ADDRESS"],
        ["evaluate", "runs/x", "--against", "pixels,ADDRESS"],
        ["mine", "./photos", "--backbone", "timm:resnet18", "--out", "m", "--like", "ADDRESS"],
        ["pretrain", "photos", "--out", "runs/x", "--weights", "ADDRESS"],
        ["pretrain", "digits_sdclr", "--out", "runs/x", "weights=ADDRESS"],
    ],
    ids=" ".join,
)
def test_an_address_where_a_path_is_needed_is_one_refusal_without_its_secrets(
    sdclr: Cli, tmp_path: Path, words: list[str]
) -> None:
    make_photos(tmp_path / "photos", {0: 2})
    secret = "https://me:LETMEIN@host/run?token=LETMEIN"
    code, out, err = sdclr(*(word.replace("ADDRESS", secret) for word in words))
    assert code == 78
    assert "https://host/run is an address" in err
    assert "LETMEIN" not in out + err
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pretrain", "x", "--lr", "3"], "It is a setting: write optimizer.learning_rate=VALUE"),
        (["reproduce", "cifar10", "--epochs=3"], "It is a setting: write epochs=VALUE"),
        (["pretrain", "x", "--ou", "y"], "--out"),
        (["status", "--epochs", "3"], "No such option"),
    ],
)
def test_a_setting_that_is_given_as_an_option_is_answered_with_how_to_write_it(
    words: list[str], said: str
) -> None:
    result = CliRunner().invoke(app, words)
    output = " ".join(word for word in result.output.split() if word != "│")
    assert (result.exit_code, said in output) == (2, True), output
    assert ("It is a setting" in output) == ("It is a setting" in said)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--validation", "3"), ("--head-lr", "-1"), ("--early-stop", "-1"), ("--batch-size", "0")],
)
def test_an_error_of_a_fine_tuning_names_the_option(
    tmp_path: Path, option: str, value: str
) -> None:
    make_photos(tmp_path / "photos", {0: 2, 1: 2})
    words = ["timm:resnet10t", "--labels", str(tmp_path / "photos"), "--out", str(tmp_path / "m")]
    result = CliRunner().invoke(app, ["finetune", *words, option, value])
    assert str(result.exception).startswith(f"{option} must be ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["pretrain", "digits_sdclr", "--data", "x", "data.path=y"],
            "--data and data.path=... say",
        ),
        (
            ["pretrain", "photos", "data.path=y"],
            "photos says where the images are; leave data.path",
        ),
        (
            ["pretrain", "photos", "--data", "y"],
            "photos says where the images are; leave --data out",
        ),
        (
            ["embed", "runs/x", "photos", "data.path=y"],
            "says where the images are; leave data.path",
        ),
        (
            [
                "mine",
                "photos",
                "--backbone",
                "timm:resnet10t",
                "--group-by",
                "folder",
                "data.group_by=day",
            ],
            "--group-by and data.group_by=... say the same thing",
        ),
        (
            [
                "finetune",
                "timm:resnet10t",
                "--labels",
                "t.csv",
                "--images",
                "photos",
                "--out",
                "m",
                "data.root=other",
            ],
            "--images and data.root=... say the same thing. Give one of them",
        ),
        (["evaluate", "runs/x", "--data", "x", "data.path=y"], "--data and data.path=... say"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_setting_that_is_given_twice_in_two_ways_is_refused(
    sdclr: Cli, tmp_path: Path, words: list[str], said: str
) -> None:
    make_photos(tmp_path / "photos", {0: 2})
    (tmp_path / "t.csv").write_text("path,label\nphotos/0.png,a\n")
    code, _, err = sdclr(*words)
    assert code == 78
    assert said in " ".join(err.split())
