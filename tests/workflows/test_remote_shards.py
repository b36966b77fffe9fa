"""A command takes an address wherever it takes a shard, and gives the same numbers."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from photo_folder import photo
from range_server import RangeServer, range_server
from sdclr import Run, cli
from sdclr.data.remote import members, ranges
from sdclr.workflows import own_images as own_images_module
from shard_stand_in import shards_of

pytestmark = pytest.mark.journeys

TINY = ["backbone.width=2", "views.size=32", "epochs=2", "health_every_epochs=0"]
RANGE = "train-{000..002}.tar"
Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def sdclr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Cli:
    """Runs a command line in a folder that holds shards/: exit code, and all that it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDCLR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ranges, "FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(own_images_module, "bf16_speedup_of_cpu", lambda: 0.0)
    members._windows.clear()
    names = []
    for number in range(34):
        name = f"{'rare' if number % 3 == 0 else 'common'}/{number}.jpg"
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        photo(number % 3, number).save(tmp_path / "photos" / name)
        names.append(name)
    shards_of(tmp_path / "photos", names, tmp_path / "shards", 3, classes=["common", "rare"])

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sdclr", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), " ".join(f"{out.out} {out.err}".split())

    return run


@pytest.fixture
def server(sdclr: Cli, tmp_path: Path) -> Iterator[RangeServer]:
    """Serves the shards to whoever knows the query."""
    files = {f"/d/{one.name}": one.read_bytes() for one in (tmp_path / "shards").iterdir()}
    with range_server(files) as state:
        state.query = "sig=LETMEIN"
        yield state


def losses(out: str) -> list[float]:
    return [line["loss"] for line in Run(f"runs/{out}").metrics()]


def test_a_run_on_shards_at_an_address_is_that_on_the_same_shards_here(
    sdclr: Cli, server: RangeServer, tmp_path: Path
) -> None:
    address = f"{server.address}/d/{RANGE}"
    signed = f"{address}?sig=LETMEIN"
    for out, source in (("here", f"shards/{RANGE}"), ("there", signed)):
        code, said = sdclr("pretrain", source, "--out", f"runs/{out}", *TINY)
        assert code == 0, said
        assert "LETMEIN" not in said
    assert losses("here") == losses("there")
    weights = [Path(f"runs/{out}/backbone.safetensors").read_bytes() for out in ("here", "there")]
    assert weights[0] == weights[1]
    assert Run("runs/there").settings()["data"]["path"] == address

    code, said = sdclr("pretrain", signed, "--out", "runs/there", *TINY)
    assert (code, "is finished" in said) == (0, True), said
    code, said = sdclr("embed", "runs/there", signed, "--out", "there.npz")
    assert code == 0, said
    code, said = sdclr("embed", "runs/here", f"shards/{RANGE}", "--out", "here.npz")
    assert code == 0, said
    with np.load("here.npz") as here, np.load("there.npz") as there:
        np.testing.assert_array_equal(here["features"], there["features"])
        assert here["path"].tolist() == there["path"].tolist()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if b"LETMEIN" in path.read_bytes()]


@pytest.mark.slow
def test_every_verb_that_takes_a_shard_takes_its_address(
    sdclr: Cli, server: RangeServer, tmp_path: Path
) -> None:
    signed = f"{server.address}/d/{RANGE}?sig=LETMEIN"
    (tmp_path / "labels.csv").write_text(
        "path,label\n"
        + "".join(f"train-{n // 12:03d}.tar/{n:06d}.jpg,{n % 2}\n" for n in range(34))
    )
    for arguments in (
        ("pretrain", signed, "--out", "run", *TINY),
        ("embed", "run", signed, "--out", "features.npz"),
        ("evaluate", "run", "--data", signed, "--probes", "knn"),
        ("evaluate", "run", "--data", signed, "--labels", "labels.csv", "--probes", "knn"),
        ("finetune", "run", "--labels", signed, "--out", "model", "--epochs", "1"),
        ("predict", "model", signed, "--out", "predictions.csv"),
        ("mine", "run", signed, "--out", "mined"),
        ("mine", "--backbone", "run/backbone.safetensors", signed, "--out", "mined2"),
        ("pretrain", signed, "--out", "tested", *TINY, f"data.test_path={signed}"),
    ):
        code, said = sdclr(*arguments)
        expected = (65, True) if "tested" in arguments else (0, False)
        assert (code, "test images are training images as well" in said) == expected, said
        assert "LETMEIN" not in said
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if b"LETMEIN" in path.read_bytes()]


def test_a_run_goes_on_where_its_shards_have_moved_to_an_address_and_back(
    sdclr: Cli, server: RangeServer, tmp_path: Path
) -> None:
    server.query = None
    code, said = sdclr("pretrain", f"shards/{RANGE}", "--out", "runs/x", *TINY)
    assert code == 0, said
    shutil.rmtree(tmp_path / "shards")
    code, said = sdclr(
        "evaluate", "runs/x", "--data", f"{server.address}/d/{RANGE}", "--probes", "knn"
    )
    assert code == 0, said


def test_a_start_without_the_signature_says_what_is_missing(
    sdclr: Cli, server: RangeServer
) -> None:
    code, said = sdclr("pretrain", f"{server.address}/d/{RANGE}", "--out", "runs/x", *TINY)
    assert code == 69
    assert "may not be read: the server answers 403" in said
    assert "has to be given whole, with its query" in said
    assert not Path("runs/x").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["pretrain", "https://host/a.npz"], 78, "arrays must be on a disk"),
        (["pretrain", "nothing://host/a.tar"], 78, "addresses nothing:// are not known"),
        (["pretrain", "https://host/photos.zip"], 65, "at an address, images are read from .tar"),
        (["pretrain", "digits_sdclr", "data.store=s3://b/x"], 78, "must be a folder on a disk"),
        (["pretrain", "cifar10_lt_sdclr", "--data", "s3://b/x"], 78, "cifar10 must be on a disk"),
    ],
)
def test_where_an_address_cannot_be_read_one_sentence_says_so(
    sdclr: Cli, arguments: list[str], code: int, words: str
) -> None:
    found, said = sdclr(*arguments, "--out", "runs/x")
    assert (found, words in said) == (code, True), said
    assert "Traceback" not in said
    assert not Path("runs/x").exists()


def test_results_are_written_to_this_machine_and_an_address_is_refused(
    sdclr: Cli, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    for arguments in (
        ("pretrain", "shards", "--out", "s3://bucket/run?k=LETMEIN"),
        ("embed", "s3://bucket/run", "shards"),
    ):
        code, said = sdclr(*arguments)
        assert code == 78, said
        assert "was given where a path on this machine is needed" in said
        assert "LETMEIN" not in said
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_workers_of_a_grid_open_what_a_signed_address_opens(
    sdclr: Cli, server: RangeServer, tmp_path: Path
) -> None:
    Path("grid.yaml").write_text(
        "base: digits_sdclr\nprobes: [knn]\nseeds: [1, 2]\narms: {half: {settings: {method.prune_ratio: 0.5}}}\n"
        "overrides: {data.name: images, data.validation_per_class: 3, batch_size: 8, "
        "epochs: 1, views.size: 32, backbone.width: 2, health_every_epochs: 0}\n"
    )
    signed = f"{server.address}/d/{RANGE}?sig=LETMEIN"
    code, said = sdclr("grid", "grid.yaml", "--data", signed, "--workers", "2", "--out", "out")
    assert (code, "LETMEIN" in said) == (0, False), said
    code, said = sdclr("grid", "grid.yaml", "--data", signed, "--print-commands", "--out", "out")
    assert (code, "LETMEIN" in said) == (0, False), said
    assert "the address of --data without its query" in said
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if b"LETMEIN" in path.read_bytes()]
