"""How the processes of a run find each other: a key-value store behind MASTER_ADDR and MASTER_PORT."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d
from torch.distributed.distributed_c10d import Store

from sdclr.errors import DistributedError
from sdclr.processes.environment import rank, world_size

_runs = itertools.count()  # of this process; equal on all of them


_connections: list[Store] = []
_USUAL_TIMEOUT = timedelta(seconds=300)
_POLL_SECONDS = 0.01


def store_of_all(start_seconds: float) -> Store:
    """The key-value store that all processes share; one namespace for each run in each attempt of torchrun."""
    return c10d.PrefixStore(
        f"sdclr/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_runs)}",
        _connection(start_seconds),
    )


def _connection(start_seconds: float) -> Store:
    """This process's connection, which it keeps."""
    if not _connections:
        _connections.append(_connected(start_seconds))
    return _connections[0]


def _connected(start_seconds: float) -> Store:
    """A new connection. It is kept from run to run: another process may already use it for the next run."""
    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        keeps = rank() == 0 and not launcher_keeps_store()
        options: dict[str, Any] = {}
        if keeps and (listening := _listen(host, port)) is not None:
            options["master_listen_fd"] = listening
        return dist.TCPStore(  # type: ignore[attr-defined]
            host,
            port,
            world_size(),
            is_master=keeps,
            timeout=timedelta(seconds=start_seconds),
            wait_for_workers=False,  # the store's own code would not handle signals
            **options,
        )
    except (KeyError, ValueError):
        raise DistributedError(
            f"WORLD_SIZE={world_size()} needs RANK, MASTER_ADDR and MASTER_PORT too. Start the processes with "
            "torchrun --nproc-per-node N -m sdclr pretrain ..."
        ) from None
    except (dist.DistError, RuntimeError) as error:
        raise DistributedError(
            f"the {world_size()} processes do not find each other: {error}"
        ) from None


def _listen(host: str, port: int) -> int | None:
    """A socket that listens only at ``host``: by itself the store would listen on every interface of this machine.

    None, with a warning, where no interface has that address, behind a service's name for example.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise DistributedError(
            f"MASTER_ADDR={host!r} names no machine: {error.strerror}."
        ) from None
    listening = socket.socket(family)
    try:
        # frees the port of an ended job at once; on other systems the option does more
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRNOTAVAIL:
            warnings.warn(
                f"no interface of this machine has the address MASTER_ADDR={host}: the processes connect on port "
                f"{port} of every interface.",
                stacklevel=2,
            )
            return None
        raise DistributedError(
            f"port {port} at {host} cannot be used: {error.strerror}. Another job may use it; choose another "
            "MASTER_PORT."
        ) from None
    return listening.detach()


class ListeningStore(Store):
    """Wraps a store so that waiting in it can be interrupted by signals and by failures of others.

    gloo forms its group in torch's own code, where Python's handlers do not run; it waits for the others in its store.
    """

    def __init__(self, store: Store, listen: Callable[[], None]) -> None:
        """``listen``: called while waiting; raises an exception to end it."""
        super().__init__()
        self._store, self._listen = store, listen

    def set(self, key: str, value: str) -> None:
        self._store.set(key, value)

    def get(self, key: str) -> bytes:
        self.wait([key], _USUAL_TIMEOUT)
        return self._store.get(key)

    def add(self, key: str, amount: int) -> int:
        return self._store.add(key, amount)

    def check(self, keys: list[str]) -> bool:
        return self._store.check(keys)

    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        return self._store.compare_set(key, expected, desired)

    def num_keys(self) -> int:
        return self._store.num_keys()

    def delete_key(self, key: str) -> bool:
        return self._store.delete_key(key)

    def wait(self, keys: list[str], timeout: timedelta = _USUAL_TIMEOUT) -> None:
        until = time.monotonic() + timeout.total_seconds()
        while not self._store.check(keys):
            self._listen()
            if time.monotonic() > until:
                raise dist.DistStoreError(f"timed out after {timeout} waiting for {keys}")
            time.sleep(_POLL_SECONDS)


def launcher_keeps_store() -> bool:
    """Whether the store outlives every process, as torchrun's does."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
