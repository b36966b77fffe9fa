"""Start a few processes that train together, as torchrun would start them, and wait for how each of them ends.

They are forked from a process that has imported everything and computed nothing: torch's autograd refuses to work in a
fork of a process that has used its threads, as other tests may have done here.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import torch
import torch.distributed as dist

from killing import kill_campaign
from patience import PATIENCE_SECONDS, wait_until
from sdclr.errors import SdclrError
from sdclr.storage.row_parts import RowParts

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["imported_before_forking"])


def _ready() -> None:
    """Start the process to fork from, which must find this module by name: old Pythons look at PYTHONPATH alone."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        os.environ |= {} if before is None else {"PYTHONPATH": before}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Started(list[ForkServerProcess]):
    """Processes, and the key-value store that their launcher keeps for them."""

    store: Any = None


def started(
    size: int, action: Callable[[int], object], *, launcher_keeps_store: bool = True
) -> Started:
    """Processes that do ``action(rank)`` and end as the command line would.

    ``launcher_keeps_store``: as torchrun does; else the first process keeps it.
    """
    children, port = Started(), free_port()
    if launcher_keeps_store:
        children.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        port = children.store.port
    environment = dict(os.environ) | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    environment["TORCHELASTIC_USE_AGENT_STORE"] = str(launcher_keeps_store)
    work = _by_value(action)
    _ready()
    for rank in range(size):
        own = environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        children.append(_context.Process(target=_act, args=(work, rank, own)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the standard library's own pipes
        for child in children:
            child.start()
    return children


def _by_value(action: Callable[[int], object]) -> bytes:
    """The function with all that it closes over; test modules cannot be imported by name elsewhere."""
    for name, module in list(sys.modules.items()):
        if (
            name.rpartition(".")[2].startswith("test_")
            and name not in cloudpickle.list_registry_pickle_by_value()
        ):
            cloudpickle.register_pickle_by_value(module)
    return bytes(cloudpickle.dumps(action))


def _act(work: bytes, rank: int, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ |= environment
    torch.set_num_threads(1)
    code = kill_campaign.FAILED
    try:
        cloudpickle.loads(work)(rank)
        code = 0
    except SdclrError as error:
        print(f"process {rank}: {type(error).__name__}: {error}", flush=True)
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def codes(children: Started, *, stopped: tuple[int, ...] = ()) -> list[int | None]:
    """How each ends: its exit code, or minus the signal's number.

    Those at the positions ``stopped`` hang and are killed once all others have ended.
    """
    awaited = [child for position, child in enumerate(children) if position not in stopped]
    try:
        wait_until(
            lambda: all(child.exitcode is not None for child in awaited), "some processes go on"
        )
    finally:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                kill(child, signal.SIGKILL)
            child.join()
    return [child.exitcode for child in children]


def kill(child: ForkServerProcess, number: int) -> None:
    assert child.pid is not None
    if child.exitcode is None:
        os.kill(child.pid, number)


def on_each(size: int, folder: Path, compute: Callable[[int], Any]) -> list[Any]:
    """What ``compute(rank)`` returns on each of ``size`` processes that have formed a group."""

    def act(rank: int) -> None:
        dist.init_process_group("gloo", timeout=timedelta(seconds=PATIENCE_SECONDS))
        torch.save(compute(rank), folder / f"{rank}.pt")
        dist.destroy_process_group()

    assert codes(started(size, act)) == [0] * size
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def striking_parts(strike: Callable[[], object], struck: int) -> Callable[[int], None]:
    """What makes process ``struck`` do ``strike`` when it is about to write its second part."""

    def prepare(rank: int) -> None:
        written = RowParts._write

        def write(self: RowParts, first: int, rows: np.ndarray) -> None:
            if rank == struck and first >= 512:
                strike()
            written(self, first, rows)

        RowParts._write = write  # type: ignore[method-assign]

    return prepare
