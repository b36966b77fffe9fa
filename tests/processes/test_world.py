"""Who a process is; how several behave is shown in tests/reliability/test_several_processes.py."""

from __future__ import annotations

import types

import pytest
import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from sdclr.errors import ConfigError, DistributedError
from sdclr.processes import world as distributed
from sdclr.processes.environment import processes_here, require_one_process, world_size
from sdclr.processes.world import ALONE, World, joined


def test_one_process_is_the_identity() -> None:
    with joined() as world:
        assert world is ALONE
    assert not world.several
    assert world.is_first
    values = torch.tensor([1.0, 2.0])
    assert world.all_reduce(values) is values
    assert world.device(torch.device("cuda:3")) == torch.device("cuda:3")
    world.require_images(2)
    world.connect(torch.device("cpu"))
    world.set_patience(1.0)
    assert world.messages.broadcast("facts", {"a": 1}) == {"a": 1}


def test_an_environment_that_makes_no_sense_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(DistributedError, match="WORLD_SIZE must be a whole number, got 'two'"):
        world_size()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DistributedError, match="needs RANK, MASTER_ADDR and MASTER_PORT"), joined():
        pass
    with pytest.raises(
        DistributedError, match="a demo runs on one process; start it without torchrun"
    ):
        require_one_process("a demo")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "0")
    assert processes_here() == 1


def test_a_batch_too_small_to_share_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"a batch of 2 images .* cannot be shared by 3 processes"
    ):
        World(0, 3).require_images(2)


@pytest.mark.parametrize(("local", "name"), [("1", "cuda:0"), ("9", "cuda")])
def test_a_gpu_that_is_not_its_own_is_refused(
    monkeypatch: pytest.MonkeyPatch, local: str, name: str
) -> None:
    monkeypatch.setenv("LOCAL_RANK", local)
    with pytest.raises(
        ConfigError, match=f"device={name} cannot be given to process {local} of this machine"
    ):
        World(int(local), 10).device(torch.device(name))


def seeing(monkeypatch: pytest.MonkeyPatch, num_gpus: int, gpu: str = "") -> None:
    """A machine on which this process sees so many GPUs."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: types.SimpleNamespace(uuid=gpu)
    )


@pytest.mark.parametrize(
    ("num_gpus", "local", "own"), [(4, "2", "cuda:2"), (1, "2", "cuda:0"), (1, "0", "cuda:0")]
)
def test_a_process_takes_the_gpu_of_its_number_or_the_only_one_that_it_is_shown(
    monkeypatch: pytest.MonkeyPatch, num_gpus: int, local: str, own: str
) -> None:
    seeing(monkeypatch, num_gpus)
    monkeypatch.setenv("LOCAL_RANK", local)
    assert World(int(local), 4).device(torch.device("cuda")) == torch.device(own)


def test_two_processes_with_one_gpu_are_told_before_they_meet(
    monkeypatch: pytest.MonkeyPatch, store: c10d.Store
) -> None:
    seeing(monkeypatch, 1, gpu="GPU-7")
    monkeypatch.setenv("LOCAL_RANK", "1")
    first, second = World(0, 2, store), World(1, 2, store)
    first.messages.publish("built/0", {"gpu": "GPU-7"})
    with pytest.raises(ConfigError, match=r"processes 0 and 1 have taken one GPU \(GPU-7\)"):
        second.connect(second.device(torch.device("cuda")))


def test_how_long_the_start_may_take_is_a_setting(store: c10d.Store) -> None:
    with pytest.raises(DistributedError, match=r"did not get as far in 0\.2 s \(facts\)"):
        World(1, 2, store, start_seconds=0.2).messages.broadcast("facts", {})


@pytest.fixture
def store() -> c10d.Store:
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def test_a_process_that_meets_another_job_ends_alone(store: c10d.Store) -> None:
    first, second = World(0, 2, store), World(1, 2, store)
    distributed._require_own_job(first, "runs/a")
    with pytest.raises(
        DistributedError, match=r"another job uses .*job 'runs/a' there, 'runs/b' here.*MASTER_PORT"
    ):
        distributed._require_own_job(World(1, 2, store), "runs/b")
    with pytest.raises(DistributedError, match="WORLD_SIZE '2' there, '3' here"):
        distributed._require_own_job(World(2, 3, store), "runs/a")
    distributed._require_own_job(second, "runs/a")
    with pytest.raises(DistributedError, match="another process 1 has joined the job"):
        distributed._require_own_job(World(1, 2, store), "runs/a")
    with pytest.raises(DistributedError, match="another process 0 has joined the job"):
        distributed._require_own_job(World(0, 2, store), "runs/a")
    second.messages.publish("built", {"well": 1})
    assert first.messages.wait_for("built") == {"well": 1}, "nobody has told these two of a failure"
