"""Every verb against streams that fail, paths that cannot be, names that would be read as signs, and foreign files.

Only the documented exit codes come out, never a traceback; what is not ours stays as it is.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from killing import state_hash
from one_training import patch_steps
from permissions import permissions_count
from sdclr import Run, cli, finetune, pretrain, recipe
from sdclr.backbones.weights import read_backbone
from sdclr.errors import EXIT_BUG
from sdclr.jobs.evaluate import evaluate
from sdclr.jobs.pretrain.training import TrainingState
from sdclr.safe_text import command
from sdclr.storage.tensor_files import write_tensors

pytestmark = [pytest.mark.journeys, pytest.mark.usefixtures("light_figures")]

TINY = [
    "backbone.name=resnet10",
    "backbone.width=2",
    "views.size=8",
    "epochs=1",
    "batch_size=20",
    "device=cpu",
]
UPSTREAM = Path(__file__).parents[1] / "golden" / "upstream_sdclr_resnet18_w8.pt"

Outcome = tuple[int, str, str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an evaluated run, a folder of images and an authors' checkpoint."""
    folder = tmp_path_factory.mktemp("made")
    run = pretrain(recipe("digits_sdclr").with_overrides(TINY), folder / "run")
    evaluate(run, protocol="cached", probes=["knn", "linear"], device="cpu")
    finetune(run, recipe("digits_sdclr").data, folder / "model", epochs=1, device="cpu")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number:02d}.png")
    rows = [f"photos/{number:02d}.png,{number % 2}\n" for number in range(40)]
    (folder / "labels.csv").write_text("path,label\n" + "".join(rows), encoding="utf-8")
    shutil.copy(UPSTREAM, folder / "theirs.pt")
    (folder / "grid.yaml").write_text("base: digits_sdclr\narms: {sdclr: {}}\n", encoding="utf-8")
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working folder."""
    folder = tmp_path / "here"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    return folder


VERBS = {
    "pretrain": ["pretrain", "digits_sdclr", "--out", "new", *TINY],
    "pretrain a folder": ["pretrain", "./photos", "--out", "new", *TINY],
    "dry run": ["pretrain", "./photos", "--out", "new", "--dry-run", *TINY],
    "resume": ["resume", "run"],
    "status": ["status", "run"],
    "evaluate": ["evaluate", "run", "--probes", "knn", "--device", "cpu"],
    "report": ["report", "run"],
    "report as csv": ["report", "run", "--format", "csv"],
    "paper": ["report", "run", "--paper", "--format", "latex", "--out", "paper.tex"],
    "reproduce": ["reproduce", "digits", "--plan", "--out", "all"],
    "grid": ["grid", "grid.yaml", "--plan", "--out", "all"],
    "embed": ["embed", "run", "photos", "--out", "o.npz", "--device", "cpu"],
    "mine": ["mine", "run", "photos", "--out", "rare", "--device", "cpu"],
    "finetune": ["finetune", "run", "--out", "new", "--epochs", "1", "--device", "cpu"],
    "predict": ["predict", "model", "photos", "--out", "p.csv", "--device", "cpu"],
    "convert": ["convert", "theirs.pt", "o.safetensors"],
    "export": ["export", "run", "--format", "safetensors", "--out", "e.safetensors"],
    "recipes": ["recipes", "list"],
    "recipe": ["recipes", "show", "digits_sdclr"],
    "help": ["--help"],
}
FAST = {"pretrain", "status", "report", "report as csv", "embed", "recipes"}
MADE = {
    "pretrain": "new/backbone.safetensors",
    "pretrain a folder": "new/backbone.safetensors",
    "dry run": "new-views.png",
    "report": "run/report.html",
    "embed": "o.npz",
    "mine": "rare/scores.csv",
    "finetune": "new/classifier.safetensors",
    "predict": "p.csv",
    "convert": "o.safetensors",
    "export": "e.safetensors",
}
"""What a verb leaves, whether or not anybody reads its messages."""
TEXTS = {
    "status",
    "report",
    "report as csv",
    "paper",
    "reproduce",
    "grid",
    "recipes",
    "recipe",
    "help",
}
"""Verbs whose result is what they print."""


def verbs(names: dict[str, list[str]] | list[str]) -> list[object]:
    """One parameter a verb; all but a sample are slow."""
    return [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow, id=name)
        for name in names
    ]


def main(arguments: list[str], out: object = None, err: object = None) -> Outcome:
    """The command line in this process, its streams replaced: (exit code, standard output, standard error)."""
    streams, argv = (sys.stdout, sys.stderr), sys.argv
    texts = [io.StringIO(), io.StringIO()]
    sys.stdout, sys.stderr = out or texts[0], err or texts[1]  # type: ignore[assignment]
    sys.argv = ["sdclr", *arguments]
    code = 0
    try:
        cli.main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.stdout, sys.stderr = streams
        sys.argv = argv
    return code, *(text.getvalue() for text in texts)


def is_clean(outcome: Outcome, *, ok: bool | None = None) -> None:
    code, _, err = outcome
    assert code != EXIT_BUG, err
    assert "bug" not in err.lower()
    assert "Traceback" not in err
    if ok is not None:
        assert (code == 0) == ok, err


# ---- streams


@pytest.fixture
def full() -> Iterator[io.TextIOWrapper]:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with Path("/dev/full").open("w") as file:
        yield file
        _drop(file)


@pytest.fixture
def unread() -> Iterator[io.TextIOWrapper]:
    reading, writing = os.pipe()
    os.close(reading)
    file = os.fdopen(writing, "w")
    yield file
    _drop(file)


def _drop(file: io.TextIOWrapper) -> None:
    """Close it without another attempt to write what it holds."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, file.fileno())
    os.close(nowhere)
    file.close()


STREAMS = list(product(["out", "err", "both"], ["full", "unread", "closed", "ascii"]))
"""Which stream, and what is wrong with it."""


def on_streams() -> list[object]:
    """Every verb on every stream; at once only the fast ones, and those that do work on both streams together."""
    return [
        pytest.param(
            name,
            which,
            kind,
            marks=()
            if name in {"status", "recipes"} or (name in FAST and which == "both")
            else pytest.mark.slow,
            id=f"{name}-{which}-{kind}",
        )
        for name in VERBS
        for which, kind in STREAMS
    ]


@pytest.mark.parametrize(("name", "which", "kind"), on_streams())
def test_work_is_done_whoever_reads_of_it(
    here: Path, name: str, which: str, kind: str, full: io.TextIOWrapper, unread: io.TextIOWrapper
) -> None:
    closed = io.StringIO()
    closed.close()
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    stream = {"full": full, "unread": unread, "closed": closed, "ascii": ascii_only}[kind]
    outcome = main(
        VERBS[name], stream if which != "err" else None, stream if which != "out" else None
    )
    is_clean(outcome)
    lost = kind == "full" and which != "err" and name in TEXTS
    assert outcome[0] == (74 if lost else 0)
    if name in MADE:
        assert (here / MADE[name]).exists()


def test_a_full_standard_output_is_named(here: Path, full: io.TextIOWrapper) -> None:
    _, _, err = main(VERBS["status"], out=full)
    assert "standard output cannot be written: No space left on device" in err


def test_progress_into_a_pipe_whose_reader_has_gone_goes_on(here: Path) -> None:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    reader = threading.Thread(target=lambda: (os.read(reading, 1), os.close(reading)))
    reader.start()
    code, _, _ = main(VERBS["pretrain"], stream, stream)
    reader.join()
    _drop(stream)
    assert code == 0
    assert (here / "new" / "backbone.safetensors").exists()


# ---- paths

PATHS: dict[str, list[str]] = {
    "pretrain --out": ["pretrain", "digits_sdclr", *TINY, "--out", "{}"],
    "pretrain images": ["pretrain", "{}/", *TINY, "--out", "new"],
    "pretrain --config": ["pretrain", "--config", "{}", "--out", "new"],
    "pretrain --weights": ["pretrain", "digits_sdclr", *TINY, "--out", "new", "--weights", "{}"],
    "pretrain --data": ["pretrain", "cifar10_lt_sdclr", "--data", "{}", "--out", "new"],
    "pretrain --splits-dir": [
        "pretrain",
        "cifar10_lt_sdclr",
        "--data",
        ".",
        "--splits-dir",
        "{}",
        "--out",
        "new",
    ],
    "data.test_path": ["pretrain", "./photos", *TINY, "--out", "new", "data.test_path={}"],
    "data.store": ["pretrain", "./photos", *TINY, "--out", "new", "data.store={}"],
    "data.root": ["pretrain", "./photos", *TINY, "--out", "new", "data.root={}"],
    "resume": ["resume", "{}"],
    "status": ["status", "{}"],
    "evaluate": ["evaluate", "{}"],
    "evaluate --data": ["evaluate", "run", "--data", "{}"],
    "report": ["report", "{}"],
    "report --out": ["report", "run", "--out", "{}"],
    "reproduce --out": ["reproduce", "digits", "--plan", "--out", "{}"],
    "grid": ["grid", "{}", "--out", "new"],
    "grid --out": ["grid", "grid.yaml", "--report-only", "--out", "{}"],
    "grid --records": ["grid", "grid.yaml", "--out", "new", "--records", "{}"],
    "reproduce --published": [
        "reproduce",
        "cifar10",
        "--published",
        "{}",
        "--data",
        ".",
        "--out",
        "new",
    ],
    "embed source": ["embed", "{}", "photos", "--out", "o.npz"],
    "embed images": ["embed", "run", "{}", "--out", "o.npz"],
    "embed --out": ["embed", "run", "photos", "--out", "{}.npz"],
    "mine source": ["mine", "{}", "photos", "--out", "rare"],
    "mine images": ["mine", "run", "{}", "--out", "rare"],
    "mine --backbone": ["mine", "photos", "--backbone", "{}", "--out", "rare"],
    "mine --out": ["mine", "run", "photos", "--out", "{}"],
    "mine --against": ["mine", "run", "photos", "--out", "rare", "--against", "{}"],
    "mine --feedback": ["mine", "run", "photos", "--out", "rare", "--feedback", "{}"],
    "mine --like": ["mine", "run", "photos", "--out", "rare", "--like", "{}"],
    "mine --copy-to": ["mine", "run", "photos", "--out", "rare", "--copy-to", "{}"],
    "finetune source": ["finetune", "{}", "--labels", "labels.csv", "--out", "new"],
    "finetune --labels": ["finetune", "run", "--labels", "{}", "--out", "new"],
    "finetune --images": [
        *("finetune", "run", "--labels", "labels.csv"),
        *("--images", "{}", "--out", "new"),
    ],
    "finetune --weights": [
        *("finetune", "timm:resnet18", "--labels", "labels.csv"),
        *("--weights", "{}", "--out", "new"),
    ],
    "finetune --out": ["finetune", "run", "--epochs", "1", "--out", "{}"],
    "predict model": ["predict", "{}", "photos", "--out", "p.csv"],
    "predict images": ["predict", "model", "{}", "--out", "p.csv"],
    "predict --out": ["predict", "model", "photos", "--out", "{}.csv"],
    "convert in": ["convert", "{}", "o.safetensors"],
    "convert out": ["convert", "theirs.pt", "{}.safetensors"],
    "export source": ["export", "{}", "--format", "safetensors", "--out", "e.safetensors"],
    "export --out": ["export", "run", "--format", "safetensors", "--out", "{}.safetensors"],
    "export --out of a folder": ["export", "run", "--format", "huggingface", "--out", "{}"],
}
IMPOSSIBLE = {
    "300 characters": "x" * 300,
    "5,000 characters": "y" * 5000,
    "300 in a folder": f"{'z' * 300}/a",
    "no such user": "~nosuchuser/a",
    "below a file": "theirs.pt/a",
    "a loop": "loop/a",
    "below proc": "/proc/nothing/a",
}
FAST_PATHS = {
    ("pretrain --out", "300 characters"),
    ("embed images", "no such user"),
    ("report --out", "below a file"),
}
FAST_PATHS |= {
    ("status", "5,000 characters"),
    ("convert out", "a loop"),
    ("pretrain --data", "no such user"),
}


def pairs() -> list[object]:
    return [
        pytest.param(verb, kind, marks=() if (verb, kind) in FAST_PATHS else pytest.mark.slow)
        for verb in PATHS
        for kind in IMPOSSIBLE
    ]


@pytest.mark.parametrize(("verb", "kind"), pairs())
def test_a_path_that_cannot_be_gets_one_error(here: Path, verb: str, kind: str) -> None:
    (here / "loop").symlink_to(here / "loop")
    before = contents(here)
    outcome = main([word.replace("{}", IMPOSSIBLE[kind]) for word in PATHS[verb]])
    is_clean(outcome)
    if kind == "no such user" and verb != "evaluate --data":  # digits take none
        assert outcome[0] == 78, "no folder of that name is made instead"
        assert "no home folder is known for ~nosuchuser" in outcome[2]
    assert len(outcome[2]) < 2500, "names are shortened"
    if "Free space" in outcome[2]:
        pytest.fail(outcome[2])
    for path, content in before.items():
        assert contents(here).get(path) == content, path


@pytest.mark.parametrize(
    "verb",
    [
        name if name in ("status", "report --out") else pytest.param(name, marks=pytest.mark.slow)
        for name in PATHS
    ],
)
@pytest.mark.parametrize("mode", [0o000, 0o555])
def test_a_folder_without_permission_gets_one_error(here: Path, verb: str, mode: int) -> None:
    (here / "locked").mkdir(mode=mode)
    try:
        with permissions_count():
            outcome = main([word.replace("{}", "locked/a") for word in PATHS[verb]])
    finally:
        (here / "locked").chmod(0o755)
    if verb == "evaluate --data":  # digits take none
        return
    is_clean(outcome, ok=False if verb != "reproduce --out" else None)
    if verb != "pretrain --splits-dir":  # there are no images for it
        assert "locked" in outcome[2] + outcome[1]
    assert list((here / "locked").iterdir()) == []


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that a command may not change, by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and path.name not in ("status.json", ".lock", "report.html", "cached.json")
    }


# ---- names

NAMES = {
    "markup": "[red]a[link=x]",
    "emoji": "a :fire: b",
    "controls": "a\x1b[2J\x07b",
    "breaks": "a\nerror: forged",
    "words": "a b; echo pwned",
}


@pytest.mark.parametrize(
    "verb",
    [
        "pretrain",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("embed", "status", "report", "evaluate", "convert", "dry")
        ),
    ],
)
@pytest.mark.parametrize("kind", NAMES)
def test_a_name_is_printed_as_it_is_and_does_nothing(here: Path, verb: str, kind: str) -> None:
    name = NAMES[kind]
    if verb not in ("pretrain", "dry"):
        (here / "run").rename(here / name)
        (here / "photos").rename(here / f"{name} photos")
    code, out, err = main(
        {
            "pretrain": ["pretrain", "digits_sdclr", "--out", name, *TINY],
            "dry": ["pretrain", "./photos", "--out", name, "--dry-run", *TINY],
            "embed": ["embed", name, f"{name} photos", "--out", f"{name}.npz"],
            "status": ["status", name],
            "report": ["report", name],
            "evaluate": ["evaluate", name, "--probes", "knn"],
            "convert": ["convert", "theirs.pt", f"{name}.safetensors"],
        }[verb]
    )
    is_clean((code, out, err), ok=True)
    text = out + err
    assert "\x1b" not in text
    assert "\x07" not in text
    assert not any(line.startswith("error:") for line in text.splitlines())
    if kind in ("markup", "emoji") and verb != "evaluate":
        assert name in text
    if kind == "words" and verb in ("pretrain", "status"):
        proposed = "evaluate" if verb == "pretrain" else "report"  # that run is evaluated
        assert f"sdclr {proposed} 'a b; echo pwned'" in text


@pytest.mark.parametrize("kind", NAMES)
def test_an_error_shows_a_name_as_it_is(here: Path, kind: str) -> None:
    code, _, err = main(["report", f"{NAMES[kind]}/no"])
    assert code == 66
    assert "\x1b" not in err
    assert sum(line.startswith("error:") for line in err.splitlines()) == 1
    if kind in ("markup", "emoji"):
        assert NAMES[kind] in err


@pytest.mark.slow
@pytest.mark.parametrize("verb", PATHS)
@pytest.mark.parametrize("kind", NAMES)
def test_every_path_may_have_any_name(here: Path, verb: str, kind: str) -> None:
    code, out, err = main([word.replace("{}", NAMES[kind]) for word in PATHS[verb]])
    is_clean((code, out, err))
    assert "\x1b" not in out + err
    assert "\x07" not in out + err
    assert sum(line.startswith("error:") for line in (out + err).splitlines()) == (code != 0)


# ---- foreign files

DERIVED: dict[str, list[tuple[str, str]]] = {
    "embed": [
        ("o.npz", "file"),
        ("o.npz", "link"),
        ("o.npz.partial", "folder"),
        ("o.npz.partial", "folder link"),
        ("o.npz.partial", "file"),
        (".o.npz.lock", "file"),
        (".o.npz.lock", "link"),
        (".o.npz.lock.json", "link"),
        (".o.npz.tmp", "link"),
    ],
    "mine": [
        ("rare", "file"),
        ("rare", "link"),
        ("rare/thesis.txt", "file"),
        (".rare.lock", "file"),
        (".rare.lock", "link"),
    ],
    "finetune": [
        ("new", "file"),
        ("new", "link"),
        ("new/thesis.txt", "file"),
        ("new/.lock", "file"),
        ("new/.lock", "link"),
    ],
    "predict": [
        ("p.csv", "file"),
        ("p.csv", "link"),
        ("p.csv.partial", "folder"),
        ("p.csv.partial", "folder link"),
        ("p.csv.partial", "file"),
        (".p.csv.lock", "file"),
        (".p.csv.lock", "link"),
    ],
    "convert": [
        ("o.safetensors", "file"),
        ("o.safetensors", "link"),
        (".o.safetensors.tmp", "link"),
        (".o.safetensors.lock", "link"),
    ],
    "export": [
        ("e.safetensors", "file"),
        ("e.safetensors", "link"),
        (".e.safetensors.lock", "link"),
    ],
    "report": [
        ("run/report.html", "file"),
        ("run/report.html", "link"),
        ("run/.report.html.tmp", "link"),
        ("run/.report.html.lock", "link"),
    ],
    "paper": [("paper.tex", "file"), ("paper.tex", "link"), (".paper.tex.tmp", "link")],
    "dry run": [
        ("new-views.png", "file"),
        ("new-views.png", "link"),
        (".new-views.png.tmp", "link"),
    ],
    "pretrain": [
        ("new", "file"),
        ("new/thesis.txt", "file"),
        ("new/.lock", "file"),
        ("new/.lock", "link"),
    ],
    "evaluate": [("run/evaluation/.cached.json.tmp", "link"), ("run/.lock.json", "link")],
}
FAST_FOREIGN = {("embed", "o.npz.partial", "folder"), ("embed", "o.npz.partial", "folder link")}
FAST_FOREIGN |= {("report", "run/.report.html.tmp", "link"), ("report", "run/report.html", "file")}
FAST_FOREIGN |= {("convert", "o.safetensors", "file"), ("pretrain", "new/.lock", "link")}


def planted() -> list[object]:
    return [
        pytest.param(
            verb, name, kind, marks=() if (verb, name, kind) in FAST_FOREIGN else pytest.mark.slow
        )
        for verb, places in DERIVED.items()
        for name, kind in places
    ]


@pytest.mark.parametrize(("verb", "name", "kind"), planted())
def test_a_foreign_file_under_a_name_of_ours_stays(
    here: Path, verb: str, name: str, kind: str
) -> None:
    victims = here / "victims"
    victims.mkdir()
    (victims / "thesis.txt").write_text("precious")
    place = here / name
    place.parent.mkdir(exist_ok=True)
    if kind == "file":
        place.write_text("precious")
    elif kind == "link":
        place.symlink_to(victims / "thesis.txt")
    elif kind == "folder":
        place.mkdir()
        (place / "thesis.txt").write_text("precious")
    else:
        place.symlink_to(victims, target_is_directory=True)
    is_clean(main(VERBS[verb]))
    assert (victims / "thesis.txt").read_text() == "precious"
    assert os.path.lexists(place)
    if kind == "file":
        assert place.read_text() == "precious"
    elif kind == "folder":
        assert (place / "thesis.txt").read_text() == "precious"
    else:
        assert place.is_symlink()


OVERWRITING = {
    "embed": ("o.npz", VERBS["embed"]),
    "predict": ("p.csv", VERBS["predict"]),
    "convert": ("o.safetensors", VERBS["convert"]),
    "export": ("e.safetensors", VERBS["export"]),
    "report": ("o.html", ["report", "run", "--format", "html", "--out", "o.html"]),
    "report into a folder": ("report.md", ["report", "run", "--format", "markdown", "--out", "."]),
    "paper": ("paper.tex", VERBS["paper"]),
    "dry run": ("new-views.png", VERBS["dry run"]),
}


@pytest.mark.parametrize(
    "verb",
    [
        n if n in ("embed", "report") else pytest.param(n, marks=pytest.mark.slow)
        for n in OVERWRITING
    ],
)
def test_a_file_that_exists_is_replaced_only_with_overwrite(here: Path, verb: str) -> None:
    name, arguments = OVERWRITING[verb]
    (here / name).write_text("precious")
    code, _, err = main(arguments)
    assert code == 78
    assert "--overwrite" in err
    assert (here / name).read_text() == "precious"
    code, _, err = main([*arguments, "--overwrite"])
    assert code == 0, err
    assert (here / name).read_bytes() != b"precious"


def test_a_report_that_has_no_place_measures_nothing(here: Path) -> None:
    shutil.rmtree(here / "run" / "examination", ignore_errors=True)
    (here / "o.html").write_text("precious")
    assert main(OVERWRITING["report"][1])[0] == 78
    assert not (here / "run" / "examination").exists()
    assert main(["report", "run", "--format", "html", "--out", "new/o.html"])[0] == 0
    assert [path.name for path in (here / "new").iterdir()] == ["o.html"]
    arguments = ["report", "run", "--protocol", "none", "--format", "html", "--out", "x/y/o.html"]
    assert main(arguments)[0] == 66
    assert not (here / "x").exists()


def test_our_own_report_in_a_run_folder_is_replaced(here: Path) -> None:
    for _ in range(2):
        assert main(VERBS["report"])[0] == 0


@pytest.mark.slow
def test_our_own_sheet_is_drawn_again(here: Path) -> None:
    for _ in range(2):
        assert main(VERBS["dry run"])[0] == 0


def test_a_runs_own_backbone_is_not_replaced_by_another(here: Path) -> None:
    before = (here / "run" / "backbone.safetensors").read_bytes()
    code, _, err = main(["convert", "theirs.pt", "run/backbone.safetensors", "--overwrite"])
    assert code == 78
    assert "has trained" in err
    assert (here / "run" / "backbone.safetensors").read_bytes() == before


# ---- two at once


@pytest.mark.parametrize(
    ("verb", "module", "function"),
    [
        ("embed", "sdclr.jobs.embed", "load_backbone"),
        ("report", "sdclr.workflows.reports", "has_own_images"),
        pytest.param("convert", "sdclr.jobs.convert", "save_backbone", marks=pytest.mark.slow),
        pytest.param("export", "sdclr.jobs.export", "read_backbone", marks=pytest.mark.slow),
        pytest.param("dry run", "sdclr.workflows.own_images", "preview", marks=pytest.mark.slow),
        pytest.param(
            "evaluate", "sdclr.jobs.evaluate.job", "load_backbone", marks=pytest.mark.slow
        ),
        pytest.param(
            "pretrain", "sdclr.jobs.pretrain.folder", "require_no_history", marks=pytest.mark.slow
        ),
    ],
)
def test_the_second_of_two_is_told_at_once_and_the_first_ends_well(
    here: Path, monkeypatch: pytest.MonkeyPatch, verb: str, module: str, function: str
) -> None:
    before: Callable[..., object] = getattr(
        sys.modules.get(module) or __import__(module, fromlist=["x"]), function
    )
    second: list[Outcome] = []

    def meanwhile(*arguments: object, **keywords: object) -> object:
        if not second:
            second.append((0, "", ""))
            second[0] = main(VERBS[verb])
        return before(*arguments, **keywords)

    monkeypatch.setattr(f"{module}.{function}", meanwhile)
    is_clean(main(VERBS[verb]), ok=True)
    code, _, err = second[0]
    assert code == 73, err
    assert f"in use by another process (process {os.getpid()} on" in err


# ---- what the system refuses where nobody foresaw it


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.ENAMETOOLONG, errno.EIO, errno.ENOSPC, errno.ENOENT]
)
def test_whatever_the_system_refuses_is_no_bug(
    here: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number), "some/file")

    monkeypatch.setattr("sdclr.jobs.status.read_status", refuse)
    outcome = main(VERBS["status"])
    is_clean(outcome, ok=False)
    assert "some/file" in outcome[2]
    assert os.strerror(number) in outcome[2] or number == errno.ENOENT


@pytest.mark.parametrize("formats", [",", "", " , "])
def test_no_format_at_all_is_refused(here: Path, formats: str) -> None:
    code, _, err = main(["report", "run", "--format", formats])
    assert code == 78
    assert "no report format is given" in err


def test_a_folder_without_a_slash_is_images(here: Path) -> None:
    code, out, err = main(["pretrain", "photos", "--out", "a b", *TINY])
    assert code == 0, err
    assert "next: sdclr report 'a b'" in out


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"RANK": "5", "WORLD_SIZE": "2"}, "RANK=5 must be below WORLD_SIZE=2"),
        ({"RANK": "1"}, "RANK=1 must be below WORLD_SIZE=1"),
        ({"WORLD_SIZE": "0"}, "at least 1"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "99999", "MASTER_ADDR": "localhost"},
            "from 1 to 65535",
        ),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "0", "MASTER_ADDR": "localhost"},
            "from 1 to 65535",
        ),
        ({"RANK": "9" * 5000, "WORLD_SIZE": "2"}, "RANK must be a whole number"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK must be a whole number"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "2"},
            "LOCAL_RANK=2 must be below",
        ),
    ],
)
@pytest.mark.parametrize("verb", ["pretrain", "resume", "status"])
def test_an_environment_that_cannot_be_meant_is_refused_at_once(
    here: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: str, verb: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, _, err = main(VERBS[verb])
    assert code == 80
    assert words in err
    assert not (here / "new").exists()


# ---- a run that cannot go on, or cannot begin


LONGER = [setting.replace("epochs=1", "epochs=3") for setting in TINY]


def test_an_image_that_vanishes_loses_nothing_that_was_trained(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["pretrain", "./photos", "--out", "new", *LONGER, "checkpoint_every_epochs=3"]
    whole = ["pretrain", "./photos", "--out", "whole", *arguments[4:]]
    assert main(whole)[0] == 0

    def vanish(_: object, state: TrainingState) -> None:
        if state.step == 3:
            for path in (here / "photos").iterdir():
                path.rename(here / path.name)

    with monkeypatch.context() as patch:
        patch_steps(patch, then=vanish)
        code, _, err = main(arguments)
    assert code in (65, 66, 74), err
    assert "is saved; fix this, then continue with: sdclr resume new" in err
    saved = Run(here / "new").checkpoints.steps()[0]
    assert saved >= 3, "not the checkpoint of step 0"
    for path in list(here.glob("[0-9][0-9].png")):
        path.rename(here / "photos" / path.name)
    assert main(["resume", "new"])[0] == 0
    assert state_hash(here / "new") == state_hash(here / "whole")


def test_weights_that_are_no_backbone_are_named_for_what_they_are(here: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), here / "x.pth")
    code, _, err = main([*VERBS["pretrain"], "--weights", "x.pth"])
    assert code == 76
    assert "x.pth does not fit this network: of its" in err
    assert "backbone.name=" in err


def test_weights_that_are_not_finite_are_named_and_no_rate_is_blamed(here: Path) -> None:
    file = read_backbone(here / "run")
    tensors, facts = file.tensors, file.facts
    tensors["conv1.weight"][0] = float("nan")
    write_tensors(here / "nan.safetensors", tensors, facts)
    code, _, err = main([*VERBS["pretrain"], "--weights", "nan.safetensors"])
    assert code == 76
    assert "conv1.weight" in err
    assert "learning_rate" not in err


@pytest.mark.parametrize(
    "arguments", [["./photos", "--out", "photos"], ["photos", "--out", "./photos/"]]
)
def test_the_images_own_folder_is_no_run_folder(here: Path, arguments: list[str]) -> None:
    code, _, err = main(["pretrain", *arguments, *TINY])
    assert code == 78
    assert "is the folder of the images" in err
    assert len(os.listdir(here / "photos")) == 40


# ---- systems and interpreters that lack something


def in_an_interpreter(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.processes
def test_without_docstrings_and_assertions_the_help_is_whole() -> None:
    ended = in_an_interpreter("-OO", "-m", "sdclr", "--help")
    assert (ended.returncode, "pretrain" in ended.stdout) == (0, True), ended.stderr


@pytest.mark.slow  # every module is compiled anew
@pytest.mark.parametrize("verb", VERBS)
def test_without_docstrings_and_assertions_everything_works(here: Path, verb: str) -> None:
    ended = in_an_interpreter("-OO", "-m", "sdclr", *VERBS[verb])
    assert ended.returncode == 0, ended.stderr


WITHOUT_POSIX = """
import asyncio, os, signal, sys  # Python's own library knows what to do without: here it has to be loaded with them
sys.modules["fcntl"] = sys.modules["resource"] = None
for module, names in (
    (os, "O_NOFOLLOW O_DIRECTORY pread pwrite sched_getaffinity getloadavg sysconf".split()),
    (signal, "SIGHUP SIGUSR1".split()),
):
    for name in names:
        delattr(module, name)
from sdclr.cli import main
sys.argv[0] = "sdclr"
main()
"""


@pytest.mark.slow
def test_the_package_works_without_what_only_posix_has(here: Path) -> None:
    """What stands for Windows here: the names are gone, the rest is this system's."""
    arguments = [*VERBS["pretrain a folder"], f"data.store={here / 'store'}"]
    ended = in_an_interpreter("-W", "ignore", "-c", WITHOUT_POSIX, *arguments)
    assert ended.returncode == 0, ended.stderr
    assert (here / "new" / "backbone.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "verb", ["status", "embed", "convert", "report", "dry run", "resume", "evaluate"]
)
def test_every_other_verb_works_without_what_only_posix_has(here: Path, verb: str) -> None:
    ended = in_an_interpreter("-W", "ignore", "-c", WITHOUT_POSIX, *VERBS[verb])
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-", "2>&1 | head -1", ">/dev/full 2>&1"]
)
def test_a_shell_that_closes_streams_changes_no_file(here: Path, closed: str) -> None:
    """A file opened later must not become standard output: what is printed would go into it."""
    line = f"{command(sys.executable, '-m', 'sdclr', *VERBS['pretrain'])} {closed}"
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert main(["evaluate", "new", "--probes", "knn"])[0] == 0


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["demo", "--out", "all", *TINY], "report.html"),
        *[
            (["reproduce", "digits", "--out", "all"], name)
            for name in ("report.html", "paper.md", "paper.csv", "paper.tex")
        ],
    ],
)
def test_a_workflow_finds_a_foreign_report_before_its_work(
    here: Path, arguments: list[str], name: str
) -> None:
    (here / "all").mkdir()
    (here / "all" / name).write_text("precious")
    code, _, err = main(arguments)
    assert code == 78
    assert "was not written by sdclr" in err
    assert os.listdir(here / "all") == [name]
    assert (here / "all" / name).read_text() == "precious"
