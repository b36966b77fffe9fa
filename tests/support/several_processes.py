"""Fork a few processes that train together, as torchrun would start them, and wait for how each of them ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from killing import ended, forked
from sdclr.errors import SdclrError

PATIENCE_SECONDS = 90.0
"""A guard against hanging, not a measurement."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Started(list[int]):
    """Process numbers, and the key-value store that their launcher keeps for them."""

    store: Any = None


def started(size: int, action: Callable[[int], object], *, launcher_keeps_store: bool = True) -> Started:
    """Children that do ``action(rank)`` and end as the command line would.

    ``launcher_keeps_store``: as torchrun does; else the first child keeps it.
    """
    children, port = Started(), free_port()
    if launcher_keeps_store:
        children.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        port = children.store.port

    def as_rank(rank: int) -> None:
        for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", size), ("LOCAL_WORLD_SIZE", size)):
            os.environ[name] = str(value)
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = str(launcher_keeps_store)
        try:
            action(rank)
        except SdclrError as error:
            print(f"process {rank}: {type(error).__name__}: {error}", flush=True)
            os._exit(error.exit_code)

    children += [forked(lambda rank=rank: as_rank(rank)) for rank in range(size)]  # type: ignore[misc]
    return children


def codes(children: Started, *, stopped: tuple[int, ...] = ()) -> list[int]:
    """How each ends; those at the positions ``stopped`` hang and are killed once all others have ended."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    waiting = set(range(len(children))) - set(stopped)
    try:
        while waiting:
            assert time.monotonic() < deadline, f"processes {waiting} hang"
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            waiting -= {one for one in waiting if os.waitid(os.P_PID, children[one], options)}
            time.sleep(0.01)
    finally:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    return [ended(child) for child in children]


def on_each(size: int, folder: Path, compute: Callable[[int], Any]) -> list[Any]:
    """What ``compute(rank)`` returns on each of ``size`` processes that have formed a group."""

    def act(rank: int) -> None:
        dist.init_process_group("gloo", timeout=timedelta(seconds=PATIENCE_SECONDS))
        torch.save(compute(rank), folder / f"{rank}.pt")
        dist.destroy_process_group()

    assert codes(started(size, act)) == [0] * size
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]
