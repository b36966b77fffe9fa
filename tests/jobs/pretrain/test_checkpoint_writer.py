"""Who writes checkpoints: copies are real, writes do not overlap, and no failure or write gets lost."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

import pytest
import torch

from patience import PATIENCE_SECONDS, wait_until
from sdclr import pretrain, recipe
from sdclr.errors import StorageError
from sdclr.jobs.pretrain.checkpoint_writer import CheckpointWriter
from sdclr.storage import durable_files
from sdclr.storage.checkpoint import Checkpoint, CheckpointFolder
from sdclr.storage.durable_files import Files
from sdclr.storage.tensor_files import read_tensors

CPU = torch.device("cpu")


class WatchedDisk(Files):
    """Notes which threads sync, and how many at a time; waits for ``released``, or fails, where told to."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.threads: set[str] = set()
        self.now = self.most = 0
        self.released = threading.Event()
        self.released.set()
        self.error: OSError | None = None

    def sync(self, file: FileIO) -> None:
        self.threads.add(threading.current_thread().name)
        self.now += 1
        self.most = max(self.most, self.now)
        assert self.released.wait(PATIENCE_SECONDS)
        time.sleep(self.seconds)
        super().sync(file)
        self.now -= 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[WatchedDisk]:
    watched = WatchedDisk()
    monkeypatch.setattr(durable_files, "files", watched)
    yield watched
    watched.released.set()


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints")


def moment(step: int) -> Checkpoint:
    return Checkpoint(step, {"w": torch.full((4, 3), float(step))}, {})


def test_beside_a_cpu_the_loop_writes_and_a_cuda_device_gets_a_thread(
    disk: WatchedDisk, folder: CheckpointFolder
) -> None:
    for device, name in ((CPU, "MainThread"), (torch.device("cuda", 1), "checkpoints_0")):
        disk.threads.clear()
        with CheckpointWriter(device) as writer:
            writer.write(folder, moment(1))
        assert disk.threads == {name}


@pytest.mark.usefixtures("writing_thread")
def test_the_loop_goes_on_while_the_disk_is_busy_and_its_weights_may_change(
    disk: WatchedDisk, folder: CheckpointFolder
) -> None:
    disk.released.clear()
    with CheckpointWriter(CPU) as writer:
        saved = moment(3)
        writer.write(folder, saved)
        writer.check()  # nothing to tell yet
        saved.tensors["w"].zero_()
        assert folder.steps() == []
        disk.released.set()
        writer.wait()
        assert folder.steps() == [3]
    found = folder.newest()
    assert found is not None
    assert torch.equal(found.tensors["w"], moment(3).tensors["w"])


@pytest.mark.usefixtures("writing_thread")
def test_a_slow_disk_never_has_two_writes_at_a_time(
    disk: WatchedDisk, folder: CheckpointFolder
) -> None:
    disk.seconds = 0.02
    with CheckpointWriter(CPU) as writer:
        for step in range(1, 8):
            writer.write(folder, moment(step))
            assert folder.steps()[:1] in ([], [step - 1], [step]), "the one before is on the disk"
    assert folder.steps() == [7, 6]
    assert disk.most == 1


def check_again_and_again(writer: CheckpointWriter, folder: CheckpointFolder) -> None:
    def checked() -> bool:
        writer.check()
        return False

    wait_until(checked, "no error is raised")


OCCASIONS: dict[str, Callable[[CheckpointWriter, CheckpointFolder], None]] = {
    "a check": check_again_and_again,
    "waiting": lambda writer, folder: writer.wait(),
    "the next save": lambda writer, folder: writer.write(folder, moment(2)),
    "the end": lambda writer, folder: writer.__exit__(None, None, None),
}


@pytest.mark.usefixtures("writing_thread")
@pytest.mark.parametrize("occasion", OCCASIONS)
def test_what_the_disk_refuses_is_raised_once_at_the_next_occasion(
    disk: WatchedDisk, folder: CheckpointFolder, occasion: str
) -> None:
    disk.error = OSError(errno.ENOSPC, "No space left on device")
    with CheckpointWriter(CPU) as writer:
        writer.write(folder, moment(1))
        with pytest.raises(
            StorageError, match=r"cannot be written: No space left on device\. Free space"
        ):
            OCCASIONS[occasion](writer, folder)
        writer.check()
        writer.wait()
    assert folder.steps() == []
    assert not list(folder.folder.glob(".*"))


def save_and_fail(folder: CheckpointFolder) -> None:
    with CheckpointWriter(CPU) as writer:
        writer.write(folder, moment(1))
        raise KeyError("of the loop")


@pytest.mark.usefixtures("writing_thread")
def test_an_error_of_the_loop_waits_for_the_write_and_is_the_one_to_show(
    disk: WatchedDisk, folder: CheckpointFolder
) -> None:
    disk.seconds = 0.05
    with pytest.raises(KeyError, match="of the loop"):
        save_and_fail(folder)
    assert folder.steps() == [1]
    disk.error = OSError(errno.EROFS, "Read-only file system")
    with pytest.raises(KeyError, match="of the loop"):
        save_and_fail(folder)


@pytest.mark.usefixtures("writing_thread")
def test_what_is_read_back_is_on_the_disk_at_once(
    disk: WatchedDisk, folder: CheckpointFolder
) -> None:
    with CheckpointWriter(CPU) as writer:
        writer.write(folder, moment(0), read_back=True)
        assert folder.steps() == [0]
    assert disk.threads == {"MainThread"}


def test_a_run_with_a_thread_writes_the_same_files(
    tmp_path: Path, disk: WatchedDisk, request: pytest.FixtureRequest
) -> None:
    overrides = [
        "backbone.width=2",
        "views.size=8",
        "health_every_epochs=0",
        "batch_size=150",
        "epochs=2",
        "checkpoint_every_minutes=1e-9",
    ]
    config = recipe("digits_sdclr").with_overrides(overrides)
    plain = pretrain(config, tmp_path / "plain")
    assert disk.threads == {"MainThread"}
    request.getfixturevalue("writing_thread")
    disk.seconds = 0.01  # slower than a step
    threaded = pretrain(config, tmp_path / "threaded")
    assert len(disk.threads) == 2
    assert disk.most == 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("checkpoints")]

    assert plain.backbone_path.read_bytes() == threaded.backbone_path.read_bytes()
    assert plain.checkpoints.steps() == threaded.checkpoints.steps()
    for mine, theirs in zip(
        *(sorted(run.checkpoints.folder.iterdir()) for run in (plain, threaded)), strict=True
    ):
        (tensors, _), (others, _) = read_tensors(mine), read_tensors(theirs)
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())
