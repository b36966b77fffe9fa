"""A run on shards of another machine ends in its numbers or in one sentence, and goes on from there.

What single requests and indices do is in tests/data/remote and tests/data/sources; here whole runs are disturbed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from one_training import around_steps
from photo_folder import photo
from range_server import Fault, RangeServer, range_server
from sdclr import Run, embed, pretrain
from sdclr.data.remote import members, ranges
from sdclr.errors import RemoteError
from sdclr.jobs.pretrain import step as step_module
from sdclr.settings import PretrainConfig
from several_processes import codes, started
from shard_stand_in import write_shard

pytestmark = pytest.mark.journeys


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Two shards of 20 photographs."""
    folder = tmp_path_factory.mktemp("shards")
    found = {}
    for which in range(2):
        parts = []
        for number in range(20):
            path = folder / f"{which}{number:03d}.png"
            photo(number % 4, number + 100 * which, 24).save(path)
            parts.append((path.name, path.read_bytes()))
        found[f"/{which}.tar"] = write_shard(folder / f"{which}.tar", parts).read_bytes()
    return found


@pytest.fixture
def server(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RangeServer]:
    """Nothing of what it sends is kept, on disk or in memory, so that every epoch asks for every image."""
    monkeypatch.setenv("SDCLR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SDCLR_CACHE_GB", "0")
    monkeypatch.setenv("SDCLR_REMOTE_RETRIES", "2")
    monkeypatch.setattr(ranges, "FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(members, "MOST_WINDOWS", 0)
    members._windows.clear()
    with range_server(dict(files)) as state:
        yield state


def config(place: str) -> PretrainConfig:
    settings = {
        "recipe": "own_images",
        "data": {"name": "images", "path": place, "subset": "all"},
        "method": {"name": "simclr"},
    }
    return PretrainConfig.parse(settings).with_overrides(
        [
            *("epochs=3", "batch_size=8", "views.size=8", "backbone.width=2"),
            *("backbone.name=resnet10", "checkpoint_every_epochs=1", "health_every_epochs=0"),
        ]
    )


@pytest.fixture(scope="module")
def expected(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a run on the same shards on a disk."""
    folder = tmp_path_factory.mktemp("here")
    for name, content in files.items():
        (folder / name[1:]).write_bytes(content)
    return weights(pretrain(config(str(folder)), folder.parent / "run-here"))


def weights(run: Run) -> bytes:
    return run.backbone_path.read_bytes()


def place(server: RangeServer) -> str:
    return f"{server.address}/{{0..1}}.tar"


def test_a_run_that_is_disturbed_at_every_tenth_request_has_the_same_weights(
    server: RangeServer, expected: bytes, tmp_path: Path
) -> None:
    kinds: list[Fault] = ["busy", "cut", "dropped", "short"]
    server.faults[:] = [
        kinds[number // 10 % 4] if number % 10 == 0 else None for number in range(4_000)
    ]
    assert weights(pretrain(config(place(server)), tmp_path / "run")) == expected
    assert len(server.asked) > 100


@pytest.mark.parametrize("loss", ["vanished", "changed"])
def test_a_shard_that_is_lost_during_a_run_is_named_and_the_run_goes_on_when_it_is_back(
    server: RangeServer, expected: bytes, loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = server.files["/1.tar"]

    def lose(*_: object) -> None:
        if loss == "vanished":
            server.files.pop("/1.tar", None)
        else:
            server.files["/1.tar"] = whole + bytes(512)

    with monkeypatch.context() as patch:
        patch.setattr(step_module, "train_step", around_steps(then=lose))
        with pytest.raises(RemoteError, match=rf"/1\.tar has {loss} since it was indexed"):
            pretrain(config(place(server)), tmp_path / "run")
    server.files["/1.tar"] = whole
    assert weights(pretrain(config(place(server)), tmp_path / "run")) == expected


def test_a_server_that_is_away_during_a_run_ends_it_with_a_sentence_and_it_goes_on_later(
    server: RangeServer, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        away = around_steps(then=lambda *_: server.faults.extend(["busy"] * 4_000))
        patch.setattr(step_module, "train_step", away)
        with pytest.raises(RemoteError, match=r"\.tar cannot be read after 3 tries: .*503"):
            pretrain(config(place(server)), tmp_path / "run")
    server.faults.clear()
    assert weights(pretrain(config(place(server)), tmp_path / "run")) == expected


@pytest.mark.processes
def test_two_processes_embed_shards_at_an_address_as_one_does(
    server: RangeServer, expected: bytes, tmp_path: Path
) -> None:
    data = config(place(server)).data
    run = pretrain(config(place(server)), tmp_path / "run")  # its connections are open when forked
    alone = embed(run.folder, data, tmp_path / "one.npz")
    assert codes(started(2, lambda rank: embed(run.folder, data, tmp_path / "two.npz"))) == [0, 0]
    with np.load(alone) as one, np.load(tmp_path / "two.npz") as two:
        np.testing.assert_array_equal(one["features"], two["features"])
        assert one["path"].tolist() == two["path"].tolist()
