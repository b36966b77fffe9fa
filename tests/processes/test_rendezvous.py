"""The store that processes meet in listens where it is told to."""

from __future__ import annotations

import socket

import pytest

from sdclr.errors import DistributedError
from sdclr.processes import rendezvous


def test_the_store_listens_at_its_address_alone() -> None:
    descriptor = rendezvous._listen("127.0.0.1", 0)
    assert descriptor is not None
    with socket.socket(fileno=descriptor) as listening:
        host, port = listening.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(
            DistributedError, match=f"port {port} at 127.0.0.1 cannot be used.*another MASTER_PORT"
        ):
            rendezvous._listen("127.0.0.1", port)


def test_an_address_of_no_interface_is_warned_of() -> None:
    with pytest.warns(
        UserWarning, match="no interface of this machine has the address MASTER_ADDR=192.0.2.1"
    ):
        assert rendezvous._listen("192.0.2.1", 0) is None
    with pytest.raises(DistributedError, match="names no machine"):
        rendezvous._listen("no.such.machine.invalid", 0)
