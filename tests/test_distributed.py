"""Who a process is; how several behave is shown in tests/reliability/test_several_processes.py."""

from __future__ import annotations

import time

import pytest
import torch

from sdclr import distributed
from sdclr.distributed import ALONE, World, joined, processes_here, require_one_process, world_size
from sdclr.errors import ConfigError, DistributedError


def test_one_process_is_the_identity() -> None:
    with joined() as world:
        assert world is ALONE
    assert not world.several
    assert world.is_first
    values = torch.tensor([1.0, 2.0])
    assert world.sum(values) is values
    assert world.device(torch.device("cuda:3")) == torch.device("cuda:3")
    world.require_images(2)
    world.connect(torch.device("cpu"))
    world.set_patience(1.0)
    assert world.of_first("facts", {"a": 1}) == {"a": 1}


def test_an_environment_that_makes_no_sense_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(DistributedError, match="WORLD_SIZE must be a whole number, got 'two'"):
        world_size()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DistributedError, match="needs RANK, MASTER_ADDR and MASTER_PORT"), joined():
        pass
    with pytest.raises(DistributedError, match="a demo runs on one process; start it without torchrun"):
        require_one_process("a demo")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "0")
    assert processes_here() == 1


def test_a_batch_too_small_to_share_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a batch of 2 images .* cannot be shared by 3 processes"):
        World(0, 3).require_images(2)


@pytest.mark.parametrize(("local", "name"), [("1", "cuda:0"), ("9", "cuda")])
def test_a_gpu_that_is_not_its_own_is_refused(monkeypatch: pytest.MonkeyPatch, local: str, name: str) -> None:
    monkeypatch.setenv("LOCAL_RANK", local)
    with pytest.raises(ConfigError, match=f"device={name} cannot be given to process {local} of this machine"):
        World(int(local), 10).device(torch.device(name))


def test_a_store_that_does_not_answer_is_given_up() -> None:
    begun = time.monotonic()
    assert distributed._within(0.05, lambda: time.sleep(5)) is None
    assert time.monotonic() - begun < 4


def test_an_error_in_a_thread_is_no_answer() -> None:
    def fail() -> int:
        raise RuntimeError("connection reset")

    assert distributed._within(5, fail) is None
    assert distributed._within(5, lambda: 3) == 3
