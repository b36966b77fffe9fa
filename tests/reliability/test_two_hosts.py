"""Two hosts, as two network namespaces are: the cable between them is slow, is pulled in a run, and is put back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from killing import state_hash
from patience import PATIENCE_SECONDS, wait_until
from sdclr import Run
from sdclr.jobs.status import read_status
from two_hosts import ADDRESSES, DEVICE, TwoHosts, can_be_made, two_hosts

SETTINGS = [
    *("digits_simclr", "views.size=8", "backbone.width=2", "batch_size=200", "epochs=4"),
    *("checkpoint_every_epochs=1", "patience_seconds=3", "health_every_epochs=0"),
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_be_made(), reason="needs network namespaces of Linux and TUN"),
]


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    with two_hosts(delay_seconds=0.002) as made:
        yield made


def pretraining(hosts: TwoHosts, out: Path) -> list[subprocess.Popen[str]]:
    """One process of two on each host; the first keeps the store, as where no launcher does."""
    command = [sys.executable, "-m", "sdclr", "pretrain", *SETTINGS, "--out", str(out)]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": "29500"}
    shared |= {"GLOO_SOCKET_IFNAME": DEVICE, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    return [
        hosts.start(
            rank,
            command,
            env={**os.environ, **shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit code and messages of each; fails where one does not end."""
    try:
        said = [one.communicate(timeout=PATIENCE_SECONDS)[1] for one in processes]
    finally:
        for one in processes:
            one.kill()
    return [(one.returncode, text) for one, text in zip(processes, said, strict=True)]


def test_a_cut_ends_both_hosts_and_once_mended_the_run_goes_on_to_the_same_bits(
    hosts: TwoHosts, tmp_path: Path
) -> None:
    whole = ends(pretraining(hosts, tmp_path / "whole"))
    assert [code for code, _ in whole] == [0, 0], whole

    out = tmp_path / "x"
    processes = pretraining(hosts, out)
    wait_until(lambda: bool(Run(out).metrics_path.is_file()), "no epoch ends")
    hosts.cut()
    ended = ends(processes)
    assert [code for code, _ in ended] == [80, 80], ended
    for rank, (_, said) in enumerate(ended):
        errors = [line for line in said.splitlines() if "error:" in line]
        assert len(errors) == 1, said
        assert f"process {1 - rank} of 2 does not answer" in errors[0]
        assert "Traceback" not in said
    status = read_status(out)
    assert (status.state, status.exit_code) == ("failed", 80)
    newest = Run(out).checkpoints.newest()
    assert newest is not None
    assert all(tensor.isfinite().all() for tensor in newest.tensors.values() if tensor.ndim)
    assert 1 <= len(Run(out).metrics()) < 4, "it was cut in the middle"

    hosts.mend()
    assert [code for code, _ in ends(pretraining(hosts, out))] == [0, 0]
    assert state_hash(out) == state_hash(tmp_path / "whole")
